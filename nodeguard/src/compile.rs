//! Policy -> ruleset. Pure, and the one place where the guard's rules stand.
//!
//! A packet is judged before connection tracking and before kube-proxy changes its destination
//! (`prerouting`), and once more with the destination that it has in the end (`input`, `forward`),
//! before any masquerade hides who sent it. Each time the question is: is it for an isolated port
//! of a node of this cluster (`towards`), and is its source a peer (`sources`)?
//!
//! Peers send straight to the node they mean. What this node forwards to a node's isolated port, or
//! has turned towards its own, comes by a Service or a route of somebody else's making, and then a
//! node's address proves nothing: a pod's packet to another node's NodePort arrives there with the
//! address of the pod's node. The same holds for an address of this node that is in no file. So
//! only the cluster's own pods may come that way, to the ports that they may reach (`through`).
//!
//! No rule looks at a connection's state, so a peer that is removed is cut with its next packet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;

use crate::policy::{Owner, Policy};
use crate::ruleset::{
    Base, Chain, Datum, Element, Family, Field, Hook, KeyPart, Match, Rule, Ruleset, Set, Verdict,
};

/// Before `raw` (-300), connection tracking (-200) and kube-proxy's DNAT (-100); before
/// defragmentation (-400), too, which is why only first fragments are judged there: without them
/// nothing is ever delivered (RFC 791, section 3.2).
const PRIORITY: i32 = -450;

/// The counter of packets to 127.0.0.0/8 that came from outside.
pub const LOOPBACK_COUNTER: &str = "loopback";

/// The sets whose elements count drops: one for each reason.
pub const COUNTED_SETS: [&str; 4] = ["stranger", "pod", "relayed", "spoofed"];

/// The ruleset of a policy.
#[must_use]
pub fn compile(policy: &Policy) -> Ruleset {
    Ruleset {
        counters: vec![LOOPBACK_COUNTER],
        sets: sets(policy),
        chains: chains(policy),
    }
}

fn sets(policy: &Policy) -> Vec<Set> {
    let isolated = policy.isolated();
    let ports = |wanted: &dyn Fn(&[Owner]) -> bool| -> BTreeSet<(Protocol, u16)> {
        let chosen = isolated.iter().filter(|(_, owners)| wanted(owners));
        chosen.map(|(port, _)| *port).collect()
    };
    let of = |owner: Owner| ports(&|owners| owners.contains(&owner));
    let pod_ports = isolated
        .keys()
        .copied()
        .filter(|(_, port)| policy.pod_ports.contains(port))
        .collect();
    let mut sets = vec![
        numbers(isolated.keys().map(|(_, port)| *port).collect()),
        port_set(
            "own_ports",
            &ports(&|owners| owners.iter().any(|owner| owner.covers(policy.role))),
        ),
        port_set("master_ports", &of(Owner::Masters)),
        port_set("worker_ports", &of(Owner::Workers)),
        port_set("extra_ports", &of(Owner::Nodes)),
        port_set("pod_ports", &pod_ports),
    ];
    let nodes = |wanted: &dyn Fn(&crate::policy::Node) -> bool| -> Vec<IpRange> {
        let chosen = policy.nodes.values().filter(|node| wanted(node));
        let addresses = chosen.flat_map(|node| node.addresses.iter().copied());
        addresses.map(IpRange::single).collect()
    };
    let routers = policy.routers.values().flatten().copied();
    let (hosts, ranges): (Vec<_>, Vec<_>) = routers.partition(|it| it.address().is_some());
    sets.extend(address_sets(
        ["masters4", "masters6"],
        nodes(&|node| node.role.is_master()),
    ));
    sets.extend(address_sets(
        ["workers4", "workers6"],
        nodes(&|node| node.role.is_worker()),
    ));
    sets.extend(address_sets(["nodes4", "nodes6"], nodes(&|_| true)));
    sets.extend(address_sets(["routers4", "routers6"], hosts));
    sets.extend(range_sets(["router_ranges4", "router_ranges6"], &ranges));
    sets.extend(range_sets(["pods4", "pods6"], &policy.pods));
    // A drop is counted by the element that names its port.
    let mut counted = Vec::new();
    for (protocol, port) in isolated.keys() {
        for family in [Family::V4, Family::V6] {
            counted.push(Element::Value(vec![
                Datum::Family(family),
                Datum::Protocol(*protocol),
                Datum::Port(*port),
            ]));
        }
    }
    counted.sort();
    sets.extend(COUNTED_SETS.map(|name| Set {
        name,
        key: vec![KeyPart::Family, KeyPart::Protocol, KeyPart::Port],
        interval: false,
        counted: true,
        elements: counted.clone(),
    }));
    sets
}

/// The numbers of all isolated ports. What every packet is asked has to be cheap: the kernel keeps
/// a set of 16-bit numbers as a bitmap. Which protocol's port it is, and whose, later chains ask.
fn numbers(ports: BTreeSet<u16>) -> Set {
    Set {
        name: "port_numbers",
        key: vec![KeyPart::Port],
        interval: false,
        counted: false,
        elements: ports
            .into_iter()
            .map(|port| Element::Value(vec![Datum::Port(port)]))
            .collect(),
    }
}

fn port_set(name: &'static str, ports: &BTreeSet<(Protocol, u16)>) -> Set {
    let element = |(protocol, port): &(Protocol, u16)| {
        Element::Value(vec![Datum::Protocol(*protocol), Datum::Port(*port)])
    };
    Set {
        name,
        key: vec![KeyPart::Protocol, KeyPart::Port],
        interval: false,
        counted: false,
        elements: ports.iter().map(element).collect(),
    }
}

/// Hash sets of hosts: looking one up costs the same however many there are, and adding one costs
/// microseconds, which an interval set of thousands does not.
fn address_sets(names: [&'static str; 2], hosts: Vec<IpRange>) -> [Set; 2] {
    let of = |name, key, family: fn(&IpAddr) -> Option<Datum>| {
        let data: BTreeSet<Datum> = hosts.iter().filter_map(|it| family(&it.base())).collect();
        Set {
            name,
            key: vec![key],
            interval: false,
            counted: false,
            elements: data
                .into_iter()
                .map(|it| Element::Value(vec![it]))
                .collect(),
        }
    };
    [
        of(names[0], KeyPart::V4, |it| match it {
            IpAddr::V4(it) => Some(Datum::V4(*it)),
            IpAddr::V6(_) => None,
        }),
        of(names[1], KeyPart::V6, |it| match it {
            IpAddr::V6(it) => Some(Datum::V6(*it)),
            IpAddr::V4(_) => None,
        }),
    ]
}

fn range_sets(names: [&'static str; 2], ranges: &[IpRange]) -> [Set; 2] {
    let of = |name, key, is_v4: bool| {
        let mine: Vec<IpRange> = ranges
            .iter()
            .copied()
            .filter(|it| it.base().is_ipv4() == is_v4)
            .collect();
        Set {
            name,
            key: vec![key],
            interval: true,
            counted: false,
            elements: outermost(&mine).into_iter().map(Element::Range).collect(),
        }
    };
    [
        of(names[0], KeyPart::V4, true),
        of(names[1], KeyPart::V6, false),
    ]
}

/// The ranges that lie in no other one, once each: an interval set takes no overlap, and two CIDR
/// ranges overlap only where one lies in the other.
fn outermost(ranges: &[IpRange]) -> BTreeSet<IpRange> {
    let all: BTreeSet<IpRange> = ranges.iter().copied().collect();
    let inside = |it: &IpRange| {
        all.iter()
            .any(|other| other != it && other.overlaps(it) && other.prefix() < it.prefix())
    };
    all.iter().copied().filter(|it| !inside(it)).collect()
}

fn chains(policy: &Policy) -> Vec<Chain> {
    let mut chains = vec![
        count_and_drop("stranger", ["count-stranger", "drop-stranger"]),
        count_and_drop("pod", ["count-pod", "drop-pod"]),
        count_and_drop("relayed", ["count-relayed", "drop-relayed"]),
        count_and_drop("spoofed", ["count-spoofed", "drop-spoofed"]),
    ];
    let mut known = Vec::new();
    if policy.reverse_path {
        known.push(rule(
            "reverse-path",
            [Match::ReversePathMissing],
            goto("spoofed"),
        ));
    }
    chains.extend([
        chain("known", None, known),
        chain(
            "pods",
            None,
            vec![
                rule("pod-allowed", [port_in("pod_ports")], goto("known")),
                rule("pod-other", [], goto("pod")),
            ],
        ),
        chain("through", None, through()),
        chain("sources", None, sources()),
        chain("towards", None, towards()),
    ]);
    let loopback: IpRange = IpRange::parse("127.0.0.0/8").expect("a range");
    chains.extend([
        chain(
            "prerouting",
            Some(Hook::Prerouting),
            vec![
                rule("loopback-device", [Match::LoopbackDevice], Verdict::Accept),
                // With route_localnet, which kube-proxy switches on, the kernel would deliver it
                // (CVE-2020-8558).
                Rule {
                    counter: Some(LOOPBACK_COUNTER),
                    ..rule(
                        "loopback-address",
                        [Match::DestinationIn(loopback)],
                        Verdict::Drop,
                    )
                },
                rule("isolated-port", [is_numbered()], goto("towards")),
            ],
        ),
        chain("delivered", None, delivered(policy)),
        chain(
            "own",
            None,
            vec![rule("own-port", [port_in("own_ports")], goto("delivered"))],
        ),
        chain(
            "input",
            Some(Hook::Input),
            vec![
                rule(
                    "input-loopback-device",
                    [Match::LoopbackDevice],
                    Verdict::Accept,
                ),
                rule("input-isolated-port", [is_numbered()], goto("own")),
            ],
        ),
        chain(
            "forward",
            Some(Hook::Forward),
            vec![rule(
                "forward-isolated-port",
                [is_numbered()],
                goto("towards"),
            )],
        ),
    ]);
    chains
}

/// What is for an isolated port of this node, with the destination it has in the end.
fn delivered(policy: &Policy) -> Vec<Rule> {
    let mut rules = Vec::new();
    // Where pods run, kube-proxy runs, and tenants decide what it does. A mere master has none, and
    // is spared connection tracking.
    if policy.role.is_worker() {
        rules.push(rule(
            "changed",
            [Match::DestinationChanged],
            goto("through"),
        ));
    }
    rules.push(rule("straight", [], goto("sources")));
    rules
}

/// Is it for a node of this cluster that has this port? What is not, passes.
fn towards() -> Vec<Rule> {
    use Field::{DestinationV4, DestinationV6};
    let to = |name, field, nodes, ports| {
        rule(
            name,
            [in_set([field], nodes), port_in(ports)],
            goto("sources"),
        )
    };
    vec![
        // A pod's packet to another node would arrive there masqueraded, with the address of this
        // node: it has to be stopped here.
        to("to-master-v4", DestinationV4, "masters4", "master_ports"),
        to("to-master-v6", DestinationV6, "masters6", "master_ports"),
        to("to-worker-v4", DestinationV4, "workers4", "worker_ports"),
        to("to-worker-v6", DestinationV6, "workers6", "worker_ports"),
        to("to-node-v4", DestinationV4, "nodes4", "extra_ports"),
        to("to-node-v6", DestinationV6, "nodes6", "extra_ports"),
        // An address of this node that is in no file. No other node knows that it is one, and so
        // lets its pods' packets pass, and masquerades them.
        rule(
            "to-here",
            [port_in("own_ports"), Match::DestinationIsLocal],
            goto("through"),
        ),
    ]
}

/// Who sent it? Whoever is not let in by name here, is not let in.
fn sources() -> Vec<Rule> {
    use Field::{SourceV4, SourceV6};
    let from = |name, field, set| rule(name, [in_set([field], set)], goto("known"));
    let mut rules = vec![
        rule("forwarded", [Match::Forwarded], goto("through")),
        from("from-node-v4", SourceV4, "nodes4"),
        from("from-node-v6", SourceV6, "nodes6"),
        from("from-router-v4", SourceV4, "routers4"),
        from("from-router-v6", SourceV6, "routers6"),
        from("from-router-range-v4", SourceV4, "router_ranges4"),
        from("from-router-range-v6", SourceV6, "router_ranges6"),
    ];
    rules.extend(pods(["from-pod-v4", "from-pod-v6"]));
    rules.push(rule("from-stranger", [], goto("stranger")));
    rules
}

/// What came by a way on which a peer's address proves nothing: the cluster's pods or nobody.
fn through() -> Vec<Rule> {
    let mut rules = Vec::from(pods(["through-pod-v4", "through-pod-v6"]));
    rules.push(rule("through-other", [], goto("relayed")));
    rules
}

/// The cluster's pods, whose ports decide.
fn pods(names: [&'static str; 2]) -> [Rule; 2] {
    let [v4, v6] = names;
    let from = |name, field, set| rule(name, [in_set([field], set)], goto("pods"));
    [
        from(v4, Field::SourceV4, "pods4"),
        from(v6, Field::SourceV6, "pods6"),
    ]
}

/// The end of a packet. Counting and dropping are two rules, so that a port which the set should
/// lack is dropped all the same.
fn count_and_drop(name: &'static str, rules: [&'static str; 2]) -> Chain {
    let key = [Field::Family, Field::Protocol, Field::DestinationPort];
    let [count, drop] = rules;
    let count = Rule {
        name: count,
        matches: vec![in_set(key, name)],
        counter: None,
        verdict: None,
    };
    let drop = Rule {
        name: drop,
        matches: Vec::new(),
        counter: None,
        verdict: Some(Verdict::Drop),
    };
    chain(name, None, vec![count, drop])
}

fn chain(name: &'static str, hook: Option<Hook>, rules: Vec<Rule>) -> Chain {
    let base = hook.map(|hook| Base {
        hook,
        priority: PRIORITY,
    });
    Chain { name, base, rules }
}

fn rule(name: &'static str, matches: impl Into<Vec<Match>>, verdict: Verdict) -> Rule {
    Rule {
        name,
        matches: matches.into(),
        counter: None,
        verdict: Some(verdict),
    }
}

fn goto(chain: &'static str) -> Verdict {
    Verdict::Goto(chain)
}

fn in_set(fields: impl Into<Vec<Field>>, set: &'static str) -> Match {
    Match::InSet {
        fields: fields.into(),
        set,
    }
}

/// Whether the destination port's number is that of an isolated port, of whatever protocol.
fn is_numbered() -> Match {
    in_set([Field::DestinationPort], "port_numbers")
}

fn port_in(set: &'static str) -> Match {
    in_set([Field::Protocol, Field::DestinationPort], set)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use config::roles::Role;

    use super::*;

    #[test]
    fn names_are_unique_and_what_is_named_exists() {
        for role in Role::ALL {
            let ruleset = compile(&Policy::shut("acme", "n", Some(role)));
            let mut names = HashSet::new();
            for (_, rule) in ruleset.rules() {
                assert!(names.insert(rule.name), "{}", rule.name);
                for it in &rule.matches {
                    if let Match::InSet { set, fields } = it {
                        let set = ruleset.set(set).unwrap();
                        assert_eq!(set.key.len(), fields.len(), "{}", rule.name);
                    }
                }
                assert!(ruleset.without(rule.name).is_some());
            }
            let mut known: HashSet<&str> = HashSet::new();
            for chain in &ruleset.chains {
                for rule in &chain.rules {
                    if let Some(Verdict::Goto(to)) = rule.verdict {
                        assert!(known.contains(to), "{to} stands after {}", chain.name);
                    }
                }
                known.insert(chain.name);
            }
        }
    }

    #[test]
    fn ranges_within_ranges_are_left_out() {
        let range = |text: &str| IpRange::parse(text).unwrap();
        let ranges = ["10.0.0.0/8", "10.1.0.0/16", "10.0.0.0/8", "192.0.2.0/24"].map(range);
        let kept: Vec<_> = outermost(&ranges).into_iter().collect();
        assert_eq!(kept, [range("10.0.0.0/8"), range("192.0.2.0/24")]);
    }

    #[test]
    fn only_what_runs_pods_tracks_connections() {
        let tracks = |role| {
            let ruleset = compile(&Policy::shut("acme", "n", Some(role)));
            let is = |rule: &Rule| rule.matches.contains(&Match::DestinationChanged);
            ruleset.rules().any(|(_, rule)| is(rule))
        };
        assert!(!tracks(Role::Master) && tracks(Role::Worker) && tracks(Role::Single));
    }
}
