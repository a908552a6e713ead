//! The store comes back as another than it was: from a backup, or empty. Routers go on serving what
//! they know, and follow again as soon as there is something to follow. Needs root, for network
//! namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::clients::Clients;
use harness::fleet::{Fleet, FleetPlan};
use harness::folder::Folder;
use harness::wait;
use serde_json::json;

/// One at a time: each runs a dozen servers.
static MACHINE: Mutex<()> = Mutex::new(());

/// A fleet under load, and a backup of its store.
struct Scene {
    fleet: Fleet,
    load: Clients,
    backup: PathBuf,
    _folder: Folder,
    _alone: MutexGuard<'static, ()>,
}

impl Scene {
    /// The backup is older than the last of many changes.
    fn new(label: &str) -> Self {
        let alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let mut fleet = Fleet::start(label, &FleetPlan::default()).unwrap();
        let load = fleet.load().start();
        load.wait_for_calm(20).unwrap();
        // The first one is written down, with the store's name.
        wait::until_true("routes to be written down", || {
            let known = |door: &harness::fleet::door::Door| fs::read_to_string(door.last_known());
            fleet.routers.iter().all(|door| {
                known(door).is_ok_and(|text| text.contains("globex") && text.contains("acme"))
            })
        })
        .unwrap();
        let folder = Folder::new("backup").unwrap();
        let backup = folder.path().join("etcd.backup");
        fleet.cluster().save(&backup).unwrap();
        for number in 0..50 {
            let zone = json!({"addresses": ["10.9.9.9/32"]});
            let path = format!("/v1/zones/late/*-late-{number}.example.org");
            fleet
                .operator(number % 3)
                .succeed("PUT", &path, Some(&zone))
                .unwrap();
        }
        Self {
            fleet,
            load,
            backup,
            _folder: folder,
            _alone: alone,
        }
    }

    fn withdraw(&mut self, tenant: usize, worker: usize) {
        let worker = &mut self.fleet.tenants[tenant].workers[worker];
        worker.registrar.take().unwrap().stop();
    }

    fn wait_for_metric(&self, name: &str, wanted: f64) {
        for door in &self.fleet.routers {
            let what = format!("{name} {wanted} of {}", door.host.name);
            wait::until_true(&what, || door.metric(name).is_ok_and(|it| it == wanted)).unwrap();
        }
    }

    /// What it says when it is asked whether it is ready, which it has to be.
    fn ready(&self, router: usize) -> String {
        let router = self.fleet.routers[router].router.as_ref().unwrap();
        router.admin("/readyz").unwrap()
    }

    /// A change that comes now is seen by everybody.
    fn check_following(&mut self) {
        self.withdraw(1, 1);
        let without = self.fleet.tenants[1].without(1);
        self.fleet.wait_for_endpoints(1, &without).unwrap();
        self.fleet.tenants[1].workers[1].start_registrar().unwrap();
        self.fleet.wait_for_everybody().unwrap();
    }

    /// Nobody's request has failed.
    fn end(self) {
        self.load.wait_for_calm(20).unwrap();
        let count = self.load.finish();
        assert_eq!(count.failed_gets, Vec::<String>::new());
        for tenant in &self.fleet.tenants {
            let host = tenant.plan.host;
            assert!(count.answered_by(host, tenant.plan.name) > 0, "{count:?}");
        }
    }
}

#[test]
fn a_store_restored_from_a_backup_is_followed_again() {
    let mut scene = Scene::new("restored");
    // Of the backup, and away since: it comes back with the backup and goes for good with its lease.
    scene.withdraw(0, 1);
    let without = scene.fleet.tenants[0].without(1);
    scene.fleet.wait_for_endpoints(0, &without).unwrap();
    let revision = |scene: &Scene| {
        let door = &scene.fleet.routers[0];
        door.metric("router_registry_revision").unwrap()
    };
    let before = revision(&scene);
    scene.fleet.cluster().replace(Some(&scene.backup)).unwrap();
    scene.wait_for_metric("router_registry_connected", 1.0);
    wait::until_true("the lower revision", || revision(&scene) < before).unwrap();
    scene.fleet.wait_for_endpoints(0, &without).unwrap();
    scene.fleet.tenants[0].workers[1].start_registrar().unwrap();
    scene.fleet.wait_for_everybody().unwrap();
    scene.check_following();
    scene.end();
}

#[test]
fn an_empty_store_takes_no_route_away_until_an_operator_says_so() {
    let mut scene = Scene::new("emptied");
    let tables = |scene: &Scene| {
        let doors = scene.fleet.routers.iter();
        doors.map(|door| door.table().unwrap()).collect::<Vec<_>>()
    };
    let before = tables(&scene);
    scene.fleet.cluster().replace(None).unwrap();
    scene.wait_for_metric("router_registry_foreign_store", 1.0);
    scene.wait_for_metric("router_registry_connected", 0.0);
    // One that begins with nothing but its file is no wiser.
    scene.load.wait_for_calm(20).unwrap();
    scene.fleet.routers[2].crash();
    scene.fleet.routers[2].start().unwrap();
    scene.wait_for_metric("router_registry_foreign_store", 1.0);
    let end = Instant::now() + scene.fleet.ttl * 2;
    while Instant::now() < end {
        assert_eq!(tables(&scene), before, "the tables changed");
        std::thread::sleep(Duration::from_millis(100));
    }
    for router in 0..3 {
        let said = scene.ready(router);
        let file = scene.fleet.routers[router].last_known();
        assert!(said.contains("another store"), "{said}");
        assert!(fs::read_to_string(file).unwrap().contains("acme"), "kept");
    }
    let keys = scene
        .fleet
        .cluster()
        .etcdctl(&["get", "", "--from-key", "--keys-only"]);
    assert_eq!(keys.unwrap().trim(), "", "nobody writes there");

    // It was a mistake: the real one comes back, and all is well without a restart.
    scene.fleet.cluster().replace(Some(&scene.backup)).unwrap();
    scene.wait_for_metric("router_registry_connected", 1.0);
    scene.wait_for_metric("router_registry_foreign_store", 0.0);
    scene.fleet.wait_for_everybody().unwrap();
    scene.check_following();

    // Or it was not: then an operator tells one router after the other.
    scene.fleet.cluster().replace(None).unwrap();
    scene.wait_for_metric("router_registry_foreign_store", 1.0);
    let Scene {
        mut fleet, load, ..
    } = scene;
    load.wait_for_calm(20).unwrap();
    assert_eq!(load.finish().failed_gets, Vec::<String>::new());
    let door = &mut fleet.routers[0];
    door.crash();
    fs::remove_file(door.last_known()).unwrap();
    door.start().unwrap();
    wait::until_true("an empty registry to be followed", || {
        door.is_connected().is_ok_and(|it| it) && door.table().is_ok_and(|it| it.is_empty())
    })
    .unwrap();
    let zone = json!({"addresses": ["10.9.9.9/32"]});
    let path = "/v1/zones/new/*-new.example.org";
    fleet.operator(0).succeed("PUT", path, Some(&zone)).unwrap();
    // It has a name now, which is not theirs.
    for door in &fleet.routers[1..] {
        assert_eq!(door.metric("router_registry_foreign_store").unwrap(), 1.0);
        assert_eq!(door.table().unwrap().len(), 2);
    }
}
