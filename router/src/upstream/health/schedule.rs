//! What is checked when, and what the answers mean. Pure: time is a number of milliseconds.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use config::route::HostMatch;

use super::{CheckedRoute, HealthUpdate, Unhealthy};
use crate::registry::record::Check;
use crate::upstream::Endpoint;

/// First checks are spread over this much, in milliseconds, or over the interval if that is less:
/// a new route should not wait for an hour, nor all of them be checked at once after a start.
const SPREAD: u64 = 10_000;
/// Checks of one tenant that are under way at once: endpoints that accept and say nothing hold up
/// their own tenant's checks, not everybody's.
pub(super) const MOST_OF_ONE: usize = 32;

/// Everything that is checked.
#[derive(Default)]
pub(super) struct Schedule {
    routes: HashMap<HostMatch, Vec<u64>>,
    endpoints: HashMap<u64, Checked>,
    tenants: HashMap<Arc<str>, Tenant>,
    /// Tenants that may have a check made, each with when its first one is due.
    turns: BTreeSet<(u64, Arc<str>)>,
    /// Whose checks are under way. Their endpoints may be gone meanwhile.
    under_way: HashMap<u64, Arc<str>>,
    last_id: u64,
    unhealthy: u64,
}

/// The checks of one tenant.
#[derive(Default)]
struct Tenant {
    /// When which endpoint is due. Those under way are not in it.
    due: BTreeSet<(u64, u64)>,
    under_way: usize,
}

/// One endpoint of one route.
struct Checked {
    spec: Arc<Spec>,
    endpoint: Arc<Endpoint>,
    unhealthy: Arc<Unhealthy>,
    index: usize,
    /// When its next check is or was due.
    at: u64,
    state: State,
}

/// What the last checks said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// In a row.
    failures: u32,
    is_unhealthy: bool,
}

/// What all endpoints of a route have in common.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spec {
    pub(super) host: HostMatch,
    pub(super) check: Check,
}

/// A check to be made now.
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) spec: Arc<Spec>,
    pub(super) endpoint: Arc<Endpoint>,
}

/// An endpoint became unhealthy, or healthy again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) host: HostMatch,
    pub(super) endpoint: SocketAddr,
    /// In a row; 0 is healthy again.
    pub(super) failures: u32,
}

impl State {
    /// Takes one answer. Whether the endpoint now counts as something else than before.
    pub(super) fn observe(&mut self, passed: bool, allowed: u32) -> bool {
        let before = self.is_unhealthy;
        if passed {
            *self = Self::default();
        } else {
            self.failures = self.failures.saturating_add(1);
            self.is_unhealthy |= self.failures >= allowed;
        }
        self.is_unhealthy != before
    }
}

impl Schedule {
    /// Takes an order of the control plane. An endpoint that was checked in the same way for the
    /// same rule keeps its state and its turn.
    pub(super) fn update(
        &mut self,
        update: HealthUpdate,
        now: u64,
        random: &mut impl FnMut() -> u64,
    ) {
        match update {
            HealthUpdate::Set(route) => self.set(route, now, random),
            HealthUpdate::Gone(host) => drop(self.take(&host)),
        }
    }

    /// The next check that is due, if one is, of a tenant that has not too many under way. Its
    /// answer goes to [`Schedule::finished`].
    pub(super) fn take_due(&mut self, now: u64) -> Option<Job> {
        let (_, tenant) = self.turns.first().filter(|(at, _)| *at <= now)?;
        let tenant = Arc::clone(tenant);
        let (_, id) = self.change(&tenant, |tenant| {
            tenant.under_way += 1;
            tenant.due.pop_first()
        })?;
        self.under_way.insert(id, tenant);
        let checked = self.endpoints.get(&id)?;
        Some(Job {
            id,
            spec: Arc::clone(&checked.spec),
            endpoint: Arc::clone(&checked.endpoint),
        })
    }

    /// When the next check is due, of a tenant that has not too many under way.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.turns.first().map(|(at, _)| *at)
    }

    /// Takes the answer of a check, and says what that changed. The next one is due an interval
    /// after this one was; what is late by more than that is left out.
    pub(super) fn finished(&mut self, id: u64, passed: bool, now: u64) -> Option<Change> {
        if let Some(tenant) = self.under_way.remove(&id) {
            self.change(&tenant, |tenant| tenant.under_way -= 1);
        }
        // The route may be gone meanwhile.
        let checked = self.endpoints.get_mut(&id)?;
        let at = (checked.at + checked.spec.interval()).max(now);
        checked.at = at;
        let tenant = Arc::clone(&checked.endpoint.tenant);
        self.change(&tenant, |tenant| tenant.due.insert((at, id)));
        let checked = self.endpoints.get_mut(&id)?;
        if !checked.state.observe(passed, checked.spec.check.failures) {
            return None;
        }
        let is_unhealthy = checked.state.is_unhealthy;
        checked.unhealthy.set(checked.index, is_unhealthy);
        if is_unhealthy {
            self.unhealthy += 1;
        } else {
            self.unhealthy -= 1;
        }
        Some(Change {
            host: checked.spec.host.clone(),
            endpoint: checked.endpoint.address,
            failures: checked.state.failures,
        })
    }

    /// How many endpoints are unhealthy now.
    pub(super) fn unhealthy(&self) -> u64 {
        self.unhealthy
    }

    fn set(&mut self, route: CheckedRoute, now: u64, random: &mut impl FnMut() -> u64) {
        let mut before = self.take(&route.host);
        let spec = Arc::new(Spec {
            host: route.host,
            check: route.check,
        });
        let spread = SPREAD.min(spec.interval()).max(1);
        let mut ids = Vec::with_capacity(route.endpoints.len());
        for (index, endpoint) in route.endpoints.into_iter().enumerate() {
            let known = before.iter().position(|(_, known, _)| {
                Arc::ptr_eq(&known.endpoint, &endpoint) && known.spec.check == spec.check
            });
            // A check that is under way counts for what comes of it.
            let (id, at, state, waits) = match known.map(|known| before.swap_remove(known)) {
                Some((id, known, waits)) => (id, known.at, known.state, waits),
                None => {
                    self.last_id += 1;
                    (
                        self.last_id,
                        now + random() % spread,
                        State::default(),
                        true,
                    )
                }
            };
            route.unhealthy.set(index, state.is_unhealthy);
            self.unhealthy += u64::from(state.is_unhealthy);
            let checked = Checked {
                spec: Arc::clone(&spec),
                endpoint,
                unhealthy: Arc::clone(&route.unhealthy),
                index,
                at,
                state,
            };
            let tenant = Arc::clone(&checked.endpoint.tenant);
            self.endpoints.insert(id, checked);
            if waits {
                self.change(&tenant, |tenant| tenant.due.insert((at, id)));
            }
            ids.push(id);
        }
        self.routes.insert(spec.host.clone(), ids);
    }

    /// Takes a rule's endpoints out, and says of each whether it was waiting for its turn.
    fn take(&mut self, host: &HostMatch) -> Vec<(u64, Checked, bool)> {
        let ids = self.routes.remove(host).unwrap_or_default();
        let mut taken = Vec::with_capacity(ids.len());
        for id in ids {
            if let Some(checked) = self.endpoints.remove(&id) {
                let tenant = Arc::clone(&checked.endpoint.tenant);
                let waits = self.change(&tenant, |tenant| tenant.due.remove(&(checked.at, id)));
                self.unhealthy -= u64::from(checked.state.is_unhealthy);
                taken.push((id, checked, waits));
            }
        }
        taken
    }

    /// Changes what there is of a tenant, and when it has its turn.
    fn change<T>(&mut self, name: &Arc<str>, change: impl FnOnce(&mut Tenant) -> T) -> T {
        let tenant = self.tenants.entry(Arc::clone(name)).or_default();
        if let Some(at) = tenant.turn() {
            self.turns.remove(&(at, Arc::clone(name)));
        }
        let outcome = change(tenant);
        if let Some(at) = tenant.turn() {
            self.turns.insert((at, Arc::clone(name)));
        } else if tenant.due.is_empty() && tenant.under_way == 0 {
            self.tenants.remove(name);
        }
        outcome
    }
}

impl Tenant {
    /// When its next check may be made.
    fn turn(&self) -> Option<u64> {
        let first = self.due.first().map(|(at, _)| *at);
        first.filter(|_| self.under_way < MOST_OF_ONE)
    }
}

impl Spec {
    /// In milliseconds, and never 0.
    fn interval(&self) -> u64 {
        u64::from(self.check.interval.max(1)) * 1000
    }
}
