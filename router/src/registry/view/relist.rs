//! A listing in the place of what was known. Whoever follows a registry of a million routes makes the
//! new view and compares it without holding the old one, which others read meanwhile.

use std::ops::Bound;
use std::sync::Mutex;

use super::{Changes, HostKey, View, lock};
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
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some = old.routes.range::<HostKey, _>((from, Bound::Unbounded));
        let mut last = None;
        for (host, sources) in some.take(most) {
            last = Some(host);
            if self.routes.get(host) != Some(sources) {
                changes.hosts.insert(HostKey::clone(host));
            }
        }
        last.map(|it| HostKey::clone(it))
    }

    /// Adds which of the next `most` rules here after `after` are not in `old`; gives the last of them.
    fn compare_missing(
        &self,
        old: &Self,
        after: Option<&HostKey>,
        most: usize,
        changes: &mut Changes,
    ) -> Option<HostKey> {
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let some = self.routes.range::<HostKey, _>((from, Bound::Unbounded));
        let mut last = None;
        for host in some.take(most).map(|(host, _)| host) {
            last = Some(host);
            if !old.routes.contains_key(host) {
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
    loop {
        let last = fresh.compare(&lock(view), after.as_ref(), SLICE, &mut changes);
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    after = None;
    loop {
        let last = fresh.compare_missing(&lock(view), after.as_ref(), SLICE, &mut changes);
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    let old = lock(view).replace(fresh, &mut changes);
    // Takes as long as making it did, and nobody waits for it.
    drop(old);
    changes
}
