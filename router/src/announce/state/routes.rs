//! The routes of a registrar: what is wanted, what is healthy, what is refused.

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

use config::registrar::Check;

use super::Note;
use crate::announce::health::Health;
use crate::registry::api::types::{AnnouncedRoute, Announcement};

/// Routes, by their places in the configuration.
pub(super) type Set = BTreeSet<usize>;

/// A route that is to be announced while a check succeeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// As it is announced.
    pub route: AnnouncedRoute,
    /// When it counts as healthy.
    pub check: Check,
}

/// Why a registry refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A stable word, such as `outside-zones`.
    pub reason: String,
    /// For people.
    pub detail: String,
    /// The host rule that it is about, if it is about one.
    pub host: Option<String>,
}

/// A route and what is known of it.
#[derive(Clone, Debug)]
pub struct RouteState {
    /// What is wanted.
    pub wanted: Wanted,
    /// What its checks say.
    pub health: Health,
    /// Why the registry does not take it.
    pub refusal: Option<Refusal>,
    /// When to ask it again.
    retry_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Routes(Vec<RouteState>);

impl Routes {
    pub(super) fn new(wanted: Vec<Wanted>) -> Self {
        let unknown = |wanted| RouteState {
            wanted,
            health: Health::Unknown,
            refusal: None,
            retry_at: None,
        };
        Self(wanted.into_iter().map(unknown).collect())
    }

    pub(super) fn all(&self) -> &[RouteState] {
        &self.0
    }

    /// Takes over what is known of the same endpoints, see [`RouteState::health_under`]. Returns those
    /// of `set` that have not changed at all.
    pub(super) fn take_over(&mut self, before: &Self, set: &Set) -> Set {
        let mut same = Set::new();
        for (index, route) in self.0.iter_mut().enumerate() {
            if set
                .iter()
                .any(|old| before.0[*old].wanted.route == route.wanted.route)
            {
                same.insert(index);
            }
            let wanted = &route.wanted;
            let known = before.0.iter().filter_map(|old| old.health_under(wanted));
            // Of two that were checked in the same way, or of which both are healthy, either will do.
            route.health = known
                .max_by_key(|health| health.is_healthy())
                .unwrap_or(route.health);
        }
        same
    }

    /// Tells whether the result changes the route's health.
    pub(super) fn checked(&mut self, route: usize, success: bool) -> bool {
        let Some(route) = self.0.get_mut(route) else {
            return false;
        };
        let before = route.health;
        route.health = before.after(success, route.wanted.check.failures);
        before == Health::Unknown || before.is_healthy() != route.health.is_healthy()
    }

    pub(super) fn any_unknown(&self) -> bool {
        self.0.iter().any(|route| route.health == Health::Unknown)
    }

    /// How long the slowest of the checks that have not ended yet may take.
    pub(super) fn slowest_unknown(&self) -> Option<Duration> {
        let unknown = |route: &&RouteState| route.health == Health::Unknown;
        let timeouts = self.0.iter().filter(unknown);
        timeouts.map(|route| route.wanted.check.timeout).max()
    }

    pub(super) fn healthy(&self) -> Set {
        self.those(|route| route.health.is_healthy())
    }

    /// What is to be announced: healthy, and not refused.
    pub(super) fn announced(&self) -> Set {
        self.those(|route| route.health.is_healthy() && route.refusal.is_none())
    }

    /// Healthy routes that were refused and may be asked for again.
    pub(super) fn due_again(&self, now: Instant) -> Set {
        self.those(|route| {
            route.health.is_healthy() && route.retry_at.is_some_and(|retry_at| retry_at <= now)
        })
    }

    /// When the next refused route may be asked for again.
    pub(super) fn next_retry(&self) -> Option<Instant> {
        let healthy = self.0.iter().filter(|route| route.health.is_healthy());
        healthy.filter_map(|route| route.retry_at).min()
    }

    /// Those of `set` that have this host rule.
    pub(super) fn of_host(&self, set: &Set, host: Option<&str>) -> Set {
        let of_host = |route: &RouteState| Some(&*route.wanted.route.host) == host;
        &self.those(of_host) & set
    }

    /// Nothing speaks against these routes any more.
    pub(super) fn accept(&mut self, set: &Set) {
        for index in set {
            self.0[*index].refusal = None;
            self.0[*index].retry_at = None;
        }
    }

    /// These routes are refused; tells where the reason is a new one.
    pub(super) fn refuse(&mut self, set: &Set, refusal: &Refusal, retry_at: Instant) -> Vec<Note> {
        let mut notes = Vec::new();
        for index in set {
            let route = &mut self.0[*index];
            route.retry_at = Some(retry_at);
            if route.refusal.as_ref() != Some(refusal) {
                route.refusal = Some(refusal.clone());
                notes.push(Note::LeftOut {
                    host: route.wanted.route.host.clone(),
                    refusal: refusal.clone(),
                });
            }
        }
        notes
    }

    /// What is sent for a set; `None` for an empty one.
    pub(super) fn announcement(&self, set: &Set, ttl: Duration) -> Option<Announcement> {
        let route = |index: &usize| self.0[*index].wanted.route.clone();
        (!set.is_empty()).then(|| Announcement {
            ttl: u32::try_from(ttl.as_secs()).unwrap_or(u32::MAX),
            routes: set.iter().map(route).collect(),
        })
    }

    fn those(&self, are: impl Fn(&RouteState) -> bool) -> Set {
        let numbered = self.0.iter().enumerate();
        numbered
            .filter(|(_, route)| are(route))
            .map(|(index, _)| index)
            .collect()
    }
}

impl RouteState {
    /// What is known of a route that is wanted now from what this one's checks have said; `None` if
    /// that is nothing.
    ///
    /// Whoever mends a check has not said that the endpoint is down: what was healthy stays so until
    /// the new check has failed as often as it takes. What was not may be so under the new one.
    fn health_under(&self, wanted: &Wanted) -> Option<Health> {
        let (old, new) = (&self.wanted, wanted);
        if old.route.endpoint != new.route.endpoint {
            return None;
        }
        if old.check == new.check {
            return Some(self.health);
        }
        let stays = old.route.host == new.route.host && self.health.is_healthy();
        stays.then_some(Health::Healthy { failed: 0 })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason)
    }
}
