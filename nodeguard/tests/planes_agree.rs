//! For any packet: the compiled ruleset does what the reference verdict says, at every stage, and
//! BPF drops nothing that nftables lets through.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;
use config::roles::Role;
use ebpf_common::decide::{Action, decide};
use ebpf_common::packet::Flow;
use ebpf_common::table::{Family as WireFamily, Transport};
use nodeguard::bpf::Tables;
use nodeguard::compile::{COUNTED_SETS, compile};
use nodeguard::policy::{GuardedPort, Node, Owner, Policy};
use nodeguard::ruleset::{
    Datum, Element, Family, Field, Hook, Match, Rule, Ruleset, Verdict as RuleVerdict,
};
use nodeguard::verdict::{Packet, Reason, Stage, Verdict, Way, judge, judge_direct};
use proptest::prelude::*;
use proptest::sample::select;

/// Addresses of every kind of neighbour; few, so that each is met often.
const ADDRESSES: [&str; 20] = [
    "10.0.0.1",     // a master
    "10.0.0.11",    // this node, a worker in one policy and a single node in the other
    "10.0.0.12",    // another worker
    "10.0.0.99",    // this node, by an address that no file names
    "10.244.1.1",   // the bridge of this node's pods
    "10.244.1.7",   // a pod
    "192.0.2.1",    // a router
    "192.0.2.130",  // a router in a range
    "198.51.100.7", // a stranger
    "127.0.0.1",
    "fd00::1",
    "fd00::11",
    "fd00::12",
    "fd00::99",
    "fd44:1::1",
    "fd44:1::7",
    "2001:db8::1",
    "2001:db8:1::7",
    "2001:db8:2::7",
    "::1",
];

/// Those of this node.
const OWN: [&str; 6] = [
    "10.0.0.11",
    "10.0.0.99",
    "10.244.1.1",
    "fd00::11",
    "fd00::99",
    "fd44:1::1",
];

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|it| it.parse().unwrap()).collect()
}

fn policy(role: Role, reverse_path: bool) -> Policy {
    let mut policy = Policy::shut("acme", "this", Some(role));
    policy.ports.push(GuardedPort {
        port: 9100,
        protocol: Some(Protocol::Tcp),
        name: "exporter".to_owned(),
        on: Owner::Nodes,
    });
    for (name, role, its) in [
        ("m1", Role::Master, ["10.0.0.1", "fd00::1"]),
        ("this", role, ["10.0.0.11", "fd00::11"]),
        ("w2", Role::Worker, ["10.0.0.12", "fd00::12"]),
    ] {
        let addresses = addresses(&its);
        policy
            .nodes
            .insert(name.to_owned(), Node { role, addresses });
    }
    let ranges = |texts: &[&str]| -> Vec<IpRange> {
        texts.iter().map(|it| IpRange::parse(it).unwrap()).collect()
    };
    let edge = ranges(&[
        "192.0.2.1",
        "192.0.2.128/25",
        "2001:db8::1",
        "2001:db8:1::/64",
    ]);
    policy.routers.insert("edge".to_owned(), edge);
    policy.pods = ranges(&["10.244.0.0/16", "fd44::/16"]);
    policy.pod_ports = vec![8443];
    policy.reverse_path = reverse_path;
    policy
}

#[derive(Clone, Debug)]
struct Case {
    role: Role,
    checks_path: bool,
    packet: Packet,
}

fn cases() -> impl Strategy<Value = Case> {
    let of_one_family = (select(&ADDRESSES[..]), select(&ADDRESSES[..])).prop_filter_map(
        "one family",
        |(source, destination)| {
            let source: IpAddr = source.parse().unwrap();
            let destination: IpAddr = destination.parse().unwrap();
            (source.is_ipv4() == destination.is_ipv4()).then_some((source, destination))
        },
    );
    let port = select(vec![
        22, 2379, 8443, 8472, 9100, 10250, 10257, 31380, 31390, 40000,
    ]);
    let facts = (any::<bool>(), any::<bool>(), any::<bool>());
    (
        of_one_family,
        port,
        select(Protocol::ALL.to_vec()),
        select(Role::ALL.to_vec()),
        facts,
    )
        .prop_map(|((source, destination), port, protocol, role, facts)| {
            let (by_loopback, reverse_path, checks_path) = facts;
            let own: BTreeSet<IpAddr> = addresses(&OWN).into_iter().collect();
            // By loopback only what the node sends to itself.
            let is_own = |it: &IpAddr| own.contains(it) || it.is_loopback();
            let by_loopback = by_loopback && is_own(&source) && is_own(&destination);
            Case {
                role,
                checks_path,
                packet: Packet {
                    source,
                    destination,
                    protocol,
                    port,
                    way: Way {
                        by_loopback,
                        is_here: is_own(&destination),
                        // No answer to an own address ever leaves by a device.
                        reverse_path: by_loopback || reverse_path && !is_own(&source),
                    },
                },
            }
        })
}

/// What the ruleset does to a packet at a hook, and what has counted it.
fn run(ruleset: &Ruleset, packet: &Packet, stage: Stage) -> (bool, Vec<&'static str>) {
    let hook = match stage {
        Stage::Arrival => Hook::Prerouting,
        Stage::Delivery | Stage::ChangedDelivery => Hook::Input,
        Stage::Forwarding => Hook::Forward,
    };
    let mut counted = Vec::new();
    let is_base = |chain: &&nodeguard::ruleset::Chain| chain.base.is_some_and(|it| it.hook == hook);
    let mut chain = ruleset.chains.iter().find(is_base).unwrap();
    let mut next = 0;
    while let Some(rule) = chain.rules.get(next) {
        next += 1;
        if !matches(ruleset, rule, packet, stage, &mut counted) {
            continue;
        }
        counted.extend(rule.counter);
        match rule.verdict {
            None => {}
            Some(RuleVerdict::Accept) => return (true, counted),
            Some(RuleVerdict::Drop) => return (false, counted),
            Some(RuleVerdict::Goto(name)) => {
                chain = ruleset.chains.iter().find(|it| it.name == name).unwrap();
                next = 0;
            }
        }
    }
    // At the end of a chain that was gone to the base chain's policy counts.
    (true, counted)
}

fn matches(
    ruleset: &Ruleset,
    rule: &Rule,
    packet: &Packet,
    stage: Stage,
    counted: &mut Vec<&'static str>,
) -> bool {
    rule.matches.iter().all(|it| match it {
        Match::LoopbackDevice => packet.way.by_loopback,
        Match::DestinationIn(range) => range.contains(packet.destination),
        Match::DestinationIsLocal => packet.way.is_here,
        Match::Forwarded => stage == Stage::Forwarding,
        Match::DestinationChanged => stage == Stage::ChangedDelivery,
        Match::ReversePathMissing => !packet.way.reverse_path,
        Match::InSet { fields, set } => {
            let set = ruleset.set(set).unwrap();
            let data: Option<Vec<Datum>> =
                fields.iter().map(|field| datum(*field, packet)).collect();
            let found = data.is_some_and(|data| {
                set.elements.iter().any(|element| match element {
                    Element::Value(value) => *value == data,
                    Element::Range(range) => match data[..] {
                        [Datum::V4(it)] => range.contains(it.into()),
                        [Datum::V6(it)] => range.contains(it.into()),
                        _ => false,
                    },
                })
            });
            if found && set.counted {
                counted.push(set.name);
            }
            found
        }
    })
}

fn datum(field: Field, packet: &Packet) -> Option<Datum> {
    let v4 = |address| match address {
        IpAddr::V4(it) => Some(Datum::V4(it)),
        IpAddr::V6(_) => None,
    };
    let v6 = |address| match address {
        IpAddr::V6(it) => Some(Datum::V6(it)),
        IpAddr::V4(_) => None,
    };
    match field {
        Field::SourceV4 => v4(packet.source),
        Field::SourceV6 => v6(packet.source),
        Field::DestinationV4 => v4(packet.destination),
        Field::DestinationV6 => v6(packet.destination),
        Field::Family if packet.source.is_ipv4() => Some(Datum::Family(Family::V4)),
        Field::Family => Some(Datum::Family(Family::V6)),
        Field::Protocol => Some(Datum::Protocol(packet.protocol)),
        Field::DestinationPort => Some(Datum::Port(packet.port)),
    }
}

fn flow(packet: &Packet) -> Flow {
    let bytes = |address: IpAddr| match address {
        IpAddr::V4(it) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&it.octets());
            bytes
        }
        IpAddr::V6(it) => it.octets(),
    };
    Flow {
        family: if packet.source.is_ipv4() {
            WireFamily::V4
        } else {
            WireFamily::V6
        },
        transport: match packet.protocol {
            Protocol::Tcp => Transport::Tcp,
            Protocol::Udp => Transport::Udp,
            Protocol::Sctp => Transport::Sctp,
        },
        source: bytes(packet.source),
        destination: bytes(packet.destination),
        source_port: 50000,
        destination_port: packet.port,
        ..Flow::EMPTY
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(20_000)
    })]

    #[test]
    fn the_ruleset_does_what_the_reference_says(case in cases()) {
        let policy = policy(case.role, case.checks_path);
        let ruleset = compile(&policy);
        for stage in [
            Stage::Arrival,
            Stage::Delivery,
            Stage::ChangedDelivery,
            Stage::Forwarding,
        ] {
            let is_forwarding = stage == Stage::Forwarding;
            // What is for this node is not passed on, and what is not, is not delivered; nothing
            // that is passed on came by loopback.
            if stage != Stage::Arrival && is_forwarding == case.packet.way.is_here {
                continue;
            }
            let (passes, counted) = run(&ruleset, &case.packet, stage);
            match judge(&policy, &case.packet, stage) {
                Verdict::Pass(_) => {
                    prop_assert!(passes, "{stage:?}: dropped");
                    prop_assert!(counted.is_empty(), "{stage:?}: counted as {counted:?}");
                }
                Verdict::Drop(reason) => {
                    prop_assert!(!passes, "{stage:?}: passed");
                    prop_assert_eq!(counted, vec![reason.as_str()], "{:?}", stage);
                }
            }
        }
    }

    #[test]
    fn bpf_drops_what_nftables_drops_and_nothing_else(case in cases()) {
        // Nothing is attached to the loopback device, and the kernel lets no packet to ::1 in
        // before either plane is asked.
        if case.packet.way.by_loopback || case.packet.destination == "::1".parse::<IpAddr>().unwrap() {
            return Ok(());
        }
        let policy = policy(case.role, case.checks_path);
        let own: BTreeSet<IpAddr> = addresses(&OWN).into_iter().collect();
        let tables = Tables::of(&policy, &own);
        let arrival = judge(&policy, &case.packet, Stage::Arrival);
        match decide(&flow(&case.packet), &tables) {
            Action::Drop { reason, .. } => {
                let reason = Reason::from(reason);
                let Verdict::Drop(expected) = arrival else {
                    return Err(TestCaseError::fail(format!("only BPF drops it: {reason}")));
                };
                // To an address in no file nftables trusts nobody; BPF knows strangers alone there.
                prop_assert!(reason == expected || expected == Reason::Relayed, "{reason} {expected}");
            }
            Action::Pass => {
                let by_nftables_alone = matches!(
                    arrival,
                    Verdict::Pass(_) | Verdict::Drop(Reason::Relayed | Reason::Spoofed)
                );
                prop_assert!(by_nftables_alone, "BPF passes what it could drop: {arrival:?}");
            }
        }
        if let Verdict::Drop(_) = arrival {
            prop_assert!(matches!(judge_direct(&policy, &case.packet), Verdict::Drop(_)));
        }
    }
}

#[test]
fn the_counted_sets_are_the_reasons() {
    let reasons: BTreeSet<&str> = Reason::ALL.iter().map(|it| it.as_str()).collect();
    let mut counted: BTreeSet<&str> = COUNTED_SETS.into();
    counted.insert("loopback");
    assert_eq!(reasons, counted);
}
