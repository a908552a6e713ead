//! What several sources say of one rule, and the route that comes of it. Pure.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use config::route::{HostMatch, UpstreamProtocol};

use crate::registry::record::{Protocol, RouteSource, Tls};
use crate::registry::route::{RegistryEndpoint, RegistryRoute};
use crate::registry::store::{LeaseId, Revision};

/// What one source adds to a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Whose it is.
    pub tenant: Arc<str>,
    /// An instance's name, or `@api`.
    pub name: Arc<str>,
    /// What it adds, but for `tls`.
    pub spec: Box<RouteSource>,
    /// TLS towards its endpoints; the same object for all sources that say the same.
    pub tls: Option<Arc<Tls>>,
    /// SHA-256 of the authorities' PEM in `tls`, in hexadecimal, if it has any.
    pub ca: Option<Arc<str>>,
    /// When it came.
    pub created: Revision,
    /// When it changed last.
    pub modified: Revision,
    /// What it hangs on.
    pub lease: Option<LeaseId>,
}

/// A route of all sources of the tenant that holds the rule: whoever's source is the oldest.
///
/// Claims let no second tenant in; should one stand in the store all the same, it gets no traffic.
/// Where sources differ in what is spoken, the larger group of endpoints serves (of equal ones the
/// one that changed last) until the others follow: a tenant moves its instances one by one.
pub fn resolve(host: &HostMatch, sources: &[Source]) -> Option<RegistryRoute> {
    let oldest = sources.iter().min_by_key(|it| it.created)?;
    let tenant = Arc::clone(&oldest.tenant);
    let sources: Vec<_> = sources.iter().filter(|it| it.tenant == tenant).collect();
    let weight = |protocol: Protocol| {
        let group = sources.iter().filter(|it| it.spec.protocol == protocol);
        group.fold((0, Revision::default()), |(count, newest), it| {
            (count + it.spec.endpoints.len(), newest.max(it.modified))
        })
    };
    let protocol = if weight(Protocol::Http2) > weight(Protocol::Http1) {
        Protocol::Http2
    } else {
        Protocol::Http1
    };
    let speaking = sources.iter().filter(|it| it.spec.protocol == protocol);
    let mut by_address: HashMap<SocketAddr, (Revision, Option<Arc<Tls>>)> = HashMap::new();
    for source in speaking.clone() {
        for address in &source.spec.endpoints {
            // Two sources may name one address; the newer knows better how to speak to it.
            let known = by_address.get(address);
            if known.is_none_or(|(modified, _)| *modified < source.modified) {
                by_address.insert(*address, (source.modified, source.tls.clone()));
            }
        }
    }
    let mut endpoints: Vec<_> = by_address
        .into_iter()
        .map(|(address, (_, tls))| RegistryEndpoint { address, tls })
        .collect();
    endpoints.sort();
    let newest_check = speaking
        .filter(|it| it.spec.check.is_some())
        .max_by_key(|it| it.modified);
    Some(RegistryRoute {
        host: host.clone(),
        tenant,
        shared: sources.iter().any(|it| it.spec.shared),
        protocol: match protocol {
            Protocol::Http1 => UpstreamProtocol::Http1,
            Protocol::Http2 => UpstreamProtocol::Http2,
        },
        endpoints,
        check: newest_check.and_then(|it| it.spec.check.clone()),
    })
}
