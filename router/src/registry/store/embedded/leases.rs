//! When leases end. Pure: the caller has the clock.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::LeaseId;

/// No lease is longer; a moment must be a moment.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// All leases that have not ended, by the moment when they will.
#[derive(Debug, Default)]
pub(super) struct Leases {
    known: HashMap<LeaseId, Lease>,
    order: BTreeSet<(Instant, LeaseId)>,
    last: i64,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl: Duration,
    ends: Instant,
    stored: bool,
    /// It lives on past its own end, which happens once.
    graced: bool,
}

impl Leases {
    /// Leases of the file, which all begin anew; `last` is the highest number ever stored.
    pub(super) fn new(
        stored: impl IntoIterator<Item = (LeaseId, Duration)>,
        last: LeaseId,
        now: Instant,
    ) -> Self {
        let mut leases = Self {
            last: last.0,
            ..Self::default()
        };
        for (id, ttl) in stored {
            leases.insert(id, ttl, now, true);
        }
        leases
    }

    /// A new one, which is not in the file yet.
    pub(super) fn grant(&mut self, ttl: Duration, now: Instant) -> LeaseId {
        self.last += 1;
        let id = LeaseId(self.last);
        self.insert(id, ttl, now, false);
        id
    }

    /// Gives one its full time again; false if it has ended.
    pub(super) fn renew(&mut self, id: LeaseId, now: Instant) -> bool {
        let Some(lease) = self.known.get_mut(&id) else {
            return false;
        };
        self.order.remove(&(lease.ends, id));
        lease.ends = now + lease.ttl;
        lease.graced = false;
        self.order.insert((lease.ends, id));
        true
    }

    /// Ends one.
    pub(super) fn remove(&mut self, id: LeaseId) {
        if let Some(lease) = self.known.remove(&id) {
            self.order.remove(&(lease.ends, id));
        }
    }

    /// Whether it has not ended.
    pub(super) fn is_known(&self, id: LeaseId) -> bool {
        self.known.contains_key(&id)
    }

    /// Its time, if it has to be written to the file before something can hang on it.
    pub(super) fn unstored(&self, id: LeaseId) -> Option<Duration> {
        let lease = self.known.get(&id)?;
        (!lease.stored).then_some(lease.ttl)
    }

    /// It is in the file now.
    pub(super) fn set_stored(&mut self, id: LeaseId) {
        if let Some(lease) = self.known.get_mut(&id) {
            lease.stored = true;
        }
    }

    /// After the file may have lost the last changes or not: these are in it. Any other that once was
    /// has ended.
    pub(super) fn reconcile(&mut self, stored: impl Iterator<Item = LeaseId>) {
        let stored: HashSet<LeaseId> = stored.collect();
        for &id in &stored {
            self.set_stored(id);
        }
        let known = self.known.iter();
        let lost: Vec<LeaseId> = known
            .filter(|(id, lease)| lease.stored && !stored.contains(id))
            .map(|(&id, _)| id)
            .collect();
        lost.into_iter().for_each(|id| self.remove(id));
    }

    /// Those whose time is over, the first to end first.
    pub(super) fn due(&self, now: Instant) -> Vec<LeaseId> {
        let ended = self.order.iter().take_while(|(ends, _)| *ends <= now);
        ended.map(|&(_, id)| id).collect()
    }

    /// When the next one ends.
    pub(super) fn next_end(&self) -> Option<Instant> {
        self.order.first().map(|&(ends, _)| ends)
    }

    /// Lets those that end before `until` live on until then; not those that do so already.
    pub(super) fn grace(&mut self, until: Instant) {
        for id in self.due(until) {
            let Some(lease) = self.known.get_mut(&id) else {
                continue;
            };
            if !lease.graced {
                self.order.remove(&(lease.ends, id));
                (lease.ends, lease.graced) = (until, true);
                self.order.insert((until, id));
            }
        }
    }

    /// Gives all their full time again.
    pub(super) fn restart(&mut self, now: Instant) {
        let all: Vec<LeaseId> = self.known.keys().copied().collect();
        for id in all {
            self.renew(id, now);
        }
    }

    fn insert(&mut self, id: LeaseId, ttl: Duration, now: Instant, stored: bool) {
        let ttl = ttl.min(LONGEST);
        let ends = now + ttl;
        let lease = Lease {
            ttl,
            ends,
            stored,
            graced: false,
        };
        self.known.insert(id, lease);
        self.order.insert((ends, id));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn leases_end_in_order_unless_renewed() {
        let start = Instant::now();
        let stored = [(LeaseId(4), 9 * SECOND), (LeaseId(2), 5 * SECOND)];
        let mut leases = Leases::new(stored, LeaseId(6), start);
        let granted = leases.grant(SECOND, start + SECOND);
        assert_eq!(granted, LeaseId(7), "numbers are never used again");
        assert_eq!(leases.next_end(), Some(start + 2 * SECOND));
        assert_eq!(leases.due(start + SECOND), []);
        assert_eq!(leases.due(start + 9 * SECOND), [7, 2, 4].map(LeaseId));
        assert!(leases.renew(LeaseId(2), start + 5 * SECOND));
        assert_eq!(leases.due(start + 9 * SECOND), [7, 4].map(LeaseId));
        leases.remove(granted);
        assert!(!leases.renew(granted, start) && !leases.is_known(granted));
        assert_eq!(leases.next_end(), Some(start + 9 * SECOND));
        leases.restart(start + 100 * SECOND);
        assert_eq!(leases.due(start + 104 * SECOND), []);
        assert_eq!(leases.due(start + 105 * SECOND), [LeaseId(2)]);
    }

    #[test]
    fn a_lease_lives_on_once_past_its_end() {
        let start = Instant::now();
        let at = |seconds: u32| start + seconds * SECOND;
        let stored = [(LeaseId(1), SECOND), (LeaseId(2), 9 * SECOND)];
        let mut leases = Leases::new(stored, LeaseId(2), start);
        leases.grace(at(3));
        assert_eq!(leases.due(at(2)), []);
        assert_eq!(leases.due(at(3)), [LeaseId(1)]);
        // A disk that is slow again and again keeps nobody.
        leases.grace(at(6));
        assert_eq!(leases.due(at(3)), [LeaseId(1)]);
        assert_eq!(leases.due(at(9)), [1, 2].map(LeaseId), "longer than that");
        assert!(leases.renew(LeaseId(1), at(6)));
        leases.grace(at(8));
        assert_eq!(leases.due(at(8)), [LeaseId(1)]);
        assert_eq!(leases.due(at(7)), []);
    }

    #[test]
    fn what_the_file_lost_has_ended() {
        let now = Instant::now();
        let stored = [(LeaseId(1), SECOND), (LeaseId(2), SECOND)];
        let mut leases = Leases::new(stored, LeaseId(2), now);
        let (new, newer) = (leases.grant(SECOND, now), leases.grant(SECOND, now));
        leases.reconcile([LeaseId(2), new].into_iter());
        assert!(!leases.is_known(LeaseId(1)) && leases.is_known(LeaseId(2)));
        assert_eq!(leases.unstored(new), None);
        assert_eq!(leases.unstored(newer), Some(SECOND));
    }

    #[test]
    fn a_new_lease_is_stored_once() {
        let now = Instant::now();
        let mut leases = Leases::new([(LeaseId(1), SECOND)], LeaseId(1), now);
        let granted = leases.grant(SECOND, now);
        assert_eq!(leases.unstored(LeaseId(1)), None);
        assert_eq!(leases.unstored(granted), Some(SECOND));
        leases.set_stored(granted);
        assert_eq!(leases.unstored(granted), None);
        assert_eq!(leases.unstored(LeaseId(9)), None);
    }
}
