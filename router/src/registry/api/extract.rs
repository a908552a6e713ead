//! axum's extractors with problems in place of their plain-text refusals, and the answers for paths
//! and methods that the API does not have.

use std::error::Error;
use std::time::Duration;

use axum::Extension;
use axum::extract::rejection::{
    BytesRejection, FailedToBufferBody, JsonRejection, PathRejection, QueryRejection,
};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::problem::{Problem, reason};
use crate::registry::auth::Unchanged;

/// How long a body may take to arrive, an extension of requests. Shorter than the deadline of the
/// request as a whole, so that the answer says which of both it was. Without it, 5 s.
#[derive(Clone, Copy, Debug)]
pub struct BodyDeadline(pub Duration);

/// Bytes of a refusal's words that are answered.
const LONGEST_WORDS: usize = 500;

/// A JSON body, taken or answered. The last argument of a handler, since it reads the body.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

/// The query.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

/// The query of a call that takes none. A misspelt or misplaced parameter is told rather than
/// ignored: `?tenant=acme` on a call that knows no such thing must not act for somebody else.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoQuery;

/// What stands in the path.
#[derive(Clone, Copy, Debug, Default)]
pub struct Path<T>(pub T);

impl Default for BodyDeadline {
    fn default() -> Self {
        Self(Duration::from_secs(5))
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let deadline = request.extensions().get().copied();
        let BodyDeadline(deadline) = deadline.unwrap_or_default();
        match timeout(deadline, axum::Json::from_request(request, state)).await {
            Ok(json) => json.map(|axum::Json(value)| Self(value)).map_err(of_json),
            Err(_) => Err(too_slow(deadline)),
        }
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let query = axum::extract::Query::from_request_parts(parts, state).await;
        query
            .map(|axum::extract::Query(value)| Self(value))
            .map_err(|rejection: QueryRejection| {
                Problem::malformed(format!("query: {}", words(&rejection)))
            })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for NoQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.uri.query() {
            None | Some("") => Ok(Self),
            Some(_) => Err(Problem::malformed("query: this call takes no parameters")),
        }
    }
}

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(value)| Self(value))
            .map_err(|rejection: PathRejection| match rejection {
                PathRejection::FailedToDeserializePathParams(wrong)
                    if wrong.status() == StatusCode::BAD_REQUEST =>
                {
                    Problem::malformed(format!("path: {}", wrong.body_text()))
                }
                mistake => {
                    tracing::error!(error = %mistake, "a handler asks for what its path has not");
                    Problem::internal()
                }
            })
    }
}

/// The answer to a path that the API does not have.
pub async fn unknown_path(uri: Uri) -> (Extension<Unchanged>, Problem) {
    let problem = Problem::not_found(format!("there is no {}", uri.path()));
    (Extension(Unchanged), problem)
}

/// The answer to a method that a path does not take; axum adds `Allow`.
pub async fn unknown_method() -> Problem {
    let detail = "this path takes the methods in Allow";
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        reason::METHOD_NOT_ALLOWED,
        detail,
    )
}

fn of_json(rejection: JsonRejection) -> Problem {
    match rejection {
        JsonRejection::JsonDataError(error) => Problem::invalid(words(&error)),
        JsonRejection::JsonSyntaxError(error) => {
            Problem::malformed(format!("the body is not JSON: {}", words(&error)))
        }
        JsonRejection::MissingJsonContentType(_) => Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            reason::INVALID,
            "the body's Content-Type must be application/json",
        ),
        JsonRejection::BytesRejection(BytesRejection::FailedToBufferBody(
            FailedToBufferBody::LengthLimitError(_),
        )) => too_large(),
        _ => Problem::malformed("the body broke off"),
    }
}

/// The answer to a body that is too long.
pub(in crate::registry) fn too_large() -> Problem {
    let detail = "the body is longer than 256 KiB";
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, reason::TOO_LARGE, detail)
}

fn too_slow(deadline: Duration) -> Problem {
    let detail = format!(
        "the body did not arrive within {} s",
        deadline.as_secs_f32()
    );
    Problem::new(StatusCode::REQUEST_TIMEOUT, reason::TOO_SLOW, detail)
}

/// The words of the error behind the rejection: which field, and what is wrong with it. serde
/// repeats what it was given, however long.
fn words(rejection: &dyn Error) -> String {
    let mut words = match rejection.source() {
        Some(error) => error.to_string(),
        None => rejection.to_string(),
    };
    if words.len() > LONGEST_WORDS {
        words.truncate(words.floor_char_boundary(LONGEST_WORDS));
        words.push('…');
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::Router;
    use axum::body::Body;
    use axum::routing::{get, put};
    use http::header::{ALLOW, CONTENT_TYPE};
    use serde::Deserialize;
    use tower::ServiceExt as _;

    use crate::registry::api::problem::ProblemBody;

    #[derive(Deserialize, Serialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        sizes: Vec<u8>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Page {
        limit: Option<u16>,
    }

    fn app() -> Router {
        let with_fallbacks = Router::new()
            .route("/plain", get(async |_: NoQuery| "plain"))
            .route("/things", put(async |Json(thing): Json<Thing>| Json(thing)))
            .route(
                "/numbers/{number}",
                get(async |Path(n): Path<u8>| n.to_string()),
            )
            .route(
                "/pages",
                get(async |Query(page): Query<Page>| page.limit.unwrap_or(7).to_string()),
            );
        with_fallbacks
            .fallback(unknown_path)
            .method_not_allowed_fallback(unknown_method)
    }

    async fn ask(method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Response {
        let request = Request::builder().method(method).uri(path);
        let request = request.header(CONTENT_TYPE, content_type);
        app()
            .oneshot(request.body(body.into()).unwrap())
            .await
            .unwrap()
    }

    async fn problem(response: Response) -> ProblemBody {
        let (parts, body) = response.into_parts();
        assert_eq!(parts.headers[CONTENT_TYPE], "application/problem+json");
        let body = axum::body::to_bytes(body, 4096).await.unwrap();
        let problem: ProblemBody = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem.status, parts.status);
        problem
    }

    #[tokio::test]
    async fn what_is_right_passes() {
        let json = "application/json";
        for (method, path, body, answer) in [
            ("PUT", "/things", r#"{"sizes":[1,2]}"#, r#"{"sizes":[1,2]}"#),
            ("GET", "/numbers/12", "", "12"),
            ("GET", "/pages?limit=3", "", "3"),
            ("GET", "/pages", "", "7"),
            ("GET", "/plain", "", "plain"),
            ("GET", "/plain?", "", "plain"),
        ] {
            let response = ask(method, path, json, body).await;
            assert_eq!(response.status(), 200, "{path}");
            let body = axum::body::to_bytes(response.into_body(), 4096).await;
            assert_eq!(body.unwrap(), answer, "{path}");
        }
    }

    #[tokio::test]
    async fn every_refusal_is_a_problem_that_says_what_is_wrong() {
        let json = "application/json";
        let long = format!(r#"{{"sizes":["{}"]}}"#, "é".repeat(3000));
        for (method, path, content_type, body, status, reason, says) in [
            (
                "PUT",
                "/things",
                json,
                "{",
                400,
                "invalid",
                "line 1 column 1",
            ),
            (
                "PUT",
                "/things",
                json,
                "{}x",
                422,
                "invalid",
                "missing field `sizes`",
            ),
            (
                "PUT",
                "/things",
                json,
                r#"{"sizes":[]}x"#,
                400,
                "invalid",
                "trailing",
            ),
            (
                "PUT",
                "/things",
                json,
                r#"{"sizes":[1,256]}"#,
                422,
                "invalid",
                "sizes[1]: ",
            ),
            (
                "PUT",
                "/things",
                json,
                r#"{"sizes":[],"x":1}"#,
                422,
                "invalid",
                "unknown field `x`",
            ),
            ("PUT", "/things", json, &long, 422, "invalid", "é…"),
            (
                "PUT",
                "/things",
                "text/plain",
                "{}",
                415,
                "invalid",
                "Content-Type",
            ),
            ("GET", "/numbers/x", json, "", 400, "invalid", "path: "),
            ("GET", "/numbers/%ff", json, "", 400, "invalid", "path: "),
            (
                "GET",
                "/pages?limit=-1",
                json,
                "",
                400,
                "invalid",
                "query: limit",
            ),
            (
                "GET",
                "/pages?limit=1&limit=2",
                json,
                "",
                400,
                "invalid",
                "duplicate field",
            ),
            (
                "GET",
                "/pages?limits=1",
                json,
                "",
                400,
                "invalid",
                "unknown field `limits`",
            ),
            ("GET", "/plain?x", json, "", 400, "invalid", "no parameters"),
            ("GET", "/nowhere", json, "", 404, "not-found", "/nowhere"),
            (
                "PUT",
                "/pages",
                json,
                "",
                405,
                "method-not-allowed",
                "Allow",
            ),
        ] {
            let response = ask(method, path, content_type, body.to_owned()).await;
            assert_eq!(response.headers().contains_key(ALLOW), status == 405);
            let problem = problem(response).await;
            assert_eq!(
                (problem.status, &*problem.reason),
                (status, reason),
                "{path} {body}"
            );
            assert!(
                problem.detail.contains(says),
                "{path} {body}: {}",
                problem.detail
            );
        }
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_by_a_limit_is_told_from_one_that_broke_off() {
        let limited = http_body_util::Limited::new(Body::from(vec![b' '; 20]), 10);
        let response = ask("PUT", "/things", "application/json", Body::new(limited)).await;
        assert_eq!(problem(response).await.reason, "too-large");
        let broken = tokio_stream::once(Err::<Vec<u8>, _>(std::io::Error::other("gone")));
        let body = Body::from_stream(broken);
        let problem = problem(ask("PUT", "/things", "application/json", body).await).await;
        assert_eq!((problem.status, &*problem.reason), (400, "invalid"));
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_not_waited_for() {
        let never = tokio_stream::pending::<Result<Vec<u8>, std::io::Error>>();
        let request = Request::builder().method("PUT").uri("/things");
        let request = request.header(CONTENT_TYPE, "application/json");
        let request = request.extension(BodyDeadline(Duration::from_millis(1)));
        let request = request.body(Body::from_stream(never)).unwrap();
        let problem = problem(app().oneshot(request).await.unwrap()).await;
        assert_eq!((problem.status, &*problem.reason), (408, "too-slow"));
    }
}
