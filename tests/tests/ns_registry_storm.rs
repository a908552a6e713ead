//! A thousand registrars come at the same moment, and die at the same moment, while clients ask for
//! tenants that have nothing to do with them. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use harness::clients::Count;
use harness::fleet::storm::{Storm, StormPlan};
use harness::fleet::{Fleet, FleetPlan};
use harness::results::Rows;
use harness::wait;

const TTL: Duration = Duration::from_secs(20);
const RENEW: Duration = Duration::from_secs(5);

/// How long after its lease a lapsed announcement may leave the tables.
const LATE: Duration = Duration::from_secs(1);

static ROWS: Mutex<Rows> = Mutex::new(Rows::new(
    "registry-storm",
    &[
        "what",
        "first router, s",
        "all routers, s",
        "a bare lease of etcd, s",
        "batches",
        "calls",
        "of them 429",
        "of them 5xx",
    ],
));

static LOAD: Mutex<Rows> = Mutex::new(Rows::new(
    "registry-storm-load",
    &const { Count::head::<8>("clients of other tenants", &[]) },
));

#[derive(Clone, Copy, Debug)]
struct Totals {
    batches: f64,
    done: u64,
    limited: u64,
    failed: u64,
}

impl Totals {
    fn of(fleet: &Fleet) -> Self {
        let doors = fleet.routers.iter();
        let sum = |statuses: &[u16]| -> u64 {
            let each = doors
                .clone()
                .flat_map(|door| statuses.iter().map(|status| door.answers(*status).unwrap()));
            each.sum()
        };
        let batches = |door: &harness::fleet::door::Door| {
            door.metric("router_registry_batches_total").unwrap()
        };
        Self {
            batches: doors.clone().map(batches).sum(),
            done: sum(&[200, 204]),
            limited: sum(&[429]),
            failed: sum(&[500, 503]),
        }
    }

    fn row(what: &str, times: &[Duration], before: Self, after: Self) -> serde_json::Value {
        let seconds = |it: Option<&Duration>| format!("{:.1}", it.unwrap().as_secs_f64());
        let limited = after.limited - before.limited;
        let failed = after.failed - before.failed;
        serde_json::json!({
            "what": what,
            "first router, s": seconds(times.iter().min()),
            "all routers, s": seconds(times.iter().max()),
            "batches": format!("{:.0}", after.batches - before.batches),
            "calls": after.done - before.done + limited + failed,
            "of them 429": limited,
            "of them 5xx": failed,
        })
    }
}

/// Waits until each router has so many routes of the registry; gives the times by router.
fn wait_for_routes(
    fleet: &Fleet,
    wanted: usize,
    since: Instant,
    patience: Duration,
) -> Vec<Duration> {
    let mut reached = BTreeMap::new();
    let mut seen = vec![0.0; fleet.routers.len()];
    wait::until("all routers to have the routes", patience, || {
        for (number, door) in fleet.routers.iter().enumerate() {
            seen[number] = door.metric("router_registry_routes").unwrap();
            if seen[number] == f64::from(u32::try_from(wanted).unwrap()) {
                reached.entry(number).or_insert_with(|| since.elapsed());
            } else {
                reached.remove(&number);
            }
        }
        std::thread::sleep(Duration::from_millis(40));
        (reached.len() == fleet.routers.len()).then_some(())
    })
    .unwrap_or_else(|error| panic!("{error:#}: {wanted} wanted, there are {seen:?}"));
    reached.into_values().collect()
}

#[test]
fn a_thousand_registrars_come_at_once_and_die_at_once() {
    let plan = FleetPlan {
        ttl: TTL,
        renew: RENEW,
        ..FleetPlan::default()
    };
    let mut fleet = Fleet::start("storm", &plan).unwrap();
    let storm_plan = StormPlan {
        tenants: 20,
        instances: 50,
        ttl: TTL,
        renew: RENEW,
    };
    let mut storm = Storm::prepare(&mut fleet, &storm_plan).unwrap();
    let own = fleet.routers[0].table().unwrap();
    let mut everything = own.clone();
    everything.extend(storm.wanted.clone());
    let load = fleet.load().start();
    load.wait_for_calm(20).unwrap();

    let before = Totals::of(&fleet);
    let began = storm.begin().unwrap();
    let times = wait_for_routes(&fleet, everything.len(), began, Duration::from_secs(45));
    for door in &fleet.routers {
        wait::until_true("every endpoint to be known", || {
            door.table().unwrap() == everything
        })
        .unwrap();
    }
    let came = Totals::row("come at once", &times, before, Totals::of(&fleet));
    eprintln!("{came:#}");
    eprintln!(
        "memory of the registrars: {} MB",
        storm.resident_bytes().unwrap() >> 20
    );

    // Two renewals for everybody, and nobody is lost.
    let held = Instant::now();
    let before = Totals::of(&fleet);
    while held.elapsed() < RENEW * 2 {
        for door in &fleet.routers {
            let routes = door.metric("router_registry_routes").unwrap();
            assert_eq!(routes, f64::from(u32::try_from(everything.len()).unwrap()));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    for door in &fleet.routers {
        assert_eq!(door.table().unwrap(), everything);
    }
    let after = Totals::of(&fleet);
    let stay = Totals::row("renew for 10 s", &[held.elapsed()], before, after);
    eprintln!("{stay:#}");
    assert_eq!(after.batches, before.batches, "a renewal changes nothing");

    let before = Totals::of(&fleet);
    let bare = fleet.cluster().bare_lease(TTL).unwrap();
    let killed = storm.kill();
    // Renewed after everybody else, so etcd ends it last.
    let bare = bare.lapse().unwrap();
    let behind = killed.elapsed();
    // Renewed last up to `renew` before the end, so the first leaves that much earlier at most.
    while killed.elapsed() < TTL - RENEW - RENEW / 5 - LATE {
        let routes = fleet.routers[0].metric("router_registry_routes").unwrap();
        assert_eq!(
            routes,
            f64::from(u32::try_from(everything.len()).unwrap()),
            "after {:?}",
            killed.elapsed()
        );
        std::thread::sleep(Duration::from_millis(50));
    }
    let times = wait_for_routes(&fleet, own.len(), killed, Duration::from_secs(60));
    for door in &fleet.routers {
        assert_eq!(door.table().unwrap(), own);
    }
    let bare = behind + bare.join().unwrap().unwrap();
    let mut died = Totals::row("killed at once", &times, before, Totals::of(&fleet));
    died["a bare lease of etcd, s"] = format!("{:.1}", bare.as_secs_f64()).into();
    eprintln!("{died:#}");

    load.wait_for_calm(20).unwrap();
    let count = load.finish();
    let row = count.row(("clients of other tenants", "during all of that"));
    eprintln!("{row:#}");
    for row in [came, stay, died] {
        ROWS.lock().unwrap().add(row).unwrap();
    }
    LOAD.lock().unwrap().add(row).unwrap();
    let latest = times.iter().max().unwrap();
    assert!(
        *latest <= bare + LATE,
        "the last left after {latest:?}, a bare lease after {bare:?}"
    );
    assert_eq!(count.failed_gets, Vec::<String>::new());
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}
