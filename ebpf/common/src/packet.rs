//! Frames: from Ethernet to the ports.

use crate::table::{Family, Transport, Unparsed};

/// VLAN tags that are looked behind. Linux takes any number with VID 0; more than this many are
/// seen from attackers only, and nftables judges those.
pub const MOST_TAGS: u8 = 3;

/// IPv6 extension headers that are looked behind.
pub const MOST_HEADERS: u8 = 8;

/// Nothing is looked for beyond this offset, in bytes. The verifier wants a bound, and no honest
/// chain of headers is this long.
const FARTHEST: usize = 8191;

const IPV4: u16 = 0x0800;
const IPV6: u16 = 0x86dd;
const CUSTOMER_TAG: u16 = 0x8100; // IEEE 802.1Q
const SERVICE_TAG: u16 = 0x88a8; // IEEE 802.1ad
const VLAN_ID: u16 = 0x0fff;

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// Bytes of a frame, beginning with its Ethernet header.
pub trait Frame {
    /// The `N` bytes at `offset`; none if the frame ends before the last of them.
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
}

impl Frame for &[u8] {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// What the decision looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Which IP.
    pub family: Family,
    /// TCP, UDP or SCTP; [`Transport::Other`] for every other protocol and for all fragments but
    /// the first, which have no ports.
    pub transport: Transport,
    /// Source address; IPv4 in the first four bytes.
    pub source: [u8; 16],
    /// Destination address; IPv4 in the first four bytes.
    pub destination: [u8; 16],
    /// Source port; 0 where there is none.
    pub source_port: u16,
    /// Destination port; 0 where there is none.
    pub destination_port: u16,
    /// How many VLAN tags the frame had.
    pub tags: u8,
}

impl Flow {
    /// What [`parse`] begins with.
    pub const EMPTY: Self = Self {
        family: Family::V4,
        transport: Transport::Other,
        source: [0; 16],
        destination: [0; 16],
        source_port: 0,
        destination_port: 0,
        tags: 0,
    };
}

/// Reads a frame into `flow`. `outer` is the control information of a VLAN tag that is no longer
/// in the frame: the kernel and network cards keep the outermost one beside it.
///
/// `flow` comes from the caller and the error is a byte, because the kernel's verifier follows
/// values through registers: a large `Option` would have fields that are sometimes unset.
///
/// # Errors
/// Why nftables has to judge this frame.
#[inline(always)]
pub fn parse<F: Frame>(frame: &F, outer: Option<u16>, flow: &mut Flow) -> Result<(), Unparsed> {
    let mut tags = 0;
    if let Some(control) = outer {
        priority_only(control)?;
        tags = 1;
    }
    let mut offset = 14;
    let mut kind = u16::from_be_bytes(at(frame, 12)?);
    while kind == CUSTOMER_TAG || kind == SERVICE_TAG {
        if tags == MOST_TAGS {
            return Err(Unparsed::Tags);
        }
        let [a, b, c, d] = at(frame, offset)?;
        priority_only(u16::from_be_bytes([a, b]))?;
        kind = u16::from_be_bytes([c, d]);
        offset += 4;
        tags += 1;
    }
    flow.tags = tags;
    match kind {
        IPV4 => ipv4(frame, offset, flow),
        IPV6 => ipv6(frame, offset, flow),
        _ => Err(Unparsed::NotIp),
    }
}

/// A tag with a VLAN's number takes the frame to a device of its own, which has its own hooks.
#[inline(always)]
fn priority_only(control: u16) -> Result<(), Unparsed> {
    if control & VLAN_ID == 0 {
        Ok(())
    } else {
        Err(Unparsed::Vlan)
    }
}

/// RFC 791, section 3.1. Checked as `ip_rcv` does: what it throws away never reaches nftables.
#[inline(always)]
fn ipv4<F: Frame>(frame: &F, offset: usize, flow: &mut Flow) -> Result<(), Unparsed> {
    let header: [u8; 20] = at(frame, offset)?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[0] >> 4 != 4 || header_bytes < 20 || total_bytes < header_bytes {
        return Err(Unparsed::Malformed);
    }
    flow.family = Family::V4;
    let [.., s0, s1, s2, s3, d0, d1, d2, d3] = header;
    flow.source = [s0, s1, s2, s3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    flow.destination = [d0, d1, d2, d3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0 {
        return Ok(());
    }
    let transport = Transport::numbered(header[9]);
    if let Transport::Other = transport {
        return Ok(());
    }
    // Ports that the packet's own length excludes are padding of the frame.
    if total_bytes - header_bytes < 4 {
        return Err(Unparsed::Malformed);
    }
    ports(frame, offset + header_bytes, transport, flow)
}

/// RFC 8200, sections 3 and 4; the chain is followed as nftables does.
#[inline(always)]
fn ipv6<F: Frame>(frame: &F, offset: usize, flow: &mut Flow) -> Result<(), Unparsed> {
    let header: [u8; 40] = at(frame, offset)?;
    let payload_bytes = usize::from(u16::from_be_bytes([header[4], header[5]]));
    // A length of 0 is an empty packet or a jumbogram; neither is worth more code.
    if header[0] >> 4 != 6 || payload_bytes == 0 {
        return Err(Unparsed::Malformed);
    }
    flow.family = Family::V6;
    let mut index = 0;
    while index < 16 {
        flow.source[index] = header[8 + index];
        flow.destination[index] = header[24 + index];
        index += 1;
    }
    let mut next = header[6];
    let mut position = offset + 40;
    let end = position + payload_bytes;
    let mut headers = 0;
    loop {
        match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                let [following, length] = at(frame, position)?;
                next = following;
                position += (usize::from(length) + 1) * 8;
            }
            FRAGMENT => {
                let [following, _, high, low] = at(frame, position)?;
                if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                    return Ok(());
                }
                next = following;
                position += 8;
            }
            _ => break,
        }
        headers += 1;
        if headers > MOST_HEADERS {
            return Err(Unparsed::Headers);
        }
    }
    // Others than these, an authentication header among them: nothing that is judged here.
    let transport = Transport::numbered(next);
    if let Transport::Other = transport {
        return Ok(());
    }
    if position + 4 > end {
        return Err(Unparsed::Malformed);
    }
    ports(frame, position, transport, flow)
}

/// TCP, UDP and SCTP alike begin with the source port and the destination port.
#[inline(always)]
fn ports<F: Frame>(
    frame: &F,
    offset: usize,
    transport: Transport,
    flow: &mut Flow,
) -> Result<(), Unparsed> {
    let [a, b, c, d] = at(frame, offset)?;
    flow.source_port = u16::from_be_bytes([a, b]);
    flow.destination_port = u16::from_be_bytes([c, d]);
    flow.transport = transport;
    Ok(())
}

#[inline(always)]
fn at<F: Frame, const N: usize>(frame: &F, offset: usize) -> Result<[u8; N], Unparsed> {
    if offset > FARTHEST {
        return Err(Unparsed::Headers);
    }
    match frame.bytes(offset) {
        Some(bytes) => Ok(bytes),
        None => Err(Unparsed::Truncated),
    }
}
