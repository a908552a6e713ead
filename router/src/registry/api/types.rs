//! What travels over the API: the types of requests and answers, shared with the client.
//!
//! Fields that the API does not know are refused: a misspelt `ttl` would otherwise be no ttl.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::registry::record::{Check, Protocol, Scope, Tls};

/// Endpoints of one route at most.
pub const MAX_ENDPOINTS: usize = 64;
/// Endpoints of one route at most, of all its sources together.
pub const MAX_ENDPOINTS_TOGETHER: usize = 256;

/// A route as somebody wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// Where requests go: `address:port`.
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 64, example = json!(["10.0.7.21:31390"]))]
    pub endpoints: Vec<SocketAddr>,
    /// What is spoken towards the endpoints.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS towards the endpoints; plain text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Whether other tenants may hold narrower names beneath a suffix.
    #[serde(default)]
    pub shared: bool,
    /// How routers check the endpoints; they do not when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Seconds until the route goes, unless it is put again; it stays when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 5, maximum = 3600)]
    pub ttl: Option<u32>,
}

/// A route as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Which hosts it takes: a name, or a star and a suffix.
    #[schema(example = "*-apps-7.k8s.example.org")]
    pub host: String,
    /// Who holds it.
    pub tenant: String,
    /// Where requests go, of all sources together.
    #[schema(value_type = Vec<String>)]
    pub endpoints: Vec<SocketAddr>,
    /// What is spoken towards the endpoints.
    pub protocol: Protocol,
    /// Whether other tenants may hold narrower names beneath a suffix.
    pub shared: bool,
    /// How routers check the endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Who contributes what.
    pub sources: Vec<Source>,
    /// When it changed last, counted by the store.
    pub revision: i64,
    /// Where a single route is asked for: the PEM of authorities that sources name by their digests,
    /// as far as they come to 512 KiB.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub authorities: BTreeMap<String, String>,
}

/// What one source contributes to a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// An instance's name, or `@api` for what was put by a call.
    pub source: String,
    /// Its endpoints.
    #[schema(value_type = Vec<String>)]
    pub endpoints: Vec<SocketAddr>,
    /// What is spoken towards them.
    pub protocol: Protocol,
    /// TLS towards them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<SourceTls>,
    /// Seconds without renewal after which they go; they stay when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The credential that put them, if no instance announces them: an instance shows its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<String>,
}

/// TLS towards a source's endpoints, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceTls {
    /// Name sent as SNI and checked against the certificate.
    pub server_name: String,
    /// What proves the endpoint's identity.
    pub trust: SourceTrust,
}

/// What proves an endpoint's identity, as it is shown: authorities may be long, and many sources
/// have the same.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum SourceTrust {
    /// A certificate that one of these authorities signed: the SHA-256 of their PEM, in hexadecimal.
    CaSha256(String),
    /// A certificate that one of the router system's authorities signed.
    System,
    /// Nothing does.
    InsecureAcceptAnyCertificate,
}

/// One page of routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Routes {
    /// In an order that stays the same from page to page.
    pub routes: Vec<Route>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// As of when.
    pub revision: i64,
}

/// Everything that an instance announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Announcement {
    /// Seconds without renewal after which everything goes.
    #[schema(minimum = 5, maximum = 3600, example = 60)]
    pub ttl: u32,
    /// What is announced.
    #[schema(min_items = 1, max_items = 32)]
    pub routes: Vec<AnnouncedRoute>,
}

/// One route with the endpoint that this instance adds to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AnnouncedRoute {
    /// Which hosts it takes: a name, or a star and a suffix.
    #[schema(example = "*-apps-7.k8s.example.org", max_length = 255)]
    pub host: String,
    /// The instance's endpoint, as routers reach it: `address:port`.
    #[schema(value_type = String, example = "10.0.7.21:31390")]
    pub endpoint: SocketAddr,
    /// What is spoken towards the endpoint.
    #[serde(default)]
    pub protocol: Protocol,
    /// TLS towards the endpoint; plain text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Whether other tenants may hold narrower names beneath a suffix.
    #[serde(default)]
    pub shared: bool,
}

/// What became of an announcement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Announced {
    /// The store's revision with it.
    pub revision: i64,
    /// Seconds that it holds from now on.
    pub ttl: u32,
    /// Whether nothing but the time changed.
    pub renewed: bool,
}

/// An instance that announces.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instance {
    /// Whose it is.
    pub tenant: String,
    /// Its name.
    pub instance: String,
    /// Seconds without renewal after which what it announced goes.
    pub ttl: u32,
    /// The host rules it announces.
    pub hosts: Vec<String>,
    /// The credential that announced it: `token:` with its id, or `certificate:` with its URI.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub credential: String,
}

/// One page of instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Instances {
    /// In an order that stays the same from page to page.
    pub instances: Vec<Instance>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// Names leased to a tenant, as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ZoneSpec {
    /// Where endpoints for these names may be: addresses or ranges, the tenant's own nodes.
    #[schema(min_items = 1, max_items = 256, example = json!(["10.0.7.0/24"]))]
    pub addresses: Vec<String>,
    /// Whether zones of other tenants may overlap with this one.
    #[serde(default)]
    pub shared: bool,
}

/// Names leased to a tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Zone {
    /// Whom they are leased to.
    pub tenant: String,
    /// The names: one, or a star and what they end with.
    #[schema(example = "*.acme.example.org")]
    pub pattern: String,
    /// Where endpoints for these names may be.
    pub addresses: Vec<String>,
    /// Whether zones of other tenants may overlap with this one.
    pub shared: bool,
    /// When it changed last, counted by the store: its entity tag is this in quotes.
    pub revision: i64,
}

/// A zone that was put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZonePut {
    /// As it is now.
    #[serde(flatten)]
    pub zone: Zone,
    /// Routes that went because no zone allows them any more, counted by what each source added.
    pub evicted: usize,
}

/// A zone that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ZoneTaken {
    /// Whose it was.
    pub tenant: String,
    /// The names.
    pub pattern: String,
    /// Routes that went because no zone allows them any more, counted by what each source added.
    pub evicted: usize,
}

/// One page of zones.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Zones {
    /// By tenant and pattern.
    pub zones: Vec<Zone>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// As of when.
    pub revision: i64,
}

/// A token as the operator wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenSpec {
    /// Whose it is to be.
    #[schema(max_length = 63, example = "acme")]
    pub tenant: String,
    /// What it is for.
    #[serde(default)]
    #[schema(max_length = 200)]
    pub note: String,
    /// Seconds until it stops being valid; never when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 1, maximum = 315360000)]
    pub expires_in: Option<u32>,
    /// What it is to be good for; everything that is the tenant's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// A token that was just made: the only time that it is shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NewToken {
    /// What it is called in lists and logs.
    pub id: String,
    /// The secret itself.
    pub token: String,
}

/// A token, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Token {
    /// What it is called in lists and logs.
    pub id: String,
    /// Whose it is.
    pub tenant: String,
    /// What it is for.
    pub note: String,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// When it stops being valid, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// What it is good for; everything that is the tenant's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<Scope>,
}

/// One page of tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tokens {
    /// By id.
    pub tokens: Vec<Token>,
    /// What to give as `after` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// As of when.
    pub revision: i64,
}

/// A token that was revoked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// What it was called.
    pub id: String,
    /// Instances that were withdrawn with it.
    pub instances: usize,
    /// Routes that were put with it and are deleted.
    pub routes: usize,
}

/// Whether the registry can take changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `reachable` or `unreachable`.
    pub store: String,
    /// The revision that this router has followed to.
    pub revision: i64,
}

/// What every list takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only this tenant's; operators see all without it.
    pub tenant: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    pub limit: Option<u32>,
    /// What the page before gave as `next`.
    pub after: Option<String>,
}

/// Whose a route is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct TenantQuery {
    /// Operators name the tenant; for a tenant it is its own.
    #[param(example = "acme")]
    pub tenant: Option<String>,
}

/// What changes of zones take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct EvictQuery {
    /// Whether routes that no zone would allow any more may go; if there are any, the change is
    /// refused without it.
    #[param(default = false)]
    pub evict: Option<bool>,
}

/// What the revocation of a token takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WithdrawQuery {
    /// Whether everything that was announced or put with the token goes at once as well.
    #[param(default = false)]
    pub withdraw: Option<bool>,
}

/// Whose a route has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HolderQuery {
    /// Only if it is this tenant's; a tenant's credential sees none but its own in any case.
    #[param(example = "acme")]
    pub tenant: Option<String>,
}

/// What a watch takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WatchQuery {
    /// Only this tenant's; operators see all without it.
    pub tenant: Option<String>,
    /// Only what changed after this revision; everything first when absent. `Last-Event-ID` says
    /// the same.
    #[param(minimum = 0)]
    pub after: Option<i64>,
}

impl std::fmt::Debug for NewToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "token {}", self.id)
    }
}
