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

    /// Takes over the health of routes whose check and endpoint are as before. Returns those of
    /// `set` that have not changed at all.
    pub(super) fn take_over(&mut self, before: &Self, set: &Set) -> Set {
        let mut same = Set::new();
        for (index, route) in self.0.iter_mut().enumerate() {
            let wanted = &route.wanted;
            let checks_alike = |old: &RouteState| {
                old.wanted.check == wanted.check
                    && old.wanted.route.endpoint == wanted.route.endpoint
            };
            if set
                .iter()
                .any(|old| before.0[*old].wanted.route == wanted.route)
            {
                same.insert(index);
            }
            if let Some(old) = before.0.iter().find(|old| checks_alike(old)) {
                route.health = old.health;
            }
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

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.detail, self.reason)
    }
}
