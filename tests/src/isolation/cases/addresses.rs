//! By other addresses than the main one, from sources that are a lie, by way of a third.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::guard::Protocol;
use config::ports::{API_SERVER, FLANNEL_VXLAN};
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::{FAMILIES, Plan, Table, first_hop, isolated};

use crate::isolation::case::{Drop, Expectation, Group, Means, Sight};
use crate::isolation::frames::Shape;
use crate::isolation::place::{Place, link_local, nobodys_pod, pod_v6, unlisted, unmasqueraded};
use crate::isolation::services::door;

const KUBELET: u16 = 10250;
const ETCD: u16 = 2379;

pub(super) fn add(table: &mut Table<'_>) {
    for family in FAMILIES {
        unlisted_addresses(table, family);
        pod_side_addresses(table, family);
        pod_side_from_outside(table, family);
        spoofed(table, family);
        gateway(table, family);
    }
    link_local_addresses(table);
    everybody(table);
    loopback(table);
}

/// Dropped by a node; of the family that the plan will have.
fn dropped(
    node: Place,
    reason: Reason,
    sight: Sight,
    (family, protocol, port): (Family, Protocol, u16),
) -> Expectation {
    Expectation::Dropped(Drop {
        node,
        reason,
        family,
        protocol,
        port,
        sight,
    })
}

fn unlisted_addresses(table: &mut Table<'_>, family: Family) {
    use Group::OtherAddresses;
    let second = unlisted(family);
    for protocol in Protocol::ALL {
        for (from, reason, sight) in [
            (Place::Stranger, Reason::Relayed, Sight::Wire),
            (Place::F1, Reason::Relayed, Sight::Wire),
            (Place::P1, Reason::Pod, Sight::Bridge),
            // Nobody is a peer there: w2, which does not know that it is w1's, masquerades its pod.
            (Place::P2, Reason::Relayed, Sight::Later),
            (Place::M1, Reason::Relayed, Sight::Later),
            (Place::Edge, Reason::Relayed, Sight::Later),
        ] {
            let mut plan = Plan::direct(OtherAddresses, from, Place::W1, family);
            plan.to.0 = second;
            let expectation = if reason == Reason::Pod && table.pod_ports.contains(&KUBELET) {
                Expectation::Open
            } else {
                dropped(Place::W1, reason, sight, (family, protocol, KUBELET))
            };
            table.add(plan.port(protocol, KUBELET).expect(expectation));
        }
        // What is in no file is nobody's, even if a node has it.
        let mut plan = Plan::direct(OtherAddresses, Place::W1, Place::M1, family);
        plan.means = Means::Client {
            source: Some(second),
        };
        let expectation = dropped(
            Place::M1,
            Reason::Stranger,
            Sight::Wire,
            (family, protocol, ETCD),
        );
        table.add(plan.port(protocol, ETCD).expect(expectation));
    }
}

/// Nodes have addresses in the pod network too, and packets between pods are not masqueraded.
fn pod_side_addresses(table: &mut Table<'_>, family: Family) {
    for (from, node, port) in [
        (Place::P1, Place::M1, API_SERVER),
        (Place::P1, Place::M1, ETCD),
        (Place::P2, Place::W1, KUBELET),
        (Place::P1, Place::W2, KUBELET),
    ] {
        for protocol in Protocol::ALL {
            let mut plan = Plan::direct(Group::OtherAddresses, from, node, family);
            plan.to.0 = node.overlay(family);
            let expectation = if table.pod_ports.contains(&port) {
                Expectation::Open
            } else {
                dropped(node, Reason::Pod, Sight::Overlay, (family, protocol, port))
            };
            table.add(plan.port(protocol, port).expect(expectation));
        }
    }
    for (from, node, sight) in [
        (Place::P1, Place::W1, Sight::Bridge),
        (Place::P2, Place::W1, Sight::Overlay),
        (Place::Sp, Place::Solo, Sight::Bridge),
    ] {
        let mut plan = Plan::direct(Group::OtherAddresses, from, node, family);
        plan.to.0 = node.bridge(family);
        let expectation = if table.pod_ports.contains(&KUBELET) {
            Expectation::Open
        } else {
            dropped(node, Reason::Pod, sight, (family, Protocol::Tcp, KUBELET))
        };
        table.add(plan.port(Protocol::Tcp, KUBELET).expect(expectation));
    }
}

/// The same addresses from the wire: no node but the one that has them isolates their ports.
fn pod_side_from_outside(table: &mut Table<'_>, family: Family) {
    for node in Place::GUARDED {
        let to = if node == Place::M1 {
            node.overlay(family)
        } else {
            node.bridge(family)
        };
        for (protocol, port) in isolated(node) {
            let source = Place::Stranger.address(family);
            let mut plan = with_source(Place::Stranger, node, source, Group::OtherAddresses);
            plan.to.0 = to;
            plan = plan.port(protocol, port);
            if let Some(door) = door(node, protocol, port) {
                plan.lands = (door.endpoint, door.target_port);
            }
            let drop = dropped(node, Reason::Relayed, Sight::Wire, (family, protocol, port));
            table.add(plan.expect(drop));
        }
        // A port that is isolated on other nodes only, or on none.
        let other = if node == Place::M1 { KUBELET } else { 22 };
        let source = Place::Stranger.address(family);
        let mut plan = with_source(Place::Stranger, node, source, Group::OtherAddresses);
        plan.to.0 = to;
        table.add(plan.port(Protocol::Udp, other));
    }
}

fn link_local_addresses(table: &mut Table<'_>) {
    for protocol in Protocol::ALL {
        for (from, to, sight) in [
            (Place::Stranger, Place::W1.link_local(), Sight::Wire),
            (Place::P1, link_local(Place::W1.bridge_mac()), Sight::Bridge),
        ] {
            let mut plan = Plan::direct(Group::OtherAddresses, from, Place::W1, Family::V6);
            plan.to.0 = to.into();
            plan.means = Means::Frames {
                shape: Shape::Plain,
                source: from.link_local().into(),
                hop: first_hop(from, Place::W1),
            };
            let expectation = dropped(
                Place::W1,
                Reason::Relayed,
                sight,
                (Family::V6, protocol, KUBELET),
            );
            table.add(plan.port(protocol, KUBELET).expect(expectation));
        }
    }
}

/// Frames with a chosen source to a node's main address.
fn with_source(from: Place, node: Place, source: IpAddr, group: Group) -> Plan {
    let family = if source.is_ipv4() {
        Family::V4
    } else {
        Family::V6
    };
    let mut plan = Plan::direct(group, from, node, family);
    plan.means = Means::Frames {
        shape: Shape::Plain,
        source,
        hop: first_hop(from, node),
    };
    plan
}

fn spoofed(table: &mut Table<'_>, family: Family) {
    use Group::Spoofed;
    let edge = Place::Edge.address(family);
    let pod_ports = table.pod_ports;
    for protocol in Protocol::ALL {
        let mut add = |from, node: Place, source, at, reason, sight, port| {
            let plan = with_source(from, node, source, Spoofed).port(protocol, port);
            table.add(plan.expect(dropped(at, reason, sight, (family, protocol, port))));
        };
        // The target's own address. BPF knows it.
        for (node, port) in [(Place::M1, ETCD), (Place::W1, KUBELET), (Place::Solo, ETCD)] {
            let own = node.address(family);
            add(
                Place::Stranger,
                node,
                own,
                node,
                Reason::Spoofed,
                Sight::Wire,
                port,
            );
        }
        // A pod on the wire: forbidden as a pod, or where pods may go, by where it came from.
        for (from, source) in [
            (Place::Stranger, Place::P1.address(family)),
            (Place::Fp, unmasqueraded(family)),
        ] {
            for (node, port) in [
                (Place::M1, ETCD),
                (Place::M1, API_SERVER),
                (Place::W1, KUBELET),
            ] {
                let (reason, sight) = if pod_ports.contains(&port) {
                    (Reason::Spoofed, Sight::Routing)
                } else {
                    (Reason::Pod, Sight::Wire)
                };
                add(from, node, source, node, reason, sight, port);
            }
        }
        // Peers, from a pod on the same node: to it, and beyond it.
        for (source, reason, sight) in [
            (Place::M1.address(family), Reason::Spoofed, Sight::Routing),
            (Place::W2.address(family), Reason::Spoofed, Sight::Routing),
            (edge, Reason::Spoofed, Sight::Routing),
            (Place::W1.address(family), Reason::Spoofed, Sight::Bridge),
        ] {
            add(
                Place::P1,
                Place::W1,
                source,
                Place::W1,
                reason,
                sight,
                KUBELET,
            );
            add(Place::P1, Place::M1, source, Place::W1, reason, sight, ETCD);
        }
        // A pod of another node, where pods may go; one that does not answer the answer.
        for port in pod_ports.iter().filter(|port| **port == API_SERVER) {
            let other = match family {
                Family::V4 => Ipv4Addr::new(10, 244, 2, 200).into(),
                Family::V6 => pod_v6(2, 200).into(),
            };
            add(
                Place::P1,
                Place::M1,
                other,
                Place::W1,
                Reason::Spoofed,
                Sight::Routing,
                *port,
            );
        }
        // A pod that says it is somebody from far away.
        let stranger = Place::Stranger.address(family);
        add(
            Place::P1,
            Place::W1,
            stranger,
            Place::W1,
            Reason::Stranger,
            Sight::Bridge,
            KUBELET,
        );
        add(
            Place::P1,
            Place::M1,
            stranger,
            Place::W1,
            Reason::Stranger,
            Sight::Bridge,
            ETCD,
        );
    }
    for protocol in Protocol::ALL {
        // On one segment nobody but the switch can tell a peer from who says so.
        let plan = with_source(Place::Stranger, Place::M1, edge, Group::Limits);
        table.add(plan.port(protocol, ETCD));
    }
}

/// Requests that are handed to a node which is to pass them on.
fn gateway(table: &mut Table<'_>, family: Family) {
    let mut add = |from: Place, hop: Place, node: Place, protocol, port, expectation| {
        let mut plan = Plan::direct(Group::Gateway, from, node, family);
        plan.means = Means::Frames {
            shape: Shape::Plain,
            source: from.address(family),
            hop: hop.mac(),
        };
        table.add(plan.port(protocol, port).expect(expectation));
    };
    for protocol in Protocol::ALL {
        for (hop, node, port) in [
            (Place::M1, Place::W2, KUBELET),
            (Place::W1, Place::M1, ETCD),
            (Place::W2, Place::W1, KUBELET),
        ] {
            let drop = dropped(hop, Reason::Stranger, Sight::Wire, (family, protocol, port));
            add(Place::Stranger, hop, node, protocol, port, drop);
            // Peers send straight to the node they mean.
            let drop = dropped(hop, Reason::Relayed, Sight::Later, (family, protocol, port));
            add(Place::Edge, hop, node, protocol, port, drop);
            // Not isolated where it goes.
            add(Place::Stranger, hop, node, protocol, 22, Expectation::Open);
        }
        // Whether solo lets it in is solo's business.
        let drop = dropped(
            Place::Solo,
            Reason::Stranger,
            Sight::Wire,
            (family, protocol, ETCD),
        );
        add(
            Place::Stranger,
            Place::W1,
            Place::Solo,
            protocol,
            ETCD,
            drop,
        );
        // A pod's port is not the node's.
        add(
            Place::Stranger,
            Place::W1,
            Place::P1,
            protocol,
            KUBELET,
            Expectation::Open,
        );
    }
    let vxlan = dropped(
        Place::W1,
        Reason::Stranger,
        Sight::Wire,
        (family, Protocol::Udp, FLANNEL_VXLAN),
    );
    add(
        Place::Stranger,
        Place::W1,
        Place::M1,
        Protocol::Udp,
        FLANNEL_VXLAN,
        vxlan,
    );
}

/// Addresses that are nobody's own.
fn everybody(table: &mut Table<'_>) {
    let broadcast: IpAddr = Ipv4Addr::new(10, 77, 255, 255).into();
    let anycast: IpAddr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0).into();
    let all_nodes: IpAddr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into();
    let all_hosts: IpAddr = Ipv4Addr::new(224, 0, 0, 1).into();
    for (to, what) in [
        (broadcast, "broadcast"),
        (all_hosts, "multicast"),
        (anycast, "anycast"),
        (all_nodes, "multicast"),
    ] {
        let family = if to.is_ipv4() { Family::V4 } else { Family::V6 };
        for (from, expectation) in [
            (Place::Stranger, None),
            (Place::M1, Some(Expectation::Open)),
        ] {
            let source = from.address(family);
            let mut plan = with_source(from, Place::W1, source, Group::OtherAddresses);
            plan.to.0 = to;
            plan.what = what;
            let drop = dropped(
                Place::W1,
                Reason::Stranger,
                Sight::Everybody,
                (family, Protocol::Udp, KUBELET),
            );
            table.add(
                plan.port(Protocol::Udp, KUBELET)
                    .expect(expectation.unwrap_or(drop)),
            );
        }
    }
}

/// 127.0.0.1 on the wire, where `route_localnet` would let it in (CVE-2020-8558).
fn loopback(table: &mut Table<'_>) {
    for node in Place::GUARDED {
        for from in [Place::Stranger, Place::Edge, Place::M1, Place::P1] {
            if from == node || (from == Place::P1 && node != Place::W1) {
                continue;
            }
            for (protocol, port) in [
                (Protocol::Tcp, 10257),
                (Protocol::Tcp, 22),
                (Protocol::Udp, KUBELET),
            ] {
                let source = from.address(Family::V4);
                let mut plan = with_source(from, node, source, Group::Loopback);
                plan.to.0 = Ipv4Addr::LOCALHOST.into();
                plan.what = node.name();
                let sight = if from == Place::P1 {
                    Sight::Bridge
                } else {
                    Sight::Wire
                };
                let drop = dropped(node, Reason::Loopback, sight, (Family::V4, protocol, port));
                table.add(plan.port(protocol, port).expect(drop));
            }
        }
    }
    // Nothing but the routing table tells that this pod is none of the cluster's.
    for family in FAMILIES {
        let source = nobodys_pod(family);
        if table.pod_ports.contains(&API_SERVER) {
            let plan = with_source(Place::Stranger, Place::M1, source, Group::Limits);
            table.add(plan.port(Protocol::Tcp, API_SERVER));
        }
    }
}
