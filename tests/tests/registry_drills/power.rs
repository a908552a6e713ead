//! Much fails at once: power cuts, and a member of etcd that does not come back.

use std::time::{Duration, Instant};

use harness::clients::Plan;
use harness::fleet::FleetPlan;
use harness::wait;

use super::{Drill, seconds};

impl Drill {
    /// Changes are taken everywhere, reach everybody, and nothing has lapsed meanwhile.
    fn assert_as_before(&mut self) {
        wait::until_true("changes to be taken", || {
            (0..3).all(|router| matches!(self.put(router).0, 200 | 201))
        })
        .unwrap();
        for router in 0..3 {
            self.wait_until_connected(router, true);
        }
        self.hold(self.fleet.ttl * 2);
        self.withdraw(0, 1);
        let without = self.fleet.tenants[0].without(1);
        self.fleet.wait_for_endpoints(0, &without).unwrap();
        self.announce(0, 1);
        self.fleet.wait_for_everybody().unwrap();
    }
}

#[test]
fn all_members_of_etcd_are_restarted_at_once() {
    let mut drill = Drill::begin("all of etcd is restarted at once", &FleetPlan::default());
    for member in 0..3 {
        drill.fleet.cluster().kill(member);
    }
    for router in 0..3 {
        drill.wait_until_connected(router, false);
    }
    let since = Instant::now();
    for member in 0..3 {
        drill.fleet.cluster().restart(member).unwrap();
    }
    drill.fleet.cluster().wait_healthy().unwrap();
    drill.assert_as_before();
    let took = since.elapsed() - drill.fleet.ttl * 2;
    drill.saw(format!("all as before {} after its return", seconds(took)));
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}

#[test]
fn the_power_of_all_routers_and_etcd_is_cut() {
    // Nobody can answer for a while: clients go on asking.
    let insist = Duration::from_secs(60);
    let mut drill = Drill::begin_with(
        "power cut: all routers and etcd",
        &FleetPlan::default(),
        |clients| Plan { insist, ..clients },
    );
    // They write down what has changed every few seconds; what came later is not known afterwards.
    let endpoints = drill.fleet.tenants.iter().flat_map(|it| it.endpoints());
    let endpoints: Vec<String> = endpoints.map(|it| it.to_string()).collect();
    for door in &drill.fleet.routers {
        wait::until_true("all routes to be on disk", || {
            let text = door.remembered().unwrap_or_default();
            endpoints.iter().all(|it| text.contains(it))
        })
        .unwrap();
    }
    for door in &mut drill.fleet.routers {
        door.crash();
    }
    for member in 0..3 {
        drill.fleet.cluster().kill(member);
    }
    // Routers are there first. They know what they knew.
    let since = Instant::now();
    for door in &mut drill.fleet.routers {
        door.start().unwrap();
    }
    drill.fleet.wait_for_everybody().unwrap();
    let took = since.elapsed();
    drill.load.wait_for_calm(20).unwrap();
    drill.saw(format!("all routes from disk {} later", seconds(took)));
    for router in 0..3 {
        drill.wait_until_connected(router, false);
    }
    for member in 0..3 {
        drill.fleet.cluster().restart(member).unwrap();
    }
    drill.fleet.cluster().wait_healthy().unwrap();
    drill.assert_as_before();
    drill.end();
}

#[test]
fn a_member_of_etcd_is_replaced_by_a_new_one() {
    let mut drill = Drill::begin("a member of etcd is replaced", &FleetPlan::default());
    // One after the other, until none of the first is left.
    for member in 0..3 {
        drill.fleet.cluster().replace_member(member).unwrap();
        drill.fleet.cluster().wait_healthy().unwrap();
    }
    drill.assert_as_before();
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}
