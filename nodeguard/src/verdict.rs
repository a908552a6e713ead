//! The reference verdict: what has to become of a packet, said without nftables and without BPF.
//!
//! `nodeguard explain` shows it, the isolation matrix expects it, and the property tests hold both
//! planes against it.

use std::fmt;
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;
use serde::Serialize;

use crate::policy::{Owner, Policy};

/// What the decision is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who claims to have sent it.
    pub source: IpAddr,
    /// Whom it is for.
    pub destination: IpAddr,
    /// Its protocol above IP.
    pub protocol: Protocol,
    /// Its destination port.
    pub port: u16,
    /// How it came and where it goes, which the addresses do not say.
    pub way: Way,
}

/// What only the node that a packet is on knows about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// It came in by the loopback device: the node talks to itself.
    pub by_loopback: bool,
    /// Its destination is an address of this node, be it in a file or not.
    pub is_here: bool,
    /// An answer would leave by the device that it came by.
    pub reverse_path: bool,
}

/// What becomes of a packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "verdict", content = "because")]
pub enum Verdict {
    /// The guard lets it through.
    Pass(Pass),
    /// The guard drops it.
    Drop(Reason),
}

/// Why a packet passes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pass {
    /// The node talks to itself.
    Loopback,
    /// The port is isolated nowhere.
    NotIsolated,
    /// The port is isolated, but the destination does not have it: another role's, or no node of
    /// this cluster.
    NotIsolatedThere,
    /// From a node of the cluster.
    Node(String),
    /// From a router.
    Router(String),
    /// From a pod of the cluster, to a port that pods may reach.
    AllowedPod(IpRange),
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its source is neither a node of the cluster nor a router.
    Stranger,
    /// Its source is a pod of the cluster, and pods may not reach the port.
    Pod,
    /// Its source is let in, but does not send by this way: somebody borrowed the address.
    Spoofed,
    /// It came from outside for 127.0.0.0/8.
    Loopback,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Stranger, Self::Pod, Self::Spoofed, Self::Loopback];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Pod => "pod",
            Self::Spoofed => "spoofed",
            Self::Loopback => "loopback",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Judges a packet that arrives at this node, before anybody changes its destination.
///
/// After a change (kube-proxy's DNAT) the node asks once more, with the new destination and the
/// same source: call this with them and with `is_changed`.
#[must_use]
pub fn judge(policy: &Policy, packet: &Packet, is_changed: bool) -> Verdict {
    if packet.way.by_loopback {
        return Verdict::Pass(Pass::Loopback);
    }
    let is_loopback = matches!(packet.destination, IpAddr::V4(it) if it.is_loopback());
    if is_loopback && !is_changed {
        return Verdict::Drop(Reason::Loopback);
    }
    let isolated = policy.isolated();
    let Some(owners) = isolated.get(&(packet.protocol, packet.port)) else {
        return Verdict::Pass(Pass::NotIsolated);
    };
    if !has_port(policy, packet, owners) {
        return Verdict::Pass(Pass::NotIsolatedThere);
    }
    match source(policy, packet) {
        Verdict::Pass(_) if policy.reverse_path && !packet.way.reverse_path => {
            Verdict::Drop(Reason::Spoofed)
        }
        verdict => verdict,
    }
}

/// Whether the destination is a node of this cluster that has one of these owners' ports.
fn has_port(policy: &Policy, packet: &Packet, owners: &[Owner]) -> bool {
    let covered = |role| owners.iter().any(|owner: &Owner| owner.covers(role));
    let here = packet.way.is_here && covered(policy.role);
    let mut nodes = policy.nodes.values();
    here || nodes.any(|node| node.addresses.contains(&packet.destination) && covered(node.role))
}

fn source(policy: &Policy, packet: &Packet) -> Verdict {
    for (name, node) in &policy.nodes {
        if node.addresses.contains(&packet.source) {
            return Verdict::Pass(Pass::Node(name.clone()));
        }
    }
    for (name, ranges) in &policy.routers {
        if ranges.iter().any(|range| range.contains(packet.source)) {
            return Verdict::Pass(Pass::Router(name.clone()));
        }
    }
    match policy.pods.iter().find(|it| it.contains(packet.source)) {
        Some(range) if policy.pod_ports.contains(&packet.port) => {
            Verdict::Pass(Pass::AllowedPod(*range))
        }
        Some(_) => Verdict::Drop(Reason::Pod),
        None => Verdict::Drop(Reason::Stranger),
    }
}
