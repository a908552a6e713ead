//! Drills on a whole edge under constant load: whatever fails, no GET does while one endpoint of
//! its tenant lives. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::clients::{Clients, Count, Plan};
use harness::fleet::tenant::TenantPlan;
use harness::fleet::{Fleet, FleetPlan};
use harness::results::Rows;
use harness::wait;
use nix::sys::signal::Signal;
use serde_json::json;

/// One at a time: each runs a dozen servers.
static MACHINE: Mutex<()> = Mutex::new(());

/// How late a lapsed announcement may leave the tables.
const LATE: Duration = Duration::from_secs(1);

/// What a machine with two busy cores may add to that.
const SLOW: Duration = Duration::from_secs(2);

static ROWS: Mutex<Rows> = Mutex::new(Rows::new(
    "registry-drills",
    &const { Count::head::<9>("drill", &["seen"]) },
));

/// One router that keeps its own store.
fn alone() -> FleetPlan {
    FleetPlan {
        etcd: 0,
        routers: 1,
        ..FleetPlan::default()
    }
}

/// A fleet under load, and what is seen meanwhile.
struct Drill {
    name: &'static str,
    fleet: Fleet,
    load: Clients,
    seen: Vec<String>,
    _alone: MutexGuard<'static, ()>,
}

impl Drill {
    fn begin(name: &'static str, plan: &FleetPlan) -> Self {
        Self::begin_with(name, plan, |load| load)
    }

    /// As [`Drill::begin`], with clients that are not the usual ones.
    fn begin_with(
        name: &'static str,
        plan: &FleetPlan,
        clients: impl FnOnce(Plan) -> Plan,
    ) -> Self {
        let alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
        let fleet = Fleet::start("drill", plan).unwrap();
        let load = clients(fleet.load()).start();
        load.wait_for_calm(20).unwrap();
        Self {
            name,
            fleet,
            load,
            seen: Vec::new(),
            _alone: alone,
        }
    }

    fn saw(&mut self, what: String) {
        self.seen.push(what);
    }

    /// Waits until it is over for everybody, and counts. No GET has failed, no answer came from
    /// another tenant, and the longest silence is told.
    fn end(self) -> Count {
        self.load.wait_for_calm(20).unwrap();
        let count = self.load.finish();
        let mut row = count.row(("drill", self.name));
        row["seen"] = self.seen.join("; ").into();
        eprintln!("{row:#}");
        ROWS.lock().unwrap().add(row).unwrap();
        assert_eq!(count.failed_gets, Vec::<String>::new());
        for tenant in &self.fleet.tenants {
            let host = tenant.plan.host;
            let all: usize = count
                .answers
                .get(host)
                .into_iter()
                .flat_map(|it| it.values())
                .sum();
            assert!(all > 0, "nobody asked for {host}");
            assert_eq!(
                count.answered_by(host, tenant.plan.name),
                all,
                "{host} was answered by another tenant: {count:?}"
            );
        }
        count
    }

    /// Takes the registrar of a worker away in good order: it withdraws.
    fn withdraw(&mut self, tenant: usize, worker: usize) {
        let worker = &mut self.fleet.tenants[tenant].workers[worker];
        worker.registrar.take().unwrap().stop();
    }

    fn announce(&mut self, tenant: usize, worker: usize) {
        let worker = &mut self.fleet.tenants[tenant].workers[worker];
        worker.start_registrar().unwrap();
    }

    fn wait_until_connected(&self, router: usize, wanted: bool) {
        let door = &self.fleet.routers[router];
        let what = format!("{} to say that it is connected: {wanted}", door.host.name);
        wait::until_true(&what, || door.is_connected().is_ok_and(|it| it == wanted)).unwrap();
        // It serves, so it stays ready whatever becomes of the registry.
        let router = door.router.as_ref().unwrap();
        router.admin("/readyz").unwrap();
    }

    /// What an operator hears when a route is put at a router's registry.
    fn put(&self, router: usize) -> (u16, String) {
        let worker = self.fleet.tenants[0].workers[0].endpoint();
        let answer = self
            .fleet
            .operator(router)
            .call(
                "PUT",
                "/v1/routes/drill-apps-1.k8s.example.org?tenant=acme",
                Some(&json!({"endpoints": [worker]})),
            )
            .unwrap();
        (answer.status, answer.reason().to_owned())
    }

    /// Checks for this long that no router loses or gains an endpoint.
    fn hold(&self, duration: Duration) {
        let expected = self.tables();
        let end = Instant::now() + duration;
        while Instant::now() < end {
            assert_eq!(self.tables(), expected, "the tables changed");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn tables(&self) -> Vec<BTreeSet<SocketAddr>> {
        let rules = self.fleet.tenants.iter().map(|it| it.plan.rule);
        rules
            .flat_map(|rule| {
                self.fleet
                    .routers
                    .iter()
                    .map(move |it| it.endpoints(rule).unwrap())
            })
            .collect()
    }

    /// Waits until a worker that is no longer announced has left every router; gives the time.
    fn wait_for_departure(&self, tenant: usize, worker: usize, since: Instant) -> Duration {
        let without = self.fleet.tenants[tenant].without(worker);
        self.fleet.wait_for_endpoints(tenant, &without).unwrap();
        since.elapsed()
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

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
    // Renewed last up to `renew` before the end, so it leaves that much earlier at most.
    let times = (plan.ttl - plan.renew - LATE)..=(plan.ttl + LATE + SLOW);
    let since = Instant::now();
    let worker = &mut drill.fleet.tenants[0].workers[1];
    worker.registrar().unwrap().crash();
    let took = drill.wait_for_departure(0, 1, since);
    drill.saw(format!("killed: left after {}", seconds(took)));
    assert!(times.contains(&took), "left after {took:?}");
    drill.announce(0, 1);
    drill.fleet.wait_for_everybody().unwrap();

    let since = Instant::now();
    let worker = &mut drill.fleet.tenants[1].workers[0];
    worker.registrar().unwrap().signal(Signal::SIGSTOP);
    let took = drill.wait_for_departure(1, 0, since);
    drill.saw(format!("paused: left after {}", seconds(took)));
    assert!(times.contains(&took), "left after {took:?}");
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

#[test]
fn clocks_are_days_apart_and_jump() {
    let mut plan = FleetPlan {
        router_clocks: vec!["+3h", "-2d", "+0"],
        ..FleetPlan::default()
    };
    plan.tenants[0].clocks = vec!["+1d", "-5h"];
    let mut drill = Drill::begin("clocks are days apart, and jump", &plan);
    drill.hold(plan.ttl * 2);
    let clock = |door: usize| drill.fleet.routers[door].clock.as_ref().unwrap();
    clock(0).set("-3d").unwrap();
    clock(1).set("+10d").unwrap();
    let worker = &drill.fleet.tenants[0].workers[0];
    worker.clock.as_ref().unwrap().set("-1d").unwrap();
    drill.hold(plan.ttl * 2);
    let since = Instant::now();
    let worker = &mut drill.fleet.tenants[0].workers[0];
    worker.registrar().unwrap().crash();
    let took = drill.wait_for_departure(0, 0, since);
    drill.saw(format!("killed registrar: left after {}", seconds(took)));
    let times = (plan.ttl - plan.renew - LATE)..=(plan.ttl + LATE + SLOW);
    assert!(times.contains(&took), "left after {took:?}");
    drill.announce(0, 0);
    drill.fleet.wait_for_everybody().unwrap();
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}

#[test]
fn two_tenants_claim_one_name() {
    a_rival_comes("two tenants claim one name", FleetPlan::default());
}

#[test]
fn two_tenants_of_a_single_router_claim_one_name() {
    a_rival_comes("single router: two tenants claim one name", alone());
}

fn a_rival_comes(name: &'static str, mut plan: FleetPlan) {
    // The operator let both use it: who comes first has it.
    plan.tenants.truncate(1);
    plan.tenants[0].shared_zone = true;
    let mut drill = Drill::begin(name, &plan);
    let rival = TenantPlan {
        name: "rival",
        shared_zone: true,
        ..plan.tenants[0].clone()
    };
    let rule = rival.rule;
    drill.fleet.add_tenant(&rival, &plan).unwrap();
    let endpoint = drill.fleet.tenants[1].workers[0].endpoint();
    for router in 0..drill.fleet.routers.len() {
        let caller = drill.fleet.caller(1, router);
        let claim = json!({"ttl": 60, "routes": [{"host": rule, "endpoint": endpoint}]});
        let answer = caller
            .call("PUT", "/v1/tenants/rival/instances/w", Some(&claim))
            .unwrap();
        assert_eq!(
            (answer.status, answer.reason()),
            (409, "held-by-another-tenant")
        );
        assert!(!answer.body.to_string().contains("acme"), "{}", answer.body);
        let name = json!({"endpoints": [endpoint]});
        let answer = caller
            .call("PUT", "/v1/routes/shop-apps-1.k8s.example.org", Some(&name))
            .unwrap();
        assert_eq!(
            (answer.status, answer.reason()),
            (409, "within-another-tenants-suffix")
        );
    }
    // Its registrars go on asking, to no avail.
    drill.fleet.announce(1).unwrap();
    let expected = drill.fleet.tenants[0].endpoints();
    drill.fleet.wait_for_endpoints(0, &expected).unwrap();
    drill.hold(plan.ttl * 2);
    // Both have the same host, so the count is by the one who holds it.
    drill.fleet.tenants.pop();
    drill.end();
}
