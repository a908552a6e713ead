//! What the maps hold, and how one state of them becomes another without a drop too many.

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;
use ebpf_common::table::{
    FLAG_OWN, MOST_DESTINATIONS, MOST_HOSTS, MOST_RANGES, PortEntry, port_index,
};

use super::error::BpfError;
use super::tables::{Tables, transport};

/// The content of the maps that the programs decide by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Image {
    /// By index in the map.
    pub(super) ports: BTreeMap<u32, u32>,
    pub(super) destinations: BTreeMap<IpAddr, u8>,
    pub(super) hosts: BTreeMap<IpAddr, u8>,
    /// Each with the flags of all ranges around it: the map answers with the longest one alone.
    pub(super) ranges: BTreeMap<IpRange, u8>,
    /// Which port counts under which number.
    pub(super) slots: BTreeMap<u8, (Protocol, u16)>,
}

/// What an update wrote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Ports.
    pub ports: usize,
    /// Destinations.
    pub destinations: usize,
    /// Single sources.
    pub hosts: usize,
    /// Ranges of sources.
    pub ranges: usize,
}

impl Image {
    /// What these tables come to.
    pub(super) fn of(tables: &Tables) -> Result<Self, BpfError> {
        let mut image = Self::default();
        for (&(protocol, port), entry) in &tables.ports {
            // A port that is isolated nowhere would cost every packet to it a look-up.
            if entry.classes.bits() != 0 {
                let index = port_index(transport(protocol), port);
                image.ports.insert(index, entry.entry().0);
            }
            let taken = match entry.slot {
                0 => None,
                slot => image.slots.insert(slot, (protocol, port)),
            };
            if taken.is_some() {
                return Err(BpfError::SharedSlot(entry.slot));
            }
        }
        for (&address, classes) in &tables.destinations {
            image.destinations.insert(address, classes.bits());
        }
        for (&address, flags) in &tables.hosts {
            image.hosts.insert(address, flags.bits());
        }
        for (&range, flags) in &tables.ranges {
            image.ranges.insert(range, flags.bits());
        }
        image.ranges = united(&image.ranges);
        fits(&image.destinations, "destinations", MOST_DESTINATIONS)?;
        fits(&image.hosts, "sources", MOST_HOSTS)?;
        for v4 in [true, false] {
            let wanted = image.ranges.keys().filter(|it| it.base().is_ipv4() == v4);
            room(wanted.count(), "ranges of sources", MOST_RANGES)?;
        }
        Ok(image)
    }

    /// What passes in `self` or in `next` passes here: between the two, nothing is dropped that
    /// either lets through.
    pub(super) fn loosened(&self, next: &Self) -> Self {
        if self.ports.is_empty() {
            return Self {
                ports: BTreeMap::new(),
                slots: self.slots.clone(),
                ..next.clone()
            };
        }
        Self {
            ports: both(&self.ports, &next.ports, |old, new| {
                let (old, new) = (PortEntry(old), PortEntry(new));
                // Counters change their owner while nobody counts.
                if old.slot() != new.slot() {
                    return 0;
                }
                let classes = old.classes() & new.classes();
                match classes {
                    0 => 0,
                    _ => PortEntry::new(classes, old.pods_may() || new.pods_may(), old.slot()).0,
                }
            }),
            destinations: both(&self.destinations, &next.destinations, |old, new| old & new),
            hosts: either(&self.hosts, &next.hosts, |old, new| {
                (old | new) & !FLAG_OWN | old & new & FLAG_OWN
            }),
            ranges: united(&either(&self.ranges, &next.ranges, |old, new| old | new)),
            slots: self.slots.clone(),
        }
    }
}

/// Entries of both, as `unite` has them; 0 is no entry.
fn both<K: Ord + Copy, V: Copy + Default + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
    unite: impl Fn(V, V) -> V,
) -> BTreeMap<K, V> {
    let entry = |(&key, &old): (&K, &V)| Some((key, unite(old, *new.get(&key)?)));
    let entries = old.iter().filter_map(entry);
    entries
        .filter(|&(_, value)| value != V::default())
        .collect()
}

/// Entries of either, as `unite` has them; 0 is no entry.
fn either<K: Ord + Copy>(
    old: &BTreeMap<K, u8>,
    new: &BTreeMap<K, u8>,
    unite: impl Fn(u8, u8) -> u8,
) -> BTreeMap<K, u8> {
    let value = |map: &BTreeMap<K, u8>, key| map.get(key).copied().unwrap_or_default();
    let keys = old.keys().chain(new.keys());
    keys.map(|key| (*key, unite(value(old, key), value(new, key))))
        .filter(|&(_, value)| value != 0)
        .collect()
}

/// Each range with the flags of all that hold it. In the order of `IpRange`, a range follows those
/// that hold it, so that a stack of them is enough.
fn united(ranges: &BTreeMap<IpRange, u8>) -> BTreeMap<IpRange, u8> {
    let mut around: Vec<(IpRange, u8)> = Vec::new();
    let mut united = BTreeMap::new();
    for (&range, &flags) in ranges {
        while around
            .last()
            .is_some_and(|(outer, _)| !outer.contains(range.base()))
        {
            around.pop();
        }
        let flags = flags | around.last().map_or(0, |&(_, flags)| flags);
        around.push((range, flags));
        united.insert(range, flags);
    }
    united
}

fn fits(map: &BTreeMap<IpAddr, u8>, what: &'static str, limit: u32) -> Result<(), BpfError> {
    let v4 = map.keys().filter(|address| address.is_ipv4()).count();
    room(v4.max(map.len() - v4), what, limit)
}

fn room(wanted: usize, what: &'static str, limit: u32) -> Result<(), BpfError> {
    if usize::try_from(limit).is_ok_and(|limit| wanted > limit) {
        return Err(BpfError::TooMany {
            what,
            wanted,
            limit,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
