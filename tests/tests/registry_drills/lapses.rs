//! Registrars fall silent, and what they announced lapses.

use std::time::{Duration, Instant};

use harness::fleet::FleetPlan;
use harness::fleet::tenant::renewals;
use harness::process::Process;
use harness::wait;
use nix::sys::signal::Signal;

use super::{Drill, LATE, alone, seconds};

/// How something lapsed, counted from the last renewal that was accepted.
#[derive(Debug)]
pub(super) struct Lapse {
    /// When a router was first seen without it.
    first: Duration,
    /// When a router was last seen with it: what observers are late by does not count.
    last: Duration,
    /// When a lease of etcd was gone that has nothing to do with routers, renewed last a moment
    /// later.
    bare: Option<Duration>,
}

impl Drill {
    /// Silences a registrar right after a renewal, and watches what it announced leave all routers.
    pub(super) fn lapse(
        &mut self,
        tenant: usize,
        worker: usize,
        silence: impl FnOnce(&mut Process),
    ) -> Lapse {
        let etcd = self.fleet.etcd.as_ref();
        let bare = etcd.map(|it| it.bare_lease(self.fleet.ttl).unwrap());
        let place = &mut self.fleet.tenants[tenant].workers[worker];
        let endpoint = place.endpoint();
        let registrar = place.registrar().unwrap();
        let before = renewals(&registrar.log()).len();
        wait::until_true("a renewal", || renewals(&registrar.log()).len() > before).unwrap();
        let since = Instant::now();
        silence(registrar);
        let bare = bare.map(|it| it.lapse().unwrap());

        let rule = self.fleet.tenants[tenant].plan.rule;
        let mut gone = vec![None; self.fleet.routers.len()];
        let mut last = Duration::ZERO;
        wait::until_true("an announcement to lapse", || {
            for (door, gone) in self.fleet.routers.iter().zip(&mut gone) {
                let asked = since.elapsed();
                if door.endpoints(rule).unwrap().contains(&endpoint) {
                    assert_eq!(*gone, None, "{} has it again", door.host.name);
                    last = last.max(asked);
                } else {
                    gone.get_or_insert_with(|| since.elapsed());
                }
            }
            gone.iter().all(Option::is_some)
        })
        .unwrap();
        let without = self.fleet.tenants[tenant].without(worker);
        self.fleet.wait_for_endpoints(tenant, &without).unwrap();
        Lapse {
            first: gone.into_iter().flatten().min().unwrap(),
            last,
            bare: bare.map(|it| it.join().unwrap().unwrap()),
        }
    }
}

impl Lapse {
    /// It was in time: neither before its time to live, nor a second after it. What etcd itself is
    /// late by, on a machine as busy as this, is no fault of the routers.
    pub(super) fn assert_in_time(&self, ttl: Duration) {
        assert!(self.first >= ttl - LATE, "too early: {self:?}");
        let over = self.bare.map_or(ttl, |bare| bare.max(ttl));
        assert!(self.last <= over + LATE, "too late: {self:?}");
    }

    pub(super) fn told(&self) -> String {
        let last = format!("gone {} after the last renewal", seconds(self.last));
        match self.bare {
            Some(bare) => format!("{last}, a bare lease of etcd after {}", seconds(bare)),
            None => last,
        }
    }
}

#[test]
fn a_registrar_is_killed_and_another_is_paused() {
    registrars_fail(
        "a registrar is killed, another paused",
        &FleetPlan::default(),
    );
}

#[test]
fn a_registrar_of_a_single_router_is_killed_and_another_is_paused() {
    registrars_fail(
        "single router: a registrar is killed, another paused",
        &alone(),
    );
}

fn registrars_fail(name: &'static str, plan: &FleetPlan) {
    let mut drill = Drill::begin(name, plan);
    let lapse = drill.lapse(0, 1, Process::crash);
    drill.saw(format!("killed: {}", lapse.told()));
    lapse.assert_in_time(plan.ttl);
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();

    let lapse = drill.lapse(1, 0, |it| it.signal(Signal::SIGSTOP));
    drill.saw(format!("paused: {}", lapse.told()));
    lapse.assert_in_time(plan.ttl);
    let since = Instant::now();
    let worker = &mut drill.fleet.tenants[1].workers[0];
    worker.registrar().unwrap().signal(Signal::SIGCONT);
    drill.fleet.wait_for_everybody().unwrap();
    let took = since.elapsed();
    drill.saw(format!("back {} after it went on", seconds(took)));
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}
