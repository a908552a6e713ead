//! By the main address of a node, with sockets like anybody's.

use config::guard::Protocol;
use config::ports::{FLANNEL_VXLAN, INGRESS_HTTP, INGRESS_HTTPS};
use nodeguard::ruleset::Family;

use super::{FAMILIES, OPEN_PORTS, Plan, Table, is_peer, isolated};
use crate::isolation::case::Group;
use crate::isolation::place::Place;

pub(super) fn add(table: &mut Table<'_>) {
    for node in Place::GUARDED {
        for family in FAMILIES {
            for from in Place::ALL {
                for (protocol, port) in heard_here(node) {
                    let plan = Plan::direct(group(from, node), from, node, family);
                    let expectation = table.expected(from, node, family, protocol, port);
                    table.add(plan.port(protocol, port).expect(expectation));
                }
                for port in OPEN_PORTS {
                    let plan = Plan::direct(Group::OpenPorts, from, node, family);
                    table.add(plan.port(Protocol::Tcp, port));
                }
            }
            by_loopback(table, node, family);
        }
    }
    // Masters do not isolate workers' ports, nor workers masters'.
    for (node, port) in [(Place::M1, 10250), (Place::W1, 2379)] {
        for family in FAMILIES {
            let plan = Plan::direct(Group::OpenPorts, Place::Stranger, node, family);
            table.add(plan.port(Protocol::Udp, port));
        }
    }
    between_pods(table);
    outwards(table);
}

fn group(from: Place, node: Place) -> Group {
    match from.home() {
        _ if from == node => Group::Itself,
        Some(_) if from.same_cluster(node) => Group::Pods,
        None if is_peer(from, node) => Group::Peers,
        None if from == Place::Stranger => Group::Strangers,
        _ => Group::Foreign,
    }
}

/// Isolated ports that the node itself answers at: the ingress' doors lead to pods, and have cases
/// of their own.
fn heard_here(node: Place) -> Vec<(Protocol, u16)> {
    let is_door = |port| [INGRESS_HTTP, INGRESS_HTTPS].contains(&port);
    let mut ports = isolated(node);
    ports.retain(|(protocol, port)| *protocol != Protocol::Tcp || !is_door(*port));
    ports
}

fn by_loopback(table: &mut Table<'_>, node: Place, family: Family) {
    let address = match family {
        Family::V4 => [127, 0, 0, 1].into(),
        Family::V6 => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    for (protocol, port) in heard_here(node) {
        let mut plan = Plan::direct(Group::Itself, node, node, family).port(protocol, port);
        plan.to.0 = address;
        table.add(plan);
    }
}

/// Pods among each other are NetworkPolicy's business, whatever the port's number.
fn between_pods(table: &mut Table<'_>) {
    for (from, to) in [(Place::P1, Place::P2), (Place::P2, Place::P1)] {
        for family in FAMILIES {
            for port in [8080, 10250] {
                let plan = Plan::direct(Group::OpenPorts, from, to, family);
                table.add(plan.port(Protocol::Tcp, port));
            }
        }
    }
}

/// Whom the nodes and pods themselves talk to, whatever the port's number: answers come back.
fn outwards(table: &mut Table<'_>) {
    let within = [
        Place::M1,
        Place::W1,
        Place::Solo,
        Place::P1,
        Place::P2,
        Place::Sp,
    ];
    for from in within {
        for family in FAMILIES {
            let ports = [
                (Protocol::Tcp, 22),
                (Protocol::Udp, 2379),
                (Protocol::Udp, 10250),
                (Protocol::Udp, FLANNEL_VXLAN),
            ];
            for (protocol, port) in ports {
                let plan = Plan::direct(Group::OpenPorts, from, Place::Stranger, family);
                table.add(plan.port(protocol, port));
            }
        }
    }
}
