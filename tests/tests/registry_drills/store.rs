//! What routers rest on fails: etcd, and the way to it.

use std::time::Instant;

use harness::clients::Plan;
use harness::fleet::{Fleet, FleetPlan};
use harness::wait;

use super::{Drill, machine, seconds};

#[test]
fn the_leader_of_etcd_is_killed() {
    let mut drill = Drill::begin("the leader of etcd is killed", &FleetPlan::default());
    let leader = drill.fleet.cluster().leader().unwrap();
    let since = Instant::now();
    drill.fleet.cluster().kill(leader);
    // The next one takes changes, and every router hears of them.
    drill.fleet.cluster().leader().unwrap();
    wait::until_true("a change to be taken", || {
        (0..3).all(|router| matches!(drill.put(router).0, 200 | 201))
    })
    .unwrap();
    let took = since.elapsed();
    drill.saw(format!("changes taken again after {}", seconds(took)));
    drill.withdraw(0, 1);
    let without = drill.fleet.tenants[0].without(1);
    drill.fleet.wait_for_endpoints(0, &without).unwrap();
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();
    drill.fleet.cluster().restart(leader).unwrap();
    drill.fleet.cluster().wait_healthy().unwrap();
    drill.hold(drill.fleet.ttl * 2);
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}

#[test]
fn the_majority_of_etcd_is_gone_and_comes_back() {
    let mut drill = Drill::begin(
        "two of three members of etcd are gone",
        &FleetPlan::default(),
    );
    let leader = drill.fleet.cluster().leader().unwrap();
    let gone = [leader, (leader + 1) % 3];
    for member in gone {
        drill.fleet.cluster().kill(member);
    }
    for router in 0..3 {
        drill.wait_until_connected(router, false);
        let (status, reason) = drill.put(router);
        assert_eq!((status, reason.as_str()), (503, "store-unreachable"));
    }
    // Nobody can renew, and nothing may lapse: nobody can know that it has.
    drill.hold(drill.fleet.ttl * 2);
    let since = Instant::now();
    for member in gone {
        drill.fleet.cluster().restart(member).unwrap();
    }
    drill.fleet.cluster().wait_healthy().unwrap();
    wait::until_true("changes to be taken", || {
        (0..3).all(|router| matches!(drill.put(router).0, 200 | 201))
    })
    .unwrap();
    let took = since.elapsed();
    drill.saw(format!("changes taken {} after its return", seconds(took)));
    for router in 0..3 {
        drill.wait_until_connected(router, true);
    }
    // Registrars are back within the time that their announcements still have.
    drill.hold(drill.fleet.ttl * 2);
    drill.withdraw(0, 1);
    let without = drill.fleet.tenants[0].without(1);
    drill.fleet.wait_for_endpoints(0, &without).unwrap();
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}

#[test]
fn a_router_is_cut_off_from_etcd_and_restarted_meanwhile() {
    let mut drill = Drill::begin("a router is cut off from etcd", &FleetPlan::default());
    let since = Instant::now();
    drill.fleet.cut_off(0).unwrap();
    drill.wait_until_connected(0, false);
    let took = since.elapsed();
    drill.saw(format!("said so after {}", seconds(took)));
    // The others go on; this one keeps what it knew.
    let (everybody, without) = (
        drill.fleet.tenants[0].endpoints(),
        drill.fleet.tenants[0].without(1),
    );
    drill.withdraw(0, 1);
    for door in &drill.fleet.routers[1..] {
        drill.fleet.wait_at(door, 0, &without).unwrap();
    }
    drill
        .fleet
        .wait_at(&drill.fleet.routers[0], 0, &everybody)
        .unwrap();
    assert_eq!(drill.put(0).1, "store-unreachable");
    assert!(matches!(drill.put(1).0, 200 | 201));

    drill.fleet.routers[0].crash();
    drill.fleet.routers[0].start().unwrap();
    drill.wait_until_connected(0, false);
    let door = &drill.fleet.routers[0];
    drill.fleet.wait_at(door, 0, &everybody).unwrap();
    // Clients that know this one alone are served as well, for both tenants.
    let only = Plan {
        addresses: vec![door.https()],
        ..drill.fleet.load()
    }
    .start();
    only.wait_for_calm(20).unwrap();
    let from_disk = only.finish();
    assert_eq!(from_disk.failed_gets, Vec::<String>::new());
    assert_eq!(from_disk.failed_posts, Vec::<String>::new());
    assert_eq!(from_disk.answers.len(), 2, "{from_disk:?}");
    drill.saw(format!(
        "{} answers by routes from disk",
        from_disk.requests()
    ));

    let since = Instant::now();
    drill.fleet.heal(0).unwrap();
    drill.wait_until_connected(0, true);
    let door = &drill.fleet.routers[0];
    drill.fleet.wait_at(door, 0, &without).unwrap();
    let took = since.elapsed();
    drill.saw(format!("knew all {} after it was healed", seconds(took)));
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();
    drill.end();
}

#[test]
fn a_router_that_has_never_reached_etcd_is_not_ready() {
    let _machine = machine();
    let mut plan = FleetPlan {
        etcd: 1,
        routers: 1,
        ..FleetPlan::default()
    };
    plan.tenants.truncate(1);
    let mut fleet = Fleet::start("drill", &plan).unwrap();
    fleet.routers[0].crash();
    fleet.routers[0].lose_state().unwrap();
    fleet.cut_off(0).unwrap();
    fleet.routers[0].start().unwrap();
    let door = &fleet.routers[0];
    assert_eq!(
        door.readiness().unwrap(),
        (
            503,
            "the route registry has not been reached yet, and no routes are known from before\n"
                .into()
        )
    );
    assert!(door.table().unwrap().is_empty());

    fleet.heal(0).unwrap();
    fleet.wait_for_everybody().unwrap();
    let door = &fleet.routers[0];
    wait::until_true("the router to be ready", || {
        door.readiness().unwrap() == (200, "ok\n".into())
    })
    .unwrap();
}
