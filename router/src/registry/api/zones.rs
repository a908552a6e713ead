//! `/v1/zones`: which names and addresses are leased to whom.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use config::route::HostMatch;
use http::StatusCode;

use super::Api;
use super::extract::{Json, NoQuery, Path, Query};
use super::problem::Problem;
use super::responses::{Always, ForNames};
use super::types::{TenantQuery, Zone, ZoneSpec, Zones};
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::auth::audit::Change;
use crate::registry::change;
use crate::registry::store::Revision;

/// Lists zones
#[utoipa::path(get, path = "/v1/zones", tag = "zones", params(TenantQuery),
    responses((status = 200, body = Zones), Always))]
pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<TenantQuery>,
) -> Result<Json<Zones>, Problem> {
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let view = api.registry.view();
    let theirs = view
        .zones()
        .filter(|(owner, ..)| tenant.is_none_or(|tenant| *owner == tenant));
    let zones = theirs.map(|(tenant, pattern, zone)| Zone {
        tenant: tenant.to_owned(),
        pattern: pattern.to_string(),
        addresses: zone.addresses.iter().map(ToString::to_string).collect(),
        shared: zone.shared,
    });
    Ok(Json(Zones {
        zones: zones.collect(),
    }))
}

/// Leases names to a tenant
///
/// Routes of the tenant that no zone of it allows any more go at once.
#[utoipa::path(put, path = "/v1/zones/{tenant}/{pattern}", tag = "zones",
    params(("tenant" = String, Path, example = "acme"),
        ("pattern" = String, Path, description = "A name, or a star and what names end with, however many labels the star stands for", example = "*.shop.acme.example.org")),
    request_body = ZoneSpec,
    responses((status = 200, description = "Replaced", body = Zone), (status = 201, description = "New", body = Zone), ForNames, Always))]
pub(super) async fn put(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, pattern)): Path<(String, String)>,
    _: NoQuery,
    Json(spec): Json<ZoneSpec>,
) -> Result<(StatusCode, Extension<Change>, Json<Zone>), Problem> {
    valid::operator(&caller)?;
    let tenant = valid::label("tenant", &tenant)?;
    let pattern = valid::host(&pattern)?;
    let zone = valid::zone(&spec)?;
    let (revision, created) = change::put_zone(&api.registry, tenant, &pattern, &zone).await?;
    let status = if created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let shown = Zone {
        tenant: tenant.to_owned(),
        pattern: pattern.to_string(),
        addresses: zone.addresses.iter().map(ToString::to_string).collect(),
        shared: zone.shared,
    };
    let change = leased(tenant, "lease-zone", &pattern, revision);
    Ok((status, Extension(change), Json(shown)))
}

/// Takes a zone back
///
/// Routes of the tenant that no other zone of it allows go at once.
#[utoipa::path(delete, path = "/v1/zones/{tenant}/{pattern}", tag = "zones",
    params(("tenant" = String, Path, example = "acme"),
        ("pattern" = String, Path, example = "*.shop.acme.example.org")),
    responses((status = 204, description = "Gone"), ForNames, Always))]
pub(super) async fn delete(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Path((tenant, pattern)): Path<(String, String)>,
    _: NoQuery,
) -> Result<(StatusCode, Extension<Change>), Problem> {
    valid::operator(&caller)?;
    let tenant = valid::label("tenant", &tenant)?;
    let pattern = valid::host(&pattern)?;
    let revision = change::delete_zone(&api.registry, tenant, &pattern).await?;
    let change = leased(tenant, "take-zone-back", &pattern, revision);
    Ok((StatusCode::NO_CONTENT, Extension(change)))
}

/// What the audit log tells of a zone.
fn leased(tenant: &str, action: &'static str, pattern: &HostMatch, revision: Revision) -> Change {
    Change {
        tenant: Some(tenant.into()),
        action: Some(action),
        object: Some(pattern.to_string()),
        revision: Some(revision),
        ..Change::default()
    }
}
