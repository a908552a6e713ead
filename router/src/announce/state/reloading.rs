//! What is kept when a configuration takes the place of another one.

use super::tests::{ACCEPTED, Bench, failed, refusal, settings, wanted};
use super::*;
use crate::announce::health::Health;

#[test]
fn a_reload_keeps_what_is_known_of_routes_that_stay() {
    let mut bench = Bench::announced(2, 1);
    bench.pass(5_000);
    let mut moved = wanted(1);
    moved.route.endpoint.set_port(9_009);
    let routes = vec![wanted(2), wanted(0), moved];
    bench.state.reload(settings(2), routes, bench.now);
    let health: Vec<_> = bench
        .state
        .routes()
        .iter()
        .map(|route| route.health)
        .collect();
    let healthy = Health::Healthy { failed: 0 };
    assert_eq!(health, [Health::Unknown, healthy, Health::Unknown]);
    assert_eq!(bench.waits(), Some(2_000));
    bench.state.checked(0, true);
    bench.state.checked(2, true);
    assert_eq!(bench.calls_with(), [2, 0, 9]);
    // Blames what is new, not what was announced before.
    bench.answer(Outcome::Refused(refusal(None)));
    assert_eq!(bench.calls_with(), [0]);
}

#[test]
fn a_check_that_changes_takes_no_health_away() {
    let mut bench = Bench::announced(2, 1);
    let changed = |failures, timeout| {
        let mut changed = wanted(1);
        changed.check.failures = failures;
        changed.check.timeout = timeout;
        vec![wanted(0), changed]
    };
    let routes = changed(3, Duration::from_secs(1));
    bench.state.reload(settings(1), routes, bench.now);
    assert_eq!(bench.calls_with(), [0, 1]);
    bench.answer(ACCEPTED);
    // It takes as many failures as always.
    for _ in 0..2 {
        assert!(!bench.state.checked(1, false));
    }
    assert_eq!(bench.waits(), Some(20_000));
    assert!(bench.state.checked(1, false));
    bench.pass(100);
    assert_eq!(bench.calls_with(), [0]);
    bench.answer(ACCEPTED);
    // What was not healthy may be so by the new check.
    let routes = changed(1, Duration::from_secs(1));
    bench.state.reload(settings(1), routes, bench.now);
    assert_eq!(bench.state.routes()[1].health, Health::Unknown);
}

#[test]
fn what_fails_while_others_are_checked_for_the_first_time_is_withdrawn_at_once() {
    let mut bench = Bench::announced(2, 1);
    let routes = vec![wanted(0), wanted(1), wanted(2)];
    bench.state.reload(settings(1), routes, bench.now);
    assert_eq!(bench.waits(), Some(2_000));
    bench.state.checked(0, false);
    assert_eq!(bench.calls_with(), [1]);
}

#[test]
fn what_will_not_live_long_is_renewed_before_other_checks_have_ended() {
    let mut bench = Bench::announced(1, 1);
    bench.pass(58_000);
    let routes = vec![wanted(0), wanted(1)];
    bench.state.reload(settings(1), routes, bench.now);
    assert_eq!(bench.waits(), Some(1_000));
    bench.pass(1_000);
    assert_eq!(bench.calls_with(), [0]);
}

#[test]
fn another_name_keeps_the_health_and_nothing_else() {
    let mut bench = Bench::announced(2, 1);
    let routes = vec![wanted(1), wanted(0)];
    bench.state.rename(settings(1), routes, bench.now);
    assert!(
        bench.state.holds_anything(),
        "an earlier process may have left it"
    );
    assert_eq!(bench.state.held(bench.now).count(), 0);
    assert_eq!(bench.calls_with(), [1, 0]);
}

#[test]
fn a_reload_announces_again_even_if_no_route_has_changed() {
    let mut bench = Bench::announced(1, 2);
    bench.pass(20_000);
    bench.call();
    bench.answer(failed());
    bench.call();
    bench.answer(ACCEPTED);
    bench.pass(1_000);
    bench.state.reload(settings(2), vec![wanted(0)], bench.now);
    let call = bench.call();
    assert!(call.announcement.is_some());
    assert_eq!(call.registry, 1, "the one that works");
    bench.state.reload(settings(1), vec![wanted(0)], bench.now);
    assert_eq!(bench.call().registry, 0);
}
