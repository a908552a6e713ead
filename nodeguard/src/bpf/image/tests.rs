//! Between two policies nothing is dropped that either lets through.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use config::guard::Protocol;
use config::net::IpRange;
use ebpf_common::decide::{self, Action, decide};
use ebpf_common::event::address;
use ebpf_common::packet::Flow;
use ebpf_common::table::{
    Family, HAS_RANGES4, HAS_RANGES6, MOST_HOSTS, PortEntry, Transport, port_index,
};
use proptest::prelude::*;

use super::super::tables::{Classes, Flags, Port, Tables};
use super::{BpfError, Image};

/// As the kernel's maps answer: the longest range alone.
impl decide::Tables for Image {
    fn port(&self, transport: Transport, port: u16) -> PortEntry {
        let entry = self.ports.get(&port_index(transport, port));
        PortEntry(entry.copied().unwrap_or_default())
    }

    fn destination(&self, family: Family, bytes: &[u8; 16]) -> u8 {
        let classes = self.destinations.get(&address(family, *bytes));
        classes.copied().unwrap_or_default()
    }

    fn host(&self, family: Family, bytes: &[u8; 16]) -> u8 {
        let flags = self.hosts.get(&address(family, *bytes));
        flags.copied().unwrap_or_default()
    }

    fn config(&self) -> u32 {
        HAS_RANGES4 | HAS_RANGES6
    }

    fn range(&self, family: Family, bytes: &[u8; 16]) -> u8 {
        let source = address(family, *bytes);
        let around = self
            .ranges
            .iter()
            .filter(|(range, _)| range.contains(source));
        let longest = around.max_by_key(|(range, _)| range.prefix());
        longest.map_or(0, |(_, &flags)| flags)
    }
}

/// Few addresses and ports, so that two policies speak of the same ones.
fn addresses() -> impl Strategy<Value = IpAddr> {
    (0_u8..8).prop_map(|last| IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)))
}

fn ranges() -> impl Strategy<Value = IpRange> {
    (addresses(), 28_u8..=32).prop_map(|(address, prefix)| {
        let IpAddr::V4(address) = address else {
            unreachable!("all are IPv4")
        };
        let base = Ipv4Addr::from_bits(address.to_bits() & u32::MAX << (32 - prefix));
        IpRange::parse(&format!("{base}/{prefix}")).unwrap()
    })
}

fn classes() -> impl Strategy<Value = Classes> {
    let all = [
        Classes::default(),
        Classes::OWN,
        Classes::OWN | Classes::NODE,
        Classes::NODE,
    ];
    prop::sample::select(all.to_vec())
}

fn flags() -> impl Strategy<Value = Flags> {
    let all = [
        Flags::PEER,
        Flags::POD,
        Flags::OWN,
        Flags::OWN | Flags::PEER,
    ];
    prop::sample::select(all.to_vec())
}

fn policies() -> impl Strategy<Value = Tables> {
    let ports = prop::collection::btree_map(1_u16..4, (classes(), any::<bool>()), 0..4);
    (
        ports,
        0_u8..3,
        prop::collection::btree_map(addresses(), classes(), 0..6),
        prop::collection::btree_map(addresses(), flags(), 0..6),
        prop::collection::btree_map(ranges(), flags(), 0..6),
    )
        .prop_map(|(ports, first, destinations, hosts, ranges)| {
            let entry = |(port, (classes, pods)): (u16, _)| {
                let slot = first + port as u8;
                let entry = Port {
                    classes,
                    pods,
                    slot,
                };
                ((Protocol::Tcp, port), entry)
            };
            Tables {
                ports: ports.into_iter().map(entry).collect(),
                destinations,
                hosts,
                ranges,
            }
        })
}

/// Every flow that these policies can tell apart.
fn flows() -> impl Iterator<Item = Flow> {
    let bytes = |last| [10, 0, 0, last, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let ends = (0..8).flat_map(|source| (0..8).map(move |destination| (source, destination)));
    ends.flat_map(move |(source, destination)| {
        (1..4).map(move |port| Flow {
            transport: Transport::Tcp,
            source: bytes(source),
            destination: bytes(destination),
            destination_port: port,
            ..Flow::EMPTY
        })
    })
}

fn drops(tables: &impl decide::Tables, flow: &Flow) -> bool {
    decide(flow, tables) != Action::Pass
}

proptest! {
    #[test]
    fn an_image_decides_as_its_tables(tables in policies()) {
        let image = Image::of(&tables).unwrap();
        for flow in flows() {
            prop_assert_eq!(decide(&flow, &image), decide(&flow, &tables), "{:?}", flow);
        }
    }

    #[test]
    fn between_two_policies_what_either_passes_passes(old in policies(), new in policies()) {
        let (old, new) = (Image::of(&old).unwrap(), Image::of(&new).unwrap());
        let between = old.loosened(&new);
        for flow in flows() {
            if drops(&between, &flow) {
                prop_assert!(drops(&old, &flow) && drops(&new, &flow), "{:?}", flow);
            }
        }
    }

    #[test]
    fn a_policy_is_loosened_by_itself_to_itself(tables in policies()) {
        let image = Image::of(&tables).unwrap();
        let between = image.loosened(&image);
        for flow in flows() {
            prop_assert_eq!(decide(&flow, &between), decide(&flow, &image), "{:?}", flow);
        }
    }
}

#[test]
fn a_port_whose_counters_move_pauses() {
    let with = |slot| {
        let port = Port {
            classes: Classes::OWN,
            pods: false,
            slot,
        };
        Tables {
            ports: BTreeMap::from([((Protocol::Tcp, 1), port)]),
            ..Tables::default()
        }
    };
    let image = Image::of(&with(1)).unwrap();
    assert_eq!(image.loosened(&Image::of(&with(1)).unwrap()).ports.len(), 1);
    assert_eq!(image.loosened(&Image::of(&with(2)).unwrap()).ports.len(), 0);
}

#[test]
fn what_the_maps_cannot_hold_is_refused() {
    let port = Port {
        classes: Classes::OWN,
        pods: false,
        slot: 9,
    };
    let shared = Tables {
        ports: BTreeMap::from([((Protocol::Tcp, 1), port), ((Protocol::Udp, 1), port)]),
        ..Tables::default()
    };
    assert!(matches!(Image::of(&shared), Err(BpfError::SharedSlot(9))));
    let host = |number| (Ipv4Addr::from_bits(number).into(), Flags::PEER);
    let mut crowd = Tables {
        hosts: (0..MOST_HOSTS).map(host).collect(),
        ..Tables::default()
    };
    assert!(Image::of(&crowd).is_ok());
    crowd.hosts.extend([host(MOST_HOSTS)]);
    assert!(matches!(Image::of(&crowd), Err(BpfError::TooMany { .. })));
}
