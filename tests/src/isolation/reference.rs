//! What the reference verdict (`nodeguard explain`) says of a case that no Service translates.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Result;
use config::net::IpRange;
use nodeguard::devices::Devices;
use nodeguard::explain::{Question, explain};
use nodeguard::policy::Policy;
use nodeguard::verdict::Verdict;

use super::case::{Case, Expectation, Group, Means, Sight};
use super::guards::policy;
use super::place::Place;
use super::topology::Topology;

/// The policies and addresses of all nodes.
#[derive(Debug)]
pub struct Reference {
    nodes: BTreeMap<Place, (Policy, BTreeSet<IpAddr>)>,
}

/// The device by which a node gets a packet, or sends an answer to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Device {
    Wire,
    Bridge,
    Overlay,
    Loopback,
}

impl Reference {
    /// Asks every node for its addresses.
    ///
    /// # Errors
    /// If one does not answer.
    pub fn new(topology: &Topology, pod_ports: &[u16]) -> Result<Self> {
        let mut nodes = BTreeMap::new();
        for node in Place::GUARDED {
            let own = topology.at(node).run(Devices::list)?.addresses;
            nodes.insert(node, (policy(node, pod_ports)?, own));
        }
        Ok(Self { nodes })
    }

    /// How the verdicts of the nodes on a case's way differ from what the case expects.
    #[must_use]
    pub fn disagreement(&self, case: &Case) -> Option<String> {
        for node in way(case) {
            let verdict = self.verdict(case, node);
            let said = match &verdict {
                Some(Verdict::Drop(reason)) => Some(*reason),
                _ => None,
            };
            let expected = match case.expectation {
                Expectation::Dropped(drop) if drop.node == node => Some(drop.reason),
                _ => None,
            };
            if said != expected {
                return Some(format!(
                    "{case}: {node} says {said:?} where {expected:?} is expected"
                ));
            }
            if said.is_some() {
                return None;
            }
        }
        match case.expectation {
            Expectation::Dropped(drop) => Some(format!("{case}: {} was not asked", drop.node)),
            _ => None,
        }
    }

    /// The first drop, if there is one.
    fn verdict(&self, case: &Case, node: Place) -> Option<Verdict> {
        let (policy, own) = &self.nodes[&node];
        let source = source_at(case, node);
        let question = Question {
            source,
            destination: case.to.0,
            protocol: case.protocol,
            port: case.to.1,
            by_another_device: device_of(node, source, own) != incoming(case, node),
        };
        let steps = explain(policy, own, question).steps;
        steps
            .into_iter()
            .map(|step| step.verdict)
            .find(|verdict| matches!(verdict, Verdict::Drop(_)))
    }
}

/// Whether nothing but the senders' and receivers' nodes decides, by what `explain` is asked.
#[must_use]
pub fn is_direct(case: &Case) -> bool {
    let is_translated = matches!(
        case.group,
        Group::Ingress
            | Group::NodePort
            | Group::ClusterIp
            | Group::ExternalIp
            | Group::FramesByNodePort
    );
    let is_everybody = !case.lands.0.is_at(case.to.0) && !case.to.0.is_loopback();
    let is_by_localhost = case.group == Group::Loopback && !case.to.0.is_loopback();
    !(is_translated
        || is_everybody
        || is_by_localhost
        || matches!(case.means, Means::Vxlan { .. })
        || matches!(case.expectation, Expectation::Kernel(_))
        || matches!(case.expectation, Expectation::Dropped(drop) if drop.sight == Sight::Everybody))
}

/// The guarded nodes that a request comes by, in order.
fn way(case: &Case) -> Vec<Place> {
    let mut way = Vec::new();
    let gateway = match case.means {
        Means::Frames { hop, .. } => Place::GUARDED.into_iter().find(|it| it.mac() == hop),
        _ => None,
    };
    let (to, _) = case.lands;
    let last = to.home().unwrap_or(to);
    for node in case.from.home().into_iter().chain(gateway).chain([last]) {
        if Place::GUARDED.contains(&node) && !way.contains(&node) {
            way.push(node);
        }
    }
    way
}

/// The source as a node sees it: a pod's is masqueraded by its own node, unless it goes to pods.
fn source_at(case: &Case, node: Place) -> IpAddr {
    match case.means {
        Means::Client {
            source: Some(source),
        }
        | Means::Frames { source, .. }
        | Means::Vxlan { source, .. } => source,
        Means::Client { source: None } => match case.from.home() {
            Some(home) if home != node && !is_of_pods(case.to.0) => home.address(case.family),
            _ => case.from.address(case.family),
        },
    }
}

fn incoming(case: &Case, node: Place) -> Device {
    match case.from.home() {
        None if case.from == node => Device::Loopback,
        Some(home) if home == node => Device::Bridge,
        Some(_) if is_of_pods(case.to.0) => Device::Overlay,
        _ => Device::Wire,
    }
}

/// Where an answer would leave by.
fn device_of(node: Place, source: IpAddr, own: &BTreeSet<IpAddr>) -> Device {
    let subnet = match source {
        IpAddr::V4(it) => it.octets()[2],
        IpAddr::V6(it) => it.octets()[7],
    };
    let of_acme = Place::ACME.map(Place::pod_subnet);
    if own.contains(&source) {
        Device::Loopback
    } else if is_of_pods(source) && subnet == node.pod_subnet() {
        Device::Bridge
    } else if is_of_pods(source) && Place::ACME.contains(&node) && of_acme.contains(&subnet) {
        Device::Overlay
    } else {
        // A link-local source is asked for at the device that it came by, and there are two.
        match source {
            IpAddr::V6(it) if it.is_unicast_link_local() && it == Place::P1.link_local() => {
                Device::Bridge
            }
            _ => Device::Wire,
        }
    }
}

fn is_of_pods(address: IpAddr) -> bool {
    ["10.244.0.0/16", "fd44::/48"]
        .into_iter()
        .any(|range| IpRange::parse(range).is_ok_and(|range| range.contains(address)))
}
