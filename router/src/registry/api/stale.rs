//! What an answer says while the store is out of reach: routers tell what they know, and for how
//! long nothing has been heard that may have changed it.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method};

use super::{Api, OPEN_PATHS};

/// Seconds since the store was in reach; absent while it is.
pub const STALE: HeaderName = HeaderName::from_static("gatehouse-stale");

/// Marks what was read of a view that may be out of date.
pub(super) async fn mark(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let reads = [Method::GET, Method::HEAD].contains(request.method());
    let of_view = reads && !OPEN_PATHS.contains(&request.uri().path());
    let stale = api.registry.stale_for().filter(|_| of_view);
    let mut response = next.run(request).await;
    if let Some(stale) = stale
        && !response.status().is_client_error()
        && !response.status().is_server_error()
    {
        let seconds = HeaderValue::from(stale.as_secs());
        response.headers_mut().insert(STALE, seconds);
    }
    response
}
