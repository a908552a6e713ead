//! Frames as an attacker crafts them: tags, options, extension headers, fragments.
//!
//! Pure: bytes in the order in which they go on the wire. Each shape carries the same request: a
//! TCP SYN, a UDP datagram or an SCTP INIT that holds a marker which no translation changes.

use std::net::{IpAddr, SocketAddr};

use config::guard::Protocol;

use super::place::Mac;

/// First bytes of a UDP datagram of ours; the marker follows.
pub const MAGIC: [u8; 4] = *b"GHmx";
/// First bytes of the answer to one.
pub const ANSWER: [u8; 4] = *b"GHok";

/// What is asked for, whatever the frame looks like.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Who says that it asks.
    pub source: SocketAddr,
    /// Whom.
    pub destination: SocketAddr,
    /// By which protocol.
    pub protocol: Protocol,
    /// What the receiver recognises it by.
    pub marker: u32,
}

/// How a request is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shape {
    /// One packet without ornament.
    Plain,
    /// 802.1Q tags of VLAN 0, which is no VLAN: the kernel takes them off.
    Tags(u8),
    /// An 802.1ad tag of VLAN 0, then an 802.1Q one.
    DoubleTag,
    /// IPv4 options, so that ports do not stand where they mostly do.
    Options,
    /// IPv4, the first of two fragments holds eight bytes: the ports and little more.
    TinyFragments {
        /// The second goes first.
        reversed: bool,
    },
    /// IPv6 destination options, as many headers of them.
    DestinationOptions(u8),
    /// IPv6 hop-by-hop options, then destination options.
    HopByHop,
    /// An IPv6 routing header that has done its work.
    Routing,
    /// An IPv6 fragment header on a packet that is whole.
    Atomic,
    /// Two IPv6 fragments.
    Fragments {
        /// The second goes first.
        reversed: bool,
    },
    /// Two IPv6 fragments, destination options before the ports in the first.
    OptionsInFragment,
    /// Two IPv6 fragments, all the ports in the second (forbidden by RFC 8200, section 4.5).
    PortlessFragment,
}

impl Shape {
    /// All shapes of an IPv4 packet.
    pub const V4: [Self; 8] = [
        Self::Plain,
        Self::Tags(1),
        Self::Tags(2),
        Self::Tags(4),
        Self::DoubleTag,
        Self::Options,
        Self::TinyFragments { reversed: false },
        Self::TinyFragments { reversed: true },
    ];

    /// All shapes of an IPv6 packet.
    pub const V6: [Self; 16] = [
        Self::Plain,
        Self::Tags(1),
        Self::Tags(2),
        Self::Tags(4),
        Self::DoubleTag,
        Self::DestinationOptions(1),
        Self::DestinationOptions(4),
        Self::DestinationOptions(8),
        Self::DestinationOptions(12),
        Self::HopByHop,
        Self::Routing,
        Self::Atomic,
        Self::Fragments { reversed: false },
        Self::Fragments { reversed: true },
        Self::OptionsInFragment,
        Self::PortlessFragment,
    ];

    /// Whether it is two frames.
    #[must_use]
    pub fn is_fragmented(self) -> bool {
        matches!(
            self,
            Self::TinyFragments { .. }
                | Self::Fragments { .. }
                | Self::OptionsInFragment
                | Self::PortlessFragment
        )
    }

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Plain => "plain".into(),
            Self::Tags(number) => format!("{number} tag(s) of VLAN 0"),
            Self::DoubleTag => "802.1ad and 802.1Q tag".into(),
            Self::Options => "IPv4 options".into(),
            Self::TinyFragments { reversed } => {
                format!("IPv4 fragments, first of 8 bytes{}", order(reversed))
            }
            Self::DestinationOptions(number) => format!("{number} destination options header(s)"),
            Self::HopByHop => "hop-by-hop and destination options".into(),
            Self::Routing => "routing header without segments left".into(),
            Self::Atomic => "atomic fragment".into(),
            Self::Fragments { reversed } => format!("2 IPv6 fragments{}", order(reversed)),
            Self::OptionsInFragment => "destination options inside a fragment".into(),
            Self::PortlessFragment => "first fragment without ports".into(),
        }
    }
}

fn order(reversed: bool) -> &'static str {
    if reversed { ", second first" } else { "" }
}

const DESTINATION_OPTIONS: u8 = 60;
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;

/// The frames of a request.
#[must_use]
pub fn frames(shape: Shape, request: &Request, from: Mac, to: Mac) -> Vec<Vec<u8>> {
    let tags: Vec<u16> = match shape {
        Shape::Tags(number) => vec![0x8100; number.into()],
        Shape::DoubleTag => vec![0x88a8, 0x8100],
        _ => Vec::new(),
    };
    let packets = match request.source.ip() {
        IpAddr::V4(_) => v4(shape, request),
        IpAddr::V6(_) => v6(shape, request),
    };
    packets
        .into_iter()
        .map(|packet| frame(from, to, &tags, &packet))
        .collect()
}

/// A request without ornament, from its IP header on.
#[must_use]
pub fn packet(request: &Request) -> Vec<u8> {
    let payload = transport(request);
    match request.source.ip() {
        IpAddr::V4(_) => v4_packet(request, &[], &payload, 0, 0),
        IpAddr::V6(_) => v6_packet(request, number(request.protocol), &payload),
    }
}

/// The packet that a VXLAN device would send: `inner` wrapped for network 1.
#[must_use]
pub fn vxlan(inner: &[u8], outer: &Request, from: Mac, to: Mac) -> Vec<u8> {
    let mut payload = vec![8, 0, 0, 0, 0, 0, 1, 0];
    payload.extend_from_slice(inner);
    let mut datagram = Vec::new();
    for word in [
        outer.source.port(),
        outer.destination.port(),
        u16::try_from(payload.len() + 8).expect("a small packet"),
        // A checksum of 0 is none, as RFC 7348 advises.
        0,
    ] {
        datagram.extend_from_slice(&word.to_be_bytes());
    }
    datagram.extend_from_slice(&payload);
    let packet = v4_packet(outer, &[], &datagram, 0, 0);
    frame(from, to, &[], &packet)
}

fn frame(from: Mac, to: Mac, tags: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut bytes = [to, from].concat();
    for tag in tags {
        bytes.extend_from_slice(&tag.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
    }
    let kind: u16 = if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd };
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(packet);
    bytes
}

fn v4(shape: Shape, request: &Request) -> Vec<Vec<u8>> {
    let payload = transport(request);
    match shape {
        // No-operation options, eight bytes of them.
        Shape::Options => vec![v4_packet(request, &[1; 8], &payload, 0, 0)],
        Shape::TinyFragments { reversed } => {
            const MORE: u16 = 0x2000;
            let first = v4_packet(request, &[], &payload[..8], MORE, 1);
            let second = v4_packet(request, &[], &payload[8..], 1, 1);
            in_order([first, second], reversed)
        }
        _ => vec![packet(request)],
    }
}

fn in_order([first, second]: [Vec<u8>; 2], reversed: bool) -> Vec<Vec<u8>> {
    if reversed {
        vec![second, first]
    } else {
        vec![first, second]
    }
}

fn v4_packet(
    request: &Request,
    options: &[u8],
    payload: &[u8],
    fragment: u16,
    numbered: u16,
) -> Vec<u8> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) =
        (request.source.ip(), request.destination.ip())
    else {
        unreachable!("both ends are of one family");
    };
    let header = 20 + options.len();
    let length = u16::try_from(header + payload.len()).expect("a small packet");
    // Fragments of different requests must not be put together.
    let identity = if numbered == 0 {
        0
    } else {
        request.marker as u16
    };
    let mut packet = vec![0x40 | u8::try_from(header / 4).expect("at most 15"), 0];
    for word in [length, identity, fragment] {
        packet.extend_from_slice(&word.to_be_bytes());
    }
    packet.extend_from_slice(&[64, number(request.protocol), 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(options);
    let sum = checksum(&packet);
    packet[10..12].copy_from_slice(&sum);
    packet.extend_from_slice(payload);
    packet
}

fn v6(shape: Shape, request: &Request) -> Vec<Vec<u8>> {
    let payload = transport(request);
    let protocol = number(request.protocol);
    let with_options = |next: u8| -> Vec<u8> { [options(next), payload.clone()].concat() };
    match shape {
        Shape::DestinationOptions(headers) => {
            let mut body = payload.clone();
            for index in 0..headers {
                let next = if index == 0 {
                    protocol
                } else {
                    DESTINATION_OPTIONS
                };
                body = [options(next), body].concat();
            }
            vec![v6_packet(request, DESTINATION_OPTIONS, &body)]
        }
        Shape::HopByHop => {
            let body = [options(DESTINATION_OPTIONS), with_options(protocol)].concat();
            vec![v6_packet(request, HOP_BY_HOP, &body)]
        }
        Shape::Routing => {
            // Of type 0, with no address in it.
            let body = [vec![protocol, 0, 0, 0, 0, 0, 0, 0], payload].concat();
            vec![v6_packet(request, ROUTING, &body)]
        }
        Shape::Atomic => vec![fragment(request, protocol, &payload, 0, false)],
        Shape::Fragments { reversed } => {
            let cut = payload.len() - 8;
            let first = fragment(request, protocol, &payload[..cut], 0, true);
            let second = fragment(request, protocol, &payload[cut..], cut, false);
            in_order([first, second], reversed)
        }
        Shape::OptionsInFragment | Shape::PortlessFragment => {
            let body = with_options(protocol);
            let cut = if shape == Shape::PortlessFragment {
                8
            } else {
                body.len() - 8
            };
            let first = fragment(request, DESTINATION_OPTIONS, &body[..cut], 0, true);
            let second = fragment(request, DESTINATION_OPTIONS, &body[cut..], cut, false);
            vec![first, second]
        }
        _ => vec![packet(request)],
    }
}

/// A header of hop-by-hop or destination options that hold padding alone.
fn options(next: u8) -> Vec<u8> {
    vec![next, 0, 1, 4, 0, 0, 0, 0]
}

fn fragment(request: &Request, next: u8, part: &[u8], offset: usize, more: bool) -> Vec<u8> {
    let place = u16::try_from(offset).expect("a small packet") | u16::from(more);
    let mut body = vec![next, 0];
    body.extend_from_slice(&place.to_be_bytes());
    body.extend_from_slice(&request.marker.to_be_bytes());
    body.extend_from_slice(part);
    v6_packet(request, FRAGMENT, &body)
}

fn v6_packet(request: &Request, next: u8, body: &[u8]) -> Vec<u8> {
    let (IpAddr::V6(source), IpAddr::V6(destination)) =
        (request.source.ip(), request.destination.ip())
    else {
        unreachable!("both ends are of one family");
    };
    let length = u16::try_from(body.len()).expect("a small packet");
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[next, 64]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(body);
    packet
}

/// The number of a protocol in IP headers.
#[must_use]
pub fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

/// A request without IP header, 32 bytes in all protocols.
#[must_use]
pub fn transport(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(32);
    bytes.extend_from_slice(&request.source.port().to_be_bytes());
    bytes.extend_from_slice(&request.destination.port().to_be_bytes());
    let marker = request.marker.to_be_bytes();
    match request.protocol {
        Protocol::Tcp => {
            bytes.extend_from_slice(&marker);
            // No acknowledgement, a header of 32 bytes, SYN, a window; options that do nothing.
            bytes.extend_from_slice(&[0, 0, 0, 0, 0x80, 0x02, 0x40, 0, 0, 0, 0, 0]);
            bytes.extend_from_slice(&[1; 12]);
            let sum = pseudo_checksum(request, &bytes);
            bytes[16..18].copy_from_slice(&sum);
        }
        Protocol::Udp => {
            bytes.extend_from_slice(&[0, 32, 0, 0]);
            bytes.extend_from_slice(&MAGIC);
            bytes.extend_from_slice(&marker);
            bytes.extend_from_slice(&[0; 16]);
            let sum = pseudo_checksum(request, &bytes);
            bytes[6..8].copy_from_slice(&sum);
        }
        Protocol::Sctp => {
            bytes.extend_from_slice(&[0; 8]);
            // INIT of 20 bytes: tag, window, streams, first sequence number.
            bytes.extend_from_slice(&[1, 0, 0, 20]);
            bytes.extend_from_slice(&marker);
            bytes.extend_from_slice(&[0, 1, 0, 0, 0, 10, 0, 10]);
            bytes.extend_from_slice(&marker);
            let sum = crc32c(&bytes).to_le_bytes();
            bytes[8..12].copy_from_slice(&sum);
        }
    }
    bytes
}

/// Finds marker and destination port in what a raw socket hands over, from the transport header on.
#[must_use]
pub fn recognise(protocol: Protocol, bytes: &[u8]) -> Option<(u16, u32)> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let marker = match protocol {
        // SYN and not SYN-ACK: the flags' low six bits.
        Protocol::Tcp if bytes.get(13)? & 0x3f == 2 => bytes.get(4..8)?,
        Protocol::Udp if bytes.get(8..12)? == MAGIC => bytes.get(12..16)?,
        Protocol::Sctp if *bytes.get(12)? == 1 => bytes.get(16..20)?,
        _ => return None,
    };
    Some((port, u32::from_be_bytes(marker.try_into().ok()?)))
}

fn pseudo_checksum(request: &Request, bytes: &[u8]) -> [u8; 2] {
    let mut all = Vec::with_capacity(bytes.len() + 40);
    match (request.source.ip(), request.destination.ip()) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            all.extend_from_slice(&source.octets());
            all.extend_from_slice(&destination.octets());
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            all.extend_from_slice(&source.octets());
            all.extend_from_slice(&destination.octets());
        }
        _ => unreachable!("both ends are of one family"),
    }
    let length = u16::try_from(bytes.len()).expect("a small packet");
    all.extend_from_slice(&[0, number(request.protocol)]);
    all.extend_from_slice(&length.to_be_bytes());
    all.extend_from_slice(bytes);
    checksum(&all)
}

/// The checksum of the Internet protocols (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}

/// The checksum of SCTP (RFC 9260, appendix A), bit by bit: packets here are small and few.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 {
                (crc >> 1) ^ 0x82f6_3b78
            } else {
                crc >> 1
            };
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(family: &str, protocol: Protocol) -> Request {
        let (source, destination) = match family {
            "4" => ("10.0.0.1:40000", "10.0.0.2:2379"),
            _ => ("[fd00::1]:40000", "[fd00::2]:2379"),
        };
        Request {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            protocol,
            marker: 0xdead_beef,
        }
    }

    #[test]
    fn the_checksum_of_sctp_is_the_published_one() {
        // RFC 3720, appendix B.4: 32 bytes of zeroes.
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
    }

    #[test]
    fn a_request_is_recognised_by_every_protocol() {
        for protocol in Protocol::ALL {
            let bytes = transport(&request("4", protocol));
            assert_eq!(bytes.len(), 32);
            assert_eq!(recognise(protocol, &bytes), Some((2379, 0xdead_beef)));
        }
    }

    #[test]
    fn every_shape_of_a_request_is_another_sequence_of_frames() {
        for (family, shapes) in [("4", &Shape::V4[..]), ("6", &Shape::V6[..])] {
            let all: Vec<_> = shapes
                .iter()
                .map(|shape| frames(*shape, &request(family, Protocol::Tcp), [2; 6], [4; 6]))
                .collect();
            for (index, one) in all.iter().enumerate() {
                assert!(!all[..index].contains(one), "{:?}", shapes[index]);
            }
        }
    }
}
