//! `/v1/zones`: which names and addresses are leased to whom.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use config::route::HostMatch;
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use super::conditions::{expectation, is_known, tag};
use super::extract::{Json, NoQuery, Path, Query};
use super::pages::Page;
use super::problem::Problem;
use super::responses::{Always, ForConditions, ForNames};
use super::types::{EvictQuery, ListQuery, Zone, ZonePut, ZoneSpec, ZoneTaken, Zones};
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::auth::audit::{Change, Consequences};
use crate::registry::change::{self, Evicted, ZoneChange, ZoneChanged, zone_etag};
use crate::registry::record;
use crate::registry::store::Revision;

/// A page as it is answered; [`Zones`] to whoever reads it.
#[derive(Serialize)]
pub(super) struct ZonesPage {
    zones: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
    revision: i64,
}

/// Lists zones
///
/// In an order that stays the same from page to page: those of one tenant stand together.
#[utoipa::path(get, path = "/v1/zones", tag = "zones", params(ListQuery),
    responses((status = 200, body = Zones), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Json<ZonesPage>, Problem> {
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let limit = valid::page(query.limit)?;
    let after = query.after.as_deref().map(place).transpose()?;
    let after = after.as_ref().map(|(owner, pattern)| (*owner, pattern));
    let view = api.registry.view();
    let mut page = Page::new(limit);
    let (mut last, mut next) = (None, None);
    for (owner, pattern, zone) in view.zones_after(tenant, after) {
        if page.is_full() {
            next = last;
            break;
        }
        page.push(&shown(owner, pattern, &zone.record, zone.modified));
        last = Some(format!("{owner}/{pattern}"));
    }
    Ok(Json(ZonesPage {
        zones: page.into_entries(),
        next,
        revision: view.revision().0,
    }))
}

/// Shows a zone
#[utoipa::path(get, path = "/v1/zones/{tenant}/{pattern}", tag = "zones",
    params(("tenant" = String, Path, example = "acme"),
        ("pattern" = String, Path, example = "*.acme.example.org"),
        ("If-None-Match" = Option<String>, Header, description = "What is known already: 304 if that is still so")),
    responses((status = 200, body = Zone, headers(("ETag" = String))),
        (status = 304, description = "It is still the one that If-None-Match names", headers(("ETag" = String))),
        ForNames, Always))]
pub(super) async fn get(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, pattern)): Path<(String, String)>,
    _: NoQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant = valid::acting_for(&caller, &tenant)?;
    let pattern = valid::host(&pattern)?;
    let view = api.registry.view();
    let Some(zone) = view.zone(tenant, &pattern) else {
        let detail = format!("tenant {tenant} has no zone {pattern}");
        return Err(Problem::not_found(detail));
    };
    let response = if is_known(&headers, &zone_etag(zone.modified)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(shown(tenant, &pattern, &zone.record, zone.modified)).into_response()
    };
    Ok(tagged(response, zone.modified))
}

/// Leases names to a tenant
///
/// Routes of the tenant that no zone of it allows any more go at once; if there are any, `evict`
/// has to say that they may.
#[utoipa::path(put, path = "/v1/zones/{tenant}/{pattern}", tag = "zones",
    params(("tenant" = String, Path, example = "acme"),
        ("pattern" = String, Path, description = "A name, or a star and what names end with, however many labels the star stands for", example = "*.shop.acme.example.org"),
        EvictQuery,
        ("If-Match" = Option<String>, Header, description = "Only if the zone is still this one, or `*`: there at all"),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no such zone")),
    request_body = ZoneSpec,
    responses((status = 200, description = "Replaced", body = ZonePut, headers(("ETag" = String))),
        (status = 201, description = "New", body = ZonePut, headers(("ETag" = String))),
        ForNames, ForConditions, Always))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, pattern)): Path<(String, String)>,
    Query(query): Query<EvictQuery>,
    headers: HeaderMap,
    Json(spec): Json<ZoneSpec>,
) -> Result<Response, Problem> {
    valid::operator(&caller)?;
    let tenant = valid::label("tenant", &tenant)?;
    let pattern = valid::host(&pattern)?;
    let zone = valid::zone(&spec)?;
    let change = ZoneChange {
        tenant,
        pattern: &pattern,
        expect: &expectation(&headers)?,
        evict: query.evict == Some(true),
    };
    let done = change::put_zone(&api.registry, change, &zone).await?;
    let status = if done.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let put = ZonePut {
        zone: shown(tenant, &pattern, &zone, done.revision),
        evicted: done.evicted.len(),
    };
    let response = (
        status,
        recorded(
            tenant,
            "lease-zone",
            "evicted-by-lease-zone",
            &pattern,
            &done,
        ),
        Json(put),
    );
    Ok(tagged(response.into_response(), done.revision))
}

/// Takes a zone back
///
/// Routes of the tenant that no other zone of it allows go at once; if there are any, `evict` has to
/// say that they may. With the zone gone already, this ends what an earlier call left undone.
#[utoipa::path(delete, path = "/v1/zones/{tenant}/{pattern}", tag = "zones",
    params(("tenant" = String, Path, example = "acme"),
        ("pattern" = String, Path, example = "*.shop.acme.example.org"),
        EvictQuery,
        ("If-Match" = Option<String>, Header, description = "Only if the zone is still this one")),
    responses((status = 200, description = "Gone", body = ZoneTaken), ForNames, ForConditions, Always))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, pattern)): Path<(String, String)>,
    Query(query): Query<EvictQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    valid::operator(&caller)?;
    let tenant = valid::label("tenant", &tenant)?;
    let pattern = valid::host(&pattern)?;
    let change = ZoneChange {
        tenant,
        pattern: &pattern,
        expect: &expectation(&headers)?,
        evict: query.evict == Some(true),
    };
    let done = change::delete_zone(&api.registry, change).await?;
    let taken = ZoneTaken {
        tenant: tenant.to_owned(),
        pattern: pattern.to_string(),
        evicted: done.evicted.len(),
    };
    let (action, consequence) = ("take-zone-back", "evicted-by-take-zone-back");
    let recorded = recorded(tenant, action, consequence, &pattern, &done);
    Ok((recorded, Json(taken)).into_response())
}

/// What a page gave as `next`.
fn place(text: &str) -> Result<(&str, HostMatch), Problem> {
    let parts = text.split_once('/');
    let parts = parts.and_then(|(owner, pattern)| Some((owner, HostMatch::parse(pattern).ok()?)));
    parts.ok_or_else(|| Problem::malformed("query: after: is none that a page gave"))
}

fn shown(tenant: &str, pattern: &HostMatch, zone: &record::Zone, modified: Revision) -> Zone {
    Zone {
        tenant: tenant.to_owned(),
        pattern: pattern.to_string(),
        addresses: zone.addresses.iter().map(ToString::to_string).collect(),
        shared: zone.shared,
        revision: modified.0,
    }
}

fn tagged(mut response: Response, modified: Revision) -> Response {
    tag(&mut response, &zone_etag(modified));
    response
}

/// What the audit log tells of a zone, and of each route that went with it.
fn recorded(
    tenant: &str,
    action: &'static str,
    consequence: &'static str,
    pattern: &HostMatch,
    done: &ZoneChanged,
) -> (Extension<Change>, Extension<Consequences>) {
    let tenant: Arc<str> = tenant.into();
    let change = |action, object| Change {
        tenant: Some(Arc::clone(&tenant)),
        action: Some(action),
        object: Some(object),
        revision: Some(done.revision),
        ..Change::default()
    };
    let evicted = done.evicted.iter();
    let consequences = evicted.map(|it: &Evicted| Change {
        hosts: vec![it.host.to_string()],
        ..change(consequence, it.source.to_string())
    });
    (
        Extension(change(action, pattern.to_string())),
        Extension(Consequences(consequences.collect())),
    )
}
