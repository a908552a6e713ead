//! Changes amid which the store fails, or the view is behind.

use std::sync::Arc;

use serde_json::{Value, json};

use super::lab::{Lab, announcement, tenant};
use crate::registry::keys::{self, STORE_ID};
use crate::registry::store::faults::{Fault, at_commit, is_waiting};
use crate::registry::store::{Put, Transaction};

const W1: &str = "/v1/tenants/a/instances/w1";
const WWW: &str = "/v1/routes/www.a.example.org";
const A: &str = "10.0.1.1:1";

fn put(endpoint: &str) -> Value {
    json!({"ttl": 60, "endpoints": [endpoint]})
}

#[tokio::test]
async fn nothing_is_judged_by_another_store() {
    let lab = Lab::new().await;
    let a = tenant("a");
    // Both are of a name; which one is no matter to a change, as long as it is the same.
    let named = |name: &str| Transaction {
        puts: vec![Put {
            key: STORE_ID.to_owned(),
            value: name.to_owned().into(),
            lease: None,
        }],
        ..Transaction::default()
    };
    lab.registry.store.commit(&named("ours")).await.unwrap();
    lab.settle().await;
    lab.stop_following();
    lab.registry.store.commit(&named("theirs")).await.unwrap();
    let body = announcement(&[("x.a.example.org", "10.0.1.1:1")]);
    let path = "/v1/tenants/a/instances/w1";
    for (method, body) in [("PUT", body), ("DELETE", Value::Null)] {
        let answer = lab.call(&a, method, path, body).await;
        assert_eq!((answer.status, answer.reason()), (503, "store-unreachable"));
    }
    let list = lab.call(&a, "GET", "/v1/routes", Value::Null).await;
    assert_eq!(list.status, 200);
    lab.registry.store.commit(&named("ours")).await.unwrap();
    let answer = lab.call(&a, "DELETE", path, Value::Null).await;
    assert_eq!(answer.status, 204);
}

#[tokio::test]
async fn a_route_that_was_put_anew_outlives_an_answer_that_was_lost() {
    let lab = Lab::new().await;
    let a = tenant("a");
    assert_eq!(lab.call(&a, "PUT", WWW, put(A)).await.status, 201);
    at_commit(0, Fault::AnswerLost);
    let lost = lab.call(&a, "PUT", WWW, put(A)).await;
    assert_eq!((lost.status, lost.reason()), (503, "store-unreachable"));
    assert_eq!(lab.endpoints("www.a.example.org").await, [A]);
}

#[tokio::test]
async fn what_an_instance_announces_outlives_an_answer_that_was_lost() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let mut body = announcement(&[("x.a.example.org", A)]);
    assert_eq!(lab.call(&a, "PUT", W1, body.clone()).await.status, 200);
    // Another time to live is another lease.
    body["ttl"] = json!(30);
    at_commit(0, Fault::AnswerLost);
    assert_eq!(lab.call(&a, "PUT", W1, body).await.status, 503);
    assert!(!is_waiting());
    assert_eq!(lab.endpoints("x.a.example.org").await, [A]);
}

#[tokio::test]
async fn a_view_that_is_behind_renews_nothing_that_was_replaced() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let one = announcement(&[("x.a.example.org", A)]);
    let two = announcement(&[("x.a.example.org", A), ("y.a.example.org", A)]);
    assert_eq!(lab.call(&a, "PUT", W1, one.clone()).await.status, 200);
    lab.stop_following();
    assert_eq!(lab.call(&a, "PUT", W1, two).await.status, 200);
    // The view still says that `one` is what was announced last.
    let again = lab.call(&a, "PUT", W1, one.clone()).await;
    assert_eq!(again.body["renewed"], json!(false));
    let again = lab.call(&a, "PUT", W1, one.clone()).await;
    assert_eq!(again.body["renewed"], json!(true), "the store is asked");
    assert_eq!(lab.call(&a, "DELETE", W1, Value::Null).await.status, 204);
    let again = lab.call(&a, "PUT", W1, one).await;
    assert_eq!(again.body["renewed"], json!(false), "it was withdrawn");
    let (_, keys) = lab.everything().await;
    let kept = |host: &str| keys.iter().any(|key| key.contains(host));
    assert!(
        kept("gro.elpmaxe.a.x") && !kept("gro.elpmaxe.a.y"),
        "{keys:?}"
    );
}

#[tokio::test]
async fn nor_what_may_have_been_replaced_by_a_commit_that_nobody_heard_of() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let one = announcement(&[("x.a.example.org", A)]);
    let two = announcement(&[("x.a.example.org", A), ("y.a.example.org", A)]);
    assert_eq!(lab.call(&a, "PUT", W1, one.clone()).await.status, 200);
    lab.stop_following();
    at_commit(0, Fault::AnswerLost);
    assert_eq!(lab.call(&a, "PUT", W1, two).await.status, 503);
    let again = lab.call(&a, "PUT", W1, one).await;
    assert_eq!((again.status, &again.body["renewed"]), (200, &json!(false)));
}

#[tokio::test]
async fn whoever_has_written_reads_what_it_wrote() {
    let lab = Arc::new(Lab::new().await);
    let mut etag = String::new();
    for status in [201, 200] {
        lab.stop_following();
        let before = lab.everything().await.0;
        let put = tokio::spawn({
            let lab = Arc::clone(&lab);
            async move { lab.call(&tenant("a"), "PUT", WWW, put(A)).await }
        });
        while lab.everything().await.0 == before {}
        // It is committed, and only now does the view come to it.
        lab.follow_again();
        let put = put.await.unwrap();
        assert_eq!(put.status, status);
        let got = lab.call(&tenant("a"), "GET", WWW, Value::Null).await;
        assert_eq!((got.status, got.etag()), (200, put.etag()));
        assert_ne!(got.etag(), etag);
        etag = got.etag();
    }
}

#[tokio::test]
async fn a_deletion_of_another_source_is_a_change_for_if_match() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let www = "www.a.example.org";
    let deleted = || Transaction {
        deletes: vec![keys::route(&www.parse().unwrap(), "a", "w1")],
        ..Transaction::default()
    };
    for method in ["PUT", "DELETE"] {
        assert!(lab.call(&a, "PUT", WWW, put(A)).await.status < 300);
        let body = announcement(&[(www, "10.0.1.2:1")]);
        assert_eq!(lab.call(&a, "PUT", W1, body).await.status, 200);
        let etag = lab.call(&a, "GET", WWW, Value::Null).await.etag();
        at_commit(0, Fault::ComesSecond(deleted()));
        let body = if method == "PUT" { put(A) } else { Value::Null };
        let tags = [("if-match", &*etag)];
        let changed = lab.ask(&a, method, WWW, &tags, body).await;
        assert_eq!((changed.status, changed.reason()), (412, "changed"));
        assert_eq!(lab.call(&a, "DELETE", W1, Value::Null).await.status, 204);
    }
}
