//! Entity tags, and what conditional requests ask for (RFC 9110, sections 8.8.3 and 13).

use axum::extract::FromRequestParts;
use axum::response::Response;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, IF_UNMODIFIED_SINCE};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, StatusCode};

use super::problem::{Problem, reason};
use crate::registry::change::Expect;

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

/// Names what is shown or was put.
pub(super) fn tag(response: &mut Response, etag: &str) {
    if let Ok(etag) = HeaderValue::from_str(etag) {
        response.headers_mut().insert(ETAG, etag);
    }
}

/// What `If-Match` and `If-None-Match` ask for. Weak tags never match (RFC 9110, section 8.8.3.2).
pub(super) fn expectation(headers: &HeaderMap) -> Result<Expect, Problem> {
    let read = |name| -> Result<Option<String>, Problem> {
        let mut values = Vec::new();
        for value in headers.get_all(&name) {
            let text = value.to_str();
            values.push(text.map_err(|_| Problem::malformed(format!("{name}: is not text")))?);
        }
        Ok((!values.is_empty()).then(|| values.join(",")))
    };
    match (read(IF_MATCH)?, read(IF_NONE_MATCH)?) {
        (None, None) => Ok(Expect::Anything),
        (None, Some(none)) if none.trim() == "*" => Ok(Expect::Nothing),
        (Some(tags), None) if tags.trim() == "*" => Ok(Expect::Something),
        (Some(tags), None) => {
            let tags = tags.split(',').map(|tag| tag.trim().to_owned());
            Ok(Expect::OneOf(tags.collect()))
        }
        (_, Some(_)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            reason::INVALID,
            "If-None-Match: only `*` is understood, and not beside If-Match",
        )),
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn conditions_are_read_as_the_standard_has_them() {
        let expect = |lines: &[(&'static str, &str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            expectation(&headers)
        };
        let one_of = |tags: &[&str]| {
            let tags = tags.iter().map(|it| (*it).to_owned());
            Ok(Expect::OneOf(tags.collect()))
        };
        assert_eq!(expect(&[]), Ok(Expect::Anything));
        assert_eq!(expect(&[("if-match", "*")]), Ok(Expect::Something));
        assert_eq!(expect(&[("if-none-match", "*")]), Ok(Expect::Nothing));
        assert_eq!(
            expect(&[("if-match", "\"a\", \"b\"")]),
            one_of(&["\"a\"", "\"b\""])
        );
        assert_eq!(
            expect(&[("if-match", "\"a\""), ("if-match", "\"b\"")]),
            one_of(&["\"a\"", "\"b\""])
        );
        assert_eq!(
            expect(&[("if-none-match", "\"a\"")]).unwrap_err().status,
            400
        );
        assert_eq!(
            expect(&[("if-match", "*"), ("if-none-match", "*")])
                .unwrap_err()
                .status,
            400
        );
    }
}
