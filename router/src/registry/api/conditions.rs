//! What conditional requests ask for (RFC 9110, section 13), beyond what is read in `routes`.

use axum::extract::FromRequestParts;
use http::HeaderMap;
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::request::Parts;

use super::problem::Problem;

/// A change that knows no conditions: a request that makes some is refused, for whoever makes them
/// relies on them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unconditional;

impl<S: Send + Sync> FromRequestParts<S> for Unconditional {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let conditions = [IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE];
        match conditions
            .iter()
            .find(|name| parts.headers.contains_key(*name))
        {
            None => Ok(Self),
            Some(name) => {
                let detail = format!("{name}: this call takes no conditions");
                Err(Problem::malformed(detail))
            }
        }
    }
}

/// Whether whoever asks to be shown something has it already: `If-None-Match` holds its tag. Weak
/// tags count here (section 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let lines = headers.get_all(IF_NONE_MATCH).iter();
    let mut tags = lines
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_is_known_is_told_by_its_tag() {
        for (lines, known) in [
            (&[][..], false),
            (&["\"7\""], true),
            (&["W/\"7\""], true),
            (&["*"], true),
            (&["\"6\", \"7\""], true),
            (&["\"6\"", "\"7\""], true),
            (&["\"77\""], false),
            (&["7"], false),
        ] {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(IF_NONE_MATCH, HeaderValue::from_str(line).unwrap());
            }
            assert_eq!(is_known(&headers, "\"7\""), known, "{lines:?}");
        }
    }
}
