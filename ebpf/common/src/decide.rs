//! The decision: pass or drop.

use crate::packet::Flow;
use crate::table::{
    FLAG_OWN, FLAG_PEER, FLAG_POD, Family, HAS_RANGES4, HAS_RANGES6, PortEntry, Reason, Transport,
};

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// On to whatever comes next, nftables among it.
    Pass,
    /// It ends here.
    Drop {
        /// Why.
        reason: Reason,
        /// Where it counts.
        slot: u8,
    },
}

/// The policy: maps in the kernel, trees on the host. An address is in the first four bytes if the
/// family is IPv4.
pub trait Tables {
    /// Whether and how a port is isolated.
    fn port(&self, transport: Transport, port: u16) -> PortEntry;
    /// Classes of a destination; 0 where it is nobody of ours.
    fn destination(&self, family: Family, address: &[u8; 16]) -> u8;
    /// Flags of a single source; 0 where it is not known.
    fn host(&self, family: Family, address: &[u8; 16]) -> u8;
    /// [`HAS_RANGES4`] and [`HAS_RANGES6`].
    fn config(&self) -> u32;
    /// Flags of the longest range that a source lies in; 0 where it lies in none.
    fn range(&self, family: Family, address: &[u8; 16]) -> u8;
}

/// Judges a packet that came in from outside; `lo` is never asked about.
///
/// The cheapest questions come first, since nearly every packet on a node is somebody else's.
#[inline(always)]
pub fn decide<T: Tables>(flow: &Flow, tables: &T) -> Action {
    // Linux delivers these where route_localnet is set, and kube-proxy sets it (CVE-2020-8558).
    if let Family::V4 = flow.family
        && flow.destination[0] == 127
    {
        return Action::Drop {
            reason: Reason::Loopback,
            slot: 0,
        };
    }
    if let Transport::Other = flow.transport {
        return Action::Pass;
    }
    let entry = tables.port(flow.transport, flow.destination_port);
    if entry.0 == 0 {
        return Action::Pass;
    }
    if entry.classes() & tables.destination(flow.family, &flow.destination) == 0 {
        return Action::Pass;
    }
    match refusal(flow, entry, tables) {
        None => Action::Pass,
        Some(reason) => Action::Drop {
            reason,
            slot: entry.slot(),
        },
    }
}

/// Why this source may not reach an isolated port, if so.
#[inline(always)]
fn refusal<T: Tables>(flow: &Flow, entry: PortEntry, tables: &T) -> Option<Reason> {
    let mut flags = tables.host(flow.family, &flow.source);
    if flags & FLAG_OWN != 0 {
        return Some(Reason::Spoofed);
    }
    if flags & FLAG_PEER != 0 {
        return None;
    }
    let has_ranges = match flow.family {
        Family::V4 => HAS_RANGES4,
        Family::V6 => HAS_RANGES6,
    };
    if tables.config() & has_ranges != 0 {
        flags |= tables.range(flow.family, &flow.source);
    }
    if flags & FLAG_PEER != 0 {
        return None;
    }
    if flags & FLAG_POD == 0 {
        return Some(Reason::Stranger);
    }
    if entry.pods_may() {
        return None;
    }
    Some(Reason::Pod)
}
