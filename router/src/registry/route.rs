//! Routes of the registry as the control plane takes them.

use std::net::SocketAddr;
use std::sync::Arc;

use config::route::{HostMatch, UpstreamProtocol};

use super::record::Tls;

/// A route with every endpoint that is announced for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryRoute {
    /// Which hosts it takes.
    pub host: HostMatch,
    /// Who holds the name.
    pub tenant: Arc<str>,
    /// Whether other tenants may hold narrower names beneath a suffix.
    pub shared: bool,
    /// What is spoken towards the endpoints.
    pub protocol: UpstreamProtocol,
    /// At least one; sorted by address, none twice.
    pub endpoints: Vec<RegistryEndpoint>,
    /// How routers check the endpoints, if nobody else does.
    pub check: Option<super::record::Check>,
}

/// One endpoint of a route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RegistryEndpoint {
    /// Where it is.
    pub address: SocketAddr,
    /// TLS towards it; `None` is plain text.
    pub tls: Option<Arc<Tls>>,
}

/// What changed about one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteChange {
    /// The route is new or other than before.
    Set(Arc<RegistryRoute>),
    /// There is no route any more.
    Gone(HostMatch),
}
