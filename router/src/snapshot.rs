//! What a request may look at: one immutable value behind one pointer.
//!
//! `control` builds a snapshot from files and the registry and publishes it; every worker holds a
//! cached reference and a request keeps the snapshot it began with. A bad file never produces one.
//! What a change did not touch is shared with the snapshot before.

use std::net::IpAddr;
use std::sync::Arc;

use config::net::IpRange;
use config::router::{Limits, RedirectStatus, Timeouts};

use crate::http1::head::HeadLimits;
use crate::route::RouteTable;
use crate::tls::CertificateStore;

/// Everything the data plane needs, as of one change.
pub struct Snapshot {
    /// Counts up with every published snapshot, from 1.
    pub generation: u64,
    /// Host rules to upstreams.
    pub routes: RouteTable,
    /// Server certificates by SNI.
    pub certificates: Arc<CertificateStore>,
    /// Settings that may change while connections live.
    pub settings: Arc<Settings>,
}

/// The settings of `router.yaml` that the request path reads.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Status of the plain-HTTP redirect.
    pub redirect: RedirectStatus,
    /// Port written into redirects; 443 is left out.
    pub https_port: u16,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
    /// Peers whose forwarding headers are kept.
    pub trusted_proxies: Vec<IpRange>,
    /// Protocols a request may switch to, lower case.
    pub upgrades: Vec<String>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large things may be.
    pub limits: Limits,
    /// Whether requests are logged.
    pub access_log: bool,
}

impl Settings {
    /// Limits of a head, as the parser takes them.
    pub(crate) fn head_limits(&self) -> HeadLimits {
        HeadLimits {
            bytes: self.limits.head_bytes,
            fields: self.limits.head_fields,
        }
    }

    /// Whether the forwarding headers of `peer` are kept.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|range| range.contains(peer))
    }
}
