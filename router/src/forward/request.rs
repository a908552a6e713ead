//! The decision on one request, pure: the same function answers `router explain`.

use std::sync::Arc;

use super::respond::Answer;
use crate::route::{Host, RouteTarget};
use crate::snapshot::Snapshot;
use crate::tls::CertEntry;

/// Where a request goes, by the host it names. `host` is the authority without its port.
///
/// The order matters: a host that the served certificate does not cover is refused before routes
/// are looked at, so that a connection made for one tenant tells nothing about another's names.
pub(crate) fn decide<'s>(
    snapshot: &'s Snapshot,
    certificate: &CertEntry,
    host: &str,
) -> Result<&'s Arc<RouteTarget>, Answer> {
    let host = Host::parse(host).map_err(|_| Answer::new(400, "invalid-host"))?;
    if !certificate.covers(&host) {
        // RFC 9110, section 15.5.20: clients may try again on another connection.
        return Err(Answer::new(421, "host-not-covered-by-certificate"));
    }
    snapshot
        .routes
        .lookup(&host)
        .ok_or(Answer::new(404, "unknown-host"))
}
