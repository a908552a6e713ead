//! The reference verdict: what has to become of a packet, said without nftables and without BPF.
//!
//! `nodeguard explain` shows it, the isolation matrix expects it, and the property tests hold both
//! planes against it.

use std::fmt;
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;
use serde::{Deserialize, Serialize};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Its source is neither a node of the cluster nor a router.
    Stranger,
    /// Its source is a pod of the cluster, and pods may not reach the port.
    Pod,
    /// It comes by a way on which a peer's address proves nothing, and not from a pod: forwarded, or
    /// with a destination that was changed here, or to an address of this node that is in no file.
    /// Peers send straight to the address that the files name.
    Relayed,
    /// Its source is let in, but does not send by this way: somebody borrowed the address.
    Spoofed,
    /// It came from outside for 127.0.0.0/8.
    Loopback,
}

impl Reason {
    /// Every one.
    pub const ALL: [Self; 5] = [
        Self::Stranger,
        Self::Pod,
        Self::Relayed,
        Self::Spoofed,
        Self::Loopback,
    ];

    /// Its name in metrics and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stranger => "stranger",
            Self::Pod => "pod",
            Self::Relayed => "relayed",
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

/// Where a node asks: first when a packet arrives, then once more with the destination that it
/// has in the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// As it arrives, before anybody changes its destination.
    Arrival,
    /// It is for this node, as it was from the beginning.
    Delivery,
    /// It is for this node since its destination was changed here (kube-proxy's DNAT).
    ChangedDelivery,
    /// This node passes it on to another.
    Forwarding,
}

/// Judges a packet at one stage.
#[must_use]
pub fn judge(policy: &Policy, packet: &Packet, stage: Stage) -> Verdict {
    if packet.way.by_loopback {
        return Verdict::Pass(Pass::Loopback);
    }
    let is_loopback = matches!(packet.destination, IpAddr::V4(it) if it.is_loopback());
    if is_loopback && stage == Stage::Arrival {
        return Verdict::Drop(Reason::Loopback);
    }
    let isolated = policy.isolated();
    let Some(owners) = isolated.get(&(packet.protocol, packet.port)) else {
        return Verdict::Pass(Pass::NotIsolated);
    };
    let covered = |role| owners.iter().any(|owner: &Owner| owner.covers(role));
    let mut nodes = policy.nodes.values();
    let is_listed =
        nodes.any(|node| node.addresses.contains(&packet.destination) && covered(node.role));
    let is_here = packet.way.is_here && covered(policy.role);
    if !is_listed && !is_here {
        return Verdict::Pass(Pass::NotIsolatedThere);
    }
    let is_relayed = match stage {
        Stage::Arrival => !is_listed,
        Stage::Delivery => false,
        // Tenants have no say in what a mere master does with a destination.
        Stage::ChangedDelivery => policy.role.is_worker(),
        Stage::Forwarding => true,
    };
    let verdict = match peer(policy, packet).filter(|_| !is_relayed) {
        Some(peer) => Verdict::Pass(peer),
        None => pod_or(
            policy,
            packet,
            if is_relayed {
                Reason::Relayed
            } else {
                Reason::Stranger
            },
        ),
    };
    match verdict {
        Verdict::Pass(_) if policy.reverse_path && !packet.way.reverse_path => {
            Verdict::Drop(Reason::Spoofed)
        }
        verdict => verdict,
    }
}

/// Judges a packet at its arrival, and where it then goes if nobody changes its destination.
#[must_use]
pub fn judge_direct(policy: &Policy, packet: &Packet) -> Verdict {
    let next = if packet.way.is_here {
        Stage::Delivery
    } else {
        Stage::Forwarding
    };
    match judge(policy, packet, Stage::Arrival) {
        Verdict::Pass(_) => judge(policy, packet, next),
        drop => drop,
    }
}

/// The node or router that the source belongs to.
fn peer(policy: &Policy, packet: &Packet) -> Option<Pass> {
    let mut nodes = policy.nodes.iter();
    if let Some((name, _)) = nodes.find(|(_, node)| node.addresses.contains(&packet.source)) {
        return Some(Pass::Node(name.clone()));
    }
    let mut routers = policy.routers.iter();
    let of = |ranges: &[IpRange]| ranges.iter().any(|range| range.contains(packet.source));
    let (name, _) = routers.find(|(_, ranges)| of(ranges))?;
    Some(Pass::Router(name.clone()))
}

fn pod_or(policy: &Policy, packet: &Packet, otherwise: Reason) -> Verdict {
    match policy.pods.iter().find(|it| it.contains(packet.source)) {
        Some(range) if policy.pod_ports.contains(&packet.port) => {
            Verdict::Pass(Pass::AllowedPod(*range))
        }
        Some(_) => Verdict::Drop(Reason::Pod),
        None => Verdict::Drop(otherwise),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Node;
    use config::roles::Role;

    const HERE: Way = Way {
        by_loopback: false,
        is_here: true,
        reverse_path: true,
    };
    const ELSEWHERE: Way = Way {
        is_here: false,
        ..HERE
    };

    /// On worker w1 (10.0.0.11) with a master, a router and pods.
    fn policy() -> Policy {
        let mut policy = Policy::shut("acme", "w1", Some(Role::Worker));
        for (name, role, address) in [
            ("m1", Role::Master, "10.0.0.1"),
            ("w1", Role::Worker, "10.0.0.11"),
        ] {
            let addresses = vec![address.parse().unwrap()];
            policy
                .nodes
                .insert(name.to_owned(), Node { role, addresses });
        }
        let edge = vec![IpRange::parse("192.0.2.0/28").unwrap()];
        policy.routers.insert("edge".to_owned(), edge);
        policy.pods.push(IpRange::parse("10.244.0.0/16").unwrap());
        policy.pod_ports.push(8443);
        policy
    }

    fn packet(source: &str, destination: &str, port: u16, way: Way) -> Packet {
        Packet {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol: Protocol::Tcp,
            port,
            way,
        }
    }

    #[track_caller]
    fn judged(packet: Packet, stage: Stage, expected: Verdict) {
        assert_eq!(
            judge(&policy(), &packet, stage),
            expected,
            "{packet:?} {stage:?}"
        );
    }

    #[test]
    fn who_is_let_in_on_arrival() {
        let own = "10.0.0.11";
        let pass = |packet, why| judged(packet, Stage::Arrival, Verdict::Pass(why));
        let drop = |packet, why| judged(packet, Stage::Arrival, Verdict::Drop(why));
        pass(
            packet("10.0.0.1", own, 10250, HERE),
            Pass::Node("m1".into()),
        );
        pass(
            packet("192.0.2.3", own, 31390, HERE),
            Pass::Router("edge".into()),
        );
        drop(packet("192.0.2.16", own, 31390, HERE), Reason::Stranger);
        drop(packet("10.244.1.2", own, 10250, HERE), Reason::Pod);
        pass(packet("198.51.100.1", own, 22, HERE), Pass::NotIsolated);
        // etcd's port is a master's: not isolated on a worker, isolated towards a master.
        pass(
            packet("198.51.100.1", own, 2379, HERE),
            Pass::NotIsolatedThere,
        );
        drop(
            packet("10.244.1.2", "10.0.0.1", 2379, ELSEWHERE),
            Reason::Pod,
        );
        pass(
            packet("10.244.1.2", "10.0.0.1", 8443, ELSEWHERE),
            Pass::AllowedPod(IpRange::parse("10.244.0.0/16").unwrap()),
        );
        // By an address that no file names a peer's address proves nothing.
        drop(
            packet("198.51.100.1", "10.244.1.1", 10250, HERE),
            Reason::Relayed,
        );
        drop(
            packet("10.0.0.1", "10.244.1.1", 10250, HERE),
            Reason::Relayed,
        );
        drop(
            packet("198.51.100.1", "127.0.0.1", 22, HERE),
            Reason::Loopback,
        );
        let spoofed = Way {
            reverse_path: false,
            ..HERE
        };
        drop(packet("10.0.0.1", own, 10250, spoofed), Reason::Spoofed);
        drop(
            packet("198.51.100.1", own, 10250, spoofed),
            Reason::Stranger,
        );
        let loopback = Way {
            by_loopback: true,
            ..HERE
        };
        pass(
            packet("127.0.0.1", "127.0.0.1", 10250, loopback),
            Pass::Loopback,
        );
    }

    #[test]
    fn nobody_but_pods_comes_by_way_of_a_node() {
        // A masqueraded packet wears a node's address.
        let walked = packet("10.0.0.1", "10.0.0.1", 2379, ELSEWHERE);
        judged(
            walked,
            Stage::Arrival,
            Verdict::Pass(Pass::Node("m1".into())),
        );
        judged(walked, Stage::Forwarding, Verdict::Drop(Reason::Relayed));
        let turned = packet("10.0.0.1", "10.0.0.11", 10250, HERE);
        judged(
            turned,
            Stage::Delivery,
            Verdict::Pass(Pass::Node("m1".into())),
        );
        judged(
            turned,
            Stage::ChangedDelivery,
            Verdict::Drop(Reason::Relayed),
        );
        let pod = packet("10.244.1.2", "10.0.0.1", 8443, ELSEWHERE);
        let range = IpRange::parse("10.244.0.0/16").unwrap();
        judged(
            pod,
            Stage::Forwarding,
            Verdict::Pass(Pass::AllowedPod(range)),
        );
        assert_eq!(
            judge_direct(&policy(), &walked),
            Verdict::Drop(Reason::Relayed),
            "a node is nobody's gateway"
        );
    }
}
