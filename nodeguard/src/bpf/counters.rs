//! Counters: what the programs have dropped or left to nftables since the plane was first set up,
//! across restarts and changes of policy.
//!
//! The programs count per CPU in a map by number. Beside it stand a map of what earlier ones had
//! counted and a map that says which port a number means; all three are pinned for the next daemon.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use aya::maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use aya::{Ebpf, Pod};
use config::guard::Protocol;
use ebpf_common::table::{
    Family, LOST_EVENTS, MOST_COUNTERS, MOST_SLOTS, Reason, STATS, Transport, Unparsed, drop_index,
    port_index, unparsed_index,
};

use super::bpffs::{Pins, failure};
use super::error::BpfError;
use super::maps::write_error;
use super::tables::{protocol, transport};

const BASE: &str = "base";
const SLOTS: &str = "slots";
const NAMES: [&str; 3] = ["stats", BASE, SLOTS];
/// In the map of owners: the number is taken. Below it stands the port's place in the map of ports.
const TAKEN: u32 = 1 << 31;

type Port = (Protocol, u16);

/// What has been counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Dropped packets; zeros as well, for every isolated port with counters of its own.
    pub drops: Vec<Drops>,
    /// Frames that were left to nftables, by kind.
    pub unparsed: Vec<(Unparsed, u64)>,
    /// Drops of which no event tells: over budget, or nobody read them in time.
    pub lost_events: u64,
}

/// Dropped packets of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drops {
    /// Why.
    pub reason: Reason,
    /// Which IP.
    pub family: Family,
    /// To which port; none for what counts together.
    pub port: Option<Port>,
    /// Number of that port's counters.
    pub slot: u8,
    /// How many.
    pub packets: u64,
}

/// One counter, whatever its number in a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Account {
    Drops(Reason, Family, Option<Port>),
    /// With the same number in every generation.
    Fixed(u32),
}

/// One generation of counters.
struct Ledger {
    stats: PerCpuArray<MapData, u64>,
    base: Array<MapData, u64>,
    owners: BTreeMap<u8, Port>,
}

/// The counters of the loaded programs, and those of the programs before.
pub(super) struct Books {
    own: Ledger,
    slots: Array<MapData, u32>,
    previous: Option<Previous>,
    pins: Pins,
}

/// The programs before count until the last of their packets is judged.
struct Previous {
    ledger: Ledger,
    /// What of it stands in our base already.
    carried: BTreeMap<Account, u64>,
}

impl Books {
    /// Makes the counters of newly loaded programs, and looks for those of the ones before.
    pub(super) fn open(bpf: &mut Ebpf, pins: &Pins) -> Result<Self, BpfError> {
        let pin_error = |name, source| BpfError::Map {
            name,
            what: "pinned",
            source,
        };
        for name in NAMES {
            let stale = fs::remove_file(pins.map(&new(name)));
            if let Err(error) = stale
                && error.kind() != io::ErrorKind::NotFound
            {
                return Err(failure(&pins.map(&new(name)), "cannot be removed", error));
            }
        }
        let stats = bpf.take_map(STATS).ok_or(BpfError::Incomplete(STATS))?;
        let pinned = stats.pin(pins.map(&new(NAMES[0])));
        pinned.map_err(|error| pin_error(STATS, MapError::PinError { name: None, error }))?;
        let own = Ledger {
            stats: typed(STATS, stats)?,
            base: made::<u64>(BASE, MOST_COUNTERS, pins)?,
            owners: BTreeMap::new(),
        };
        Ok(Self {
            own,
            slots: made::<u32>(SLOTS, MOST_SLOTS, pins)?,
            previous: Ledger::pinned(pins).map(|ledger| Previous {
                ledger,
                carried: BTreeMap::new(),
            }),
            pins: pins.clone(),
        })
    }

    /// Everything counted so far.
    pub(super) fn read(&self) -> Result<Counters, BpfError> {
        let mut counters = Counters::default();
        for (slot, port) in self.own.slots() {
            for (reason, family) in kinds() {
                // Only there does nobody look at ports.
                if slot != 0 && reason == Reason::Loopback {
                    continue;
                }
                counters.drops.push(Drops {
                    reason,
                    family,
                    port,
                    slot,
                    packets: self.total(Account::Drops(reason, family, port))?,
                });
            }
        }
        for why in Unparsed::COUNTED {
            let sum = self.total(Account::Fixed(unparsed_index(why)))?;
            counters.unparsed.push((why, sum));
        }
        counters.lost_events = self.total(Account::Fixed(LOST_EVENTS))?;
        Ok(counters)
    }

    /// Gives numbers to new owners. The counts of a port move with it. No program may count under a
    /// number that changes its owner meanwhile.
    pub(super) fn assign(&mut self, owners: &BTreeMap<u8, Port>) -> Result<(), BpfError> {
        let mut moves = Vec::new();
        for slot in 1..=u8::MAX {
            let owner = owners.get(&slot);
            if owner == self.own.owners.get(&slot) {
                continue;
            }
            for (reason, family) in kinds() {
                let account = Account::Drops(reason, family, owner.copied());
                let carried = if owner.is_some() {
                    self.own.total(account)?
                } else {
                    0
                };
                moves.push((drop_index(reason, family, slot), carried));
            }
            let word = owner.map_or(0, |&(protocol, port)| {
                TAKEN | port_index(transport(protocol), port)
            });
            let written = self.slots.set(u32::from(slot), word, 0);
            written.map_err(|source| write_error(SLOTS, source))?;
        }
        for (index, carried) in moves {
            self.own.restart_at(index, carried)?;
        }
        self.own.owners.clone_from(owners);
        Ok(())
    }

    /// Takes over what the programs before have counted until now, and takes the place of their
    /// pins. What they counted for a port that is no longer isolated ends with it.
    pub(super) fn succeed(&mut self) -> Result<(), BpfError> {
        self.carry()?;
        for name in NAMES {
            let path = self.pins.map(&new(name));
            if path.exists() {
                fs::rename(&path, self.pins.map(name))
                    .map_err(|error| failure(&path, "cannot be renamed", error))?;
            }
        }
        Ok(())
    }

    /// Takes over the last of it, and forgets the programs before.
    pub(super) fn settle(&mut self) -> Result<(), BpfError> {
        self.carry()?;
        self.previous = None;
        Ok(())
    }

    fn carry(&mut self) -> Result<(), BpfError> {
        let Some(previous) = &mut self.previous else {
            return Ok(());
        };
        for account in self.own.accounts() {
            let total = previous.ledger.total(account)?;
            let carried = previous.carried.entry(account).or_default();
            if let Some(index) = self.own.index(account)
                && total != *carried
            {
                self.own.add_to_base(index, total - *carried)?;
                *carried = total;
            }
        }
        Ok(())
    }

    fn total(&self, account: Account) -> Result<u64, BpfError> {
        let mut total = self.own.total(account)?;
        if let Some(previous) = &self.previous {
            let carried = previous.carried.get(&account).copied();
            total += previous.ledger.total(account)? - carried.unwrap_or_default();
        }
        Ok(total)
    }
}

impl Ledger {
    /// The one that is pinned. A generation that cannot be read has nothing to say.
    fn pinned(pins: &Pins) -> Option<Self> {
        let open = |name| MapData::from_pin(pins.map(name)).ok();
        let slots: Array<_, u32> = Map::from_map_data(open(SLOTS)?).ok()?.try_into().ok()?;
        let mut owners = BTreeMap::new();
        for slot in 1..=u8::MAX {
            let word = slots.get(&u32::from(slot), 0).ok()?;
            if let (true, Some(port)) = (word & TAKEN != 0, port_at(word & !TAKEN)) {
                owners.insert(slot, port);
            }
        }
        Some(Self {
            stats: Map::from_map_data(open(NAMES[0])?).ok()?.try_into().ok()?,
            base: Map::from_map_data(open(BASE)?).ok()?.try_into().ok()?,
            owners,
        })
    }

    /// Number 0, and those with an owner.
    fn slots(&self) -> impl Iterator<Item = (u8, Option<Port>)> {
        let owned = self.owners.iter().map(|(&slot, &port)| (slot, Some(port)));
        std::iter::once((0, None)).chain(owned)
    }

    fn accounts(&self) -> Vec<Account> {
        let drops = self.slots().flat_map(|(_, port)| {
            kinds().map(move |(reason, family)| Account::Drops(reason, family, port))
        });
        let unparsed = Unparsed::COUNTED.map(|why| Account::Fixed(unparsed_index(why)));
        drops
            .chain(unparsed)
            .chain([Account::Fixed(LOST_EVENTS)])
            .collect()
    }

    fn index(&self, account: Account) -> Option<u32> {
        match account {
            Account::Fixed(index) => Some(index),
            Account::Drops(reason, family, port) => {
                let (slot, _) = self.slots().find(|&(_, owner)| owner == port)?;
                Some(drop_index(reason, family, slot))
            }
        }
    }

    fn total(&self, account: Account) -> Result<u64, BpfError> {
        let Some(index) = self.index(account) else {
            return Ok(0);
        };
        let values = self.stats.get(&index, 0);
        let values = values.map_err(|source| read_error(STATS, source))?;
        let base = self.base.get(&index, 0);
        let base = base.map_err(|source| read_error(BASE, source))?;
        Ok(base + values.iter().sum::<u64>())
    }

    fn restart_at(&mut self, index: u32, sum: u64) -> Result<(), BpfError> {
        let zeros = nr_cpus()
            .map_err(|(_, error)| error)
            .and_then(|cpus| PerCpuValues::try_from(vec![0; cpus]));
        let zeroed = zeros
            .map_err(MapError::from)
            .and_then(|zeros| self.stats.set(index, zeros, 0));
        zeroed.map_err(|source| write_error(STATS, source))?;
        let written = self.base.set(index, sum, 0);
        written.map_err(|source| write_error(BASE, source))
    }

    fn add_to_base(&mut self, index: u32, sum: u64) -> Result<(), BpfError> {
        let base = self.base.get(&index, 0);
        let base = base.map_err(|source| read_error(BASE, source))?;
        let written = self.base.set(index, base + sum, 0);
        written.map_err(|source| write_error(BASE, source))
    }
}

fn kinds() -> impl Iterator<Item = (Reason, Family)> {
    let reasons = Reason::ALL.into_iter();
    reasons.flat_map(|reason| Family::ALL.map(|family| (reason, family)))
}

fn port_at(index: u32) -> Option<Port> {
    let port = (index & 0xffff) as u16;
    let transport = match index >> 16 {
        0 => Transport::Tcp,
        1 => Transport::Udp,
        2 => Transport::Sctp,
        _ => return None,
    };
    Some((protocol(transport)?, port))
}

/// Under this name until the counters before have been taken over.
fn new(name: &str) -> String {
    format!("{name}-new")
}

/// A map that no program looks at, pinned.
fn made<V: Pod>(
    name: &'static str,
    entries: u32,
    pins: &Pins,
) -> Result<Array<MapData, V>, BpfError> {
    let path = pins.map(&new(name));
    let make = || {
        let map = Array::<MapData, V>::create(entries, 0)?;
        map.pin(&path)
            .map_err(|error| MapError::PinError { name: None, error })?;
        Map::from_map_data(MapData::from_pin(&path)?)
    };
    typed(name, make().map_err(|source| write_error(name, source))?)
}

fn typed<M: TryFrom<Map, Error = MapError>>(name: &'static str, map: Map) -> Result<M, BpfError> {
    M::try_from(map).map_err(|source| read_error(name, source))
}

fn read_error(name: &'static str, source: MapError) -> BpfError {
    BpfError::Map {
        name,
        what: "read",
        source,
    }
}
