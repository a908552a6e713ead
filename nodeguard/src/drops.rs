//! How many packets were dropped, by plane, reason, family, protocol and port.
//!
//! The kernel's counters begin again at zero whenever the table or a BPF program is replaced; what
//! is told to people only grows.

use std::collections::BTreeMap;
use std::fmt;

use config::guard::Protocol;
use serde::{Deserialize, Serialize};

use crate::ruleset::Family;
use crate::verdict::Reason;

/// Who dropped a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Plane {
    /// The authority.
    Nftables,
    /// The one in front of it.
    Bpf,
}

impl Plane {
    /// Its name in metrics and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Bpf => "bpf",
        }
    }
}

impl fmt::Display for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What is counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Who dropped it.
    pub plane: Plane,
    /// Why.
    pub reason: Reason,
    /// IPv4 or IPv6.
    pub family: Family,
    /// The isolated port; `None` where packets are dropped whatever their port.
    pub port: Option<(Protocol, u16)>,
}

/// Counts that only grow.
#[derive(Clone, Debug, Default)]
pub struct Drops {
    before: BTreeMap<Key, u64>,
    now: BTreeMap<Key, u64>,
}

impl Drops {
    /// Takes in what a plane's counters say now.
    pub fn read(&mut self, plane: Plane, counters: impl IntoIterator<Item = (Key, u64)>) {
        for (key, packets) in counters {
            debug_assert_eq!(key.plane, plane);
            let last = self.now.insert(key, packets).unwrap_or(0);
            if packets < last {
                // Somebody else replaced or reset the counter.
                *self.before.entry(key).or_default() += last;
            }
        }
    }

    /// Says that a plane's counters are about to begin again at zero.
    pub fn restart(&mut self, plane: Plane) {
        for (key, packets) in &mut self.now {
            if key.plane == plane {
                *self.before.entry(*key).or_default() += std::mem::take(packets);
            }
        }
    }

    /// Everything since the beginning; what never happened is left out.
    #[must_use]
    pub fn totals(&self) -> BTreeMap<Key, u64> {
        let mut totals = self.before.clone();
        for (key, packets) in &self.now {
            *totals.entry(*key).or_default() += packets;
        }
        totals.retain(|_, packets| *packets > 0);
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_only_grow() {
        let key = Key {
            plane: Plane::Nftables,
            reason: Reason::Stranger,
            family: Family::V4,
            port: Some((Protocol::Tcp, 2379)),
        };
        let mut drops = Drops::default();
        let read = |drops: &mut Drops, packets| {
            drops.read(Plane::Nftables, [(key, packets)]);
            drops.totals().get(&key).copied()
        };
        assert_eq!(read(&mut drops, 0), None);
        assert_eq!(read(&mut drops, 5), Some(5));
        drops.restart(Plane::Nftables);
        drops.restart(Plane::Bpf);
        assert_eq!(read(&mut drops, 7), Some(12), "replaced by us");
        assert_eq!(read(&mut drops, 2), Some(14), "reset by somebody");
    }
}
