//! What the API takes, and what it refuses whoever asks.

use serde_json::{Value, json};

use super::lab::{Lab, announcement, operator, tenant};
use crate::registry::api::document;
use crate::registry::api::types::MAX_ENDPOINTS;
use crate::registry::record::Check;

#[tokio::test]
async fn a_check_may_not_take_long() {
    let lab = Lab::new().await;
    let a = tenant("a");
    for (timeout, status) in [(10, 201), (11, 422), (3600, 422)] {
        let check = json!({"interval": 3600, "timeout": timeout, "failures": 1});
        let body = json!({"endpoints": ["10.0.1.1:1"], "check": check});
        let answer = lab
            .call(&a, "PUT", "/v1/routes/www.a.example.org", body)
            .await;
        assert_eq!(answer.status, status, "{timeout}: {answer:?}");
    }
}

#[tokio::test]
async fn no_call_ignores_a_parameter_that_it_does_not_know() {
    let lab = Lab::new().await;
    let document = document();
    let before = lab.everything().await;
    let mut calls = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let target = path
            .replace("{host}", "www.a.example.org")
            .replace("{pattern}", "*.a.example.org")
            .replace("{tenant}", "a")
            .replace("{instance}", "w1")
            .replace("{id}", "0123456789abcdef");
        for method in methods.as_object().unwrap().keys() {
            let method = method.to_ascii_uppercase();
            let target = format!("{target}?surprise=1");
            let answer = lab.call(&operator(), &method, &target, Value::Null).await;
            let what = format!("{method} {target}: {answer:?}");
            assert_eq!((answer.status, answer.reason()), (400, "invalid"), "{what}");
            calls += 1;
        }
    }
    assert!(calls > 9, "{calls}");
    assert_eq!(lab.everything().await, before);
}

#[tokio::test]
async fn the_audit_log_is_told_whose_names_lead_where() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let www = "/v1/routes/www.a.example.org";
    let (one, two) = ("10.0.1.1:1", "10.0.1.2:2");
    let put = lab
        .call(&a, "PUT", www, json!({"endpoints": [two, one]}))
        .await;
    let put = put.change.unwrap();
    let texts = |endpoints: &[std::net::SocketAddr]| -> Vec<String> {
        endpoints.iter().map(ToString::to_string).collect()
    };
    assert_eq!(
        (put.action, texts(&put.endpoints)),
        (Some("put-route"), vec![two.into(), one.into()])
    );
    let body = announcement(&[
        ("x.a.example.org", one),
        ("y.a.example.org", one),
        ("y.a.example.org", two),
    ]);
    let announced = lab
        .call(&a, "PUT", "/v1/tenants/a/instances/w1", body)
        .await;
    let announced = announced.change.unwrap();
    assert_eq!(announced.hosts, ["x.a.example.org", "y.a.example.org"]);
    assert_eq!(texts(&announced.endpoints), [one, two]);
    assert!(announced.revision.is_some());
    // An operator's deletion, too.
    let deleted = lab.call(&operator(), "DELETE", www, Value::Null).await;
    assert_eq!(deleted.change.unwrap().tenant.as_deref(), Some("a"));
}

#[tokio::test]
async fn no_zone_leases_every_address() {
    let lab = Lab::new().await;
    for every in ["0.0.0.0/0", "::/0", "::ffff:0:0/96"] {
        let body = json!({"addresses": ["10.0.1.0/24", every]});
        let answer = lab
            .call(&operator(), "PUT", "/v1/zones/a/*.acme.example.org", body)
            .await;
        assert_eq!((answer.status, answer.reason()), (422, "invalid"));
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("addresses[1]: is every address"),
            "{detail}"
        );
    }
}

#[tokio::test]
async fn a_broad_zone_does_not_make_the_routers_own_pages_public() {
    let lab = Lab::new().await;
    let broad = json!({"addresses": ["0.0.0.0/1", "128.0.0.0/1", "::/1"]});
    let zone = "/v1/zones/c/*.c.example.org";
    let leased = lab.call(&operator(), "PUT", zone, broad).await;
    assert_eq!(leased.status, 201);
    lab.settle().await;
    let c = tenant("c");
    for (endpoint, status) in [
        ("127.0.0.1:9900", 403),
        ("[::ffff:127.0.0.1]:9900", 403),
        ("[::1]:9900", 403),
        ("169.254.169.254:80", 403),
        ("10.0.0.1:80", 201),
    ] {
        let body = json!({"endpoints": [endpoint]});
        let put = lab
            .call(&c, "PUT", "/v1/routes/www.c.example.org", body)
            .await;
        assert_eq!(put.status, status, "{endpoint}: {put:?}");
        if status == 403 {
            assert_eq!(put.reason(), "address-outside-zones", "{endpoint}");
        }
    }
}

/// The document's literals cannot be constants: the macros take none.
#[test]
fn the_document_has_the_numbers_that_registrars_know() {
    use config::announcement::{MOST_ROUTES, TTL_SECONDS};
    let document = document();
    let types = &document["components"]["schemas"];
    let announcement = &types["Announcement"]["properties"];
    assert_eq!(announcement["routes"]["maxItems"], json!(MOST_ROUTES));
    for ttl in [
        &announcement["ttl"],
        &types["RouteSpec"]["properties"]["ttl"],
    ] {
        assert_eq!(ttl["minimum"], json!(TTL_SECONDS.start()));
        assert_eq!(ttl["maximum"], json!(TTL_SECONDS.end()));
    }
    let endpoints = &types["RouteSpec"]["properties"]["endpoints"];
    assert_eq!(endpoints["maxItems"], json!(MAX_ENDPOINTS));
    let timeout = &types["Check"]["properties"]["timeout"];
    assert_eq!(timeout["maximum"], json!(Check::LONGEST));
}
