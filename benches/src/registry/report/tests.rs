use super::super::record::{
    Delays, Load, Memory, Micros, Replaced, Requests, Scene, Series, Served, Settings, Shape, Storm,
};
use super::*;
use crate::machine::Machine;

fn record() -> Record {
    Record {
        machine: Machine::look(),
        settings: Settings {
            rounds: 1,
            quick: false,
            window_ms: 50,
            rig_core: 0,
            router_core: 1,
        },
        etcd: "etcd Version: 3.4.23".to_owned(),
        delays: Vec::new(),
        storms: Vec::new(),
        memory: Vec::new(),
        replaced: None,
        requests: Vec::new(),
        served: Vec::new(),
        lookup: None,
    }
}

fn delays(series: Series, bare: u32, snapshot: u32) -> Delays {
    Delays {
        kind: Kind::Etcd,
        routes: 10_000,
        series,
        round: 0,
        snapshots: 100,
        returned: Micros(vec![bare; 100]),
        bare: Micros(vec![bare; 100]),
        snapshot: Micros(vec![snapshot; 100]),
    }
}

#[test]
fn a_change_may_take_the_window_on_top_and_no_more() {
    for (bare, snapshot, verdict) in [
        (
            2_000,
            2_200,
            "| 1.10 (1.10 to 1.10) times the bare watch | met |",
        ),
        (
            2_000,
            53_000,
            "| 26.50 (26.50 to 26.50) times the bare watch | met |",
        ),
        (2_000, 53_001, "times the bare watch | **missed** |"),
    ] {
        let mut record = record();
        record.delays.push(delays(Series::Single, bare, snapshot));
        let text = document(&record);
        assert!(text.contains(verdict), "{text}");
    }
}

#[test]
fn one_change_in_fifty_that_is_late_is_not_hidden_by_the_others() {
    let mut record = record();
    let mut late = delays(Series::Burst, 2_000, 40_000);
    late.snapshot.0[..2].fill(90_000);
    record.delays.push(late);
    let text = document(&record);
    let verdict = "| 40.0 ms where the bare watch took 2.0 ms | **missed** |";
    assert!(text.contains(verdict), "{text}");
    assert!(text.contains("| 40.00 / 40.00 / 90.00 |"), "{text}");
}

#[test]
fn a_storm_tells_how_far_the_snapshot_is_behind() {
    let mut record = record();
    record.storms.push(Storm {
        kind: Kind::Etcd,
        routes: 100_000,
        round: 0,
        changes: 10_000,
        together: 1,
        committed: 2_000_000,
        heard: 2_001_000,
        published: 2_031_000,
        snapshots: 41,
    });
    let row = "| etcd | 100,000 | 10,000 | 1 | 2000 (2000 to 2000) | 2001 (2001 to 2001) \
               | 2031 (2031 to 2031) | 30 (30 to 30) | 41 (41 to 41) |";
    let text = tables(&record);
    assert!(text.contains(row), "{text}");
}

#[test]
fn memory_per_route_is_the_difference_to_the_same_store_without_routes() {
    let mut record = record();
    for (kind, routes, bytes) in [
        (Kind::Embedded, 0, 1 << 20),
        (Kind::Etcd, 0, 5 << 20),
        (Kind::Embedded, 100_000, (1 << 20) + 90_000_000),
        (Kind::Etcd, 100, 6 << 20),
    ] {
        record.memory.push(Memory {
            kind,
            shape: Shape::Put,
            routes,
            bytes,
            ready_ms: 1_500,
        });
    }
    record.replaced = Some(Replaced {
        routes: 10_000,
        bytes: vec![10 << 20, 20 << 20, 21 << 20],
    });
    let text = document(&record);
    assert!(
        text.contains(
            "| embedded | 100,000 | one record with three endpoints | 86.8 | 900 | 1.50 |"
        ),
        "{text}"
    );
    assert!(text.contains("| 6.0 | too few to tell | 1.50 |"), "{text}");
    assert!(
        text.contains(
            "after 2 full replacements, as a multiple of after one | no growth | 1.050 |"
        ),
        "{text}"
    );
    assert!(
        text.contains("after each replacement: 10.0, 20.0, 21.0."),
        "{text}"
    );
}

#[test]
fn requests_are_compared_with_the_fewest_routes_of_their_round() {
    let mut record = record();
    for (round, routes, cpu_ns) in [
        (0, 10, 20_000),
        (0, 1_000_000, 21_000),
        (1, 10, 30_000),
        (1, 1_000_000, 33_000),
    ] {
        record.requests.push(Requests {
            load: Load::Any,
            routes,
            round,
            requests: 1,
            cpu_ns,
            wall_ns: 1,
        });
    }
    let text = document(&record);
    assert!(
        text.contains(
            "(any host), 1,000,000 routes as a multiple of 10 | at most 1.20 | 1.075 (1.050 to 1.100) | met |"
        ),
        "{text}"
    );
    assert!(
        text.contains("| 1,000,000 | 27.00 (21.00 to 33.00) | 1.075 (1.050 to 1.100) | 2 |"),
        "{text}"
    );
}

#[test]
fn a_change_costs_what_the_requests_did_not() {
    let mut record = record();
    for (scene, requests, cpu_ns) in [
        (Scene::Elsewhere, 1_000, 50_000_000),
        (Scene::Followed, 2_000, 150_000_000),
    ] {
        record.served.push(Served {
            scene,
            routes: 100_000,
            changes: 10_000,
            round: 0,
            wall_ns: 1_000_000_000,
            cpu_ns,
            snapshots: 7,
            latency: Micros(vec![400; requests]),
        });
    }
    let text = tables(&record);
    let row = "| the storm among the router's routes | 0.40 (0.40 to 0.40) | 0.40 (0.40 to 0.40) | 0.4 (0.4 to 0.4) \
               | 1.0 (1.0 to 1.0) | 7 (7 to 7) | 5 (5 to 5) |";
    assert!(text.contains(row), "{text}");
}

#[test]
fn thousands_stand_apart() {
    assert_eq!(number(10), "10");
    assert_eq!(number(1_000), "1,000");
    assert_eq!(number(1_000_000), "1,000,000");
}
