//! By way of Services: kube-proxy changes the destination, and masquerades the source.

use std::net::IpAddr;

use config::guard::Protocol;
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::{FAMILIES, Plan, Table, is_isolated};
use crate::isolation::case::{Drop, Expectation, Group, Sight};
use crate::isolation::place::Place;
use crate::isolation::services::{KUBERNETES, Service, TO_LOCALHOST, door, ingress, of_the_tenant};

/// Senders from outside of every node that has a kube-proxy.
const OUTSIDE: [Place; 6] = [
    Place::Stranger,
    Place::F1,
    Place::Fp,
    Place::Edge,
    Place::Edge2,
    Place::M1,
];

/// Those of them that have a route to ClusterIPs and externalIPs.
const ROUTED: [Place; 5] = [
    Place::Stranger,
    Place::F1,
    Place::Fp,
    Place::Edge,
    Place::Edge2,
];

/// The pods of both clusters.
const PODS: [Place; 3] = [Place::P1, Place::P2, Place::Sp];

/// Nodes that have one: a mere master runs no pods and knows no Services.
const TRANSLATING: [Place; 3] = [Place::W1, Place::W2, Place::Solo];

pub(super) fn add(table: &mut Table<'_>) {
    for family in FAMILIES {
        for node in TRANSLATING {
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
    (from, hit): (Place, Place),
    to: (IpAddr, u16),
    service: &Service,
    family: Family,
) -> Plan {
    let mut plan = Plan::direct(group, from, service.endpoint, family);
    plan.protocol = service.protocol;
    plan.to = to;
    plan.lands = (service.endpoint, service.target_port);
    // The endpoint's own kube-proxy sends on what comes to a door of the ingress.
    if hit != service.endpoint
        && let Some(door) = door(service.endpoint, service.protocol, service.target_port)
    {
        plan.lands = (door.endpoint, door.target_port);
    }
    plan
}

/// What becomes of it at the node that translates it.
fn judged_at(
    table: &Table<'_>,
    hit: Place,
    from: Place,
    service: &Service,
    family: Family,
) -> Expectation {
    let (protocol, port) = (service.protocol, service.target_port);
    let reason = match from.home() {
        // A node's own processes are translated as they leave, and arrive as the node's.
        None if from == hit => None,
        Some(home) if home == hit => (!table.pod_ports.contains(&port)).then_some(Reason::Pod),
        // A peer's address proves nothing here: it may be the masquerade of a pod.
        _ => Some(Reason::Relayed),
    };
    match reason {
        Some(reason) if is_isolated(service.endpoint, protocol, port) => {
            Expectation::Dropped(Drop {
                node: hit,
                reason,
                family,
                protocol,
                port,
                sight: Sight::Later,
            })
        }
        _ => Expectation::Open,
    }
}

fn node_port(table: &mut Table<'_>, hit: Place, service: &Service, family: Family) {
    let to = (hit.address(family), service.node_port);
    for from in OUTSIDE.into_iter().chain(PODS).chain([hit]) {
        let plan = translated(Group::NodePort, (from, hit), to, service, family);
        let expectation = judged_at(table, hit, from, service, family);
        table.add(plan.expect(expectation));
    }
}

fn cluster_ip(table: &mut Table<'_>, service: &Service, family: Family) {
    let to = (service.cluster_ip(family), service.port);
    // Outsiders have a route to it by w1.
    for from in ROUTED {
        let plan = translated(Group::ClusterIp, (from, Place::W1), to, service, family);
        let expectation = judged_at(table, Place::W1, from, service, family);
        table.add(plan.expect(expectation));
    }
    from_within(table, Group::ClusterIp, to, service, family);
}

fn external_ip(table: &mut Table<'_>, service: &Service, family: Family) {
    let to = (service.external_ip(family), service.port);
    // Outsiders have a route to it by w2.
    for from in ROUTED {
        let plan = translated(Group::ExternalIp, (from, Place::W2), to, service, family);
        let expectation = judged_at(table, Place::W2, from, service, family);
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
    for from in [Place::P1, Place::P2, Place::W1, Place::W2] {
        let hit = from.home().unwrap_or(from);
        let plan = translated(group, (from, hit), to, service, family);
        let expectation = judged_at(table, hit, from, service, family);
        table.add(plan.expect(expectation));
    }
}

/// What every pod does at its start.
fn kubernetes(table: &mut Table<'_>, family: Family) {
    let to = (KUBERNETES.cluster_ip(family), KUBERNETES.port);
    for from in [Place::P1, Place::P2, Place::W1, Place::W2] {
        let hit = from.home().unwrap_or(from);
        let plan = translated(Group::ClusterIp, (from, hit), to, &KUBERNETES, family);
        let expectation = judged_at(table, hit, from, &KUBERNETES, family);
        table.add(plan.expect(expectation));
    }
}

fn ingress_doors(table: &mut Table<'_>, node: Place, family: Family) {
    for service in ingress(node) {
        let to = (node.address(family), service.node_port);
        for from in OUTSIDE.into_iter().chain(PODS).chain(TRANSLATING) {
            // An isolated port before the translation; the pod's own port is nobody's business.
            let expectation = table.expected(from, node, family, Protocol::Tcp, service.node_port);
            let plan = translated(Group::Ingress, (from, node), to, &service, family);
            table.add(plan.expect(expectation));
        }
    }
}

/// Translations to the node's own 127.0.0.1, which `route_localnet` makes possible.
fn localhost(table: &mut Table<'_>) {
    for (port, target) in TO_LOCALHOST {
        for from in [Place::Stranger, Place::F1, Place::Edge, Place::Sp] {
            let mut plan = Plan::direct(Group::Loopback, from, Place::Solo, Family::V4);
            plan.to.1 = port;
            plan.lands.1 = target;
            plan.what = "to 127.0.0.1";
            if is_isolated(Place::Solo, Protocol::Tcp, target) {
                let is_pod = from == Place::Sp;
                plan.expectation = Expectation::Dropped(Drop {
                    node: Place::Solo,
                    reason: if is_pod { Reason::Pod } else { Reason::Relayed },
                    family: Family::V4,
                    protocol: Protocol::Tcp,
                    port: target,
                    sight: Sight::Later,
                });
            }
            table.add(plan);
        }
    }
}
