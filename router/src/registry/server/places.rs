//! How many connections there may be, in all and from one source.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::registry::auth::limits::Source;

/// Counts connections.
#[derive(Debug)]
pub(super) struct Places {
    most: usize,
    most_per_source: usize,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    /// Never zero.
    by_source: HashMap<Source, usize>,
}

/// A place that a connection holds as long as it is open.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    source: Source,
}

impl Places {
    pub(super) fn new(most: usize, most_per_source: usize) -> Self {
        Self {
            most,
            most_per_source,
            taken: Mutex::default(),
        }
    }

    /// A place, if there is one left.
    pub(super) fn take(self: &Arc<Self>, source: Source) -> Option<Place> {
        let mut taken = self.lock();
        if taken.all >= self.most {
            return None;
        }
        let by_source = taken.by_source.entry(source).or_default();
        if *by_source >= self.most_per_source {
            return None;
        }
        *by_source += 1;
        taken.all += 1;
        Some(Place {
            places: Arc::clone(self),
            source,
        })
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

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        taken.all -= 1;
        if let Some(by_source) = taken.by_source.get_mut(&self.source) {
            *by_source -= 1;
            if *by_source == 0 {
                taken.by_source.remove(&self.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(address: &str) -> Source {
        Source::of(format!("{address}:1").parse().unwrap())
    }

    #[test]
    fn there_are_so_many_in_all_and_so_many_for_each_source() {
        let places = Arc::new(Places::new(3, 2));
        let (one, two) = (source("192.0.2.1"), source("192.0.2.2"));
        let first = places.take(one).unwrap();
        let second = places.take(one).unwrap();
        assert!(places.take(one).is_none(), "a third from one source");
        let third = places.take(two).unwrap();
        assert!(places.take(two).is_none(), "a fourth in all");
        drop(first);
        let fourth = places.take(two).unwrap();
        drop((second, third, fourth));
        assert_eq!(places.taken(), 0);
        assert!(places.lock().by_source.is_empty(), "sources are forgotten");
    }
}
