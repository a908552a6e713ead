//! Tenants that claim the same names.

use harness::fleet::FleetPlan;
use harness::fleet::tenant::TenantPlan;
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
    let expected = drill.fleet.tenants[0].endpoints();
    drill.fleet.wait_for_endpoints(0, &expected).unwrap();
    drill.hold(plan.ttl * 2);
    // Both have the same host, so the count is by the one who holds it.
    drill.fleet.tenants.pop();
    drill.end();
}
