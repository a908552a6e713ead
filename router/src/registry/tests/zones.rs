//! Zones that change, and what goes with them.

use std::collections::BTreeSet;

use config::route::HostMatch;
use serde_json::{Value, json};

use super::lab::{Answer, Lab, announcement, operator, tenant};
use crate::registry::change::sweep::{evict_strays, rezoned, sweep_tenants};
use crate::registry::keys;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::faults::{Fault, at_commit};
use crate::registry::store::{Embedded, Put, Revision, Store, Transaction};

const ZONE: &str = "/v1/zones/a/*.a.example.org";
const A: &str = "10.0.1.1:31390";
const AWAY: &str = "10.0.1.200:1";
const HALF: &str = "10.0.1.0/25";

impl Lab {
    /// Asks as an operator.
    async fn zone(&self, method: &str, query: &str, headers: &[(&str, &str)]) -> Answer {
        let path = format!("{ZONE}{query}");
        self.ask(&operator(), method, &path, headers, Value::Null)
            .await
    }

    async fn lease(&self, query: &str, headers: &[(&str, &str)], addresses: &[&str]) -> Answer {
        let path = format!("{ZONE}{query}");
        let body = json!({ "addresses": addresses });
        self.ask(&operator(), "PUT", &path, headers, body).await
    }

    async fn put(&self, host: &str, endpoint: &str) {
        let path = format!("/v1/routes/{host}");
        let body = json!({"endpoints": [endpoint]});
        let put = self.call(&tenant("a"), "PUT", &path, body).await;
        assert_eq!(put.status, 201, "{put:?}");
    }

    async fn write(&self, key: &str, value: Option<&'static str>) -> Revision {
        let mut transaction = Transaction::default();
        match value {
            None => transaction.deletes.push(key.to_owned()),
            Some(value) => transaction.puts.push(Put {
                key: key.to_owned(),
                value: value.into(),
                lease: None,
            }),
        }
        self.registry.store.commit(&transaction).await.unwrap();
        self.settle().await;
        self.everything().await.0
    }

    /// The zone goes, and whoever took it back does not come to the second step.
    async fn cut_short(&self) {
        let pattern = HostMatch::parse("*.a.example.org").unwrap();
        self.write(&keys::zone("a", &pattern), None).await;
    }
}

#[tokio::test]
async fn a_deletion_that_was_cut_short_is_ended_by_asking_again() {
    // The zone's own deletion is made and nobody hears of it; or the routes' is not.
    for (after, fault) in [(0, Fault::AnswerLost), (1, Fault::Unreachable)] {
        let lab = Lab::new().await;
        lab.put("www.a.example.org", A).await;
        lab.settle().await;
        at_commit(after, fault.clone());
        let cut_short = lab.zone("DELETE", "?evict=true", &[]).await;
        assert_eq!(cut_short.reason(), "store-unreachable", "{fault:?}");
        assert_eq!(lab.endpoints("www.a.example.org").await, [A]);
        assert_eq!(lab.zone("GET", "", &[]).await.status, 404);
        let again = lab.zone("DELETE", "", &[]).await;
        assert_eq!((again.status, &again.body["evicted"]), (200, &json!(1)));
        assert_eq!(lab.endpoints("www.a.example.org").await, [""; 0]);
        let once_more = lab.zone("DELETE", "", &[]).await;
        assert_eq!((once_more.status, once_more.reason()), (404, "not-found"));
    }
}

#[tokio::test]
async fn what_was_left_without_a_zone_is_swept_away_and_nothing_else() {
    let lab = Lab::new().await;
    let b = tenant("b");
    lab.put("www.a.example.org", A).await;
    let body = announcement(&[("x.a.example.org", A)]);
    lab.call(&tenant("a"), "PUT", "/v1/tenants/a/instances/w1", body)
        .await;
    let body = announcement(&[("x.b.example.org", "10.0.2.1:1")]);
    lab.call(&b, "PUT", "/v1/tenants/b/instances/w1", body)
        .await;
    lab.cut_short().await;
    let due = rezoned(&lab.registry);
    assert_eq!(due, BTreeSet::from(["a".into(), "b".into()]));
    assert!(sweep_tenants(&lab.registry, due.clone()).await.is_empty());
    for host in ["www.a.example.org", "x.a.example.org"] {
        assert_eq!(lab.endpoints(host).await, [""; 0], "{host}");
    }
    assert_eq!(lab.endpoints("x.b.example.org").await, ["10.0.2.1:1"]);
    let before = lab.everything().await;
    assert_eq!(before.1.len(), 3, "zone, route and instance of b");
    // Another router comes to the same, and nothing is left to do for it.
    sweep_tenants(&lab.registry, due).await;
    assert_eq!(lab.everything().await, before);
    assert!(rezoned(&lab.registry).is_empty());
    let pattern = HostMatch::parse("*.b.example.org").unwrap();
    lab.write(&keys::zone("b", &pattern), None).await;
    assert_eq!(rezoned(&lab.registry), BTreeSet::from(["b".into()]));
}

#[tokio::test]
async fn a_zone_that_a_newer_version_wrote_takes_nothing_away() {
    let lab = Lab::new().await;
    lab.put("www.a.example.org", A).await;
    let pattern = HostMatch::parse("*.a.example.org").unwrap();
    let newer = r#"{"leased": "in another way"}"#;
    lab.write(&keys::zone("a", &pattern), Some(newer)).await;
    sweep_tenants(&lab.registry, rezoned(&lab.registry)).await;
    assert_eq!(lab.endpoints("www.a.example.org").await, [A]);
}

#[tokio::test]
async fn who_announces_anew_meanwhile_keeps_it() {
    // Nobody follows this one: its view stays behind.
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).await.unwrap();
    let registry = RouteRegistry::new(Store::Embedded(store));
    let host = HostMatch::parse("www.a.example.org").unwrap();
    let pattern = HostMatch::parse("*.a.example.org").unwrap();
    let route = keys::route(&host, "a", "w1");
    let instance = keys::instance("a", "w1");
    let write = async |entries: &[(&str, &'static str)]| {
        let puts = entries.iter().map(|(key, value)| Put {
            key: (*key).to_owned(),
            value: (*value).into(),
            lease: None,
        });
        let transaction = Transaction {
            puts: puts.collect(),
            ..Transaction::default()
        };
        registry.store.commit(&transaction).await.unwrap();
        registry.store.list().await.unwrap()
    };
    let record = r#"{"digest":"d","ttl":60,"hosts":["www.a.example.org"],"credential":"c"}"#;
    let known = write(&[
        (
            &keys::zone("a", &pattern),
            r#"{"addresses":["10.0.1.0/25"]}"#,
        ),
        (&route, r#"{"endpoints":["10.0.1.200:1"]}"#),
        (&instance, record),
    ])
    .await;
    registry.view().reset(known);
    let announced = write(&[(&route, r#"{"endpoints":["10.0.1.1:1"]}"#)]).await;
    assert_eq!(evict_strays(&registry, "a").await.unwrap(), []);
    assert_eq!(registry.store.list().await.unwrap(), announced);
}

#[tokio::test]
async fn an_instance_that_loses_one_route_keeps_and_withdraws_the_others() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let body = announcement(&[("x.a.example.org", A), ("y.a.example.org", AWAY)]);
    let path = "/v1/tenants/a/instances/w1";
    assert_eq!(lab.call(&a, "PUT", path, body.clone()).await.status, 200);
    lab.settle().await;
    let narrowed = lab.lease("?evict=true", &[], &[HALF]).await;
    assert_eq!(narrowed.body["evicted"], 1);
    assert_eq!(lab.endpoints("x.a.example.org").await, [A]);
    assert_eq!(lab.endpoints("y.a.example.org").await, [""; 0]);
    let listed = lab.call(&a, "GET", "/v1/instances", Value::Null).await;
    let hosts = &listed.body["instances"][0]["hosts"];
    assert_eq!(hosts, &json!(["x.a.example.org"]));
    // The same announcement is judged anew.
    let again = lab.call(&a, "PUT", path, body).await;
    assert_eq!(again.reason(), "address-outside-zones");
    let withdrawn = lab.call(&a, "DELETE", path, Value::Null).await;
    assert_eq!(withdrawn.status, 204);
    assert_eq!(lab.endpoints("x.a.example.org").await, [""; 0]);
}

#[tokio::test]
async fn many_routes_go_in_several_transactions() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let names: Vec<_> = (0..32).map(|it| format!("n{it}.a.example.org")).collect();
    for worker in 0..5 {
        let routes: Vec<_> = names.iter().map(|it| (it.as_str(), A)).collect();
        let path = format!("/v1/tenants/a/instances/w{worker}");
        let put = lab.call(&a, "PUT", &path, announcement(&routes)).await;
        assert_eq!(put.status, 200, "{put:?}");
    }
    lab.settle().await;
    let gone = lab.zone("DELETE", "?evict=true", &[]).await;
    assert_eq!((gone.status, &gone.body["evicted"]), (200, &json!(160)));
    assert_eq!(lab.everything().await.1.len(), 1, "the zone of b");
}

#[tokio::test]
async fn routes_do_not_go_by_mistake() {
    let lab = Lab::new().await;
    for name in ["one", "two", "three", "four"] {
        lab.put(&format!("{name}.a.example.org"), AWAY).await;
    }
    lab.put("stays.a.example.org", A).await;
    lab.settle().await;
    // Meant to add a range.
    let other = ["10.0.8.0/24"];
    let (before, _) = lab.everything().await;
    let put = lab.lease("", &[], &other).await;
    assert_eq!((put.status, put.reason()), (409, "would-evict"));
    let detail = put.body["detail"].as_str().unwrap();
    assert!(detail.starts_with("evicted: 5 routes"), "{detail}");
    assert!(detail.contains("four.a.example.org"), "{detail}");
    assert!(detail.contains("and 2 more"), "{detail}");
    for query in ["", "?evict=false"] {
        let deleted = lab.zone("DELETE", query, &[]).await;
        assert_eq!((deleted.status, deleted.reason()), (409, "would-evict"));
    }
    assert_eq!(lab.everything().await.0, before, "nothing was written");
    let wider = lab.lease("", &[], &["10.0.1.0/24", "10.0.8.0/24"]).await;
    assert_eq!((wider.status, &wider.body["evicted"]), (200, &json!(0)));
    let narrower = lab.lease("?evict=true", &[], &[HALF]).await;
    assert_eq!(
        (narrower.status, &narrower.body["evicted"]),
        (200, &json!(4))
    );
    assert_eq!(lab.endpoints("stays.a.example.org").await, [A]);
}

#[tokio::test]
async fn one_operator_does_not_undo_what_another_did_to_a_zone() {
    let lab = Lab::new().await;
    let shown = lab.zone("GET", "", &[]).await;
    assert_eq!(
        (shown.status, &shown.body["addresses"]),
        (200, &json!(["10.0.1.0/24"]))
    );
    let etag = shown.etag();
    let known = [("if-match", &*etag)];
    let same = lab.zone("GET", "", &[("if-none-match", &etag)]).await;
    assert_eq!((same.status, same.etag()), (304, etag.clone()));
    let first = lab.lease("", &known, &["10.0.1.0/24", "10.0.7.0/24"]).await;
    assert_eq!(first.status, 200);
    let stale = lab.lease("", &known, &["10.0.1.0/24", "10.0.8.0/24"]).await;
    assert_eq!((stale.status, stale.reason()), (412, "changed"));
    assert_eq!(lab.zone("DELETE", "", &known).await.status, 412);
    let new = [("if-none-match", "*")];
    assert_eq!(lab.lease("", &new, &["10.0.1.0/24"]).await.status, 412);
    lab.settle().await;
    let now = lab.zone("GET", "", &[("if-none-match", &etag)]).await;
    assert_eq!((now.status, now.etag()), (200, first.etag()));
    assert_eq!(now.body["addresses"], json!(["10.0.1.0/24", "10.0.7.0/24"]));
    let etag = now.etag();
    let gone = lab.zone("DELETE", "", &[("if-match", &etag)]).await;
    assert_eq!(gone.status, 200);
    let missing = [("if-match", "*")];
    assert_eq!(lab.lease("", &missing, &[HALF]).await.status, 412);
    assert_eq!(lab.lease("", &new, &[HALF]).await.status, 201);
}

#[tokio::test]
async fn conditions_that_a_call_does_not_know_are_refused() {
    let lab = Lab::new().await;
    let (a, ops) = (tenant("a"), operator());
    let body = announcement(&[("x.a.example.org", A)]);
    for (caller, method, path, body) in [
        (&a, "PUT", "/v1/tenants/a/instances/w1", body),
        (&a, "DELETE", "/v1/tenants/a/instances/w1", Value::Null),
        (&ops, "POST", "/v1/tokens", json!({"tenant": "a"})),
        (&ops, "DELETE", "/v1/tokens/0123456789abcdef", Value::Null),
    ] {
        for condition in ["if-match", "if-none-match", "if-unmodified-since"] {
            let headers = [(condition, "*")];
            let answer = lab.ask(caller, method, path, &headers, body.clone()).await;
            assert_eq!((answer.status, answer.reason()), (400, "invalid"), "{path}");
        }
    }
    let (_, keys) = lab.everything().await;
    assert_eq!(keys.len(), 2, "the zones: {keys:?}");
}

#[tokio::test]
async fn tenants_see_their_own_zones_alone() {
    let lab = Lab::new().await;
    let (a, b) = (tenant("a"), tenant("b"));
    assert_eq!(lab.call(&a, "GET", ZONE, Value::Null).await.status, 200);
    let other = lab.call(&b, "GET", ZONE, Value::Null).await;
    assert_eq!((other.status, other.reason()), (403, "wrong-tenant"));
    let none = "/v1/zones/a/none.a.example.org";
    assert_eq!(lab.call(&a, "GET", none, Value::Null).await.status, 404);
}

#[tokio::test]
async fn zones_and_tokens_come_in_pages() {
    let lab = Lab::new().await;
    let ops = operator();
    for owner in ["a", "b", "c"] {
        for index in 0..3 {
            let path = format!("/v1/zones/{owner}/n{index}.{owner}.example.org");
            let body = json!({"addresses": ["10.0.0.1"]});
            lab.call(&ops, "PUT", &path, body).await;
            let body = json!({"tenant": owner});
            let made = lab.call(&ops, "POST", "/v1/tokens", body).await;
            assert_eq!(made.status, 201);
        }
    }
    lab.settle().await;
    for (caller, list, query, expected) in [
        (&ops, "zones", "", 11),
        (&ops, "zones", "&tenant=b", 4),
        (&ops, "zones", "&tenant=none", 0),
        (&tenant("c"), "zones", "", 3),
        (&ops, "tokens", "", 9),
        (&ops, "tokens", "&tenant=b", 3),
        (&ops, "tokens", "&tenant=none", 0),
    ] {
        let pages = lab.pages(caller, list, query).await;
        for page in &pages {
            assert!(page["revision"].as_i64().unwrap() > 0, "{page:?}");
        }
        let entries = pages.iter().flat_map(|page| page[list].as_array().unwrap());
        let mut found: Vec<_> = entries.map(ToString::to_string).collect();
        let count = found.len();
        found.sort();
        found.dedup();
        assert_eq!((count, found.len()), (expected, expected), "{list}{query}");
    }
    for odd in [
        "/v1/tokens?tenants=a",
        "/v1/zones?limit=0",
        "/v1/zones?after=a",
        "/v1/zones?after=a/%2A",
    ] {
        let answer = lab.call(&ops, "GET", odd, Value::Null).await;
        assert_eq!(answer.status, 400, "{odd}");
    }
}
