//! What the counters of a ruleset have counted.

use std::collections::BTreeMap;

use config::guard::Protocol;

use super::NftError;
use super::channel::Channel;
use super::elements;
use super::picture;
use super::seen::{Count, SeenElement, SeenObject};
use crate::ruleset::{Datum, Family, Ruleset, Set};

/// Counts since the table was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// By the name of the counter.
    pub named: BTreeMap<String, Count>,
    /// By the name of the counted set, and then by element.
    pub sets: BTreeMap<String, BTreeMap<PortKey, Count>>,
}

/// The key of counted sets: what was asked for by which family and protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortKey {
    /// IPv4 or IPv6.
    pub family: Family,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its port.
    pub port: u16,
}

/// Asks for all counters of a ruleset. A picture of counters is never of one moment, and changes
/// of other tables do no harm here, so nothing is asked for twice.
pub(super) fn read(channel: &mut Channel, ruleset: &Ruleset) -> Result<Counts, NftError> {
    let mut objects = Vec::new();
    picture::objects(channel, &mut objects)?;
    let mut counts = Counts {
        named: of_objects(ruleset, objects),
        ..Counts::default()
    };
    for set in ruleset.sets.iter().filter(|set| set.counted) {
        let mut seen = Vec::new();
        picture::elements_of(channel, set.name, &mut seen)?;
        counts
            .sets
            .insert(set.name.to_owned(), of_elements(set, &seen));
    }
    Ok(counts)
}

fn of_objects(ruleset: &Ruleset, objects: Vec<SeenObject>) -> BTreeMap<String, Count> {
    objects
        .into_iter()
        .filter(|seen| ruleset.counters.contains(&&*seen.name))
        .filter_map(|seen| Some((seen.name, seen.count?)))
        .collect()
}

/// Elements that are none of ours are passed over; finding them is the business of
/// [`super::drift`].
fn of_elements(set: &Set, seen: &[SeenElement]) -> BTreeMap<PortKey, Count> {
    seen.iter()
        .filter_map(|element| {
            let key = elements::parse_key(&set.key, &element.key)?;
            let [
                Datum::Family(family),
                Datum::Protocol(protocol),
                Datum::Port(port),
            ] = *key.as_slice()
            else {
                return None;
            };
            let key = PortKey {
                family,
                protocol,
                port,
            };
            Some((key, element.count?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ruleset::KeyPart;

    #[test]
    fn counts_are_told_by_family_protocol_and_port() {
        let set = Set {
            name: "stranger",
            key: vec![KeyPart::Family, KeyPart::Protocol, KeyPart::Port],
            interval: false,
            counted: true,
            elements: Vec::new(),
        };
        let count = Count {
            packets: 3,
            bytes: 120,
        };
        let element = |key: &[u8], count| SeenElement {
            key: key.to_vec(),
            count,
            ..SeenElement::default()
        };
        let seen = [
            element(&[2, 0, 0, 0, 6, 0, 0, 0, 0, 22, 0, 0], Some(count)),
            element(&[10, 0, 0, 0, 6, 0, 0, 0, 0, 22, 0, 0], None),
            element(&[99, 0, 0, 0, 6, 0, 0, 0, 0, 22, 0, 0], Some(count)),
            element(&[], Some(count)),
        ];
        let key = PortKey {
            family: Family::V4,
            protocol: Protocol::Tcp,
            port: 22,
        };
        assert_eq!(of_elements(&set, &seen), BTreeMap::from([(key, count)]));
    }
}
