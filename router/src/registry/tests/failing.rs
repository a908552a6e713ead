//! Changes amid which the store fails, or the view is behind.

use serde_json::{Value, json};

use super::lab::{Lab, announcement, tenant};
use crate::registry::store::faults::{Fault, at_commit, is_waiting};

const W1: &str = "/v1/tenants/a/instances/w1";
const WWW: &str = "/v1/routes/www.a.example.org";
const A: &str = "10.0.1.1:1";

fn put(endpoint: &str) -> Value {
    json!({"ttl": 60, "endpoints": [endpoint]})
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
