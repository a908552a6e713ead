//! What is kept in the store: one type per kind of record, as JSON.
//!
//! Records are written by this program alone. One that cannot be read (a newer version's) is left
//! out and told of; it never stops the others.

use std::net::SocketAddr;
use std::time::Duration;

use config::error::InvalidValue;
use config::net::IpRange;
use config::route::HostMatch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What one source (an instance's registrar, or a call of the API) adds to a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSource {
    /// Where requests go; at least one.
    pub endpoints: Vec<SocketAddr>,
    /// What is spoken towards them.
    #[serde(default, skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// TLS towards them; plain text when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
    /// Whether other tenants may hold narrower names beneath a suffix.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared: bool,
    /// How routers check the endpoints; registrars check their own and leave it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Seconds without renewal after which it is gone; absent: it stays until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The credential that put it; what an instance announces has it in the instance's record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<Box<str>>,
}

/// The HTTP version spoken towards an endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2.
    Http2,
}

/// TLS towards an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Name sent as SNI and checked against the certificate.
    pub server_name: String,
    /// What proves the endpoint's identity.
    pub trust: Trust,
}

/// What proves an endpoint's identity.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Trust {
    /// A certificate that one of these authorities signed, in PEM.
    CaPem(String),
    /// A certificate that one of the router system's authorities signed.
    System,
    /// Nothing does.
    InsecureAcceptAnyCertificate,
}

/// A check that routers make of each endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// Path of a GET that must be answered with 200 to 399; absent: a connection is enough.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Seconds from the start of one check to the start of the next, 1 to 3,600.
    #[schema(minimum = 1, maximum = 3600)]
    pub interval: u32,
    /// Seconds that one check may take, at most `interval` and 10.
    #[schema(minimum = 1, maximum = 10)]
    pub timeout: u32,
    /// Failures in a row until an endpoint is left out, 1 to 100.
    #[schema(minimum = 1, maximum = 100)]
    pub failures: u32,
}

/// A registrar's announcement as a whole: what its lease carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Digest of what was announced; a renewal repeats it.
    pub digest: String,
    /// Seconds without renewal after which everything it announced is gone.
    pub ttl: u32,
    /// The host rules it announces, sorted.
    pub hosts: Vec<String>,
    /// The credential that announced it.
    pub credential: String,
}

/// Names that the operator has leased to a tenant, and the addresses its endpoints may have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Zone {
    /// Where endpoints for these names may be: the tenant's own nodes. At least one range.
    pub addresses: Vec<IpRange>,
    /// Whether zones of other tenants may overlap with this one; inside, who claims first holds.
    #[serde(default, skip_serializing_if = "is_default")]
    pub shared: bool,
}

/// A bearer token; the token itself is not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    /// Whose it is.
    pub tenant: String,
    /// SHA-256 of the secret part, in hexadecimal. The secret has 256 random bits, so that nothing
    /// slower is needed.
    pub sha256: String,
    /// What it is for, in the operator's words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
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

/// What a tenant's credential is good for, within what is the tenant's. A field that is not known
/// makes the whole unreadable: it would be a limit that is not kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Scope {
    /// It announces and withdraws as this instance, and puts no routes. Without it, it announces
    /// nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 63)]
    pub instance: Option<String>,
    /// Names that it may hold: one, or a star and what they end with, as of a zone. Every name of
    /// the tenant's zones when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 32)]
    pub patterns: Vec<Pattern>,
    /// Addresses or ranges where its endpoints may be. Every address of the tenant's zones when
    /// there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, max_items = 256)]
    pub addresses: Vec<IpRange>,
}

/// Names that are allowed, as text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(pub HostMatch);

impl TryFrom<String> for Pattern {
    type Error = InvalidValue;

    fn try_from(text: String) -> Result<Self, InvalidValue> {
        HostMatch::parse(&text).map(Self)
    }
}

impl From<Pattern> for String {
    fn from(Pattern(pattern): Pattern) -> Self {
        pattern.to_string()
    }
}

/// The secrets from which routers derive the keys of session tickets: previous, current, next.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketSecrets {
    /// At most three, oldest first, with the epochs that they are for. The one before the last
    /// encrypts; all decrypt. The last is there so that every router has it before any uses it.
    pub epochs: Vec<TicketEpoch>,
}

/// One epoch's secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketEpoch {
    /// Counts up with every rotation.
    pub epoch: u64,
    /// 32 random bytes in hexadecimal.
    pub secret: String,
}

impl std::fmt::Debug for TicketSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(&self.epochs).finish()
    }
}

impl std::fmt::Debug for TicketEpoch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "epoch {}", self.epoch)
    }
}

impl Check {
    /// Seconds that one check may take at most. Routers make few checks at once: a slow one keeps
    /// others waiting.
    pub const LONGEST: u32 = 10;
}

impl RouteSource {
    /// How long it holds without renewal.
    #[must_use]
    pub fn time_to_live(&self) -> Option<Duration> {
        self.ttl.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
