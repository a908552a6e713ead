//! `/v1/health` and `/v1/openapi.json`: what anybody may ask.

use std::sync::Arc;

use axum::extract::State;
use http::StatusCode;

use super::Api;
use super::extract::{Json, NoQuery};
use super::types::Health;

/// Tells whether changes can be made here
///
/// 503 means: try another registry. Routers serve what they know all the same.
#[utoipa::path(get, path = "/v1/health", tag = "about", security(()),
    responses((status = 200, body = Health), (status = 503, body = Health), super::responses::ForAnybody))]
pub(super) async fn health(State(api): State<Arc<Api>>, _: NoQuery) -> (StatusCode, Json<Health>) {
    let reachable = api.registry.is_reachable();
    let revision = api.registry.view().revision().0;
    let (status, store) = if reachable {
        (StatusCode::OK, "reachable")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "unreachable")
    };
    let store = store.to_owned();
    (status, Json(Health { store, revision }))
}
