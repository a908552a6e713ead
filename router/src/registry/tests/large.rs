//! Changes that are nearly, or really, too large for the store.

use serde_json::{Value, json};

use super::lab::{Lab, announcement, operator, tenant};
use crate::registry::keys;
use crate::registry::store::faults::{Fault, at_commit, is_waiting};
use crate::registry::store::{MOST_CONDITIONS, Put, Transaction};

const W1: &str = "/v1/tenants/a/instances/w1";
const WWW: &str = "/v1/routes/www.a.example.org";
const A: &str = "10.0.1.1:1";

#[tokio::test]
async fn a_route_of_very_many_instances_is_put_or_the_client_told_why_not() {
    let lab = Lab::new().await;
    let a = tenant("a");
    for index in 0..MOST_CONDITIONS {
        let path = format!("/v1/tenants/a/instances/w{index}");
        let body = announcement(&[("www.a.example.org", A)]);
        assert_eq!(lab.call(&a, "PUT", &path, body).await.status, 200);
    }
    let etag = lab.call(&a, "GET", WWW, Value::Null).await.etag();
    let body = json!({"endpoints": [A]});
    let tagged = [("if-match", &*etag)];
    let refused = lab.ask(&a, "PUT", WWW, &tagged, body.clone()).await;
    assert_eq!((refused.status, refused.reason()), (422, "invalid"));
    assert!(refused.body["detail"].to_string().contains("If-Match"));
    let any = [("if-match", "*")];
    assert_eq!(
        lab.ask(&a, "PUT", WWW, &any, body.clone()).await.status,
        200
    );
    assert_eq!(lab.call(&a, "PUT", WWW, body).await.status, 200);
    assert_eq!(lab.call(&a, "DELETE", WWW, Value::Null).await.status, 204);
}

#[tokio::test]
async fn names_with_very_many_zones_are_announced_all_the_same() {
    let lab = Lab::new().await;
    let zone = json!({"addresses": ["10.0.1.0/24"]});
    let names: Vec<_> = (10..41)
        .map(|it| format!("x-y-{it}.a.example.org"))
        .collect();
    for name in &names {
        for pattern in [name.clone(), name.replace("x-y", "*")] {
            let path = format!("/v1/zones/a/{pattern}");
            let put = lab.call(&operator(), "PUT", &path, zone.clone()).await;
            assert_eq!(put.status, 201);
        }
    }
    let routes: Vec<_> = names.iter().map(|name| (name.as_str(), A)).collect();
    let answer = lab
        .call(&tenant("a"), "PUT", W1, announcement(&routes))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(lab.endpoints(&names[30]).await, [A]);
}

/// An announcement that takes several transactions, and one more route.
fn many(endpoint: &str, last: (&str, &str)) -> Value {
    let names: Vec<_> = (10..30)
        .map(|index| format!("{}{index}.a.example.org", "a-".repeat(28)))
        .collect();
    let routes = names.iter().map(|name| (name.as_str(), endpoint));
    announcement(&routes.chain([last]).collect::<Vec<_>>())
}

fn first() -> String {
    format!("{}10.a.example.org", "a-".repeat(28))
}

#[tokio::test]
async fn a_refusal_amid_several_transactions_changes_nothing() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let before = many(A, ("x.a.example.org", A));
    assert_eq!(lab.call(&a, "PUT", W1, before).await.status, 200);
    let revision = lab.everything().await.0;
    let mut wrong = many("10.0.1.2:1", ("x.b.example.org", A));
    for ttl in [60, 30] {
        wrong["ttl"] = json!(ttl);
        let refused = lab.call(&a, "PUT", W1, wrong.clone()).await;
        assert_eq!(refused.reason(), "outside-zones");
        assert_eq!(lab.everything().await.0, revision, "nothing was written");
    }
    assert_eq!(lab.endpoints(&first()).await, [A]);
}

#[tokio::test]
async fn what_is_left_of_an_announcement_that_broke_off_goes_with_the_next() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let old = announcement(&[("old.a.example.org", A)]);
    assert_eq!(lab.call(&a, "PUT", W1, old).await.status, 200);
    let count = lab.everything().await.1.len();
    for _ in 0..3 {
        at_commit(1, Fault::Unreachable);
        let broken = many("10.0.1.2:1", ("x.a.example.org", A));
        assert_eq!(lab.call(&a, "PUT", W1, broken).await.status, 503);
        assert!(!is_waiting());
    }
    assert!(lab.everything().await.1.len() > count, "a part was written");
    let new = announcement(&[("new.a.example.org", A)]);
    assert_eq!(lab.call(&a, "PUT", W1, new).await.status, 200);
    let (_, keys) = lab.everything().await;
    assert_eq!(keys.len(), count, "one route, as before: {keys:?}");
    assert_eq!(lab.call(&a, "DELETE", W1, Value::Null).await.status, 204);
    let (_, keys) = lab.everything().await;
    assert_eq!(keys.len(), count - 2, "{keys:?}");
}

#[tokio::test]
async fn what_was_written_before_another_came_between_keeps_its_lease() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let mut body = many(A, ("x.a.example.org", A));
    assert_eq!(lab.call(&a, "PUT", W1, body.clone()).await.status, 200);
    let (_, keys) = lab.everything().await;
    // Amid the next one, with another lease, the zone is taken away.
    body["ttl"] = json!(30);
    let pattern = "*.a.example.org".parse().unwrap();
    let deleted = Transaction {
        deletes: vec![keys::zone("a", &pattern)],
        ..Transaction::default()
    };
    at_commit(2, Fault::ComesSecond(deleted));
    let refused = lab.call(&a, "PUT", W1, body).await;
    assert_eq!(refused.reason(), "outside-zones");
    assert!(!is_waiting());
    assert_eq!(lab.everything().await.1.len(), keys.len() - 1);
}

#[tokio::test]
async fn a_suffix_with_very_many_names_beneath_it_is_judged_by_the_view() {
    let lab = Lab::new().await;
    let names: Vec<_> = (0..1_100)
        .map(|it| format!("n{it}.a.example.org"))
        .collect();
    for some in names.chunks(100) {
        let puts = some.iter().map(|name| Put {
            key: keys::route(&name.parse().unwrap(), "other", "w1"),
            value: r#"{"endpoints":["10.0.0.1:1"]}"#.into(),
            lease: None,
        });
        let transaction = Transaction {
            puts: puts.collect(),
            ..Transaction::default()
        };
        lab.registry.store.commit(&transaction).await.unwrap();
    }
    lab.settle().await;
    let path = "/v1/routes/*.a.example.org";
    let claim = async |name: &str, shared: bool| {
        let body = json!({"endpoints": [A], "shared": shared});
        let answer = lab.call(&tenant(name), "PUT", path, body).await;
        (answer.status, answer.reason().to_owned())
    };
    let told = (409, "held-by-another-tenant".to_owned());
    assert_eq!(claim("a", false).await, told);
    let outside = (403, "outside-zones".to_owned());
    assert_eq!(claim("b", false).await, outside);
    assert_eq!(
        claim("a", true).await.0,
        201,
        "whoever shares takes no name"
    );
    // It is the view that refused: the store would let the tenant have it by now.
    lab.stop_following();
    for some in names.chunks(100) {
        let deletes = some.iter();
        let deletes = deletes.map(|name| keys::route(&name.parse().unwrap(), "other", "w1"));
        let transaction = Transaction {
            deletes: deletes.collect(),
            ..Transaction::default()
        };
        lab.registry.store.commit(&transaction).await.unwrap();
    }
    assert_eq!(claim("a", false).await, told);
    lab.follow_again();
    lab.settle().await;
    assert_eq!(claim("a", false).await.0, 200);
}
