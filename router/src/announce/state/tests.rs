//! One rule at a time.

use config::registrar::Probe;

use super::*;
use crate::registry::api::types::AnnouncedRoute;

pub(super) fn wanted(route: usize) -> Wanted {
    Wanted {
        route: AnnouncedRoute {
            host: format!("r{route}.example.org"),
            endpoint: ([10, 0, 7, 21], 9000 + route as u16).into(),
            protocol: Default::default(),
            tls: None,
            shared: false,
        },
        check: config::registrar::Check {
            probe: Probe::Tcp { address: None },
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            failures: 1,
        },
    }
}

pub(super) fn refusal(host: Option<&str>) -> Refusal {
    Refusal {
        reason: "outside-zones".to_owned(),
        detail: "not yours".to_owned(),
        host: host.map(str::to_owned),
    }
}

/// The API says so of what is new to it, too.
pub(super) const ACCEPTED: Outcome = Outcome::Accepted { renewed: true };

pub(super) fn failed() -> Outcome {
    Outcome::Failed {
        error: "closed".to_owned(),
        retry_after: None,
        elsewhere: true,
    }
}

/// A state and its clock.
pub(super) struct Bench {
    pub(super) state: State,
    pub(super) now: Instant,
}

impl Bench {
    /// 60 s to live, renewed every 20 s.
    pub(super) fn new(routes: usize, registries: usize) -> Self {
        let now = Instant::now();
        let wanted = (0..routes).map(wanted).collect();
        Self {
            state: State::new(settings(registries), wanted, now),
            now,
        }
    }

    /// The same with everything healthy and announced.
    pub(super) fn announced(routes: usize, registries: usize) -> Self {
        let mut bench = Self::new(routes, registries);
        for route in 0..routes {
            bench.state.checked(route, true);
        }
        assert_eq!(bench.calls_with(), (0..routes).collect::<Vec<_>>());
        bench.answer(ACCEPTED);
        bench
    }

    pub(super) fn pass(&mut self, milliseconds: u64) {
        self.now += Duration::from_millis(milliseconds);
    }

    pub(super) fn call(&mut self) -> Call {
        match self.state.next(self.now) {
            Action::Call(call) => call,
            other => panic!("{other:?}"),
        }
    }

    /// The routes that the call carries, none for a withdrawal.
    pub(super) fn calls_with(&mut self) -> Vec<usize> {
        let sent = self.call().announcement;
        let routes = sent.iter().flat_map(|sent| &sent.routes);
        routes
            .map(|route| usize::from(route.endpoint.port() - 9000))
            .collect()
    }

    /// Milliseconds until there is something to do.
    pub(super) fn waits(&mut self) -> Option<u64> {
        match self.state.next(self.now) {
            Action::Wait(until) => {
                until.map(|until| until.duration_since(self.now).as_millis() as u64)
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn answer(&mut self, outcome: Outcome) -> Vec<Note> {
        self.state.answered(outcome, self.now, 0.5)
    }
}

pub(super) fn settings(registries: usize) -> Settings {
    Settings {
        ttl: Duration::from_secs(60),
        renew: Duration::from_secs(20),
        registries,
    }
}

#[test]
fn the_first_announcement_waits_for_checks_that_are_slower_as_long_as_they_may_take() {
    let mut bench = Bench::new(3, 1);
    assert_eq!(bench.waits(), Some(2_000));
    bench.state.checked(1, true);
    bench.pass(1_999);
    assert_eq!(
        bench.waits(),
        Some(1),
        "an earlier process may have announced more"
    );
    bench.state.checked(0, true);
    bench.pass(1);
    assert_eq!(bench.calls_with(), [0, 1]);
    let notes = bench.answer(ACCEPTED);
    assert_eq!(
        notes,
        [Note::Announced {
            routes: 2,
            registry: 0
        }]
    );
    // The third is healthy a little later.
    bench.pass(500);
    assert!(bench.state.checked(2, true));
    assert_eq!(bench.calls_with(), [0, 1, 2]);
}

#[test]
fn checks_that_may_take_very_long_are_not_waited_for_to_their_end() {
    let slow = || {
        let mut slow = wanted(1);
        slow.check.timeout = Duration::from_secs(300);
        vec![wanted(0), slow]
    };
    let now = Instant::now();
    let mut bench = Bench::new(0, 1);
    bench.state = State::new(settings(1), slow(), now);
    bench.now = now;
    bench.state.checked(0, true);
    assert_eq!(bench.waits(), Some(10_000));
    let mut short = settings(1);
    short.ttl = Duration::from_secs(8);
    bench.state = State::new(short, slow(), now);
    bench.state.checked(0, true);
    assert_eq!(bench.waits(), Some(2_000), "what is there may end");
    bench.pass(2_000);
    assert_eq!(bench.calls_with(), [0]);
}

#[test]
fn it_does_not_wait_when_every_check_has_ended() {
    let mut bench = Bench::new(2, 1);
    bench.state.checked(0, true);
    bench.state.checked(1, false);
    assert!(bench.state.is_checked());
    assert_eq!(bench.calls_with(), [0]);
}

#[test]
fn what_an_earlier_process_left_is_withdrawn_when_nothing_is_healthy() {
    let mut bench = Bench::new(2, 1);
    bench.state.checked(0, false);
    bench.pass(2_000);
    assert_eq!(bench.waits(), None, "the other check has not ended");
    bench.state.checked(1, false);
    assert_eq!(bench.call().announcement, None);
    assert!(bench.state.holds_anything());
    assert_eq!(bench.answer(ACCEPTED), [Note::Withdrawn { registry: 0 }]);
    assert_eq!(bench.waits(), None);
    assert!(!bench.state.holds_anything());
}

#[test]
fn it_renews_at_its_pace() {
    let mut bench = Bench::announced(1, 1);
    assert_eq!(bench.waits(), Some(20_000));
    bench.pass(20_000);
    let call = bench.call();
    assert_eq!(call.announcement.unwrap().ttl, 60);
    bench.pass(1_000);
    assert_eq!(bench.answer(ACCEPTED), [Note::Renewed { registry: 0 }]);
    assert_eq!(
        bench.waits(),
        Some(19_000),
        "counted from the beginning of the call"
    );
}

#[test]
fn a_failed_check_withdraws_at_once_and_changes_soon_after_are_gathered() {
    let mut bench = Bench::announced(3, 1);
    bench.pass(5_000);
    assert!(bench.state.checked(0, false));
    assert!(!bench.state.checked(0, false), "that was told before");
    assert_eq!(bench.calls_with(), [1, 2]);
    bench.pass(10);
    bench.answer(ACCEPTED);
    bench.state.checked(1, false);
    assert_eq!(bench.waits(), Some(90));
    bench.state.checked(2, false);
    bench.pass(90);
    assert_eq!(bench.call().announcement, None);
    bench.answer(ACCEPTED);
    bench.pass(100);
    bench.state.checked(2, true);
    assert_eq!(bench.calls_with(), [2]);
}

#[test]
fn a_call_that_is_out_of_date_is_given_up_and_what_came_late_is_mended() {
    let mut bench = Bench::announced(2, 2);
    bench.pass(20_000);
    assert_eq!(bench.calls_with(), [0, 1]);
    bench.pass(400);
    bench.state.checked(0, false);
    assert_eq!(bench.waits(), Some(600));
    bench.pass(600);
    assert_eq!(bench.state.next(bench.now), Action::Abandon);
    bench.answer(failed());
    let call = bench.call();
    assert_eq!(
        (call.registry, call.announcement.unwrap().routes.len()),
        (1, 1)
    );
    bench.answer(ACCEPTED);
    assert_eq!(bench.waits(), Some(5_000));
    bench.pass(5_000);
    bench.calls_with();
    bench.answer(ACCEPTED);
    assert_eq!(bench.waits(), Some(20_000));
}

#[test]
fn a_withdrawal_after_a_call_of_unknown_end_is_made_twice() {
    let mut bench = Bench::announced(1, 1);
    bench.pass(20_000);
    bench.call();
    bench.answer(failed());
    bench.state.checked(0, false);
    bench.pass(500);
    assert_eq!(bench.call().announcement, None);
    bench.answer(ACCEPTED);
    assert_eq!(bench.waits(), Some(5_000));
    bench.pass(5_000);
    assert_eq!(bench.call().announcement, None);
    bench.answer(ACCEPTED);
    assert_eq!(bench.waits(), None);
}

#[test]
fn the_next_registry_is_tried_at_once_and_kept() {
    let mut bench = Bench::announced(1, 3);
    bench.pass(20_000);
    assert_eq!(bench.call().registry, 0);
    let error = "closed".to_owned();
    assert_eq!(
        bench.answer(failed()),
        [Note::Failing { registry: 0, error }]
    );
    assert_eq!(bench.call().registry, 1);
    bench.answer(failed());
    assert_eq!(bench.call().registry, 2);
    let announced = Note::Announced {
        routes: 1,
        registry: 2,
    };
    assert_eq!(bench.answer(ACCEPTED), [announced]);
    assert_eq!(
        bench.waits(),
        Some(5_000),
        "whether the others did it is not known"
    );
    bench.pass(5_000);
    assert_eq!(bench.call().registry, 2);
}

#[test]
fn pauses_after_whole_rounds_grow_and_leave_time_for_one_more_round() {
    let mut bench = Bench::announced(1, 2);
    bench.pass(20_000);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        for _ in 0..2 {
            bench.call();
            bench.answer(failed());
        }
        let pause = bench.waits().unwrap();
        pauses.push(pause);
        bench.pass(pause);
    }
    // Half of 0.5, 1, 2, 4, 8, 10 seconds.
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000, 5000]);
    // 40 s minus 22.75 s remain: 8.6 s for each registry, and pauses of that at most.
    assert_eq!(bench.call().deadline, Duration::from_millis(17_250) / 2);
    bench.answer(failed());
    bench.pass(13_000);
    assert_eq!(bench.call().deadline, Duration::from_millis(4_250));
    bench.answer(failed());
    assert_eq!(bench.waits(), Some(2_125));
    // Afterwards there is nothing to lose.
    bench.pass(10_000);
    assert_eq!(bench.call().deadline, LONGEST_CALL);
    bench.answer(failed());
    bench.call();
    bench.answer(failed());
    assert_eq!(bench.waits(), Some(5_000));
    assert_eq!(bench.state.held(bench.now).count(), 0);
}

#[test]
fn pauses_are_short_beside_the_time_to_live_when_nothing_is_left_of_it() {
    let longest_after = |ttl: u64| {
        let mut bench = Bench::new(1, 1);
        bench.state.settings.ttl = Duration::from_millis(ttl);
        bench.state.checked(0, true);
        bench.call();
        bench.answer(ACCEPTED);
        bench.pass(20_000.max(ttl));
        let mut longest = 0;
        for _ in 0..10 {
            bench.call();
            bench.answer(failed());
            let pause = bench.waits().unwrap();
            longest = longest.max(pause);
            bench.pass(pause);
        }
        longest
    };
    assert_eq!(longest_after(5_000), 1_250);
    assert_eq!(longest_after(1_000), 500);
    assert_eq!(longest_after(60_000), 5_000, "half of ten seconds");
}

#[test]
fn a_registry_says_how_long_to_wait_but_not_beyond_the_time_to_live() {
    let retry_after = |seconds| Outcome::Failed {
        error: "503".to_owned(),
        retry_after: Some(Duration::from_secs(seconds)),
        elsewhere: true,
    };
    let mut bench = Bench::announced(1, 1);
    bench.pass(20_000);
    bench.call();
    bench.answer(retry_after(7));
    assert_eq!(bench.waits(), Some(7_000));
    bench.pass(7_000);
    bench.call();
    bench.answer(retry_after(60));
    assert_eq!(bench.waits(), Some(16_500));
    bench.pass(16_500);
    bench.call();
    bench.answer(Outcome::Busy(Some(Duration::from_secs(60))));
    assert_eq!(bench.waits(), Some(8_250));
}

#[test]
fn a_refused_route_is_left_out_and_asked_for_again_at_the_pace_of_renewals() {
    let mut bench = Bench::new(3, 2);
    for route in 0..3 {
        bench.state.checked(route, true);
    }
    assert_eq!(bench.calls_with(), [0, 1, 2]);
    let refusal = refusal(Some("r1.example.org"));
    let (host, told) = ("r1.example.org".to_owned(), refusal.clone());
    let left_out = Note::LeftOut {
        host,
        refusal: told,
    };
    assert_eq!(bench.answer(Outcome::Refused(refusal.clone())), [left_out]);
    bench.pass(1_000);
    assert_eq!(bench.calls_with(), [0, 2]);
    bench.answer(ACCEPTED);
    assert_eq!(bench.waits(), Some(19_000));
    bench.pass(20_000);
    // The others first: they must not suffer from it.
    assert_eq!(bench.calls_with(), [0, 2]);
    bench.answer(ACCEPTED);
    bench.pass(100);
    assert_eq!(bench.calls_with(), [0, 1, 2]);
    assert_eq!(
        bench.answer(Outcome::Refused(refusal)),
        [],
        "for the same reason"
    );
    assert_eq!(bench.waits(), Some(19_900), "the others stand");
    bench.pass(19_900);
    bench.calls_with();
    bench.answer(ACCEPTED);
    bench.pass(100);
    assert_eq!(bench.calls_with(), [0, 1, 2]);
    let announced = Note::Announced {
        routes: 3,
        registry: 0,
    };
    assert_eq!(bench.answer(ACCEPTED), [announced]);
    assert!(bench.state.routes()[1].refusal.is_none());
}

#[test]
fn a_route_that_was_announced_and_is_refused_now_does_not_end_the_others() {
    let mut bench = Bench::announced(2, 1);
    bench.pass(20_000);
    bench.calls_with();
    bench.answer(Outcome::Refused(refusal(Some("r0.example.org"))));
    assert_eq!(bench.calls_with(), [1]);
}

#[test]
fn a_refusal_without_a_name_is_blamed_on_what_is_new() {
    let mut bench = Bench::new(3, 1);
    bench.state.checked(0, true);
    bench.pass(2_000);
    bench.calls_with();
    bench.answer(ACCEPTED);
    bench.pass(100);
    bench.state.checked(2, true);
    assert_eq!(bench.calls_with(), [0, 2]);
    let notes = bench.answer(Outcome::Refused(refusal(None)));
    assert!(matches!(&*notes, [Note::LeftOut { host, .. }] if host == "r2.example.org"));
    assert_eq!(bench.waits(), Some(19_900));
}

#[test]
fn what_is_refused_as_a_whole_is_tried_again_at_the_pace_or_when_it_changes() {
    let mut bench = Bench::new(2, 3);
    bench.state.checked(0, true);
    bench.state.checked(1, false);
    bench.calls_with();
    let refusal = refusal(None);
    let refused = Note::Refused {
        registry: 0,
        refusal: refusal.clone(),
    };
    assert_eq!(bench.answer(Outcome::Refused(refusal.clone())), [refused]);
    assert_eq!(bench.waits(), Some(20_000));
    bench.pass(20_000);
    assert_eq!(bench.call().registry, 0);
    assert_eq!(bench.answer(Outcome::Refused(refusal)), [], "told before");
    bench.state.checked(1, true);
    bench.pass(100);
    assert_eq!(bench.calls_with(), [0, 1]);
}

#[test]
fn a_caller_who_is_refused_asks_each_registry_once_per_pace() {
    let mut bench = Bench::announced(2, 2);
    bench.pass(20_000);
    let unwelcome = || Outcome::Unwelcome(refusal(None));
    for registry in 0..2 {
        assert_eq!(bench.call().registry, registry);
        assert_eq!(bench.answer(unwelcome()).len(), 1);
    }
    assert_eq!(bench.waits(), Some(20_000));
    bench.state.checked(0, false);
    assert_eq!(bench.waits(), Some(20_000), "not for a change either");
    bench.pass(20_000);
    for registry in 0..2 {
        assert_eq!(bench.call().registry, registry);
        assert_eq!(bench.answer(unwelcome()), []);
    }
}

#[test]
fn a_refused_caller_with_a_refused_route_does_not_ask_in_a_loop() {
    let mut bench = Bench::announced(2, 1);
    bench.pass(20_000);
    bench.calls_with();
    bench.answer(Outcome::Refused(refusal(Some("r0.example.org"))));
    bench.calls_with();
    bench.pass(19_950);
    bench.answer(ACCEPTED);
    bench.pass(20_000);
    // The renewal, then what was refused.
    bench.calls_with();
    bench.answer(ACCEPTED);
    bench.pass(100);
    assert_eq!(bench.calls_with(), [0, 1]);
    bench.answer(Outcome::Unwelcome(refusal(None)));
    assert_eq!(bench.waits(), Some(20_000));
}

#[test]
fn our_own_unreadable_file_is_not_taken_to_every_registry() {
    let mut bench = Bench::announced(1, 3);
    bench.pass(20_000);
    bench.call();
    bench.answer(Outcome::Failed {
        error: "token: cannot be read".to_owned(),
        retry_after: None,
        elsewhere: false,
    });
    assert_eq!(bench.waits(), Some(250));
}

#[test]
fn what_a_failed_call_may_have_announced_is_taken_back_at_once() {
    let mut bench = Bench::announced(2, 1);
    bench.state.checked(1, false);
    bench.pass(100);
    assert_eq!(bench.calls_with(), [0]);
    bench.answer(ACCEPTED);
    bench.pass(100);
    bench.state.checked(1, true);
    assert_eq!(bench.calls_with(), [0, 1]);
    bench.answer(failed());
    bench.state.checked(1, false);
    bench.pass(250);
    assert_eq!(bench.calls_with(), [0]);
}

#[test]
fn somebody_else_with_the_same_name_is_noticed() {
    let mut bench = Bench::announced(1, 1);
    let mut told = 0;
    for renewed in [true, false, false, false, true, false] {
        bench.pass(20_000);
        bench.call();
        let notes = bench.answer(Outcome::Accepted { renewed });
        told += notes
            .iter()
            .filter(|note| **note == Note::Contended)
            .count();
    }
    assert_eq!(told, 1);
}

#[test]
fn a_withdrawal_does_not_wait_long_for_a_registry_while_there_is_another() {
    let short = Duration::from_secs(2);
    let mut bench = Bench::announced(2, 3);
    bench.pass(1_000);
    bench.state.checked(1, false);
    for registry in 0..3 {
        let call = bench.call();
        assert_eq!(call.registry, registry);
        let last = registry == 2;
        assert_eq!(call.deadline == short, !last, "{call:?}");
        bench.answer(failed());
    }
    let pause = bench.waits().unwrap();
    bench.pass(pause);
    assert_eq!(bench.call().deadline, short);
    bench.answer(ACCEPTED);
    // What a call has carried that has failed may stand there as well.
    bench.pass(5_000);
    bench.state.checked(1, true);
    assert_ne!(bench.call().deadline, short);
    bench.answer(failed());
    bench.state.checked(1, false);
    assert_eq!(bench.call().deadline, short);
    bench.answer(ACCEPTED);
    bench.pass(5_000);
    assert_ne!(bench.call().deadline, short, "nothing is to be withdrawn");
}
