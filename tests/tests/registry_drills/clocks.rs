//! Wall clocks that are wrong, and jump.

use harness::faketime;
use harness::fleet::FleetPlan;
use harness::fleet::tenant::renewals;
use harness::process::Process;
use harness::wait;

use super::Drill;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// What a busy machine may take between a moment that is told and its reading, and more.
const ABOUT: i64 = 120;

impl Drill {
    /// How far the clock of a router is off, in seconds, by what it writes into its audit log.
    fn router_is_off(&self, router: usize) -> i64 {
        let door = &self.fleet.routers[router];
        let before = door.audit().map_or(0, |it| it.len());
        assert!(matches!(self.put(router).0, 200 | 201));
        let told = wait::until("a line of the audit log", wait::PATIENCE, || {
            let mut lines = door.audit().ok()?;
            let line = (lines.len() > before).then(|| lines.pop())??;
            Some(line["time"].as_str()?.to_owned())
        });
        faketime::apart(&told.unwrap()).unwrap()
    }

    /// How far the clock of a registrar is off, by what it logs.
    fn registrar_is_off(&mut self, tenant: usize, worker: usize) -> i64 {
        let registrar = self.fleet.tenants[tenant].workers[worker]
            .registrar()
            .unwrap();
        let before = renewals(&registrar.log()).len();
        let told = wait::until("a renewal", wait::PATIENCE, || {
            let log = registrar.log();
            let lines = renewals(&log);
            let line = (lines.len() > before).then(|| lines.last().copied())??;
            let line: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(line["timestamp"].as_str()?.to_owned())
        });
        faketime::apart(&told.unwrap()).unwrap()
    }

    /// Waits until clocks are off by so much: routers', and those of the first tenant's registrars.
    fn wait_for_clocks(&mut self, routers: [i64; 3], registrars: [i64; 2]) {
        // libfaketime looks once a second whether a clock has been set.
        wait::until_true("all clocks to be as wrong as they were set", || {
            let about = |is: i64, wanted: i64| (is - wanted).abs() < ABOUT;
            (0..3).all(|it| about(self.router_is_off(it), routers[it]))
                && (0..2).all(|it| about(self.registrar_is_off(0, it), registrars[it]))
        })
        .unwrap();
    }
}

#[test]
fn clocks_are_days_apart_and_jump() {
    let mut plan = FleetPlan {
        router_clocks: vec!["+3h", "-2d", "+0"],
        ..FleetPlan::default()
    };
    plan.tenants[0].clocks = vec!["+1d", "-5h"];
    let mut drill = Drill::begin("clocks are days apart, and jump", &plan);
    drill.wait_for_clocks([3 * HOUR, -2 * DAY, 0], [DAY, -5 * HOUR]);
    drill.hold(plan.ttl * 2);
    let clock = |door: usize| drill.fleet.routers[door].clock.as_ref().unwrap();
    clock(0).set("-3d").unwrap();
    clock(1).set("+10d").unwrap();
    let worker = &drill.fleet.tenants[0].workers[0];
    worker.clock.as_ref().unwrap().set("-1d").unwrap();
    drill.wait_for_clocks([-3 * DAY, 10 * DAY, 0], [-DAY, -5 * HOUR]);
    drill.hold(plan.ttl * 2);
    let lapse = drill.lapse(0, 0, Process::crash);
    drill.saw(format!("killed registrar: {}", lapse.told()));
    lapse.assert_in_time(plan.ttl);
    drill.announce(0, 0);
    drill.fleet.wait_for_everybody().unwrap();
    let count = drill.end();
    assert_eq!(count.failed_posts, Vec::<String>::new());
    assert_eq!(count.broken, Vec::<String>::new());
}
