//! Route files: which host names a tenant owns and where their requests go.
//!
//! A route is a rule (a host name, exact or by suffix) and an upstream (a group of endpoints that
//! are interchangeable). Route files stand beside `router.yaml`; step 3's registry delivers the
//! same values over HTTP.

mod fields;
mod host_match;
mod owners;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

pub use owners::owners;

use crate::document::Position;
use crate::error::ConfigErrors;
use crate::net::HostName;
use crate::reader;

/// One route file: everything one tenant announces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteFile {
    /// Who owns the names in this file. One name never has two owners.
    pub tenant: String,
    /// Groups of interchangeable endpoints, by a name that is local to the file.
    pub upstreams: Vec<Upstream>,
    /// Host rules; each names one of `upstreams`.
    pub routes: Vec<Route>,
}

impl RouteFile {
    /// Reads one route file. Pure: `file` only names the text in errors and gives the folder that
    /// relative paths are resolved against.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once. Names with two owners can only be seen
    /// with all files at hand: see [`owners`].
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        reader::read(text, file)
    }

    /// Upstreams that no route leads to. Not an error, since one is written before its route and
    /// outlives it while a move is under way, but worth a warning.
    pub fn unused_upstreams(&self) -> impl Iterator<Item = &Upstream> {
        let used: std::collections::HashSet<&str> = self
            .routes
            .iter()
            .map(|route| route.upstream.as_str())
            .collect();
        self.upstreams
            .iter()
            .filter(move |upstream| !used.contains(upstream.name.as_str()))
    }
}

/// A host rule and the upstream it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which hosts this rule takes.
    pub host: HostMatch,
    /// Name of an upstream in the same file.
    pub upstream: String,
    /// Whether other tenants may own narrower names beneath a suffix. Off by default: a narrower
    /// name of somebody else would take this tenant's traffic.
    pub shared: bool,
    /// Where the rule stands, for messages about two owners of one name.
    pub position: Position,
}

/// The rule part of a route, matched against the host of each request (never of a connection).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostMatch {
    /// This name and nothing else.
    Exact(HostName),
    /// `*-apps-7.k8s.example.org` or `*.example.org`: the star stands for at least one character
    /// and never for a dot, as in a certificate (RFC 9525, section 6.3). Holds what follows the
    /// star, lower case, starting with `-` or `.`.
    Suffix(String),
}

/// A group of endpoints that are interchangeable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upstream {
    /// Name, local to the route file.
    pub name: String,
    /// What is spoken towards the endpoints.
    pub protocol: UpstreamProtocol,
    /// TLS towards the endpoints; `None` is plain text.
    pub tls: Option<UpstreamTls>,
    /// Where requests go: at least one.
    pub endpoints: Vec<SocketAddr>,
}

/// The HTTP version spoken towards an upstream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpstreamProtocol {
    /// HTTP/1.1, the default.
    #[default]
    Http1,
    /// HTTP/2, with prior knowledge in plain text or by ALPN under TLS. Upgrades still use a
    /// connection of HTTP/1.1.
    Http2,
}

/// How the router authenticates an upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamTls {
    /// Name sent as SNI and checked against the certificate.
    pub server_name: String,
    /// What proves the endpoint's identity.
    pub trust: UpstreamTrust,
}

/// What proves an upstream endpoint's identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamTrust {
    /// PEM file of the certificate authorities that may sign for this upstream.
    Ca(PathBuf),
    /// The system's certificate authorities.
    System,
    /// Nothing does. Only reachable by writing `verify: insecure-accept-any-certificate`.
    InsecureAcceptAny,
}
