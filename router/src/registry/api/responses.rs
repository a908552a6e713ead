//! The refusals that calls have in common, for the OpenAPI document.

use std::collections::BTreeMap;

use utoipa::openapi::{ContentBuilder, Ref, RefOr, Response, ResponseBuilder};

use super::problem::PROBLEM_JSON;

/// Refusals that any call with a credential may meet.
pub(super) struct Always;
/// Those that calls without a credential may meet.
pub(super) struct ForAnybody;
/// Those of calls about names, with a body or a path.
pub(super) struct ForNames;
/// Those of conditional calls.
pub(super) struct ForConditions;

impl utoipa::IntoResponses for Always {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (400, "The request cannot be read"),
            (401, "No credential, or none that is known"),
            (403, "Not with this credential"),
            (408, "The request was too slow"),
            (422, "The request makes no sense: `detail` names the field"),
            (429, "Too many requests: Retry-After says when to come back"),
            (500, "A mistake of the registry"),
            (
                503,
                "The store cannot be reached, or there is too much to do: Retry-After says when to come back",
            ),
        ])
    }
}

impl utoipa::IntoResponses for ForAnybody {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (400, "The request cannot be read"),
            (429, "Too many requests: Retry-After says when to come back"),
        ])
    }
}

impl utoipa::IntoResponses for ForNames {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[
            (404, "There is none, or it is another tenant's"),
            (
                409,
                "The name is another tenant's, or stands in a file, or is one too many; or routes would go with the zone",
            ),
            (413, "The body is too long"),
            (415, "The body is not JSON by its Content-Type"),
        ])
    }
}

impl utoipa::IntoResponses for ForConditions {
    fn responses() -> BTreeMap<String, RefOr<Response>> {
        problems(&[(412, "It is not what If-Match or If-None-Match asks for")])
    }
}

fn problems(list: &[(u16, &str)]) -> BTreeMap<String, RefOr<Response>> {
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name("Problem")))
        .build();
    let responses = list.iter().map(|(status, description)| {
        let response = ResponseBuilder::new()
            .description(*description)
            .content(PROBLEM_JSON, content.clone())
            .build();
        (status.to_string(), RefOr::T(response))
    });
    responses.collect()
}
