//! How many connections there may be: in all, from one source, and of strangers.
//!
//! A stranger is a connection on which nobody has shown a good credential yet. Strangers have a
//! quarter of the places among them, and where one more would be too many, it is a stranger that
//! goes: of the source that has the most of them, the oldest. So neither one source nor many of them
//! keep out who is known.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::registry::auth::limits::Source;

/// Counts connections.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_source: usize,
    most_strangers: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Never zero.
    by_source: HashMap<Source, usize>,
    /// By age.
    strangers: BTreeMap<u64, Stranger>,
    numbers: u64,
}

#[derive(Debug)]
struct Stranger {
    source: Source,
    fate: Arc<Fate>,
}

/// What becomes of a place.
#[derive(Debug, Default)]
struct Fate {
    /// It is another's by now. Changed while `taken` is locked.
    lost: AtomicBool,
    told: Notify,
}

/// A place that a connection holds as long as it is open.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: Source,
    number: u64,
    fate: Arc<Fate>,
}

impl Places {
    pub(super) fn new(most: usize, most_per_source: usize) -> Self {
        Self {
            most,
            most_per_source,
            most_strangers: (most / 4).max(1),
            taken: Mutex::default(),
        }
    }

    /// A place for a stranger, if there is one left or another stranger is sent away for it; and
    /// whether one was.
    pub(super) fn take(self: &Arc<Self>, source: Source) -> Option<(Place, bool)> {
        let mut taken = self.lock();
        let from_here = taken.by_source.get(&source).copied().unwrap_or_default();
        let victim = if from_here >= self.most_per_source {
            Some(taken.oldest(|it| *it == source)?)
        } else if taken.all >= self.most || taken.strangers.len() >= self.most_strangers {
            Some(taken.oldest(|_| true)?)
        } else {
            None
        };
        // It leaves in a moment; its place is free at once.
        if let Some(stranger) = victim.and_then(|number| taken.strangers.remove(&number)) {
            taken.leave(&stranger.source);
            stranger.fate.lost.store(true, Relaxed);
            stranger.fate.told.notify_one();
        }
        taken.all += 1;
        *taken.by_source.entry(source).or_default() += 1;
        taken.numbers += 1;
        let number = taken.numbers;
        let fate = Arc::new(Fate::default());
        let stranger = Stranger {
            source,
            fate: Arc::clone(&fate),
        };
        taken.strangers.insert(number, stranger);
        let place = Place {
            places: Arc::clone(self),
            source,
            number,
            fate,
        };
        Some((place, victim.is_some()))
    }

    /// How many are taken.
    pub(super) fn taken(&self) -> usize {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        // Nothing in here panics between two changes that belong together.
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    /// Of the source with the most strangers, the oldest one.
    fn oldest(&self, of: impl Fn(&Source) -> bool) -> Option<u64> {
        let mut count: HashMap<Source, usize> = HashMap::new();
        for stranger in self.strangers.values() {
            *count.entry(stranger.source).or_default() += 1;
        }
        let strangers = self.strangers.iter().filter(|(_, it)| of(&it.source));
        let oldest =
            strangers.max_by_key(|(number, it)| (count.get(&it.source), Reverse(**number)));
        oldest.map(|(number, _)| *number)
    }

    fn leave(&mut self, source: &Source) {
        self.all -= 1;
        if let Some(by_source) = self.by_source.get_mut(source) {
            *by_source -= 1;
            if *by_source == 0 {
                self.by_source.remove(source);
            }
        }
    }
}

impl Place {
    /// Somebody has shown a good credential: it is a stranger's no more.
    pub(super) fn is_known(&self) {
        self.places.lock().strangers.remove(&self.number);
    }

    /// Whether nobody has.
    pub(super) fn is_strangers(&self) -> bool {
        self.places.lock().strangers.contains_key(&self.number)
    }

    /// Waits until the place is another's.
    pub(super) async fn lost(&self) {
        self.fate.told.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.strangers.remove(&self.number);
        if !self.fate.lost.load(Relaxed) {
            taken.leave(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(format!("{address}:1").parse().unwrap())
    }

    fn known(places: &Arc<Places>, source: Source) -> Option<Place> {
        let (place, _) = places.take(source)?;
        place.is_known();
        Some(place)
    }

    fn is_lost(place: &Place) -> bool {
        place.fate.lost.load(Relaxed)
    }

    #[test]
    fn there_are_so_many_in_all_and_so_many_for_each_source() {
        let places = Arc::new(Places::new(3, 2));
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        let first = known(&places, one).unwrap();
        let second = known(&places, one).unwrap();
        assert!(places.take(one).is_none(), "a third from one source");
        let third = known(&places, two).unwrap();
        assert!(places.take(two).is_none(), "a fourth in all");
        drop(first);
        let fourth = known(&places, two).unwrap();
        drop((second, third, fourth));
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by_source.is_empty(), "sources are forgotten");
    }

    #[test]
    fn strangers_make_room_the_oldest_of_the_source_with_most_of_them() {
        let places = Arc::new(Places::new(16, 8));
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        let (lone, _) = places.take(two).unwrap();
        let mut many: Vec<Place> = (0..3).map(|_| places.take(one).unwrap().0).collect();
        assert_eq!(places.taken(), 4, "a quarter of 16");
        let (next, in_place_of_another) = places.take(two).unwrap();
        assert!(in_place_of_another && is_lost(&many[0]));
        assert!(!is_lost(&lone), "its source has fewer");
        assert_eq!(places.taken(), 4);
        drop(many.remove(0));
        assert_eq!(places.taken(), 4, "it had left before");
        next.is_known();
        assert!(!next.is_strangers() && lone.is_strangers());
        let (_, in_place_of_another) = places.take(two).unwrap();
        assert!(!in_place_of_another, "who is known is none of the quarter");
        drop((lone, next, many));
        assert_eq!(places.taken(), 0);
    }

    #[test]
    fn a_source_that_is_full_makes_room_by_its_own_strangers() {
        let places = Arc::new(Places::new(100, 2));
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        let (other, _) = places.take(two).unwrap();
        let stays = known(&places, one).unwrap();
        let (goes, _) = places.take(one).unwrap();
        let (next, _) = places.take(one).unwrap();
        assert_eq!(
            [&stays, &goes, &next, &other].map(is_lost),
            [false, true, false, false]
        );
        next.is_known();
        assert!(places.take(one).is_none());
    }
}
