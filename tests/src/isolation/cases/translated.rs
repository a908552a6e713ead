//! By way of Services: kube-proxy changes the destination, and masquerades the source.

use std::net::IpAddr;

use config::guard::Protocol;
use config::ports::{INGRESS_HTTP, INGRESS_HTTPS};
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::{FAMILIES, Plan, Table, is_isolated, is_peer};
use crate::isolation::case::{Drop, Expectation, Group, Sight};
use crate::isolation::place::Place;
use crate::isolation::services::{
    KUBERNETES, LOCALHOST_NODE_PORT, LOCALHOST_TARGET, Service, ingress, of_the_tenant,
};

/// Senders from outside of every node.
const OUTSIDE: [Place; 5] = [
    Place::Stranger,
    Place::F1,
    Place::Fp,
    Place::Edge,
    Place::Edge2,
];

pub(super) fn add(table: &mut Table<'_>) {
    for family in FAMILIES {
        for node in Place::GUARDED {
            ingress_doors(table, node, family);
            for service in of_the_tenant(node) {
                node_port(table, node, &service, family);
            }
        }
        for service in of_the_tenant(Place::W1) {
            cluster_ip(table, &service, family);
            external_ip(table, &service, family);
        }
        kubernetes(table, family);
    }
    localhost(table);
}

/// A request that `hit` translates.
fn translated(
    group: Group,
    from: Place,
    to: (IpAddr, u16),
    service: &Service,
    family: Family,
) -> Plan {
    let mut plan = Plan::direct(group, from, service.endpoint, family);
    plan.protocol = service.protocol;
    plan.to = to;
    plan.lands.1 = service.target_port;
    plan
}

/// What becomes of it at the node that translates it.
fn judged_at(table: &Table<'_>, hit: Place, from: Place, service: &Service) -> Expectation {
    let (protocol, port) = (service.protocol, service.target_port);
    let reason = match from.home() {
        Some(home) if home == hit => {
            (!table.pod_ports.contains(&port)).then_some(Reason::Pod)
        }
        _ => (!is_peer(from, hit)).then_some(Reason::Stranger),
    };
    match reason {
        Some(reason) if is_isolated(service.endpoint, protocol, port) => {
            Expectation::Dropped(Drop {
                node: hit,
                reason,
                protocol,
                port,
                sight: Sight::Translated,
            })
        }
        _ => Expectation::Open,
    }
}

fn node_port(table: &mut Table<'_>, hit: Place, service: &Service, family: Family) {
    let to = (hit.address(family), service.node_port);
    let pod = hit.pod();
    // A node's own processes are translated as they leave.
    for from in OUTSIDE.into_iter().chain(pod).chain([hit]) {
        let plan = translated(Group::NodePort, from, to, service, family);
        let expectation = judged_at(table, hit, from, service);
        table.add(plan.expect(expectation));
    }
    // A pod of another node comes with the address of its node.
    if Place::ACME.contains(&hit) {
        for from in [Place::P1, Place::P2] {
            if from.home() != Some(hit) {
                table.add(translated(Group::Limits, from, to, service, family));
            }
        }
    }
}

fn cluster_ip(table: &mut Table<'_>, service: &Service, family: Family) {
    let to = (service.cluster_ip(family), service.port);
    // Outsiders have a route to it by w1.
    for from in OUTSIDE {
        let plan = translated(Group::ClusterIp, from, to, service, family);
        let expectation = judged_at(table, Place::W1, from, service);
        table.add(plan.expect(expectation));
    }
    from_within(table, Group::ClusterIp, to, service, family);
}

fn external_ip(table: &mut Table<'_>, service: &Service, family: Family) {
    let to = (service.external_ip(family), service.port);
    // Outsiders have a route to it by w2.
    for from in OUTSIDE {
        let plan = translated(Group::ExternalIp, from, to, service, family);
        let expectation = judged_at(table, Place::W2, from, service);
        table.add(plan.expect(expectation));
    }
    from_within(table, Group::ExternalIp, to, service, family);
}

fn from_within(
    table: &mut Table<'_>,
    group: Group,
    to: (IpAddr, u16),
    service: &Service,
    family: Family,
) {
    for from in [Place::P1, Place::P2, Place::M1, Place::W1] {
        let plan = translated(group, from, to, service, family);
        let hit = from.home().unwrap_or(from);
        let expectation = judged_at(table, hit, from, service);
        table.add(plan.expect(expectation));
    }
}

/// What every pod does at its start.
fn kubernetes(table: &mut Table<'_>, family: Family) {
    let to = (KUBERNETES.cluster_ip(family), KUBERNETES.port);
    for from in [Place::P1, Place::P2, Place::M1, Place::W1] {
        let plan = translated(Group::ClusterIp, from, to, &KUBERNETES, family);
        let hit = from.home().unwrap_or(from);
        let expectation = judged_at(table, hit, from, &KUBERNETES);
        table.add(plan.expect(expectation));
    }
}

fn ingress_doors(table: &mut Table<'_>, node: Place, family: Family) {
    for service in ingress(node) {
        let to = (node.address(family), service.node_port);
        for from in OUTSIDE.into_iter().chain(Place::ACME).chain(node.pod()) {
            let mut group = Group::Ingress;
            let mut expectation = table.expected(from, node, Protocol::Tcp, service.node_port);
            // A pod at the door of another node is stopped at home.
            if node == Place::M1 && !is_peer(from, node) {
                // Not a master's port, but kube-proxy opens it there as well.
                group = Group::Limits;
                expectation = Expectation::Open;
            }
            let plan = translated(group, from, to, &service, family);
            table.add(plan.expect(expectation));
        }
    }
    debug_assert_eq!([INGRESS_HTTP, INGRESS_HTTPS], [31380, 31390]);
}

/// A translation to the node's own 127.0.0.1, which `route_localnet` makes possible.
fn localhost(table: &mut Table<'_>) {
    for from in [Place::Stranger, Place::F1, Place::Fp, Place::Edge, Place::W1] {
        let mut plan = Plan::direct(Group::Loopback, from, Place::M1, Family::V4);
        plan.to.1 = LOCALHOST_NODE_PORT;
        plan.lands.1 = LOCALHOST_TARGET;
        plan.what = "to 127.0.0.1";
        if !is_peer(from, Place::M1) {
            plan.expectation = Expectation::Dropped(Drop {
                node: Place::M1,
                reason: Reason::Stranger,
                protocol: Protocol::Tcp,
                port: LOCALHOST_TARGET,
                sight: Sight::Translated,
            });
        }
        table.add(plan);
    }
}
