//! A registrar against registries that fail in every way, in simulated time.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::tests::{refusal, wanted};
use super::*;
use crate::registry::api::types::Announcement;

/// How a registry takes one call.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Does it, or refuses a route that must not be.
    Answers,
    /// Refuses whoever calls.
    Unwelcome,
    Busy,
    /// Nobody listens.
    Closed,
    /// Does it, and the answer is lost.
    Lost,
    /// Never answers, and does it this many milliseconds later all the same.
    Hangs(u64),
}

#[derive(Clone, Debug)]
struct Scenario {
    ttl: u64,
    registries: usize,
    /// This one always answers, within `latency`.
    good: usize,
    latency: u64,
    manners: Vec<Manner>,
    /// Milliseconds, route, and what its check says from then on.
    checks: Vec<(u64, usize, bool)>,
    /// Hosts that every registry refuses.
    refused: BTreeSet<usize>,
    randoms: Vec<f64>,
}

const ROUTES: usize = 4;
/// The checks say no more after this, and there is time to settle.
const CHECKS_END: u64 = 120_000;
const END: u64 = 300_000;

fn scenario() -> impl Strategy<Value = Scenario> {
    let manner = prop_oneof![
        2 => Just(Manner::Answers),
        1 => Just(Manner::Unwelcome),
        1 => Just(Manner::Busy),
        1 => Just(Manner::Closed),
        1 => Just(Manner::Lost),
        2 => (0_u64..3_000).prop_map(Manner::Hangs),
    ];
    let check = (0..CHECKS_END, 1..ROUTES, any::<bool>());
    (
        (10_u64..=60, 1_usize..=3, 0_usize..3, 1_u64..900),
        prop::collection::vec(manner, 1..20),
        prop::collection::vec(check, 0..20),
        prop::collection::btree_set(1..ROUTES, 0..3),
        prop::collection::vec(0.0..1.0, 1..20),
    )
        .prop_map(
            |((ttl, registries, good, latency), manners, checks, refused, randoms)| Scenario {
                ttl,
                registries,
                good: good % registries,
                latency,
                manners,
                checks,
                refused,
                randoms,
            },
        )
}

/// What the registries have in common: their store.
#[derive(Default)]
struct Store {
    held: BTreeSet<String>,
    until: Option<u64>,
    /// Calls that are carried out later.
    late: Vec<(u64, Option<Announcement>)>,
}

impl Store {
    fn carry_out(&mut self, announcement: Option<&Announcement>, at: u64) {
        self.until = announcement.map(|sent| at + u64::from(sent.ttl) * 1000);
        let routes = announcement.iter().flat_map(|sent| &sent.routes);
        self.held = routes.map(|route| route.host.clone()).collect();
    }

    /// What was due until `now` happens.
    fn advance(&mut self, now: u64) {
        self.late.sort_by_key(|(at, _)| *at);
        while self.late.first().is_some_and(|(at, _)| *at <= now) {
            let (at, announcement) = self.late.remove(0);
            self.carry_out(announcement.as_ref(), at);
        }
        if self.until.is_some_and(|until| until <= now) {
            self.carry_out(None, now);
        }
    }
}

struct World {
    scenario: Scenario,
    begun: Instant,
    now: u64,
    state: State,
    store: Store,
    health: [Option<(bool, u64)>; ROUTES],
    flight: Option<(u64, Outcome)>,
    calls: usize,
    randoms: usize,
    accepted: bool,
}

impl World {
    fn new(scenario: Scenario) -> Self {
        let begun = Instant::now();
        let ttl = Duration::from_secs(scenario.ttl);
        let settings = Settings {
            ttl,
            renew: ttl / 3,
            registries: scenario.registries,
        };
        Self {
            state: State::new(settings, (0..ROUTES).map(wanted).collect(), begun),
            scenario,
            begun,
            now: 0,
            store: Store::default(),
            health: [None; ROUTES],
            flight: None,
            calls: 0,
            randoms: 0,
            accepted: false,
        }
    }

    fn instant(&self) -> Instant {
        self.begun + Duration::from_millis(self.now)
    }

    fn random(&mut self) -> f64 {
        self.randoms += 1;
        self.scenario.randoms[self.randoms % self.scenario.randoms.len()]
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        // The first route is always healthy, the others after what the scenario says.
        let mut checks: Vec<_> = (0..ROUTES).map(|route| (20, route, true)).collect();
        checks.extend(&self.scenario.checks);
        checks.sort_by_key(|(at, ..)| *at);
        let mut checks = checks.into_iter().peekable();
        while self.now < END {
            self.store.advance(self.now);
            while let Some((_, route, success)) = checks.next_if(|(at, ..)| *at <= self.now) {
                self.check(route, success);
            }
            let mut until = END;
            if let Some((at, outcome)) = self.flight.take() {
                if at <= self.now {
                    self.end_call(outcome);
                    continue;
                }
                until = at;
                self.flight = Some((at, outcome));
            }
            match self.state.next(self.instant()) {
                Action::Call(call) => {
                    self.call(&call)?;
                    continue;
                }
                Action::Abandon => {
                    self.flight = None;
                    self.end_call(failed("given up"));
                    continue;
                }
                Action::Wait(None) => {
                    prop_assert!(
                        self.flight.is_some() || self.now < 20,
                        "at {} it waits for nothing",
                        self.now
                    );
                }
                Action::Wait(Some(at)) => {
                    let at = at.duration_since(self.begun).as_millis() as u64;
                    until = until.min(at.max(self.now + 1));
                }
            }
            let check = checks.peek().map(|(at, ..)| *at);
            let late = self.store.late.iter().map(|(at, _)| *at).min();
            let next = [
                check,
                late,
                self.store.until.map(|until| until.max(self.now + 1)),
            ];
            let next = next.into_iter().flatten().min().unwrap_or(END);
            self.verify()?;
            self.now = until.min(next).max(self.now + 1);
        }
        self.verify_rest()
    }

    fn check(&mut self, route: usize, success: bool) {
        self.state.checked(route, success);
        if self.health[route].is_none_or(|(was, _)| was != success) {
            self.health[route] = Some((success, self.now));
        }
    }

    fn call(&mut self, call: &Call) -> Result<(), TestCaseError> {
        self.calls += 1;
        for route in call.announcement.iter().flat_map(|sent| &sent.routes) {
            let healthy = self.health[number(&route.host)].is_some_and(|(healthy, _)| healthy);
            prop_assert!(healthy, "{} is announced", route.host);
        }
        let manner = match call.registry == self.scenario.good {
            true => Manner::Answers,
            false => self.scenario.manners[self.calls % self.scenario.manners.len()],
        };
        let routes = call.announcement.iter().flat_map(|sent| &sent.routes);
        let refused = routes
            .map(|route| number(&route.host))
            .find(|route| self.scenario.refused.contains(route));
        let deadline = call.deadline.as_millis() as u64;
        let announcement = call.announcement.as_ref();
        let (took, outcome) = match (manner, refused) {
            (Manner::Unwelcome, _) => (5, Outcome::Unwelcome(refusal(None))),
            (Manner::Busy, _) => (5, Outcome::Busy(Some(Duration::from_secs(5)))),
            (Manner::Closed, _) => (0, failed("closed")),
            (Manner::Answers, Some(route)) => {
                let outcome = Outcome::Refused(refusal(Some(&host(route))));
                (self.scenario.latency, outcome)
            }
            (Manner::Answers, None) => {
                self.store.carry_out(announcement, self.now);
                let renewed = true;
                (self.scenario.latency, Outcome::Accepted { renewed })
            }
            (Manner::Lost, refused) => {
                if refused.is_none() {
                    self.store.carry_out(announcement, self.now);
                }
                (1, failed("lost"))
            }
            (Manner::Hangs(later), refused) => {
                if refused.is_none() {
                    let late = (self.now + later, call.announcement.clone());
                    self.store.late.push(late);
                }
                (deadline, failed("hangs"))
            }
        };
        self.flight = Some((self.now + took, outcome));
        Ok(())
    }

    fn end_call(&mut self, outcome: Outcome) {
        self.accepted |= matches!(outcome, Outcome::Accepted { .. });
        let random = self.random();
        self.state.answered(outcome, self.instant(), random);
    }

    fn verify(&self) -> Result<(), TestCaseError> {
        // A call that was given up may have withdrawn more than it should; that is mended.
        if self.accepted {
            prop_assert!(
                self.store.until.is_some_and(|until| self.now < until),
                "nothing is announced at {}",
                self.now
            );
        }
        // Every other registry may have to be waited for, and what comes late to be mended.
        let patience = 10_000 * self.scenario.registries as u64 + 10_000;
        for host in &self.store.held {
            let unhealthy = self.health[number(host)].filter(|(healthy, _)| !healthy);
            if let Some((_, since)) = unhealthy {
                let late = self.now > since + patience;
                prop_assert!(
                    !late,
                    "{host} is announced at {}, unhealthy at {since}",
                    self.now
                );
            }
        }
        Ok(())
    }

    /// When everything has been quiet for long, the registry has what it should.
    fn verify_rest(&self) -> Result<(), TestCaseError> {
        let healthy = |route: &usize| self.health[*route].is_some_and(|(healthy, _)| healthy);
        let expected: BTreeSet<String> = (0..ROUTES)
            .filter(healthy)
            .filter(|route| !self.scenario.refused.contains(route))
            .map(host)
            .collect();
        prop_assert_eq!(&self.store.held, &expected);
        Ok(())
    }
}

fn host(route: usize) -> String {
    wanted(route).route.host
}

fn number(host: &str) -> usize {
    (0..ROUTES)
        .find(|route| self::host(*route) == host)
        .unwrap()
}

fn failed(error: &str) -> Outcome {
    Outcome::Failed {
        error: error.to_owned(),
        retry_after: None,
        elsewhere: true,
    }
}

proptest! {
    /// While one registry answers, what is healthy stays announced without a gap, what is not goes,
    /// and nothing unhealthy is ever sent.
    #[test]
    fn one_registry_that_answers_is_enough(scenario in scenario()) {
        World::new(scenario).run()?;
    }
}
