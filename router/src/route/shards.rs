//! A hash table whose copies share what they have in common.
//!
//! A copy costs one counter. Changing an entry of a copy copies the way to it: the root, one page,
//! one shard. A lookup takes the same three steps however many entries there are, and they are few
//! cache lines: the root and the pages stay in the second-level cache, and an entry's hash stands
//! beside its value.
//!
//! Measured against this: pages whose number grows with the entries (denser, but then probes vary in
//! length, which costs as much as it saves), and groups of seven under one word of tags, as F14 has
//! them (a third slower while everything is in the first-level cache).

use std::sync::Arc;

/// How many pages a root has, and shards a page. At a million entries a shard has about 250: few
/// enough to be copied in microseconds, and larger pages make every change of a small table slower.
const FANOUT: usize = 64;
const BITS: u32 = FANOUT.trailing_zeros();

/// Entries by a hash that the caller makes; what is equal is the caller's to say, too.
pub(super) struct Shards<T> {
    root: Arc<[Page<T>; FANOUT]>,
    length: usize,
}

type Page<T> = Arc<[Shard<T>; FANOUT]>;

/// Open addressing with linear probing; a power of two of slots, at least a quarter of them free.
type Shard<T> = Option<Arc<[Slot<T>]>>;

#[derive(Clone)]
struct Slot<T> {
    hash: u64,
    value: Option<T>,
}

impl<T> Shards<T> {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// The entry under a hash that `is_it` accepts.
    #[inline]
    pub(super) fn find(&self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&T> {
        let (page, shard) = place(hash);
        let slots: &[Slot<T>] = self.root[page][shard].as_ref()?;
        let mask = slots.len() - 1;
        // The low bits, which `place` does not look at.
        let mut at = hash as usize & mask;
        loop {
            let slot = &slots[at];
            let value = slot.value.as_ref()?;
            if slot.hash == hash && is_it(value) {
                return Some(value);
            }
            at = (at + 1) & mask;
        }
    }

    /// Every entry, in no particular order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        let shards = self.root.iter().flat_map(|page| page.iter());
        let slots = shards.flatten().flat_map(|slots| slots.iter());
        slots.filter_map(|slot| slot.value.as_ref())
    }
}

impl<T: Clone> Shards<T> {
    /// Adds an entry. That there is none that equals it is the caller's to know.
    pub(super) fn insert(&mut self, hash: u64, value: T) {
        let shard = self.shard_mut(hash);
        let slots = match shard {
            None => shard.insert(empty(2)),
            Some(slots) => {
                if (used(slots) + 1) * 4 > slots.len() * 3 {
                    *slots = resized(slots, slots.len() * 2);
                }
                slots
            }
        };
        put(Arc::make_mut(slots), hash, value);
        self.length += 1;
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<T> {
        // Nothing is copied for an entry that is not there.
        self.find(hash, &is_it)?;
        let shard = self.shard_mut(hash);
        let slots = Arc::make_mut(shard.as_mut()?);
        let at = position(slots, hash, &is_it)?;
        let value = slots[at].value.take();
        close_gap(slots, at);
        let (used, length) = (used(slots), slots.len());
        if used == 0 {
            *shard = None;
        } else if length > 2
            && used * 4 < length
            && let Some(slots) = shard
        {
            *slots = resized(slots, length / 2);
        }
        self.length -= 1;
        value
    }

    /// The entry under a hash that `is_it` accepts, to be changed in this copy alone.
    pub(super) fn find_mut(&mut self, hash: u64, is_it: impl Fn(&T) -> bool) -> Option<&mut T> {
        self.find(hash, &is_it)?;
        let slots = Arc::make_mut(self.shard_mut(hash).as_mut()?);
        let at = position(slots, hash, is_it)?;
        slots[at].value.as_mut()
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<T> {
        let (page, shard) = place(hash);
        let page = &mut Arc::make_mut(&mut self.root)[page];
        &mut Arc::make_mut(page)[shard]
    }
}

impl<T> Default for Shards<T> {
    fn default() -> Self {
        // One page for all, until one is written to.
        let page: Page<T> = Arc::new([const { None }; FANOUT]);
        Self {
            root: Arc::new(std::array::from_fn(|_| Arc::clone(&page))),
            length: 0,
        }
    }
}

impl<T> Clone for Shards<T> {
    fn clone(&self) -> Self {
        Self {
            root: Arc::clone(&self.root),
            length: self.length,
        }
    }
}

/// Page and shard, by the high bits.
fn place(hash: u64) -> (usize, usize) {
    let page = hash >> (u64::BITS - BITS);
    let shard = hash >> (u64::BITS - 2 * BITS);
    (page as usize, shard as usize % FANOUT)
}

fn empty<T>(length: usize) -> Arc<[Slot<T>]> {
    let slot = |_| Slot {
        hash: 0,
        value: None,
    };
    (0..length).map(slot).collect()
}

fn used<T>(slots: &[Slot<T>]) -> usize {
    slots.iter().filter(|slot| slot.value.is_some()).count()
}

/// There must be a free slot.
fn put<T>(slots: &mut [Slot<T>], hash: u64, value: T) {
    let mask = slots.len() - 1;
    let mut at = hash as usize & mask;
    while slots[at].value.is_some() {
        at = (at + 1) & mask;
    }
    let value = Some(value);
    slots[at] = Slot { hash, value };
}

fn position<T>(slots: &[Slot<T>], hash: u64, is_it: impl Fn(&T) -> bool) -> Option<usize> {
    let mask = slots.len() - 1;
    let mut at = hash as usize & mask;
    loop {
        let slot = &slots[at];
        let value = slot.value.as_ref()?;
        if slot.hash == hash && is_it(value) {
            return Some(at);
        }
        at = (at + 1) & mask;
    }
}

/// Moves up what was put behind a slot only because that one was taken (Knuth, "The Art of Computer
/// Programming", volume 3, section 6.4, algorithm R).
fn close_gap<T>(slots: &mut [Slot<T>], mut gap: usize) {
    let mask = slots.len() - 1;
    let mut at = gap;
    loop {
        at = (at + 1) & mask;
        if slots[at].value.is_none() {
            return;
        }
        let home = slots[at].hash as usize & mask;
        let (from_home, from_gap) = (at.wrapping_sub(home), at.wrapping_sub(gap));
        if from_home & mask >= from_gap & mask {
            slots.swap(gap, at);
            gap = at;
        }
    }
}

/// The same entries in another number of slots.
fn resized<T: Clone>(slots: &mut Arc<[Slot<T>]>, length: usize) -> Arc<[Slot<T>]> {
    let mut made = empty(length);
    let new = Arc::get_mut(&mut made).expect("nobody else has it yet");
    match Arc::get_mut(slots) {
        Some(own) => {
            for slot in own {
                if let Some(value) = slot.value.take() {
                    put(new, slot.hash, value);
                }
            }
        }
        None => {
            for slot in slots.iter() {
                if let Some(value) = slot.value.clone() {
                    put(new, slot.hash, value);
                }
            }
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// Hashes that meet in few shards and in few slots of them, some of them all the way.
    fn hash(value: u16) -> u64 {
        let (shard, slot) = (u64::from(value % 3), u64::from(value / 7 % 16));
        shard << (u64::BITS - 2 * BITS) | slot
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

        #[test]
        fn shards_are_a_set(steps in proptest::collection::vec((0_u16..300, any::<bool>()), 0..400)) {
            let (mut shards, mut model) = (Shards::default(), BTreeSet::new());
            let mut versions = Vec::new();
            for (at, (value, copy)) in steps.into_iter().enumerate() {
                // With a copy about, everything is copied; without, changed in place.
                if copy && at % 16 == 0 {
                    versions.push((shards.clone(), model.clone()));
                }
                let is_it = |it: &u16| *it == value;
                if model.remove(&value) {
                    prop_assert_eq!(shards.remove(hash(value), is_it), Some(value));
                } else {
                    prop_assert_eq!(shards.remove(hash(value), is_it), None);
                    shards.insert(hash(value), value);
                    model.insert(value);
                }
            }
            versions.push((shards, model));
            for (shards, model) in versions {
                prop_assert_eq!(shards.len(), model.len());
                prop_assert_eq!(&shards.iter().copied().collect::<BTreeSet<_>>(), &model);
                for value in 0..300 {
                    let found = shards.find(hash(value), |it| *it == value).is_some();
                    prop_assert_eq!(found, model.contains(&value), "{}", value);
                }
            }
        }
    }

    #[test]
    fn what_is_emptied_takes_no_memory() {
        let mut shards = Shards::default();
        for value in 0..300 {
            shards.insert(hash(value), value);
        }
        for value in 0..300 {
            shards.remove(hash(value), |it| *it == value);
        }
        let mut left = shards.root.iter().flat_map(|page| page.iter());
        assert!(left.all(Option::is_none));
    }

    #[test]
    fn a_change_copies_one_way_through_the_table() {
        let before = {
            let mut shards = Shards::default();
            for value in 0..1000_u64 {
                shards.insert(value.wrapping_mul(0x9e37_79b9_7f4a_7c15), value);
            }
            shards
        };
        let mut after = before.clone();
        *after.find_mut(0, |it| *it == 0).unwrap() = 0;
        let pages = before.root.iter().zip(after.root.iter());
        let copied: Vec<_> = pages.filter(|(a, b)| !Arc::ptr_eq(a, b)).collect();
        assert_eq!(copied.len(), 1);
        let shards = copied[0].0.iter().zip(copied[0].1.iter());
        let differ =
            shards.filter(|(a, b)| a.as_ref().map(Arc::as_ptr) != b.as_ref().map(Arc::as_ptr));
        assert_eq!(differ.count(), 1);
    }
}
