//! A listing in the place of what was known. Whoever follows a registry of a million routes makes the
//! new view and compares it without holding the old one, which others read meanwhile.

use std::ops::Bound;
use std::sync::Mutex;

use super::{Changes, HostKey, Source, View, lock};
use crate::registry::store::Listing;

/// Rules that are compared at once: the view is locked meanwhile.
const SLICE: usize = 256;

impl View {
    /// What a listing says.
    pub fn of(listing: Listing) -> Self {
        let mut fresh = Self {
            revision: listing.revision,
            ..Self::default()
        };
        let mut all = Changes::default();
        for entry in listing.entries {
            fresh.put(entry, &mut all);
        }
        fresh.recent.clear();
        // A watch cannot resume over what was not seen.
        fresh.forgotten = listing.revision;
        // Any of their zones may have gone while nobody looked.
        fresh.rezoned = fresh.held.keys().cloned().collect();
        fresh.tidy();
        fresh
    }

    /// Takes everything from a listing. What is as before is no change.
    pub fn reset(&mut self, listing: Listing) -> Changes {
        let fresh = Self::of(listing);
        let mut changes = Changes::default();
        fresh.compare(self, None, usize::MAX, &mut changes);
        fresh.compare_missing(self, None, usize::MAX, &mut changes);
        let old = self.replace(fresh, &mut changes);
        drop(old);
        changes
    }

    /// Puts another in the place of this one, and gives this one back.
    fn replace(&mut self, mut fresh: Self, changes: &mut Changes) -> Self {
        changes.tickets =
            (&fresh.tickets, fresh.tickets_fresh) != (&self.tickets, self.tickets_fresh);
        changes.store_id = fresh.store_id != self.store_id;
        fresh.listed = self.listed + 1;
        fresh.void = match fresh.revision < self.revision {
            true => self.revision.max(self.void),
            false => self.void,
        };
        std::mem::replace(self, fresh)
    }

    /// Adds which of the next `most` rules of `old` after `after` are other here, or none; gives the
    /// last of them.
    fn compare(
        &self,
        old: &Self,
        after: Option<&HostKey>,
        most: usize,
        changes: &mut Changes,
    ) -> Option<HostKey> {
        let is_other =
            |host: &HostKey, sources: &Vec<Source>| self.routes.get(host) != Some(sources);
        old.collect(after, most, is_other, changes)
    }

    /// Adds which of the next `most` rules here after `after` are not in `old`; gives the last of them.
    fn compare_missing(
        &self,
        old: &Self,
        after: Option<&HostKey>,
        most: usize,
        changes: &mut Changes,
    ) -> Option<HostKey> {
        let is_missing = |host: &HostKey, _: &Vec<Source>| !old.routes.contains_key(host);
        self.collect(after, most, is_missing, changes)
    }

    /// Adds those of the next `most` rules after `after` that are wanted; gives the last of all.
    fn collect(
        &self,
        after: Option<&HostKey>,
        most: usize,
        is_wanted: impl Fn(&HostKey, &Vec<Source>) -> bool,
        changes: &mut Changes,
    ) -> Option<HostKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some = self.routes.range::<HostKey, _>((from, Bound::Unbounded));
        let mut last = None;
        for (host, sources) in some.take(most) {
            last = Some(host);
            if is_wanted(host, sources) {
                changes.hosts.insert(HostKey::clone(host));
            }
        }
        last.map(|it| HostKey::clone(it))
    }
}

/// As [`View::reset`], on a view that others may read at any time, and that nobody else changes
/// meanwhile: it is locked for a moment at a time.
pub fn relist(view: &Mutex<View>, fresh: View) -> Changes {
    let mut changes = Changes::default();
    let mut after = None;
    while let Some(last) = fresh.compare(&lock(view), after.as_ref(), SLICE, &mut changes) {
        after = Some(last);
    }
    after = None;
    while let Some(last) = fresh.compare_missing(&lock(view), after.as_ref(), SLICE, &mut changes) {
        after = Some(last);
    }
    let old = lock(view).replace(fresh, &mut changes);
    // Takes as long as making it did, and nobody waits for it.
    drop(old);
    changes
}
