//! Workers, their hosts and routers fail.

use std::time::{Duration, Instant};

use harness::clients::Plan;
use harness::fleet::FleetPlan;

use super::{Drill, seconds};

#[test]
fn a_worker_is_killed_and_comes_back() {
    let mut drill = Drill::begin("a worker is killed", &FleetPlan::default());
    let since = Instant::now();
    drill.fleet.tenants[0].workers[1].crash_nginx();
    let took = drill.wait_for_departure(0, 1, since);
    drill.saw(format!("withdrawn after {}", seconds(took)));
    // Well before its time to live is over: the registrar has noticed.
    let since = Instant::now();
    drill.fleet.tenants[0].workers[1].start_nginx().unwrap();
    drill.fleet.wait_for_everybody().unwrap();
    let took = since.elapsed();
    drill.saw(format!("back {} after its start", seconds(took)));
    drill.end();
}

/// Longer than a router takes to give up on a host that is gone, so that clients who would rather
/// try another router do not hide whether it does.
const PATIENT: Duration = Duration::from_secs(20);

#[test]
fn the_host_of_a_worker_dies_and_comes_back() {
    let mut drill = Drill::begin_with(
        "the host of a worker dies",
        &FleetPlan::default(),
        |clients| Plan {
            silence: PATIENT,
            ..clients
        },
    );
    let streams = drill.fleet.streams(0).start();
    streams.wait_for(50).unwrap();
    // Routers have connections to it, with and without a request on them; nobody closes them.
    let since = Instant::now();
    let host = drill.fleet.tenants[0].workers[1].host.clone();
    drill.fleet.network.unplug(&host).unwrap();
    drill.fleet.tenants[0].workers[1].crash();
    let took = drill.wait_for_departure(0, 1, since);
    drill.saw(format!("its routes left after {}", seconds(took)));
    streams.wait_for(50).unwrap();
    drill.load.wait_for_calm(20).unwrap();

    drill.fleet.network.plug(&host).unwrap();
    drill.fleet.tenants[0].workers[1].start_nginx().unwrap();
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();
    streams.wait_for(50).unwrap();
    let streams = streams.finish();
    drill.saw(format!(
        "{} GETs of HTTP/2, {} failed, slowest {}",
        streams.answered,
        streams.failed.len(),
        seconds(streams.slowest)
    ));
    let count = drill.end();
    assert_eq!(streams.failed, Vec::<String>::new());
    // No client had to help itself.
    assert_eq!(count.retries, 0);
    for slowest in [count.slowest, streams.slowest] {
        assert!(slowest < PATIENT, "somebody waited for {slowest:?}");
    }
}

#[test]
fn a_router_is_killed_and_comes_back() {
    let mut drill = Drill::begin("a router is killed", &FleetPlan::default());
    drill.fleet.routers[1].crash();
    // Registrars go on with the others, and what they announced stays.
    drill.withdraw(0, 1);
    let without = drill.fleet.tenants[0].without(1);
    drill.fleet.wait_for_endpoints(0, &without).unwrap();
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();
    drill.load.wait_for_calm(20).unwrap();
    drill.fleet.routers[1].start().unwrap();
    drill.wait_until_connected(1, true);
    drill.fleet.wait_for_everybody().unwrap();
    drill.hold(drill.fleet.ttl * 2);
    drill.end();
}
