//! The registry's HTTP API: what may be asked under `/v1`, and what is answered.
//!
//! A handler reads ([`valid`]), asks the view or makes a change
//! ([`change`](crate::registry::change)), and answers; who calls was found out before it
//! ([`auth`](crate::registry::auth)). The OpenAPI document is made of the handlers themselves.

mod conditions;
mod document;
pub mod extract;
mod health;
mod instances;
mod pages;
pub mod problem;
mod responses;
mod routes;
pub mod stale;
mod tokens;
pub mod types;
mod valid;
mod watch;
mod zones;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::{from_fn_with_state, map_response_with_state};
use axum::response::Response;
use axum::routing::get;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::auth::audit::Change;
use super::change::{FileNames, Quota};
use super::shared::RouteRegistry;

/// How long an answer waits for the view to have the change it tells of.
const PATIENCE: Duration = Duration::from_secs(1);

/// What handlers work with.
pub struct Api {
    /// The registry.
    pub registry: Arc<RouteRegistry>,
    /// Names that stand in files.
    pub files: Arc<dyn FileNames>,
    /// What one tenant may have.
    pub quota: Quota,
}

/// Paths that need no credential.
pub const OPEN_PATHS: [&str; 2] = ["/v1/health", "/v1/openapi.json"];

/// Every call, without whoever finds out who calls.
pub fn app(api: Arc<Api>) -> Router {
    // Anybody may ask for it: the answers share one piece of memory.
    let document = bytes::Bytes::from(document().to_string());
    let json = [(http::header::CONTENT_TYPE, "application/json")];
    let (router, _) = parts().split_for_parts();
    router
        .route(
            "/v1/openapi.json",
            get(move |_: extract::NoQuery| std::future::ready((json, document.clone()))),
        )
        .layer(from_fn_with_state(Arc::clone(&api), stale::mark))
        .layer(map_response_with_state(Arc::clone(&api), once_seen))
        .with_state(api)
}

/// Whoever has changed something finds it so when it asks this router next: the answer waits until
/// the view has it. Not for ever, and not where the store is out of reach: the change is made.
async fn once_seen(State(api): State<Arc<Api>>, response: Response) -> Response {
    let change = response.extensions().get::<Change>();
    if let Some(revision) = change.and_then(|change| change.revision)
        && api.registry.is_reachable()
    {
        let _ = api.registry.has_followed(revision, PATIENCE).await;
    }
    response
}

/// The OpenAPI document, as `/v1/openapi.json` answers it.
pub fn document() -> serde_json::Value {
    let document = parts().split_for_parts().1;
    let mut document = serde_json::to_value(document).expect("the document is JSON");
    document::refine(&mut document);
    document
}

fn parts() -> OpenApiRouter<Arc<Api>> {
    #[derive(OpenApi)]
    #[openapi(
        info(
            title = "Gatehouse route registry",
            description = "Routes that announce themselves, and the names that are leased to tenants.",
            license(name = "Apache-2.0")
        ),
        components(schemas(problem::ProblemBody)),
        tags(
            (name = "instances", description = "What registrars announce"),
            (name = "routes", description = "Routes, as routers follow them"),
            (name = "zones", description = "Names and addresses that operators lease to tenants"),
            (name = "tokens", description = "What proves a tenant"),
            (name = "about", description = "The registry itself"),
        )
    )]
    struct Document;

    let mut document = Document::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "`ghr_...` of a tenant, `gho_...` of an operator; a client certificate does as well",
        ))
        .build();
    let components = document.components.get_or_insert_default();
    components.add_security_scheme("token", SecurityScheme::Http(bearer));
    document.security = Some(vec![SecurityRequirement::new(
        "token",
        Vec::<String>::new(),
    )]);
    OpenApiRouter::with_openapi(document)
        .routes(routes!(routes::list))
        .routes(routes!(routes::get, routes::put, routes::delete))
        .routes(routes!(watch::watch))
        .routes(routes!(instances::list))
        .routes(routes!(instances::put, instances::delete))
        .routes(routes!(zones::list))
        .routes(routes!(zones::get, zones::put, zones::delete))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(health::health))
}
