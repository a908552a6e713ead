//! The policy as the fast plane needs it, and the decision on the host.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::{BitOr, BitOrAssign};

use config::guard::Protocol;
use config::net::IpRange;
use ebpf_common::decide;
use ebpf_common::event::address;
use ebpf_common::table::{
    CLASS_MASTER, CLASS_NODE, CLASS_OWN, CLASS_WORKER, FLAG_OWN, FLAG_PEER, FLAG_POD, Family,
    HAS_RANGES4, HAS_RANGES6, PortEntry, Transport,
};

/// Which ports are isolated, where, and from whom. Addresses are canonical: IPv4-mapped ones do not
/// occur.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// The isolated ports.
    pub ports: BTreeMap<(Protocol, u16), Port>,
    /// Addresses at which ports are isolated.
    pub destinations: BTreeMap<IpAddr, Classes>,
    /// Known sources, one by one.
    pub hosts: BTreeMap<IpAddr, Flags>,
    /// Known sources, by range. A source has the flags of every range that it lies in.
    pub ranges: BTreeMap<IpRange, Flags>,
}

/// An isolated port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// At which destinations.
    pub classes: Classes,
    /// Whether the cluster's pods may reach it.
    pub pods: bool,
    /// Number of its counters, 1 to 255 and no other port's; 0 for ports that count together.
    pub slot: u8,
}

/// What a destination is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u8);

impl Classes {
    /// An address of this node.
    pub const OWN: Self = Self(CLASS_OWN);
    /// A master.
    pub const MASTER: Self = Self(CLASS_MASTER);
    /// A worker.
    pub const WORKER: Self = Self(CLASS_WORKER);
    /// Any node of the cluster.
    pub const NODE: Self = Self(CLASS_NODE);

    /// As it stands in the maps.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}

/// What is known of a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    /// A node of the cluster or a router.
    pub const PEER: Self = Self(FLAG_PEER);
    /// A pod of the cluster.
    pub const POD: Self = Self(FLAG_POD);
    /// An address of this node. Nothing comes in from outside with it.
    pub const OWN: Self = Self(FLAG_OWN);

    /// As it stands in the maps.
    #[must_use]
    pub fn bits(self) -> u8 {
        self.0
    }
}

macro_rules! unions {
    ($($set:ident)*) => {$(
        impl BitOr for $set {
            type Output = Self;

            fn bitor(self, other: Self) -> Self {
                Self(self.0 | other.0)
            }
        }

        impl BitOrAssign for $set {
            fn bitor_assign(&mut self, other: Self) {
                self.0 |= other.0;
            }
        }
    )*};
}

unions!(Classes Flags);

impl Port {
    pub(super) fn entry(self) -> PortEntry {
        PortEntry::new(self.classes.bits(), self.pods, self.slot)
    }
}

impl decide::Tables for Tables {
    fn port(&self, transport: Transport, port: u16) -> PortEntry {
        let entry = protocol(transport).and_then(|protocol| self.ports.get(&(protocol, port)));
        entry.map_or(PortEntry::default(), |port| port.entry())
    }

    fn destination(&self, family: Family, bytes: &[u8; 16]) -> u8 {
        let classes = self.destinations.get(&address(family, *bytes));
        classes.map_or(0, |classes| classes.bits())
    }

    fn host(&self, family: Family, bytes: &[u8; 16]) -> u8 {
        let flags = self.hosts.get(&address(family, *bytes));
        flags.map_or(0, |flags| flags.bits())
    }

    fn config(&self) -> u32 {
        HAS_RANGES4 | HAS_RANGES6
    }

    fn range(&self, family: Family, bytes: &[u8; 16]) -> u8 {
        let source = address(family, *bytes);
        let mut flags = Flags::default();
        for (range, more) in &self.ranges {
            if holds(range, source) {
                flags |= *more;
            }
        }
        flags.bits()
    }
}

/// As the kernel's trie sees it: an IPv4-mapped source of an IPv6 packet is an IPv6 address.
fn holds(range: &IpRange, source: IpAddr) -> bool {
    let differing = match (range.base(), source) {
        (IpAddr::V4(base), IpAddr::V4(source)) => {
            u128::from(base.to_bits() ^ source.to_bits()) << 96
        }
        (IpAddr::V6(base), IpAddr::V6(source)) => base.to_bits() ^ source.to_bits(),
        _ => return false,
    };
    differing.leading_zeros() >= u32::from(range.prefix())
}

/// A protocol's place in the maps.
pub(super) fn transport(protocol: Protocol) -> Transport {
    match protocol {
        Protocol::Tcp => Transport::Tcp,
        Protocol::Udp => Transport::Udp,
        Protocol::Sctp => Transport::Sctp,
    }
}

/// Which of the three protocols it is.
#[must_use]
pub fn protocol(transport: Transport) -> Option<Protocol> {
    match transport {
        Transport::Tcp => Some(Protocol::Tcp),
        Transport::Udp => Some(Protocol::Udp),
        Transport::Sctp => Some(Protocol::Sctp),
        Transport::Other => None,
    }
}
