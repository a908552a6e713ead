//! Frames to be judged, and the policy that judges them. The end-to-end tests in `tests/` use this
//! file as well.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::guard::Protocol;
use config::net::IpRange;
use nodeguard::bpf::{Classes, Flags, Port, Tables};

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const SCTP: u8 = 132;

pub(crate) const HOP_BY_HOP: u8 = 0;
pub(crate) const ROUTING: u8 = 43;
pub(crate) const FRAGMENT: u8 = 44;
pub(crate) const AUTHENTICATION: u8 = 51;
pub(crate) const DESTINATION_OPTIONS: u8 = 60;

pub(crate) const PRIORITY_TAG: (u16, u16) = (0x8100, 0xe000);
pub(crate) const SERVICE_TAG: (u16, u16) = (0x88a8, 0);
pub(crate) const VLAN_TAG: (u16, u16) = (0x8100, 7);

/// A packet to be put into a frame.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) tags: Vec<(u16, u16)>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    /// Words of IPv4 options, 0 to 10.
    pub(crate) option_words: u8,
    /// Kinds of IPv6 extension headers.
    pub(crate) headers: Vec<u8>,
    /// Offset in units of eight bytes, and whether more follow.
    pub(crate) fragment: (u16, bool),
}

impl Packet {
    pub(crate) fn new(source: IpAddr, destination: IpAddr, protocol: u8, port: u16) -> Self {
        Self {
            tags: Vec::new(),
            source,
            destination,
            protocol,
            port,
            option_words: 0,
            headers: Vec::new(),
            fragment: (0, false),
        }
    }

    pub(crate) fn tags(mut self, tags: &[(u16, u16)]) -> Self {
        self.tags = tags.to_vec();
        self
    }

    pub(crate) fn headers(mut self, headers: &[u8]) -> Self {
        self.headers = headers.to_vec();
        self
    }

    pub(crate) fn option_words(mut self, words: u8) -> Self {
        self.option_words = words;
        self
    }

    /// For IPv6, among the headers there must be a place for it.
    pub(crate) fn fragment(mut self, offset: u16, more: bool) -> Self {
        self.fragment = (offset, more);
        self
    }

    /// The frame, to 00:00:00:00:00:00: `BPF_PROG_TEST_RUN` comes in by `lo`.
    pub(crate) fn frame(&self) -> Vec<u8> {
        let mut frame = vec![0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1];
        for (kind, control) in &self.tags {
            frame.extend(kind.to_be_bytes());
            frame.extend(control.to_be_bytes());
        }
        let mut segment = Vec::new();
        segment.extend(40_000_u16.to_be_bytes());
        segment.extend(self.port.to_be_bytes());
        match self.protocol {
            TCP => segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]),
            UDP => segment.extend([0, 12, 0, 0, 1, 2, 3, 4]),
            _ => segment.extend([0; 8]),
        }
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                frame.extend(self.ipv4(source, destination, segment.len()));
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend(self.ipv6(source, destination, segment.len()));
            }
            other => panic!("one family at a time: {other:?}"),
        }
        frame.extend(segment);
        frame
    }

    fn ipv4(&self, source: Ipv4Addr, destination: Ipv4Addr, payload: usize) -> Vec<u8> {
        let words = 5 + self.option_words;
        let total = u16::try_from(usize::from(words) * 4 + payload).unwrap();
        let (offset, more) = self.fragment;
        let fragment = offset | if more { 0x2000 } else { 0 };
        let mut header = vec![0x40 | words, 0];
        header.extend(total.to_be_bytes());
        header.extend([0, 1]);
        header.extend(fragment.to_be_bytes());
        header.extend([64, self.protocol, 0, 0]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.resize(usize::from(words) * 4, 1); // no-operation
        let sum = checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn ipv6(&self, source: Ipv6Addr, destination: Ipv6Addr, payload: usize) -> Vec<u8> {
        let mut chain = Vec::new();
        for (index, &kind) in self.headers.iter().enumerate() {
            let next = *self.headers.get(index + 1).unwrap_or(&self.protocol);
            match kind {
                FRAGMENT => {
                    let (offset, more) = self.fragment;
                    chain.extend([next, 0]);
                    chain.extend((offset << 3 | u16::from(more)).to_be_bytes());
                    chain.extend([0, 0, 0, 9]);
                }
                // Its length is in words, less two.
                AUTHENTICATION => chain.extend([next, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]),
                // Padding, sometimes of more than eight bytes.
                _ if index % 2 == 1 => {
                    chain.extend([next, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
                }
                _ => chain.extend([next, 0, 1, 4, 0, 0, 0, 0]),
            }
        }
        let mut header = vec![0x60, 0, 0, 0];
        header.extend(u16::try_from(chain.len() + payload).unwrap().to_be_bytes());
        header.extend([*self.headers.first().unwrap_or(&self.protocol), 64]);
        header.extend(source.octets());
        header.extend(destination.octets());
        header.extend(chain);
        header
    }
}

fn checksum(header: &[u8]) -> u16 {
    let words = header
        .chunks_exact(2)
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair[1]));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Addresses that the policy knows, of one family.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cast {
    /// This node.
    pub(crate) own: IpAddr,
    /// Another node, which is a worker.
    pub(crate) worker: IpAddr,
    /// A machine behind this node that is nobody of ours.
    pub(crate) guest: IpAddr,
    /// A peer by address.
    pub(crate) peer: IpAddr,
    /// A peer by range.
    pub(crate) ranged_peer: IpAddr,
    /// A pod.
    pub(crate) pod: IpAddr,
    /// Somebody else.
    pub(crate) stranger: IpAddr,
}

pub(crate) fn casts() -> [Cast; 2] {
    let cast = |prefix4: bool| {
        let at = |v4: &str, v6: &str| if prefix4 { v4 } else { v6 }.parse().unwrap();
        Cast {
            own: at("10.77.0.2", "fd77::2"),
            worker: at("10.77.0.3", "fd77::3"),
            guest: at("10.77.0.50", "fd77::50"),
            peer: at("10.77.0.9", "fd77::9"),
            ranged_peer: at("172.16.3.4", "fd16::34"),
            pod: at("10.244.1.2", "fd24::12"),
            stranger: at("198.51.100.7", "2001:db8::7"),
        }
    };
    [cast(true), cast(false)]
}

/// Isolated here and at other nodes; pods may.
pub(crate) const KUBELET: u16 = 10_250;
/// Isolated here and at masters; pods may not.
pub(crate) const ETCD: u16 = 2379;
/// UDP, isolated here.
pub(crate) const VXLAN: u16 = 8472;
/// SCTP, isolated here.
pub(crate) const SCTP_PORT: u16 = 7777;
/// Not isolated.
pub(crate) const OPEN: u16 = 80;

pub(crate) fn policy() -> Tables {
    let port = |classes, pods, slot| Port {
        classes,
        pods,
        slot,
    };
    let mut tables = Tables {
        ports: BTreeMap::from([
            (
                (Protocol::Tcp, KUBELET),
                port(Classes::OWN | Classes::NODE, true, 1),
            ),
            (
                (Protocol::Tcp, ETCD),
                port(Classes::OWN | Classes::MASTER, false, 2),
            ),
            ((Protocol::Udp, VXLAN), port(Classes::OWN, false, 3)),
            ((Protocol::Sctp, SCTP_PORT), port(Classes::OWN, false, 4)),
        ]),
        ..Tables::default()
    };
    for cast in casts() {
        tables.destinations.insert(cast.own, Classes::OWN);
        let classes = Classes::WORKER | Classes::NODE;
        tables.destinations.insert(cast.worker, classes);
        tables.hosts.insert(cast.own, Flags::OWN);
        tables.hosts.insert(cast.peer, Flags::PEER);
    }
    for (range, flags) in [
        ("172.16.0.0/12", Flags::PEER),
        ("fd16::/16", Flags::PEER),
        ("10.244.0.0/16", Flags::POD),
        ("fd24::/32", Flags::POD),
    ] {
        tables.ranges.insert(IpRange::parse(range).unwrap(), flags);
    }
    tables
}
