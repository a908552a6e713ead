//! Leases that nothing hangs on any more.

use serde_json::{Value, json};

use super::lab::{Lab, announcement, tenant};
use crate::registry::store::{LeaseId, StoreError};

const W1: &str = "/v1/tenants/a/instances/w1";
const WWW: &str = "/v1/routes/www.a.example.org";

/// Every lease that something hangs on.
async fn leases(lab: &Lab) -> Vec<LeaseId> {
    let listing = lab.registry.store.list().await.unwrap();
    let mut leases: Vec<_> = listing.entries.iter().filter_map(|it| it.lease).collect();
    leases.dedup();
    leases
}

async fn is_gone(lab: &Lab, lease: LeaseId) -> bool {
    lab.registry.store.renew(lease).await == Err(StoreError::LeaseGone)
}

#[tokio::test]
async fn the_lease_of_a_route_goes_when_it_is_put_anew_or_deleted() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let body = json!({"ttl": 3600, "endpoints": ["10.0.1.1:1"]});
    assert_eq!(lab.call(&a, "PUT", WWW, body.clone()).await.status, 201);
    let first = leases(&lab).await;
    assert_eq!(lab.call(&a, "PUT", WWW, body).await.status, 200);
    let second = leases(&lab).await;
    assert_eq!((first.len(), second.len()), (1, 1));
    assert!(is_gone(&lab, first[0]).await && !is_gone(&lab, second[0]).await);
    assert_eq!(lab.call(&a, "DELETE", WWW, Value::Null).await.status, 204);
    assert!(is_gone(&lab, second[0]).await);
}

#[tokio::test]
async fn an_announcement_with_another_time_to_live_gives_the_last_lease_back() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let mut body = announcement(&[("x.a.example.org", "10.0.1.1:1")]);
    assert_eq!(lab.call(&a, "PUT", W1, body.clone()).await.status, 200);
    let first = leases(&lab).await;
    body["ttl"] = json!(3600);
    assert_eq!(lab.call(&a, "PUT", W1, body.clone()).await.status, 200);
    let second = leases(&lab).await;
    assert!(is_gone(&lab, first[0]).await && !is_gone(&lab, second[0]).await);
    // Another announcement for the same time goes on with its lease.
    body["routes"][0]["endpoint"] = json!("10.0.1.2:1");
    assert_eq!(lab.call(&a, "PUT", W1, body).await.status, 200);
    assert!(!is_gone(&lab, second[0]).await);
    assert_eq!(lab.endpoints("x.a.example.org").await, ["10.0.1.2:1"]);
}
