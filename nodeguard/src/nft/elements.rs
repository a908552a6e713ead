//! Keys of sets and their elements as bytes.

use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;

use super::uapi::family;
use crate::ruleset::{Datum, Element, Family, KeyPart, Set};

/// An element as the kernel has it. A range is two of them: its first key, and the first key that
/// it no longer holds, unless there is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WireElement {
    pub(super) key: Vec<u8>,
    /// Whether this is where a range ends (`NFT_SET_ELEM_INTERVAL_END`).
    pub(super) end: bool,
}

/// The number of a key's type in the `nft` program (`enum datatypes` of its `datatype.h`): six
/// bits for each part. The kernel only keeps it; listings need it.
pub(super) fn key_type(key: &[KeyPart]) -> u32 {
    key.iter().fold(0, |number, part| {
        number << 6
            | match part {
                KeyPart::Family => 2,
                KeyPart::V4 => 7,
                KeyPart::V6 => 8,
                KeyPart::Protocol => 12,
                KeyPart::Port => 13,
            }
    })
}

/// Bytes of a key. Parts of a concatenation begin at multiples of four.
pub(super) fn key_len(key: &[KeyPart]) -> usize {
    match key {
        [part] => part_len(*part),
        parts => parts
            .iter()
            .map(|part| part_len(*part).next_multiple_of(4))
            .sum(),
    }
}

/// All elements of a set.
pub(super) fn wire_elements(set: &Set) -> impl Iterator<Item = WireElement> {
    set.elements
        .iter()
        .flat_map(|element| wire(element, set.interval))
}

/// One element of a set.
pub(super) fn wire(element: &Element, interval: bool) -> impl Iterator<Item = WireElement> {
    let (first, end) = match element {
        Element::Value(data) => {
            let key = value_key(data);
            let end = interval.then(|| after(&key)).flatten();
            (key, end)
        }
        Element::Range(range) => range_keys(range),
    };
    let first = WireElement {
        key: first,
        end: false,
    };
    std::iter::once(first).chain(end.map(|key| WireElement { key, end: true }))
}

/// What a key of the kernel stands for, part by part.
pub(super) fn parse_key(parts: &[KeyPart], key: &[u8]) -> Option<Vec<Datum>> {
    if key.len() != key_len(parts) {
        return None;
    }
    let mut rest = key;
    let mut data = Vec::with_capacity(parts.len());
    for part in parts {
        let (bytes, _) = rest.split_at_checked(part_len(*part))?;
        data.push(match part {
            KeyPart::V4 => Datum::V4(<[u8; 4]>::try_from(bytes).ok()?.into()),
            KeyPart::V6 => Datum::V6(<[u8; 16]>::try_from(bytes).ok()?.into()),
            KeyPart::Family => Datum::Family(match *bytes.first()? {
                family::IPV4 => Family::V4,
                family::IPV6 => Family::V6,
                _ => return None,
            }),
            KeyPart::Protocol => Datum::Protocol(protocol(*bytes.first()?)?),
            KeyPart::Port => Datum::Port(u16::from_be_bytes(bytes.try_into().ok()?)),
        });
        rest = rest
            .get(part_len(*part).next_multiple_of(4)..)
            .unwrap_or(&[]);
    }
    Some(data)
}

fn part_len(part: KeyPart) -> usize {
    match part {
        KeyPart::V4 => 4,
        KeyPart::V6 => 16,
        KeyPart::Family | KeyPart::Protocol => 1,
        KeyPart::Port => 2,
    }
}

fn value_key(data: &[Datum]) -> Vec<u8> {
    let mut key = Vec::with_capacity(24);
    for datum in data {
        // Nothing to do for the first one.
        key.resize(key.len().next_multiple_of(4), 0);
        match datum {
            Datum::V4(address) => key.extend_from_slice(&address.octets()),
            Datum::V6(address) => key.extend_from_slice(&address.octets()),
            Datum::Family(Family::V4) => key.push(family::IPV4),
            Datum::Family(Family::V6) => key.push(family::IPV6),
            Datum::Protocol(protocol) => key.push(number(*protocol)),
            Datum::Port(port) => key.extend_from_slice(&port.to_be_bytes()),
        }
    }
    if data.len() > 1 {
        key.resize(key.len().next_multiple_of(4), 0);
    }
    key
}

fn range_keys(range: &IpRange) -> (Vec<u8>, Option<Vec<u8>>) {
    let prefix = u32::from(range.prefix());
    match range.base() {
        IpAddr::V4(base) => {
            let size = 1_u32.checked_shl(32 - prefix);
            let end = size.and_then(|size| base.to_bits().checked_add(size));
            (
                base.octets().to_vec(),
                end.map(|end| end.to_be_bytes().to_vec()),
            )
        }
        IpAddr::V6(base) => {
            let size = 1_u128.checked_shl(128 - prefix);
            let end = size.and_then(|size| base.to_bits().checked_add(size));
            (
                base.octets().to_vec(),
                end.map(|end| end.to_be_bytes().to_vec()),
            )
        }
    }
}

/// The next key, if this is not the last.
fn after(key: &[u8]) -> Option<Vec<u8>> {
    let mut next = key.to_vec();
    for byte in next.iter_mut().rev() {
        *byte = byte.wrapping_add(1);
        if *byte != 0 {
            return Some(next);
        }
    }
    None
}

/// Assigned numbers of protocols (IANA, `IPPROTO_*`).
fn number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}

fn protocol(number: u8) -> Option<Protocol> {
    match number {
        6 => Some(Protocol::Tcp),
        17 => Some(Protocol::Udp),
        132 => Some(Protocol::Sctp),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> Vec<(Vec<u8>, bool)> {
        let element = Element::Range(IpRange::parse(text).unwrap());
        wire(&element, true).map(|it| (it.key, it.end)).collect()
    }

    #[test]
    fn key_types_are_those_of_the_nft_program() {
        use KeyPart::{Family, Port, Protocol, V4, V6};
        for (key, number, len) in [
            (&[V4][..], 0x7, 4),
            (&[V6], 0x8, 16),
            (&[Port], 0xd, 2),
            (&[Protocol, Port], 0x30d, 8),
            (&[V4, Protocol, Port], 0x730d, 12),
            (&[V6, Protocol, Port], 0x830d, 24),
            (&[Family, Protocol, Port], 0x230d, 12),
        ] {
            assert_eq!(key_type(key), number, "{key:?}");
            assert_eq!(key_len(key), len, "{key:?}");
        }
    }

    #[test]
    fn parts_of_a_concatenation_are_padded_and_read_again() {
        let data = vec![
            Datum::Family(Family::V6),
            Datum::Protocol(Protocol::Sctp),
            Datum::Port(10250),
        ];
        let key = value_key(&data);
        assert_eq!(key, [10, 0, 0, 0, 132, 0, 0, 0, 0x28, 0x0a, 0, 0]);
        let parts = [KeyPart::Family, KeyPart::Protocol, KeyPart::Port];
        assert_eq!(parse_key(&parts, &key), Some(data));
        assert_eq!(parse_key(&parts, &key[1..]), None);
        assert_eq!(value_key(&[Datum::Port(22)]), [0, 22]);
    }

    #[test]
    fn a_range_ends_before_the_key_that_it_no_longer_holds() {
        let expected = vec![(vec![10, 0, 0, 0], false), (vec![11, 0, 0, 0], true)];
        assert_eq!(range("10.0.0.0/8"), expected);
        let expected = vec![(vec![10, 0, 0, 255], false), (vec![10, 0, 1, 0], true)];
        assert_eq!(range("10.0.0.255"), expected);
    }

    #[test]
    fn a_range_up_to_the_last_address_has_no_end() {
        assert_eq!(range("255.0.0.0/8"), [(vec![255, 0, 0, 0], false)]);
        assert_eq!(range("255.255.255.255"), [(vec![255; 4], false)]);
        assert_eq!(range("0.0.0.0/0"), [(vec![0; 4], false)]);
        assert_eq!(range("::/0"), [(vec![0; 16], false)]);
        assert_eq!(range("ff00::/8").len(), 1);
        let value = Element::Value(vec![Datum::V4([255; 4].into())]);
        assert_eq!(wire(&value, true).count(), 1);
        assert_eq!(wire(&value, false).count(), 1);
        let value = Element::Value(vec![Datum::V4([10, 0, 0, 255].into())]);
        let keys: Vec<_> = wire(&value, true).map(|it| it.key).collect();
        assert_eq!(keys, [vec![10, 0, 0, 255], vec![10, 0, 1, 0]]);
    }
}
