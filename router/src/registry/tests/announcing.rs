//! Instances, and what they announce.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::lab::{Lab, announcement, tenant};
use crate::registry::store::Event;

const W1: &str = "/v1/tenants/a/instances/w1";
const W2: &str = "/v1/tenants/a/instances/w2";

#[tokio::test]
async fn instances_add_up_and_withdraw() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let first = announcement(&[
        ("x.a.example.org", "10.0.1.1:1"),
        ("y.a.example.org", "10.0.1.1:1"),
    ]);
    let answer = lab.call(&a, "PUT", W1, first.clone()).await;
    assert_eq!(
        (answer.status, &answer.body["renewed"]),
        (200, &json!(false))
    );
    let second = announcement(&[("x.a.example.org", "10.0.1.2:1")]);
    assert_eq!(lab.call(&a, "PUT", W2, second).await.status, 200);
    assert_eq!(
        lab.endpoints("x.a.example.org").await,
        ["10.0.1.1:1", "10.0.1.2:1"]
    );
    // The same again writes nothing.
    let (before, _) = lab.everything().await;
    let again = lab.call(&a, "PUT", W1, first).await;
    assert_eq!((again.status, &again.body["renewed"]), (200, &json!(true)));
    assert_eq!(lab.everything().await.0, before);
    // What is left out is withdrawn.
    let fewer = announcement(&[("x.a.example.org", "10.0.1.1:1")]);
    assert_eq!(lab.call(&a, "PUT", W1, fewer).await.status, 200);
    assert_eq!(lab.endpoints("y.a.example.org").await, [""; 0]);
    for _ in 0..2 {
        assert_eq!(lab.call(&a, "DELETE", W1, Value::Null).await.status, 204);
    }
    assert_eq!(lab.endpoints("x.a.example.org").await, ["10.0.1.2:1"]);
    assert_eq!(lab.call(&a, "DELETE", W2, Value::Null).await.status, 204);
    let (_, keys) = lab.everything().await;
    assert!(keys.iter().all(|key| key.starts_with("zone/")), "{keys:?}");
}

#[tokio::test]
async fn a_refused_announcement_leaves_the_last_one_in_force() {
    let lab = Lab::new().await;
    let a = tenant("a");
    lab.call(
        &a,
        "PUT",
        W1,
        announcement(&[("x.a.example.org", "10.0.1.1:1")]),
    )
    .await;
    let wrong = announcement(&[
        ("x.a.example.org", "10.0.1.9:1"),
        ("x.b.example.org", "10.0.1.1:1"),
    ]);
    assert_eq!(
        lab.call(&a, "PUT", W1, wrong).await.reason(),
        "outside-zones"
    );
    assert_eq!(lab.endpoints("x.a.example.org").await, ["10.0.1.1:1"]);
    let (_, keys) = lab.everything().await;
    assert_eq!(
        keys.len(),
        4,
        "two zones, the route, the instance: {keys:?}"
    );
}

#[tokio::test]
async fn names_with_very_many_hyphens_are_announced_all_the_same() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let names: Vec<_> = (10..42)
        .map(|index| format!("{}{index}.a.example.org", "a-".repeat(28)))
        .collect();
    let routes: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), "10.0.1.1:1"))
        .collect();
    let answer = lab.call(&a, "PUT", W1, announcement(&routes)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(lab.endpoints(&names[31]).await, ["10.0.1.1:1"]);
    assert_eq!(lab.call(&a, "DELETE", W1, Value::Null).await.status, 204);
    assert_eq!(lab.endpoints(&names[0]).await, [""; 0]);
}

#[tokio::test]
async fn one_instance_offers_a_name_at_several_ports() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let host = "x.a.example.org";
    let twice = announcement(&[(host, "10.0.1.1:1"), (host, "10.0.1.1:2")]);
    assert_eq!(lab.call(&a, "PUT", W1, twice).await.status, 200);
    assert_eq!(lab.endpoints(host).await, ["10.0.1.1:1", "10.0.1.1:2"]);
    let repeated = announcement(&[(host, "10.0.1.1:1"), (host, "10.0.1.1:1")]);
    assert_eq!(lab.call(&a, "PUT", W1, repeated).await.status, 422);
}

#[tokio::test]
async fn what_is_not_renewed_goes_in_time() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let ttl = Duration::from_secs(5);
    let body = json!({"ttl": 5, "routes": [{"host": "x.a.example.org", "endpoint": "10.0.1.1:1"}]});
    let mut watch = lab
        .registry
        .store
        .watch(lab.everything().await.0)
        .await
        .unwrap();
    assert_eq!(lab.call(&a, "PUT", W1, body.clone()).await.status, 200);
    let kept = json!({"ttl": 5, "endpoints": ["10.0.1.1:1"]});
    assert_eq!(
        lab.call(&a, "PUT", "/v1/routes/put.a.example.org", kept)
            .await
            .status,
        201
    );
    tokio::time::sleep(Duration::from_secs(3)).await;
    let renewed = lab.call(&a, "PUT", W1, body).await;
    assert_eq!(renewed.body["renewed"], json!(true));
    let since = Instant::now();
    let mut gone = Vec::new();
    while !gone
        .iter()
        .any(|(key, _): &(String, _)| key.starts_with("instance/"))
    {
        let batch = tokio::time::timeout(2 * ttl, watch.next())
            .await
            .unwrap()
            .unwrap();
        for event in batch.events {
            if let Event::Delete(key) = event {
                gone.push((key, since.elapsed()));
            }
        }
    }
    let (first, at) = &gone[0];
    assert!(first.contains(".tup/"), "put once, never again: {gone:?}");
    assert!(*at < ttl, "{gone:?}");
    let at = gone.last().unwrap().1;
    assert!(at >= ttl && at < ttl + Duration::from_secs(1), "{gone:?}");
    assert_eq!(lab.endpoints("x.a.example.org").await, [""; 0]);
}
