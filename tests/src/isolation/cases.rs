//! The table of cases.
//!
//! Expectations are said here in the terms of the topology, by hand, and not asked of the product:
//! that both agree is a test.

mod addresses;
mod crafted;
mod direct;
mod translated;

use std::net::IpAddr;

use config::guard::Protocol;
use config::ports::{self, FLANNEL_VXLAN};
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::case::{Case, Drop, Expectation, Group, Means, Sight, family_name};
use super::frames::Shape;
use super::place::{Mac, Place};
use super::services::protocol_name;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];
/// What a stranger may always reach.
const OPEN_PORTS: [u16; 2] = [22, 80];

/// Every case, for clusters whose pods may reach these isolated ports.
#[must_use]
pub fn all(pod_ports: &[u16]) -> Vec<Case> {
    let mut table = Table {
        pod_ports,
        cases: Vec::new(),
    };
    direct::add(&mut table);
    addresses::add(&mut table);
    translated::add(&mut table);
    crafted::add(&mut table);
    table.cases
}

/// Cases in the making.
struct Table<'a> {
    pod_ports: &'a [u16],
    cases: Vec<Case>,
}

/// The part of a case that its groups differ in.
struct Plan {
    group: Group,
    /// Goes into the name.
    what: &'static str,
    from: Place,
    means: Means,
    protocol: Protocol,
    family: Family,
    to: (IpAddr, u16),
    lands: (Place, u16),
    expectation: Expectation,
}

impl Plan {
    /// From a socket to a node's main address.
    fn direct(group: Group, from: Place, to: Place, family: Family) -> Self {
        Self {
            group,
            what: "",
            from,
            means: Means::Client { source: None },
            protocol: Protocol::Tcp,
            family,
            to: (to.address(family), 0),
            lands: (to, 0),
            expectation: Expectation::Open,
        }
    }

    fn port(mut self, protocol: Protocol, port: u16) -> Self {
        self.protocol = protocol;
        self.to.1 = port;
        self.lands.1 = port;
        self
    }

    fn expect(mut self, expectation: Expectation) -> Self {
        self.expectation = expectation;
        self
    }
}

impl Table<'_> {
    fn add(&mut self, plan: Plan) {
        let Plan {
            group,
            what,
            from,
            means,
            protocol,
            family,
            to,
            lands,
            expectation,
        } = plan;
        let shape = match means {
            Means::Client { source: None } => String::new(),
            Means::Client {
                source: Some(source),
            } => format!(" as {source}"),
            Means::Frames { shape, source, .. } if source == from.address(family) => {
                format!(", {}", shape.name())
            }
            Means::Frames { shape, source, .. } => format!(" as {source}, {}", shape.name()),
            Means::Vxlan { to, source } => format!(" as {source}, in VXLAN to {to}"),
        };
        let what = if what.is_empty() {
            String::new()
        } else {
            format!(" ({what})")
        };
        let name = format!(
            "{}: {from} -> {} {} {}{shape}{what}",
            group.name(),
            std::net::SocketAddr::new(to.0, to.1),
            protocol_name(protocol),
            family_name(family),
        );
        // TCP sockets listen on every address. UDP answers by the main addresses and by loopback
        // only, and port 8472 is the kernel's where there is a VXLAN device.
        let is_client = matches!(means, Means::Client { .. });
        let answered = is_client
            && match protocol {
                Protocol::Tcp => true,
                Protocol::Udp => {
                    lands.1 != FLANNEL_VXLAN
                        && lands.0.role().is_some()
                        && (to.0 == lands.0.address(family)
                            || to.0.is_loopback()
                            || group == Group::NodePort
                            || group == Group::ClusterIp
                            || group == Group::ExternalIp)
                }
                Protocol::Sctp => false,
            };
        self.cases.push(Case {
            name,
            group,
            from,
            means,
            protocol,
            family,
            to,
            lands,
            answered,
            expectation,
        });
    }

    /// What becomes of a request from one place to a port of a node, by the node's main address.
    fn expected(
        &self,
        from: Place,
        node: Place,
        family: Family,
        protocol: Protocol,
        port: u16,
    ) -> Expectation {
        if !is_isolated(node, protocol, port) {
            return Expectation::Open;
        }
        let drop = |node, reason, sight| {
            Expectation::Dropped(Drop {
                node,
                reason,
                family,
                protocol,
                port,
                sight,
            })
        };
        match from.home() {
            // Its own node stops it, before the masquerade.
            Some(home) if from.same_cluster(node) => {
                if self.pod_ports.contains(&port) {
                    Expectation::Open
                } else {
                    drop(home, Reason::Pod, Sight::Bridge)
                }
            }
            // Another cluster's pod comes with the address of its node.
            _ if is_peer(from, node) => Expectation::Open,
            _ => drop(node, Reason::Stranger, Sight::Wire),
        }
    }
}

/// Whether a node lets a host in everywhere.
fn is_peer(host: Place, node: Place) -> bool {
    matches!(host, Place::Edge | Place::Edge2) || host.same_cluster(node)
}

/// Isolated ports of a node, as (protocol, port).
fn isolated(node: Place) -> Vec<(Protocol, u16)> {
    let role = node.role().expect("a guarded node");
    let mut all: Vec<_> = ports::of(role)
        .flat_map(|entry| Protocol::ALL.map(|protocol| (protocol, entry.port)))
        .collect();
    all.push((Protocol::Udp, FLANNEL_VXLAN));
    all
}

fn is_isolated(node: Place, protocol: Protocol, port: u16) -> bool {
    isolated(node).contains(&(protocol, port))
}

/// Who gets a sender's frames for a node: itself, or the gateway of a pod.
fn first_hop(from: Place, to: Place) -> Mac {
    match from.home() {
        Some(node) => node.bridge_mac(),
        None => to.mac(),
    }
}

/// What no guard is needed for.
fn kernel_drops(shape: Shape) -> Option<Expectation> {
    (shape == Shape::PortlessFragment).then_some(Expectation::Kernel(
        "a first fragment must hold the transport header (RFC 8200, section 4.5)",
    ))
}
