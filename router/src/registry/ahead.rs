//! What this router has committed, or may have, and its view may not have seen yet. Pure.
//!
//! The view is behind the store by as long as a change takes to come back over the watch. Whoever
//! announces again within that time must be judged by what it announced last, not by what the view
//! still says.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::store::Revision;

/// How long something is remembered at most. A view that is so far behind follows a store that is
/// known to be out of reach, and a commit that was not answered is made by then or never.
const LONGEST: Duration = Duration::from_secs(60);

/// The instances that the view may be wrong about.
#[derive(Debug, Default)]
pub struct Ahead(Mutex<HashMap<String, HashMap<String, Mark>>>);

/// What is known of an instance's last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The last commit that was made for certain.
    revision: Revision,
    /// Whether another one may have been made since, or is under way.
    in_doubt: bool,
    at: Instant,
}

impl Ahead {
    /// A change of an instance is going to be committed. Until [`Ahead::committed`] or
    /// [`Ahead::refused`] it may have been: also if nobody waits for it any more.
    pub fn begin(&self, tenant: &str, instance: &str, now: Instant) -> Option<Mark> {
        let mut tenants = self.tenants();
        let instances = tenants.entry(tenant.to_owned()).or_default();
        let before = instances.get(instance).copied();
        let mark = Mark {
            revision: before.map_or(Revision::default(), |it| it.revision),
            in_doubt: true,
            at: now,
        };
        instances.insert(instance.to_owned(), mark);
        before
    }

    /// The change was made. Forgets what a view at `followed` knows as well.
    pub fn committed(
        &self,
        tenant: &str,
        instance: &str,
        revision: Revision,
        followed: Revision,
        now: Instant,
    ) {
        let mut tenants = self.tenants();
        let mark = Mark {
            revision,
            in_doubt: false,
            at: now,
        };
        let instances = tenants.entry(tenant.to_owned()).or_default();
        instances.insert(instance.to_owned(), mark);
        tenants.retain(|_, instances| {
            instances.retain(|_, mark| mark.is_ahead(followed, now));
            !instances.is_empty()
        });
    }

    /// For certain, the change was not made: all is as [`Ahead::begin`] found it.
    pub fn refused(&self, tenant: &str, instance: &str, before: Option<Mark>) {
        let mut tenants = self.tenants();
        let Some(instances) = tenants.get_mut(tenant) else {
            return;
        };
        match before {
            Some(mark) => drop(instances.insert(instance.to_owned(), mark)),
            None => drop(instances.remove(instance)),
        }
        if instances.is_empty() {
            tenants.remove(tenant);
        }
    }

    /// Whether a view that has come to `followed` may be wrong about an instance.
    pub fn is_ahead(&self, tenant: &str, instance: &str, followed: Revision, now: Instant) -> bool {
        let tenants = self.tenants();
        let mark = tenants.get(tenant).and_then(|it| it.get(instance));
        mark.is_some_and(|mark| mark.is_ahead(followed, now))
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<String, HashMap<String, Mark>>> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Mark {
    fn is_ahead(&self, followed: Revision, now: Instant) -> bool {
        let is_new = now.saturating_duration_since(self.at) < LONGEST;
        is_new && (self.in_doubt || self.revision > followed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_ahead_until_the_view_has_its_last_change() {
        let (ahead, now) = (Ahead::default(), Instant::now());
        let is_ahead = |followed| ahead.is_ahead("a", "w1", Revision(followed), now);
        assert!(!is_ahead(0));
        let before = ahead.begin("a", "w1", now);
        assert!(is_ahead(9), "nobody knows when it will be made");
        ahead.refused("a", "w1", before);
        assert!(!is_ahead(0));
        ahead.begin("a", "w1", now);
        ahead.committed("a", "w1", Revision(5), Revision(4), now);
        assert!(is_ahead(4) && !is_ahead(5));
        let before = ahead.begin("a", "w1", now);
        ahead.refused("a", "w1", before);
        assert!(is_ahead(4) && !is_ahead(5), "the earlier one was made");
        assert!(!ahead.is_ahead("a", "w2", Revision(4), now));
    }

    #[test]
    fn it_is_forgotten_in_time() {
        let (ahead, now) = (Ahead::default(), Instant::now());
        ahead.begin("a", "w1", now);
        ahead.committed("a", "w2", Revision(5), Revision(5), now);
        assert_eq!(ahead.tenants()["a"].len(), 1, "the view knows of w2");
        let later = now + LONGEST;
        assert!(!ahead.is_ahead("a", "w1", Revision(0), later));
        ahead.committed("b", "w3", Revision(6), Revision(6), later);
        assert!(ahead.tenants().is_empty());
    }
}
