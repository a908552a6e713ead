//! What is told of a dropped packet.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::Flow;
use crate::table::{Family, Reason, Transport};

/// A dropped packet, as it stands in the ring buffer: no gaps, so that no byte of the kernel's
/// stack is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Event {
    /// Index of the device that it came in by.
    pub device: u32,
    /// What it was.
    pub source_port: u16,
    /// The isolated port; 0 for a packet without ports.
    pub destination_port: u16,
    /// Source address; IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// Destination address; IPv4 in the first four bytes.
    pub destination: [u8; 16],
    /// Which IP.
    pub family: Family,
    /// Which protocol.
    pub transport: Transport,
    /// Why it was dropped.
    pub reason: Reason,
    /// How many VLAN tags it had.
    pub tags: u8,
}

/// Size of an event in the ring buffer.
const BYTES: usize = size_of::<Event>();

impl Event {
    /// About a flow that was dropped.
    #[inline(always)]
    #[must_use]
    pub const fn new(flow: &Flow, reason: Reason, device: u32) -> Self {
        Self {
            device,
            source_port: flow.source_port,
            destination_port: flow.destination_port,
            source: flow.source,
            destination: flow.destination,
            family: flow.family,
            transport: flow.transport,
            reason,
            tags: flow.tags,
        }
    }

    /// Reads an event from the ring buffer; none if these bytes are not one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; BYTES] = bytes.try_into().ok()?;
        let (device, rest) = bytes.split_first_chunk()?;
        let (source_port, rest) = rest.split_first_chunk()?;
        let (destination_port, rest) = rest.split_first_chunk()?;
        let (source, rest) = rest.split_first_chunk()?;
        let (destination, rest) = rest.split_first_chunk()?;
        let &[family, transport, reason, tags] = rest else {
            return None;
        };
        Some(Self {
            device: u32::from_ne_bytes(*device),
            source_port: u16::from_ne_bytes(*source_port),
            destination_port: u16::from_ne_bytes(*destination_port),
            source: *source,
            destination: *destination,
            family: *Family::ALL.get(usize::from(family))?,
            transport: match transport {
                0 => Transport::Tcp,
                1 => Transport::Udp,
                2 => Transport::Sctp,
                3 => Transport::Other,
                _ => return None,
            },
            reason: *Reason::ALL.get(usize::from(reason))?,
            tags,
        })
    }

    /// Where it came from.
    #[must_use]
    pub fn source(&self) -> IpAddr {
        address(self.family, self.source)
    }

    /// Where it wanted to go.
    #[must_use]
    pub fn destination(&self) -> IpAddr {
        address(self.family, self.destination)
    }
}

/// An address as it stands in flows and events.
#[must_use]
pub fn address(family: Family, bytes: [u8; 16]) -> IpAddr {
    match family {
        Family::V4 => {
            let [a, b, c, d, ..] = bytes;
            Ipv4Addr::new(a, b, c, d).into()
        }
        Family::V6 => Ipv6Addr::from(bytes).into(),
    }
}
