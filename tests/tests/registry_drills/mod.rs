//! One drill: a fleet under load, and what is seen meanwhile.

mod clocks;
mod hosts;
mod lapses;
mod rivals;
mod store;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::clients::{Clients, Count, Plan};
use harness::fleet::{Fleet, FleetPlan};
use harness::results::Rows;
use harness::wait;
use serde_json::json;

/// One at a time: each runs a dozen servers.
static MACHINE: Mutex<()> = Mutex::new(());

fn machine() -> MutexGuard<'static, ()> {
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How long after its time to live a lapsed announcement may leave the tables.
const LATE: Duration = Duration::from_secs(1);

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
        let alone = machine();
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
        // It serves, so it stays ready whatever becomes of the registry, and says how it is.
        if wanted {
            assert_eq!(door.readiness().unwrap(), (200, "ok\n".into()));
        } else {
            let (status, text) = door.readiness().unwrap();
            assert_eq!(status, 200, "{text}");
            let rest = text
                .strip_prefix("ok\nthe route registry has been out of reach for ")
                .unwrap_or_else(|| panic!("{text}"));
            let (seconds, rest) = rest.split_once(' ').unwrap();
            assert!(seconds.parse::<u64>().is_ok(), "{text}");
            assert_eq!(rest, "s: the routes known last are in force\n");
        }
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
