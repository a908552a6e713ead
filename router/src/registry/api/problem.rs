//! How the API says no: `application/problem+json` (RFC 9457).

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use reason::*;

/// What an answer's `reason` may be. Programs may rely on these; `detail` is for people.
pub mod reason {
    /// 401: no credential, or none that is known.
    pub const UNAUTHENTICATED: &str = "unauthenticated";
    /// 403: the credential is another tenant's.
    pub const WRONG_TENANT: &str = "wrong-tenant";
    /// 403: tenants may not do this.
    pub const OPERATORS_ONLY: &str = "operators-only";
    /// 403: the name lies in none of the tenant's zones.
    pub const OUTSIDE_ZONES: &str = "outside-zones";
    /// 403: the tenant may, but not with this credential.
    pub const OUTSIDE_SCOPE: &str = "outside-scope";
    /// 403: an endpoint's address lies in none of the zone's ranges.
    pub const ADDRESS_OUTSIDE_ZONES: &str = "address-outside-zones";
    /// 409: another tenant holds the very name.
    pub const HELD_BY_ANOTHER_TENANT: &str = "held-by-another-tenant";
    /// 409: the name lies within a suffix that another tenant holds and does not share.
    pub const WITHIN_ANOTHER_TENANTS_SUFFIX: &str = "within-another-tenants-suffix";
    /// 409: the name stands in a file of the routers.
    pub const STANDS_IN_A_FILE: &str = "stands-in-a-file";
    /// 409: the zone overlaps with another tenant's, and not both are shared.
    pub const ZONES_OVERLAP: &str = "zones-overlap";
    /// 409: routes would go with the zone, and the call does not say that they may.
    pub const WOULD_EVICT: &str = "would-evict";
    /// 409: the tenant holds as many routes as it may.
    pub const TOO_MANY_ROUTES: &str = "too-many-routes";
    /// 409: as many of the tenant's instances announce as may.
    pub const TOO_MANY_INSTANCES: &str = "too-many-instances";
    /// 409: a route would have more endpoints than routers take of one.
    pub const TOO_MANY_ENDPOINTS: &str = "too-many-endpoints";
    /// 409: the records of the tenant's routes and instances are as large as they may be together.
    pub const TOO_MUCH_DATA: &str = "too-much-data";
    /// 412: it is not as `If-Match` or `If-None-Match` wants it.
    pub const CHANGED: &str = "changed";
    /// 400, 415 or 422: the request is not what the API takes.
    pub const INVALID: &str = "invalid";
    /// 404: there is nothing of that name.
    pub const NOT_FOUND: &str = "not-found";
    /// 405: the path takes other methods.
    pub const METHOD_NOT_ALLOWED: &str = "method-not-allowed";
    /// 408: the request's body did not arrive in time.
    pub const TOO_SLOW: &str = "too-slow";
    /// 413: the request's body is too long.
    pub const TOO_LARGE: &str = "too-large";
    /// 429: too many requests; `Retry-After` says when to come back.
    pub const TOO_MANY_REQUESTS: &str = "too-many-requests";
    /// 500: a mistake of the program.
    pub const INTERNAL: &str = "internal";
    /// 503: the store cannot be reached or has no quorum; `Retry-After` says when to come back.
    pub const STORE_UNREACHABLE: &str = "store-unreachable";
    /// 503: the store has no room left and takes no changes until an operator makes some.
    pub const STORE_FULL: &str = "store-full";
    /// 503: the registry did not get it done in time, or has too much to do.
    pub const BUSY: &str = "busy";
}

/// Content type of a problem.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// Why a request was refused, or failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The answer's status.
    pub status: StatusCode,
    /// One of [`reason`].
    pub reason: &'static str,
    /// For people: what is wrong, and what to do about it. Names no other tenant and no secret.
    pub detail: String,
    /// The host rule that it is about, where a request holds several.
    pub host: Option<String>,
    /// Seconds after which it may be tried again, as `Retry-After`.
    pub retry_after: Option<u32>,
}

/// A problem as it is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Always `about:blank`: the status says what kind of problem it is.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The status.
    pub status: u16,
    /// For people: what is wrong.
    pub detail: String,
    /// For programs: a stable token.
    pub reason: String,
    /// The host rule that it is about, where a request holds several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
}

/// The [`reason`] of an answer, among its extensions: for the audit log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnsweredReason(pub &'static str);

impl Problem {
    /// A problem that is not worth trying again as it stands.
    pub fn new(status: StatusCode, reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            reason,
            detail: detail.into(),
            host: None,
            retry_after: None,
        }
    }

    /// The same, about one host rule of several.
    #[must_use]
    pub fn about(mut self, host: impl ToString) -> Self {
        self.host = Some(host.to_string());
        self
    }

    /// The same, to be tried again after so many seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// 401.
    pub fn unauthenticated(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, UNAUTHENTICATED, detail)
    }

    /// 403, with one of its reasons.
    pub fn forbidden(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, reason, detail)
    }

    /// 409, with one of its reasons.
    pub fn conflict(reason: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, reason, detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, NOT_FOUND, detail)
    }

    /// 412.
    pub fn changed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PRECONDITION_FAILED, CHANGED, detail)
    }

    /// 400: the request cannot be read.
    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, detail)
    }

    /// 422: the request can be read and makes no sense.
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, INVALID, detail)
    }

    /// 429.
    pub fn too_many_requests(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, TOO_MANY_REQUESTS, detail).retry_after(1)
    }

    /// 503: the store is out of reach.
    pub fn store_unreachable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, STORE_UNREACHABLE, detail).retry_after(1)
    }

    /// 503: the store has no room left. That does not mend itself within seconds.
    #[must_use]
    pub fn store_full() -> Self {
        let detail = "the registry's store is full and takes no changes: an operator has to make \
                      room in etcd, and disarm its alarm";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, STORE_FULL, detail).retry_after(15)
    }

    /// 503: too much to do.
    pub fn busy(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, BUSY, detail).retry_after(1)
    }

    /// 500. What went wrong is for the log, not for the caller.
    #[must_use]
    pub fn internal() -> Self {
        let detail = "a mistake of the registry; its log says more";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL, detail)
    }

    /// As it is answered.
    #[must_use]
    pub fn body(&self) -> ProblemBody {
        ProblemBody {
            kind: "about:blank".to_owned(),
            title: self.status.canonical_reason().unwrap_or("").to_owned(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            reason: self.reason.to_owned(),
            host: self.host.clone(),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).expect("texts and a number are JSON");
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
            .extensions_mut()
            .insert(AnsweredReason(self.reason));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_problem_is_answered_as_the_standard_has_it() {
        let response = Problem::too_many_requests("slow down").into_response();
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers()[CONTENT_TYPE], PROBLEM_JSON);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        let reason = response.extensions().get::<AnsweredReason>();
        assert_eq!(reason, Some(&AnsweredReason(TOO_MANY_REQUESTS)));
        let body = axum::body::to_bytes(response.into_body(), 4096)
            .await
            .unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = serde_json::json!({
            "type": "about:blank",
            "title": "Too Many Requests",
            "status": 429,
            "detail": "slow down",
            "reason": "too-many-requests",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn who_is_not_known_is_told_how_to_say_who_they_are() {
        let response = Problem::unauthenticated("who?").into_response();
        assert_eq!(response.headers()[WWW_AUTHENTICATE], "Bearer");
    }
}
