//! The maps of the loaded programs that hold the policy.

use std::collections::BTreeMap;
use std::net::IpAddr;

use aya::Ebpf;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError};
use config::net::IpRange;
use ebpf_common::table::{
    CONFIG, DESTINATIONS4, DESTINATIONS6, HAS_RANGES4, HAS_RANGES6, HOSTS4, HOSTS6, PORTS, RANGES4,
    RANGES6,
};

use super::error::BpfError;
use super::image::{Changes, Image};

/// The maps, and what stands in them.
pub(super) struct Maps {
    ports: Array<MapData, u32>,
    config: Array<MapData, u32>,
    destinations: Addresses,
    hosts: Addresses,
    ranges4: LpmTrie<MapData, [u8; 4], u8>,
    ranges6: LpmTrie<MapData, [u8; 16], u8>,
    /// Follows every single write, so that it is true after a failure as well.
    pub(super) image: Image,
}

impl Maps {
    /// Takes the maps, which are empty, out of the object.
    pub(super) fn of(bpf: &mut Ebpf) -> Result<Self, BpfError> {
        Ok(Self {
            ports: taken(bpf, PORTS)?,
            config: taken(bpf, CONFIG)?,
            destinations: Addresses::of(bpf, DESTINATIONS4, DESTINATIONS6)?,
            hosts: Addresses::of(bpf, HOSTS4, HOSTS6)?,
            ranges4: taken(bpf, RANGES4)?,
            ranges6: taken(bpf, RANGES6)?,
            image: Image::default(),
        })
    }

    /// Makes the maps equal to `next`, but for the owners of counters: who may come in first, then
    /// whom it concerns, and last who may no longer.
    pub(super) fn write(&mut self, next: &Image) -> Result<Changes, BpfError> {
        let mut changes = Changes::default();
        // Where no port is isolated every source passes, and the maps need no room for the old ones.
        let (hosts, ranges) = if self.image.ports.is_empty() {
            (next.hosts.clone(), next.ranges.clone())
        } else {
            (
                union_of_flags(&self.image.hosts, &next.hosts),
                union_of_flags(&self.image.ranges, &next.ranges),
            )
        };
        changes.hosts += self.hosts.write(&mut self.image.hosts, &hosts)?;
        self.announce_ranges(&ranges)?;
        changes.ranges += self.set_ranges(&ranges)?;

        changes.ports += self.set_ports(&next.ports)?;
        changes.destinations += self
            .destinations
            .write(&mut self.image.destinations, &next.destinations)?;

        changes.hosts += self.hosts.write(&mut self.image.hosts, &next.hosts)?;
        changes.ranges += self.set_ranges(&next.ranges)?;
        self.announce_ranges(&next.ranges)?;
        Ok(changes)
    }

    /// Empties the map of ports: every packet passes, and nftables judges alone.
    pub(super) fn surrender(&mut self) -> Result<(), BpfError> {
        self.set_ports(&BTreeMap::new()).map(drop)
    }

    /// Ports alone.
    pub(super) fn set_ports(&mut self, next: &BTreeMap<u32, u32>) -> Result<usize, BpfError> {
        let (gone, written) = difference(&self.image.ports, next);
        let changed = gone.len() + written.len();
        for index in gone {
            let result = self.ports.set(index, 0, 0);
            result.map_err(|source| write_error(PORTS, source))?;
            self.image.ports.remove(&index);
        }
        for (index, entry) in written {
            let result = self.ports.set(index, entry, 0);
            result.map_err(|source| write_error(PORTS, source))?;
            self.image.ports.insert(index, entry);
        }
        Ok(changed)
    }

    fn set_ranges(&mut self, next: &BTreeMap<IpRange, u8>) -> Result<usize, BpfError> {
        let (gone, written) = difference(&self.image.ranges, next);
        let changed = gone.len() + written.len();
        for (range, flags) in written {
            let length = u32::from(range.prefix());
            match range.base() {
                IpAddr::V4(base) => {
                    let key = Key::new(length, base.octets());
                    let result = self.ranges4.insert(&key, flags, 0);
                    result.map_err(|source| write_error(RANGES4, source))?;
                }
                IpAddr::V6(base) => {
                    let key = Key::new(length, base.octets());
                    let result = self.ranges6.insert(&key, flags, 0);
                    result.map_err(|source| write_error(RANGES6, source))?;
                }
            }
            self.image.ranges.insert(range, flags);
        }
        for range in gone {
            let length = u32::from(range.prefix());
            match range.base() {
                IpAddr::V4(base) => {
                    let result = self.ranges4.remove(&Key::new(length, base.octets()));
                    unless_absent(RANGES4, result)?;
                }
                IpAddr::V6(base) => {
                    let result = self.ranges6.remove(&Key::new(length, base.octets()));
                    unless_absent(RANGES6, result)?;
                }
            }
            self.image.ranges.remove(&range);
        }
        Ok(changed)
    }

    /// Tells the programs whether a look-up among ranges is worth its price.
    fn announce_ranges(&mut self, ranges: &BTreeMap<IpRange, u8>) -> Result<(), BpfError> {
        let mut word = 0;
        for range in ranges.keys() {
            word |= if range.base().is_ipv4() {
                HAS_RANGES4
            } else {
                HAS_RANGES6
            };
        }
        let result = self.config.set(0, word, 0);
        result.map_err(|source| write_error(CONFIG, source))
    }
}

/// Addresses of both families with a byte each.
struct Addresses {
    v4: HashMap<MapData, [u8; 4], u8>,
    v6: HashMap<MapData, [u8; 16], u8>,
    names: (&'static str, &'static str),
}

impl Addresses {
    fn of(bpf: &mut Ebpf, v4: &'static str, v6: &'static str) -> Result<Self, BpfError> {
        Ok(Self {
            v4: taken(bpf, v4)?,
            v6: taken(bpf, v6)?,
            names: (v4, v6),
        })
    }

    /// Writes the difference; what is gone goes first, to make room.
    fn write(
        &mut self,
        current: &mut BTreeMap<IpAddr, u8>,
        next: &BTreeMap<IpAddr, u8>,
    ) -> Result<usize, BpfError> {
        let (gone, written) = difference(current, next);
        let changed = gone.len() + written.len();
        for address in gone {
            match address {
                IpAddr::V4(key) => unless_absent(self.names.0, self.v4.remove(&key.octets()))?,
                IpAddr::V6(key) => unless_absent(self.names.1, self.v6.remove(&key.octets()))?,
            }
            current.remove(&address);
        }
        for (address, byte) in written {
            match address {
                IpAddr::V4(key) => self
                    .v4
                    .insert(key.octets(), byte, 0)
                    .map_err(|source| write_error(self.names.0, source))?,
                IpAddr::V6(key) => self
                    .v6
                    .insert(key.octets(), byte, 0)
                    .map_err(|source| write_error(self.names.1, source))?,
            }
            current.insert(address, byte);
        }
        Ok(changed)
    }
}

/// Entries of both, with everything but "never comes in from outside" that either says.
fn union_of_flags<K: Ord + Copy>(old: &BTreeMap<K, u8>, new: &BTreeMap<K, u8>) -> BTreeMap<K, u8> {
    let mut union = new.clone();
    for (&key, &flags) in old {
        let entry = union.entry(key).or_insert(0);
        *entry |= flags & !ebpf_common::table::FLAG_OWN;
    }
    union.retain(|_, flags| *flags != 0);
    union
}

/// Keys that go, and entries to be written.
fn difference<K: Ord + Copy, V: Copy + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> (Vec<K>, Vec<(K, V)>) {
    let gone = old.keys().filter(|key| !new.contains_key(key)).copied();
    let written = new
        .iter()
        .filter(|(key, value)| old.get(key) != Some(value));
    (
        gone.collect(),
        written.map(|(&key, &value)| (key, value)).collect(),
    )
}

/// The map of that name, with the types that it is said to have.
pub(super) fn taken<M: TryFrom<Map, Error = MapError>>(
    bpf: &mut Ebpf,
    name: &'static str,
) -> Result<M, BpfError> {
    let map = bpf.take_map(name).ok_or(BpfError::Incomplete(name))?;
    M::try_from(map).map_err(|source| BpfError::Map {
        name,
        what: "read",
        source,
    })
}

pub(super) fn write_error(name: &'static str, source: MapError) -> BpfError {
    BpfError::Map {
        name,
        what: "written",
        source,
    }
}

/// What is not there need not be removed.
fn unless_absent(name: &'static str, result: Result<(), MapError>) -> Result<(), BpfError> {
    match result {
        Ok(()) | Err(MapError::KeyNotFound | MapError::ElementNotFound) => Ok(()),
        Err(MapError::SyscallError(error))
            if error.io_error.raw_os_error() == Some(libc::ENOENT) =>
        {
            Ok(())
        }
        Err(source) => Err(write_error(name, source)),
    }
}
