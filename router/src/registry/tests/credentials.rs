//! Which credential made what, and what to do when one has leaked.

use serde_json::{Value, json};

use super::lab::{Lab, announcement, operator};
use crate::registry::auth::audit::{Change, Consequences};
use crate::registry::auth::{Caller, Role};

const W1: &str = "/v1/tenants/a/instances/w1";

/// A tenant's token, made by an operator: its id, and whoever calls with it.
async fn token(lab: &Lab, owner: &str) -> (String, Caller) {
    let body = json!({ "tenant": owner });
    let made = lab.call(&operator(), "POST", "/v1/tokens", body).await;
    let id = made.body["id"].as_str().unwrap().to_owned();
    let caller = Caller {
        id: format!("token:{id}").into(),
        role: Role::Tenant(owner.into()),
        scope: None,
    };
    (id, caller)
}

async fn put(lab: &Lab, caller: &Caller, host: &str) {
    let body = json!({"endpoints": ["10.0.1.1:1"]});
    let path = format!("/v1/routes/{host}");
    assert_eq!(lab.call(caller, "PUT", &path, body).await.status, 201);
}

#[tokio::test]
async fn it_is_shown_which_credential_made_what() {
    let lab = Lab::new().await;
    let (_, a) = token(&lab, "a").await;
    let body = announcement(&[("x.a.example.org", "10.0.1.1:1")]);
    lab.call(&a, "PUT", W1, body.clone()).await;
    put(&lab, &a, "www.a.example.org").await;
    lab.settle().await;
    let shown = async |path: &str| lab.call(&operator(), "GET", path, Value::Null).await.body;
    let by = |caller: &Caller| json!(&*caller.id);
    let credential = async || shown("/v1/instances").await["instances"][0]["credential"].clone();
    assert_eq!(credential().await, by(&a));
    let route = shown("/v1/routes/www.a.example.org").await;
    assert_eq!(route["sources"][0]["credential"], by(&a));
    let route = shown("/v1/routes/x.a.example.org").await;
    assert_eq!(route["sources"][0]["credential"], Value::Null);
    // Once a registrar has a new token, its instance has nothing to do with the old one.
    let (_, renewed) = token(&lab, "a").await;
    let again = lab.call(&renewed, "PUT", W1, body.clone()).await;
    assert_eq!(again.body["renewed"], false);
    lab.settle().await;
    assert_eq!(credential().await, by(&renewed));
    let again = lab.call(&renewed, "PUT", W1, body).await;
    assert_eq!(again.body["renewed"], true);
}

#[tokio::test]
async fn what_a_leaked_token_made_goes_with_it() {
    let lab = Lab::new().await;
    let ((id, leaked), (_, good)) = (token(&lab, "a").await, token(&lab, "a").await);
    for (caller, name) in [(&leaked, "bad"), (&good, "good")] {
        put(&lab, caller, &format!("put-{name}.a.example.org")).await;
        let host = format!("{name}.a.example.org");
        let body = announcement(&[(&host, "10.0.1.1:1")]);
        let path = format!("/v1/tenants/a/instances/{name}");
        assert_eq!(lab.call(caller, "PUT", &path, body).await.status, 200);
    }
    lab.settle().await;
    let path = format!("/v1/tokens/{id}");
    let revoked = lab
        .response(&operator(), "DELETE", &path, &[], Value::Null)
        .await;
    assert_eq!(revoked.status(), 200);
    let change = revoked.extensions().get::<Change>().unwrap();
    assert_eq!(change.tenant.as_deref(), Some("a"), "the log names it");
    assert_eq!(lab.endpoints("bad.a.example.org").await, ["10.0.1.1:1"]);
    // The token is gone; asking once more, or at all, takes away what was made with it.
    let all = format!("{path}?withdraw=true");
    let withdrawn = lab
        .response(&operator(), "DELETE", &all, &[], Value::Null)
        .await;
    assert_eq!(withdrawn.status(), 200);
    let Consequences(told) = withdrawn.extensions().get().unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|it| (it.tenant.as_deref().unwrap(), it.object.as_deref().unwrap()))
        .collect();
    assert_eq!(told, [("a", "bad"), ("a", "put-bad.a.example.org")]);
    for (host, expected) in [
        ("bad.a.example.org", &[][..]),
        ("put-bad.a.example.org", &[]),
        ("good.a.example.org", &["10.0.1.1:1"]),
        ("put-good.a.example.org", &["10.0.1.1:1"]),
    ] {
        assert_eq!(lab.endpoints(host).await, expected, "{host}");
    }
    let nothing = lab.call(&operator(), "DELETE", &all, Value::Null).await;
    assert_eq!((nothing.status, nothing.reason()), (404, "not-found"));
}

#[tokio::test]
async fn what_stands_by_another_token_by_now_stays() {
    let lab = Lab::new().await;
    let ((id, leaked), (_, renewed)) = (token(&lab, "a").await, token(&lab, "a").await);
    let body = announcement(&[("x.a.example.org", "10.0.1.1:1")]);
    lab.call(&leaked, "PUT", W1, body.clone()).await;
    lab.settle().await;
    let path = format!("/v1/tokens/{id}");
    lab.call(&operator(), "DELETE", &path, Value::Null).await;
    lab.settle().await;
    // The view does not know yet that the instance has a new token.
    lab.stop_following();
    assert_eq!(lab.call(&renewed, "PUT", W1, body).await.status, 200);
    let all = format!("{path}?withdraw=true");
    let nothing = lab.call(&operator(), "DELETE", &all, Value::Null).await;
    assert_eq!((nothing.status, nothing.reason()), (404, "not-found"));
    lab.follow_again();
    lab.settle().await;
    assert_eq!(lab.endpoints("x.a.example.org").await, ["10.0.1.1:1"]);
}
