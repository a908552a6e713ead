//! What a registrar knows, and what it does next. Pure: time and random numbers are handed in.
//!
//! A call carries everything that the instance announces, so the state is one set of routes that
//! ought to stand in the registry, and one that does as far as is known. Whenever they differ, or a
//! renewal is due, [`State::next`] says whom to call; [`State::answered`] takes what came of it.

#[cfg(test)]
mod reloading;
mod routes;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod types;

use std::time::{Duration, Instant};

use super::schedule::{LONGEST_CALL, LONGEST_PAUSE, jittered, pause, share};

pub use routes::{Refusal, RouteState, Wanted};
use routes::{Routes, Set};
pub use types::{Action, Call, Note, Outcome, Settings};

/// How long changes after an announcement are gathered: the first is announced at once.
const GATHER: Duration = Duration::from_millis(100);
/// How long the first announcement waits at most for checks that have not ended. It replaces what an
/// earlier process has announced, and what it does not carry is withdrawn.
const FIRST_CHECKS: Duration = Duration::from_secs(10);
/// How long a call may go on that announces what is no longer healthy.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a registry may take that is to withdraw something, while there is another one to ask. One
/// that has died silently answers as late as one that is slow.
const WITHDRAWAL: Duration = Duration::from_secs(2);
/// A call that was given up may still be carried out: a registry waits for its store for 3 s. So
/// the state is announced once more this long after.
const CONFIRM: Duration = Duration::from_secs(5);
/// How long to stay away from a registry that is asked too often, if it does not say.
const BUSY: Duration = Duration::from_secs(1);
/// However short the time to live is, a pause may be as long as this.
const SHORTEST_BOUND: Duration = Duration::from_millis(500);

/// See the module.
#[derive(Debug)]
pub struct State {
    settings: Settings,
    routes: Routes,
    /// What stands in the registry; `None` when that is not known.
    held: Option<Set>,
    /// What a registry has accepted last.
    accepted: Set,
    /// What may stand there besides: what calls have carried of which nobody knows whether they were
    /// done.
    exposed: Set,
    /// When that ends unless it is renewed.
    alive_until: Option<Instant>,
    /// When to announce the same once more.
    renew_at: Option<Instant>,
    /// A call was given up, or has failed in a way that leaves open whether it was done.
    uncertain: bool,
    /// Renewals in a row that were none for the registry.
    changed_by_others: u32,
    /// The registry that works, as far as is known.
    registry: usize,
    flight: Option<Flight>,
    /// Registries that have failed since one did not.
    round: Round,
    /// No call before.
    not_before: Instant,
    /// Whether, and for how long, the whole announcement is refused.
    refused: Option<RefusedWhole>,
    /// What each registry said last when it did not do what it was asked.
    complaints: Vec<Option<String>>,
    /// When checking began that has not had a result for every route yet.
    begun: Instant,
}

/// A call that is under way.
#[derive(Debug)]
struct Flight {
    begun: Instant,
    registry: usize,
    set: Set,
}

#[derive(Debug, Default)]
struct Round {
    failed: usize,
    /// One of them refuses us.
    unwelcome: bool,
    /// Rounds before in which all have failed.
    before: u32,
}

#[derive(Debug)]
struct RefusedWhole {
    /// What is refused; `None` is whatever we announce.
    set: Option<Set>,
    retry_at: Instant,
}

impl State {
    /// Nothing is known: neither health, nor what an earlier process has left in the registry.
    #[must_use]
    pub fn new(settings: Settings, wanted: Vec<Wanted>, now: Instant) -> Self {
        Self {
            settings,
            routes: Routes::new(wanted),
            held: None,
            accepted: Set::new(),
            exposed: Set::new(),
            alive_until: None,
            renew_at: None,
            uncertain: false,
            changed_by_others: 0,
            registry: 0,
            flight: None,
            round: Round::default(),
            not_before: now,
            refused: None,
            complaints: vec![None; settings.registries],
            begun: now,
        }
    }

    /// Other settings and routes count from now on. What is known of routes that stay the same is
    /// kept; a call that is under way has been given up. Everything is announced once more, since
    /// addresses or credentials may be what changed.
    pub fn reload(&mut self, settings: Settings, wanted: Vec<Wanted>, now: Instant) {
        let before = std::mem::replace(self, Self::new(settings, wanted, now));
        self.accepted = self.routes.take_over(&before.routes, &before.accepted);
        self.alive_until = before.alive_until;
        self.registry = before.registry.min(settings.registries - 1);
        self.uncertain = before.uncertain || before.flight.is_some();
    }

    /// Like [`State::reload`] for an instance of another name: nothing is announced under it yet, but
    /// the endpoints are as healthy as they were.
    pub fn rename(&mut self, settings: Settings, wanted: Vec<Wanted>, now: Instant) {
        let before = std::mem::replace(self, Self::new(settings, wanted, now));
        self.routes.take_over(&before.routes, &Set::new());
    }

    /// A check of a route has ended. Tells whether that changes its health.
    pub fn checked(&mut self, route: usize, success: bool) -> bool {
        self.routes.checked(route, success)
    }

    /// What to do now. A call that it returns counts as begun.
    pub fn next(&mut self, now: Instant) -> Action {
        if let Some(flight) = &self.flight {
            let outdated = !flight.set.is_subset(&self.routes.healthy());
            let until = flight.begun + PATIENCE;
            return match outdated {
                false => Action::Wait(None),
                true if now < until => Action::Wait(Some(until)),
                true => Action::Abandon,
            };
        }
        match self.due(now) {
            Ok(set) if self.not_before <= now => Action::Call(self.begin(set, now)),
            Ok(_) => Action::Wait(Some(self.not_before)),
            Err(until) => Action::Wait(until),
        }
    }

    /// What a call has to carry now, or when there may be something to call for.
    fn due(&self, now: Instant) -> Result<Set, Option<Instant>> {
        let refused = self
            .refused
            .as_ref()
            .filter(|refused| now < refused.retry_at);
        if let Some(RefusedWhole {
            set: None,
            retry_at,
        }) = refused
        {
            return Err(Some(*retry_at));
        }
        if self.routes.any_unknown() {
            let until = self.first_checks_end();
            if now < until {
                return Err(Some(until));
            }
            // Nothing is healthy so far, and nothing of ours is announced.
            if self.routes.announced().is_empty() && self.alive_until.is_none() {
                return Err(None);
            }
        }
        let set = self.routes.announced();
        let changed = self.held.as_ref() != Some(&set);
        if changed || self.renew_at.is_some_and(|renew_at| renew_at <= now) {
            return match refused {
                Some(refused) if refused.set.as_ref() == Some(&set) => Err(Some(refused.retry_at)),
                _ => Ok(set),
            };
        }
        // Apart from changes and renewals, which a refusal would hold up.
        let again = self.routes.due_again(now);
        if !again.is_empty() {
            return Ok(&set | &again);
        }
        Err([self.renew_at, self.routes.next_retry()]
            .into_iter()
            .flatten()
            .min())
    }

    /// Until when checks without a result are waited for. A check has ended after its timeout. What
    /// is announced may not have long to live, and what has failed is withdrawn at once.
    fn first_checks_end(&self) -> Instant {
        if !self.accepted.is_subset(&self.routes.announced()) {
            return self.begun;
        }
        let slowest = self.routes.slowest_unknown().unwrap_or_default();
        let mut until = self.begun + slowest.min(FIRST_CHECKS).min(self.settings.ttl / 4);
        if let Some(alive_until) = self.alive_until {
            let remaining = alive_until.saturating_duration_since(self.begun);
            until = until.min(self.begun + remaining / 2);
        }
        until
    }

    fn begin(&mut self, set: Set, now: Instant) -> Call {
        let registry = self.registry;
        let left = self.settings.registries - self.round.failed;
        let mut deadline = match self.remaining(now) {
            Some(remaining) => share(remaining, left),
            None => LONGEST_CALL,
        };
        let withdraws = !self.accepted.is_subset(&set) || !self.exposed.is_subset(&set);
        if withdraws && left > 1 {
            deadline = deadline.min(WITHDRAWAL);
        }
        let announcement = self.routes.announcement(&set, self.settings.ttl);
        self.flight = Some(Flight {
            begun: now,
            registry,
            set,
        });
        Call {
            registry,
            deadline,
            announcement,
        }
    }

    /// The call that is under way has ended.
    pub fn answered(&mut self, outcome: Outcome, now: Instant, random: f64) -> Vec<Note> {
        let Some(flight) = self.flight.take() else {
            return Vec::new();
        };
        let pace = jittered(self.settings.renew, random);
        match outcome {
            Outcome::Accepted { renewed } => self.accept(flight, renewed, pace),
            Outcome::Refused(refusal) => self.leave_out(flight, refusal, now, pace),
            Outcome::Unwelcome(refusal) => {
                self.round.unwelcome = true;
                let told = self.complain(flight.registry, refusal.to_string());
                self.fail(true, None, now, random);
                let registry = flight.registry;
                told.map(|_| Note::Refused { registry, refusal })
                    .into_iter()
                    .collect()
            }
            Outcome::Busy(retry_after) => {
                let wait = self.bounded(retry_after.unwrap_or(BUSY), now).max(BUSY);
                self.fail(true, None, now, random);
                self.not_before = self.not_before.max(now + wait);
                self.complain(flight.registry, "asked too often".to_owned())
                    .into_iter()
                    .collect()
            }
            Outcome::Failed {
                error,
                retry_after,
                elsewhere,
            } => {
                self.uncertain = true;
                self.exposed.extend(&flight.set);
                if self.held.as_ref() != Some(&flight.set) {
                    self.held = None;
                }
                self.fail(elsewhere, retry_after, now, random);
                self.complain(flight.registry, error).into_iter().collect()
            }
        }
    }

    fn accept(&mut self, flight: Flight, renewed: bool, pace: Duration) -> Vec<Note> {
        let Flight {
            begun,
            registry,
            set,
        } = flight;
        let round = std::mem::take(&mut self.round);
        let recovered = round.failed > 0 || round.before > 0 || self.refused.is_some();
        self.refused = None;
        self.complaints[registry] = None;
        self.not_before = begun + GATHER;
        let uncertain = std::mem::take(&mut self.uncertain);
        self.routes.accept(&set);
        let new = self.held.as_ref() != Some(&set);
        let routes = set.len();
        self.held = Some(set.clone());
        self.accepted = set;
        self.exposed.clear();
        if routes == 0 {
            self.alive_until = None;
            self.renew_at = uncertain.then(|| begun + CONFIRM);
            return vec![Note::Withdrawn { registry }];
        }
        // From the beginning of the call: when the registry began to count is not known.
        self.alive_until = Some(begun + self.settings.ttl);
        let pace = if uncertain { pace.min(CONFIRM) } else { pace };
        self.renew_at = Some(begun + pace);
        self.changed_by_others = match renewed || new || recovered || uncertain {
            true => 0,
            false => self.changed_by_others.saturating_add(1),
        };
        let mut notes = vec![if new || recovered {
            Note::Announced { routes, registry }
        } else {
            Note::Renewed { registry }
        }];
        // Once it may be an operator's doing: a zone that was taken back and given again.
        if self.changed_by_others == 2 {
            notes.push(Note::Contended);
        }
        notes
    }

    /// The registry refuses what was announced: goes on without what is to blame.
    fn leave_out(
        &mut self,
        flight: Flight,
        refusal: Refusal,
        now: Instant,
        pace: Duration,
    ) -> Vec<Note> {
        self.round = Round::default();
        self.not_before = now;
        let named = self.routes.of_host(&flight.set, refusal.host.as_deref());
        // Without a name, what was not refused before is not to blame.
        let added = &flight.set - &self.accepted;
        let blamed = if !named.is_empty() {
            named
        } else if added.len() < flight.set.len() {
            added
        } else {
            Set::new()
        };
        if !blamed.is_empty() {
            self.complaints[flight.registry] = None;
            return self.routes.refuse(&blamed, &refusal, now + pace);
        }
        self.not_before = now + GATHER;
        self.refused = Some(RefusedWhole {
            set: Some(flight.set),
            retry_at: now + pace,
        });
        let registry = flight.registry;
        self.complain(registry, refusal.to_string())
            .map(|_| Note::Refused { registry, refusal })
            .into_iter()
            .collect()
    }

    /// On to the next registry: at once, until all have failed.
    fn fail(&mut self, elsewhere: bool, retry_after: Option<Duration>, now: Instant, random: f64) {
        let registries = self.settings.registries;
        self.registry = (self.registry + 1) % registries;
        self.round.failed += 1;
        self.not_before = now;
        if elsewhere && self.round.failed < registries {
            return;
        }
        let Round {
            unwelcome, before, ..
        } = std::mem::take(&mut self.round);
        if unwelcome {
            self.refused = Some(RefusedWhole {
                set: None,
                retry_at: now + jittered(self.settings.renew, random),
            });
            return;
        }
        let rounds = before.saturating_add(1);
        self.round.before = rounds;
        // A store that comes back holds what was announced for one time to live more: who lets a
        // renewal pass without asking may come too late.
        let longest = LONGEST_PAUSE.min(self.settings.renew);
        let wait = pause(rounds, longest, random).max(retry_after.unwrap_or_default());
        self.not_before = now + self.bounded(wait, now);
    }

    /// Waits no longer than half of what remains of the time to live: then every registry can still
    /// be asked. When nothing remains, our routes are missing: then no longer than a quarter of a time
    /// to live.
    fn bounded(&self, wait: Duration, now: Instant) -> Duration {
        match self.remaining(now) {
            Some(remaining) => wait.min(remaining / 2),
            None => wait.min((self.settings.ttl / 4).max(SHORTEST_BOUND)),
        }
    }

    /// What remains of the time to live of what is announced.
    fn remaining(&self, now: Instant) -> Option<Duration> {
        let remaining = self.alive_until?.saturating_duration_since(now);
        (!remaining.is_zero()).then_some(remaining)
    }

    /// A note, unless this registry has said the same the last time.
    fn complain(&mut self, registry: usize, error: String) -> Option<Note> {
        let last = self.complaints[registry].replace(error.clone());
        (last.as_ref() != Some(&error)).then_some(Note::Failing { registry, error })
    }

    /// The registry to call first: the one that works, as far as is known.
    #[must_use]
    pub fn registry(&self) -> usize {
        self.registry
    }

    /// Whether every check has had a result.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        !self.routes.any_unknown()
    }

    /// Whether something may be announced, by this process or an earlier one.
    #[must_use]
    pub fn holds_anything(&self) -> bool {
        self.flight.is_some()
            || self.uncertain
            || self.held.as_ref().is_none_or(|held| !held.is_empty())
    }

    /// Routes that are announced as far as is known, unless their time has run out.
    pub fn held(&self, now: Instant) -> impl Iterator<Item = usize> {
        let alive = self.remaining(now).is_some();
        let held = self.held.as_ref().filter(|_| alive);
        held.into_iter().flatten().copied()
    }

    /// The routes, in the order of the configuration.
    #[must_use]
    pub fn routes(&self) -> &[RouteState] {
        self.routes.all()
    }
}
