//! `/v1/instances` and `/v1/tenants/{tenant}/instances/{instance}`: where registrars announce.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Api;
use super::conditions::Unconditional;
use super::extract::{Json, NoQuery, Path, Query};
use super::pages::Page;
use super::problem::Problem;
use super::responses::{Always, ForNames};
use super::types::{Announced, Announcement, Instance, Instances, ListQuery};
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::auth::audit::{Change, Unchanged};
use crate::registry::change::{self, Announce};
use crate::registry::store::Revision;

/// Lists the instances that announce
#[utoipa::path(get, path = "/v1/instances", tag = "instances", params(ListQuery),
    responses((status = 200, body = Instances), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<ListQuery>,
) -> Result<Json<InstancesPage>, Problem> {
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let limit = valid::page(query.limit)?;
    let after = match query.after.as_deref() {
        None => None,
        Some(text) => match text.split_once('/') {
            Some(place) => Some(place),
            None => return Err(Problem::malformed("query: after: is none that a page gave")),
        },
    };
    // A tenant's instances stand together.
    let after = match (after, tenant) {
        (Some((before, _)), Some(tenant)) if before < tenant => Some((tenant, "")),
        (None, Some(tenant)) => Some((tenant, "")),
        (after, _) => after,
    };
    let view = api.registry.view();
    let found = view
        .instances_after(after)
        .take_while(|(owner, ..)| tenant.is_none_or(|tenant| *owner == tenant));
    let mut page = Page::new(limit);
    let (mut last, mut next) = (None, None);
    for (tenant, instance, entry) in found {
        if page.is_full() {
            next = last;
            break;
        }
        page.push(&Instance {
            tenant: tenant.to_owned(),
            instance: instance.to_owned(),
            ttl: entry.record.ttl,
            hosts: entry.record.hosts.clone(),
            credential: entry.record.credential.clone(),
        });
        last = Some(format!("{tenant}/{instance}"));
    }
    Ok(Json(InstancesPage {
        instances: page.into_entries(),
        next,
    }))
}

/// [`Instances`], as they are answered.
#[derive(Serialize)]
pub(super) struct InstancesPage {
    instances: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Announces everything that an instance offers
///
/// The same again renews it; anything else replaces it, so that a route that is left out is
/// withdrawn. If one route is refused, all are, and `host` says which one it was.
#[utoipa::path(put, path = "/v1/tenants/{tenant}/instances/{instance}", tag = "instances",
    params(("tenant" = String, Path, example = "acme"), ("instance" = String, Path, example = "worker-1")),
    request_body = Announcement,
    responses((status = 200, body = Announced), ForNames, Always))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, instance)): Path<(String, String)>,
    _: Unconditional,
    _: NoQuery,
    Json(announcement): Json<Announcement>,
) -> Result<Response, Problem> {
    let request = Announce {
        tenant: valid::acting_for(&caller, &tenant)?,
        instance: valid::label("instance", &instance)?,
        ttl: announcement.ttl,
        digest: change::digest_of(&announcement),
        routes: valid::announcement(&announcement)?,
        credential: &caller.id,
        quota: api.quota,
    };
    valid::in_scope(&caller, |scope| {
        scope.announces(request.instance, &request.routes)
    })?;
    let (owner, name) = (request.tenant.into(), request.instance.to_owned());
    let hosts = request.routes.iter().map(|(host, _)| host.to_string());
    let endpoints: BTreeSet<SocketAddr> = request
        .routes
        .iter()
        .flat_map(|(_, source)| source.endpoints.iter().copied())
        .collect();
    let change = Change {
        tenant: Some(owner),
        action: Some("announce"),
        object: Some(name),
        hosts: hosts.collect(),
        endpoints: endpoints.into_iter().collect(),
        revision: None,
    };
    let done = change::announce(&api.registry, &*api.files, request).await?;
    if done.renewed {
        return Ok((Extension(Unchanged), Json(done)).into_response());
    }
    let change = Change {
        revision: Some(Revision(done.revision)),
        ..change
    };
    Ok((Extension(change), Json(done)).into_response())
}

/// Withdraws everything that an instance announced
///
/// At once, and also fine if there is nothing.
#[utoipa::path(delete, path = "/v1/tenants/{tenant}/instances/{instance}", tag = "instances",
    params(("tenant" = String, Path, example = "acme"), ("instance" = String, Path, example = "worker-1")),
    responses((status = 204, description = "Nothing of it is left"), ForNames, Always))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, instance)): Path<(String, String)>,
    _: Unconditional,
    _: NoQuery,
) -> Result<(StatusCode, Extension<Change>), Problem> {
    let tenant = valid::acting_for(&caller, &tenant)?;
    let instance = valid::label("instance", &instance)?;
    valid::in_scope(&caller, |scope| scope.withdraws(instance))?;
    let revision = change::withdraw(&api.registry, tenant, instance).await?;
    let change = Change {
        tenant: Some(tenant.into()),
        action: Some("withdraw"),
        object: Some(instance.to_owned()),
        revision: Some(revision),
        ..Change::default()
    };
    Ok((StatusCode::NO_CONTENT, Extension(change)))
}
