//! `/v1/routes`.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, http};
use config::route::HostMatch;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use super::conditions::{expectation, is_known, tag};
use super::extract::{Json, Path, Query};
use super::pages::Page;
use super::problem::Problem;
use super::responses::{Always, ForConditions, ForNames};
use super::types::{HolderQuery, ListQuery, Route, RouteSpec, Routes, TenantQuery};
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::auth::audit::Change;
use crate::registry::change::{self, PutRoute, etag, represent};
use crate::registry::record::Trust;
use crate::registry::view::{Source, View};

/// Rules of a list that are looked up at once.
const SLICE: usize = 100;
/// Bytes of authorities that are shown with a route; of those beyond only the digests are.
const MOST_AUTHORITIES: usize = 512 << 10;

/// Lists routes
///
/// In an order that stays the same from page to page: names of one domain stand together.
#[utoipa::path(get, path = "/v1/routes", tag = "routes", params(ListQuery),
    responses((status = 200, body = Routes), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Json<RoutesPage>, Problem> {
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let limit = valid::page(query.limit)?;
    let mut after = match query.after.as_deref() {
        None => None,
        Some(text) => Some(
            valid::host(text)
                .map_err(|_| Problem::malformed("query: after: is none that a page gave"))?,
        ),
    };
    let mut page = Page::new(limit);
    // As of the first slice: what changes during the others is told again to whoever watches on.
    let revision = api.registry.view().revision().0;
    let next = loop {
        let slice = slice(&api.registry.view(), tenant, &mut after, &mut page);
        match slice {
            Slice::Last(next) => break next,
            Slice::More => tokio::task::yield_now().await,
        }
    };
    Ok(Json(RoutesPage {
        routes: page.into_entries(),
        next,
        revision,
    }))
}

/// [`Routes`], as they are answered.
#[derive(Serialize)]
pub(super) struct RoutesPage {
    routes: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    revision: i64,
}

/// How a part of a page ends.
enum Slice {
    More,
    /// The page does as well; where the next one begins, if there is one.
    Last(Option<String>),
}

/// Puts a part of a list on a page. Parts are small, since the view is locked meanwhile.
fn slice(
    view: &View,
    tenant: Option<&str>,
    after: &mut Option<HostMatch>,
    page: &mut Page,
) -> Slice {
    let from = after.clone();
    for (number, host) in view.hosts_after(tenant, from.as_ref()).enumerate() {
        if page.is_full() {
            return Slice::Last(after.as_ref().map(ToString::to_string));
        }
        if number >= SLICE {
            return Slice::More;
        }
        if let Some(route) = represent(host, view.sources(host)) {
            page.push(&route);
        }
        *after = Some(host.clone());
    }
    Slice::Last(None)
}

/// Shows a route
#[utoipa::path(get, path = "/v1/routes/{host}", tag = "routes",
    params(("host" = String, Path, description = "A name, or a star and a suffix", example = "www.acme.example.org"), HolderQuery,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` that is known: nothing is sent while the route is still that one")),
    responses((status = 200, body = Route, headers(("ETag" = String))),
        (status = 304, description = "Still the one that If-None-Match names", headers(("ETag" = String))),
        ForNames, Always))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(host): Path<String>,
    Query(query): Query<HolderQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let host = valid::host(&host)?;
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let view = api.registry.view();
    let sources = view.sources(&host);
    let visible = |route: &Route| tenant.is_none_or(|tenant| *tenant == *route.tenant);
    // What another tenant holds looks like what nobody holds.
    match represent(&host, sources).filter(visible) {
        Some(_) if is_known(&headers, &etag(sources)) => {
            let mut response = StatusCode::NOT_MODIFIED.into_response();
            tag(&mut response, &etag(sources));
            Ok(response)
        }
        Some(mut route) => {
            route.authorities = authorities(sources, &route.tenant);
            Ok(answer(StatusCode::OK, Some(&etag(sources)), route))
        }
        None => Err(Problem::not_found(format!("there is no route {host}"))),
    }
}

/// Puts a route
///
/// It stays until it is deleted, or until its `ttl` has passed without its being put again.
/// Endpoints that instances announce for the same name add to it.
#[utoipa::path(put, path = "/v1/routes/{host}", tag = "routes",
    params(("host" = String, Path, description = "A name, or a star and a suffix", example = "www.acme.example.org"),
        TenantQuery,
        ("If-Match" = Option<String>, Header, description = "Only if the route is still this one, or `*`: there at all"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such route")),
    request_body = RouteSpec,
    responses((status = 200, description = "Replaced", body = Route, headers(("ETag" = String))),
        (status = 201, description = "New", body = Route, headers(("ETag" = String))),
        ForNames, ForConditions, Always))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(host): Path<String>,
    Query(query): Query<TenantQuery>,
    headers: HeaderMap,
    Json(spec): Json<RouteSpec>,
) -> Result<Response, Problem> {
    let host = valid::host(&host)?;
    let tenant = match (&query.tenant, caller.tenant()) {
        (Some(tenant), _) => valid::acting_for(&caller, tenant)?.to_owned(),
        (None, Some(own)) => own.to_string(),
        (None, None) => {
            let detail = "query: tenant: an operator says whose the route is to be";
            return Err(Problem::malformed(detail));
        }
    };
    let mut source = valid::route(&host, spec)?;
    source.credential = Some((*caller.id).into());
    let endpoints = source.endpoints.clone();
    valid::in_scope(&caller, |scope| scope.puts(&host, &endpoints))?;
    let request = PutRoute {
        tenant: &tenant,
        host: &host,
        source,
        expect: expectation(&headers)?,
        quota: api.quota,
        by_operator: caller.is_operator(),
    };
    let (revision, put) = change::put_route(&api.registry, &*api.files, request).await?;
    let status = if put.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let mut response = answer(status, Some(&put.etag), put.route);
    let change = Change {
        tenant: Some(tenant.into()),
        action: Some("put-route"),
        object: Some(host.to_string()),
        endpoints,
        revision: Some(revision),
        ..Change::default()
    };
    response.extensions_mut().insert(change);
    Ok(response)
}

/// Deletes a route that was put
///
/// What instances announce for the name stays until they withdraw it.
#[utoipa::path(delete, path = "/v1/routes/{host}", tag = "routes",
    params(("host" = String, Path, description = "A name, or a star and a suffix", example = "www.acme.example.org"),
        HolderQuery,
        ("If-Match" = Option<String>, Header, description = "Only if the route is still this one")),
    responses((status = 204, description = "Gone"), ForNames, ForConditions, Always))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path(host): Path<String>,
    Query(query): Query<HolderQuery>,
    headers: HeaderMap,
) -> Result<(StatusCode, Extension<Change>), Problem> {
    let host = valid::host(&host)?;
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    valid::in_scope(&caller, |scope| scope.puts(&host, &[]))?;
    let expect = expectation(&headers)?;
    let (revision, holder) = change::delete_route(&api.registry, tenant, &host, &expect).await?;
    let change = Change {
        tenant: Some(holder),
        action: Some("delete-route"),
        object: Some(host.to_string()),
        revision: Some(revision),
        ..Change::default()
    };
    Ok((StatusCode::NO_CONTENT, Extension(change)))
}

/// The authorities of sources by their digests, each once.
fn authorities(sources: &[Source], tenant: &str) -> BTreeMap<String, String> {
    let mut shown = BTreeMap::new();
    let mut bytes = 0;
    for source in sources.iter().filter(|it| *it.tenant == *tenant) {
        if let (Some(ca), Some(Trust::CaPem(pem))) =
            (&source.ca, source.tls.as_deref().map(|tls| &tls.trust))
            && bytes + pem.len() <= MOST_AUTHORITIES
            && shown.insert(ca.to_string(), pem.clone()).is_none()
        {
            bytes += pem.len();
        }
    }
    shown
}

fn answer(status: StatusCode, etag: Option<&str>, route: Route) -> Response {
    let mut response = (status, Json(route)).into_response();
    if let Some(etag) = etag {
        tag(&mut response, etag);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::keys;
    use crate::registry::store::{KeyValue, Listing, Revision};

    #[test]
    fn long_pages_end_early_and_the_next_one_goes_on() {
        let endpoints: Vec<String> = (1..=64).map(|port| format!("10.0.0.1:{port}")).collect();
        let value = serde_json::json!({ "endpoints": endpoints }).to_string();
        let host = |number| HostMatch::parse(&format!("n{number}.example.org")).unwrap();
        let entries = (0..900).map(|number| KeyValue {
            key: keys::route(&host(number), "acme", "@api"),
            value: value.clone().into(),
            created: Revision(1),
            modified: Revision(1),
            lease: None,
        });
        let mut view = View::default();
        view.reset(Listing {
            revision: Revision(1),
            entries: entries.collect(),
        });
        let (mut after, mut pages, mut seen) = (None, 0, Vec::new());
        loop {
            let mut page = Page::new(1000);
            let next = loop {
                if let Slice::Last(next) = slice(&view, Some("acme"), &mut after, &mut page) {
                    break next;
                }
            };
            let routes = page.into_entries();
            let bytes: usize = routes.iter().map(|route| route.get().len()).sum();
            assert!(bytes < (1 << 20) + 4096, "{bytes}");
            seen.extend(routes.iter().map(|route| {
                let route: Route = serde_json::from_str(route.get()).unwrap();
                route.host
            }));
            pages += 1;
            match next {
                None => break,
                Some(next) => assert_eq!(Some(&next), seen.last()),
            }
        }
        assert!(pages > 1);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 900);
    }
}
