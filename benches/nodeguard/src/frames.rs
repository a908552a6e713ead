//! The frames that are sent: UDP, as short as they come, from many sources.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cell::{Cell, Family, Scenario};

/// Hardware address of the sender's end of every wire.
pub(crate) const SENDER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
/// Hardware address of every node.
pub(crate) const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Every node's addresses.
pub(crate) const NODE4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
pub(crate) const NODE6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2);
/// Whom the nodes send to.
pub(crate) const GATEWAY4: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
pub(crate) const GATEWAY6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// The senders' UDP port.
pub(crate) const SENDER_PORT: u16 = 40_000;

/// Strangers that packets to an isolated port come from.
const STRANGERS: u16 = 8_192;
/// Strangers that talk to another port.
const EVERYBODY: u16 = 1_024;

/// A frame and where in it the source stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    pub(crate) frame: Vec<u8>,
    /// Offset of the last two bytes of the source address.
    pub(crate) source: i16,
    /// Offset of two bytes that hold the complement of those, so that the checksum never changes.
    pub(crate) compensation: i16,
}

/// How many sources the frames of a cell have.
pub(crate) fn sources(cell: &Cell) -> u16 {
    match cell.scenario {
        Scenario::Drop => STRANGERS,
        Scenario::PassPeer => cell.group.peers(),
        Scenario::PassOther => EVERYBODY,
    }
}

/// The n-th peer or stranger, counted from 1.
pub(crate) fn address(scenario: Scenario, family: Family, number: u16) -> IpAddr {
    let network = match scenario {
        Scenario::PassPeer => 66,
        Scenario::Drop | Scenario::PassOther => 67,
    };
    let [high, low] = number.to_be_bytes();
    match family {
        Family::V4 => Ipv4Addr::new(10, network, high, low).into(),
        Family::V6 => {
            let prefix = 0xfd00 | u16::from(network / 10 * 16 + network % 10);
            Ipv6Addr::new(prefix, 0, 0, 0, 0, 0, 0, number).into()
        }
    }
}

/// The frame of a cell, its source 0.
pub(crate) fn template(cell: &Cell) -> Template {
    let mut frame = [NODE_MAC, SENDER_MAC].concat();
    let port = cell.port().to_be_bytes();
    let sender = SENDER_PORT.to_be_bytes();
    match address(cell.scenario, cell.family, 0) {
        IpAddr::V4(source) => {
            // 18 bytes of content make the shortest frame. No UDP checksum.
            let mut packet = vec![0x45, 0, 0, 46, 0xff, 0xff, 0, 0, 64, 17, 0, 0];
            packet.extend([source.octets(), NODE4.octets()].concat());
            let sum = checksum(&packet);
            packet[10..12].copy_from_slice(&sum.to_be_bytes());
            packet.extend([sender, port, [0, 26], [0, 0]].concat());
            packet.extend([0; 18]);
            frame.extend([8, 0]);
            frame.extend(packet);
            Template {
                frame,
                source: 28,
                compensation: 18,
            }
        }
        IpAddr::V6(source) => {
            let addresses = [source.octets(), NODE6.octets()].concat();
            let mut datagram = [sender, port, [0, 12], [0, 0], [0xff, 0xff], [0, 0]].concat();
            let pseudo = [&addresses[..], &[0, 0, 0, 12, 0, 0, 0, 17], &datagram].concat();
            datagram[6..8].copy_from_slice(&checksum(&pseudo).to_be_bytes());
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 12, 17, 64]);
            frame.extend(addresses);
            frame.extend(datagram);
            Template {
                frame,
                source: 36,
                compensation: 62,
            }
        }
    }
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2);
    let mut sum: u32 = words
        .map(|it| u32::from(u16::from_be_bytes([it[0], it[1]])))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cell::Group;

    fn cell(family: Family) -> Cell {
        Cell {
            group: Group::Worker8,
            scenario: Scenario::PassPeer,
            family,
        }
    }

    fn with_source(template: &Template, source: u16) -> Vec<u8> {
        let mut frame = template.frame.clone();
        for (offset, value) in [(template.source, source), (template.compensation, !source)] {
            let offset = usize::try_from(offset).unwrap();
            frame[offset..offset + 2].copy_from_slice(&value.to_be_bytes());
        }
        frame
    }

    #[test]
    fn the_ipv4_header_is_right_whoever_sends() {
        let template = template(&cell(Family::V4));
        assert_eq!(template.frame.len(), 60);
        for source in [1, 8, 10_000, 0xfffe] {
            let frame = with_source(&template, source);
            assert_eq!(checksum(&frame[14..34]), 0, "{source}");
            let IpAddr::V4(address) = address(Scenario::PassPeer, Family::V4, source) else {
                panic!("IPv4");
            };
            assert_eq!(frame[26..30], address.octets());
        }
    }

    #[test]
    fn the_ipv6_checksum_is_right_whoever_sends() {
        let template = template(&cell(Family::V6));
        for source in [1, 8, 10_000, 0xfffe] {
            let frame = with_source(&template, source);
            let pseudo = [&frame[22..54], &[0, 0, 0, 12, 0, 0, 0, 17], &frame[54..]].concat();
            assert_eq!(checksum(&pseudo), 0, "{source}");
            let IpAddr::V6(address) = address(Scenario::PassPeer, Family::V6, source) else {
                panic!("IPv6");
            };
            assert_eq!(frame[22..38], address.octets());
        }
    }
}
