//! The maps. Hashes take memory as they fill, and an element that is removed is not reused while a
//! program may still look at it.

use aya_ebpf::bindings::BPF_F_NO_PREALLOC;
use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::{Key, LpmTrie};
use aya_ebpf::maps::{Array, HashMap, PerCpuArray};
use ebpf_common::decide::Tables;
use ebpf_common::table::{
    Family, MOST_COUNTERS, MOST_DESTINATIONS, MOST_HOSTS, MOST_PORTS, MOST_RANGES, PortEntry,
    Transport, port_index,
};

#[map]
static PORTS: Array<u32> = Array::with_max_entries(MOST_PORTS, 0);
#[map]
static DESTINATIONS4: HashMap<[u8; 4], u8> =
    HashMap::with_max_entries(MOST_DESTINATIONS, BPF_F_NO_PREALLOC);
#[map]
static DESTINATIONS6: HashMap<[u8; 16], u8> =
    HashMap::with_max_entries(MOST_DESTINATIONS, BPF_F_NO_PREALLOC);
#[map]
static HOSTS4: HashMap<[u8; 4], u8> = HashMap::with_max_entries(MOST_HOSTS, BPF_F_NO_PREALLOC);
#[map]
static HOSTS6: HashMap<[u8; 16], u8> = HashMap::with_max_entries(MOST_HOSTS, BPF_F_NO_PREALLOC);
#[map]
static RANGES4: LpmTrie<[u8; 4], u8> = LpmTrie::with_max_entries(MOST_RANGES, 0);
#[map]
static RANGES6: LpmTrie<[u8; 16], u8> = LpmTrie::with_max_entries(MOST_RANGES, 0);
#[map]
static CONFIG: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static STATS: PerCpuArray<u64> = PerCpuArray::with_max_entries(MOST_COUNTERS, 0);

/// The policy as the kernel holds it.
pub(crate) struct Maps;

impl Tables for Maps {
    #[inline(always)]
    fn port(&self, transport: Transport, port: u16) -> PortEntry {
        PortEntry(word(&PORTS, port_index(transport, port)))
    }

    #[inline(always)]
    fn destination(&self, family: Family, address: &[u8; 16]) -> u8 {
        match family {
            Family::V4 => flags(&DESTINATIONS4, &first_four(address)),
            Family::V6 => flags(&DESTINATIONS6, address),
        }
    }

    #[inline(always)]
    fn host(&self, family: Family, address: &[u8; 16]) -> u8 {
        match family {
            Family::V4 => flags(&HOSTS4, &first_four(address)),
            Family::V6 => flags(&HOSTS6, address),
        }
    }

    #[inline(always)]
    fn config(&self) -> u32 {
        word(&CONFIG, 0)
    }

    #[inline(always)]
    fn range(&self, family: Family, address: &[u8; 16]) -> u8 {
        let found = match family {
            Family::V4 => RANGES4.get(Key::new(32, first_four(address))),
            Family::V6 => RANGES6.get(Key::new(128, *address)),
        };
        match found {
            Some(flags) => *flags,
            None => 0,
        }
    }
}

/// Counts one.
#[inline(always)]
pub(crate) fn count(index: u32) {
    if let Some(counter) = STATS.get_ptr_mut(index) {
        // SAFETY: the verifier knows the pointer to be an element of the map, and this CPU is the
        // only one that writes to it: programs are not interrupted by each other here.
        unsafe { *counter += 1 };
    }
}

#[inline(always)]
fn word(map: &Array<u32>, index: u32) -> u32 {
    match map.get(index) {
        Some(word) => *word,
        None => 0,
    }
}

#[inline(always)]
fn flags<K>(map: &HashMap<K, u8>, key: &K) -> u8 {
    // SAFETY: the map is made with BPF_F_NO_PREALLOC, so that an element lives until no program can
    // see it any more.
    match unsafe { map.get(key) } {
        Some(flags) => *flags,
        None => 0,
    }
}

#[inline(always)]
const fn first_four(address: &[u8; 16]) -> [u8; 4] {
    [address[0], address[1], address[2], address[3]]
}
