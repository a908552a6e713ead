//! Tenants that claim the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Barrier;

use harness::fleet::api::{Answer, Api};
use harness::fleet::tenant::TenantPlan;
use harness::fleet::{Fleet, FleetPlan};
use harness::wait;
use serde_json::json;

use super::{Drill, alone};

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
    for worker in &mut drill.fleet.tenants[1].workers {
        let registrar = worker.registrar().unwrap();
        wait::until_true("the rival's registrars to be refused", || {
            registrar.log().contains("held-by-another-tenant")
        })
        .unwrap();
    }
    let expected = drill.fleet.tenants[0].endpoints();
    drill.fleet.wait_for_endpoints(0, &expected).unwrap();
    drill.hold(plan.ttl * 2);
    // Both have the same host, so the count is by the one who holds it.
    drill.fleet.tenants.pop();
    drill.end();
}

/// Names that exclude one another among tenants: one, a wider one, and one within.
const NAMES: [&str; 3] = [
    "*-apps-race.k8s.example.org",
    "*-race.k8s.example.org",
    "shop-apps-race.k8s.example.org",
];

const ROUNDS: usize = 12;

/// Two for each name and at each router, in turns.
const RACERS: usize = 6;

struct Racer {
    name: String,
    token: String,
    endpoint: SocketAddr,
}

/// Lets them use the names, if they get them.
fn racers(fleet: &Fleet) -> Vec<Racer> {
    let operator = fleet.operator(0);
    (1..=RACERS)
        .map(|number| {
            let name = format!("racer-{number}");
            // Nobody is there, and nobody asks for them.
            let address = IpAddr::from([10, 77, 9, u8::try_from(number).unwrap()]);
            operator
                .succeed(
                    "PUT",
                    &format!("/v1/zones/{name}/{}", NAMES[1]),
                    Some(&json!({"addresses": [address], "shared": true})),
                )
                .unwrap();
            let made = operator
                .succeed("POST", "/v1/tokens", Some(&json!({"tenant": name})))
                .unwrap();
            Racer {
                name,
                token: made["token"].as_str().unwrap().to_owned(),
                endpoint: SocketAddr::new(address, 80),
            }
        })
        .collect()
}

/// Everybody claims a name at the same moment; gives who claimed what, and the answers.
fn race(fleet: &Fleet, racers: &[Racer], round: usize) -> Vec<(&'static str, Answer)> {
    let start = Barrier::new(racers.len());
    std::thread::scope(|scope| {
        let claims: Vec<_> = racers
            .iter()
            .enumerate()
            .map(|(number, racer)| {
                let api = Api {
                    token: Some(racer.token.clone()),
                    ..fleet.caller(0, (number + round) % fleet.routers.len())
                };
                let host = NAMES[(number + number / NAMES.len() + round / 2) % NAMES.len()];
                let start = &start;
                scope.spawn(move || {
                    let path = format!("/v1/tenants/{}/instances/w", racer.name);
                    let route = json!({"host": host, "endpoint": racer.endpoint});
                    let claim = json!({"ttl": 60, "routes": [route]});
                    let connection = api.connect();
                    start.wait();
                    let answer = api.call_on(&mut connection.unwrap(), "PUT", &path, Some(&claim));
                    (host, answer.unwrap())
                })
            })
            .collect();
        claims.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

#[test]
fn tenants_claim_one_name_at_the_same_moment_at_all_routers() {
    let mut plan = FleetPlan::default();
    plan.tenants.truncate(1);
    let mut drill = Drill::begin("tenants race for one name at all routers", &plan);
    let racers = racers(&drill.fleet);
    let ours = drill.fleet.routers[0].table().unwrap();
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let answers = race(&drill.fleet, &racers, round);
        let winners: Vec<usize> = (0..racers.len())
            .filter(|&it| matches!(answers[it].1.status, 200 | 201))
            .collect();
        let [winner] = winners[..] else {
            panic!("round {round}: {answers:?}");
        };
        for (_, answer) in answers
            .iter()
            .filter(|(_, it)| !(200..300).contains(&it.status))
        {
            assert_eq!(answer.status, 409, "round {round}: {answers:?}");
            *reasons.entry(answer.reason().to_owned()).or_default() += 1;
        }
        let mut expected = ours.clone();
        let endpoints = BTreeSet::from([racers[winner].endpoint]);
        expected.insert(answers[winner].0.to_owned(), endpoints);
        for door in &drill.fleet.routers {
            wait::until_true("the winner to be in the table, and nobody else", || {
                door.table().unwrap() == expected
            })
            .unwrap();
        }
        let api = Api {
            token: Some(racers[winner].token.clone()),
            ..drill.fleet.caller(0, round % 3)
        };
        let path = format!("/v1/tenants/{}/instances/w", racers[winner].name);
        assert!((200..300).contains(&api.call("DELETE", &path, None).unwrap().status));
        for door in &drill.fleet.routers {
            wait::until_true("the winner to leave the table", || {
                door.table().unwrap() == ours
            })
            .unwrap();
        }
    }
    drill.saw(format!(
        "{ROUNDS} rounds of {RACERS} tenants, one winner each; the others: {}",
        reasons
            .iter()
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect::<Vec<_>>()
            .join(", ")
    ));
    drill.end();
}
