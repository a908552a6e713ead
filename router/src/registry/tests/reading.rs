//! What is read of routes, and what answers say about themselves.

use serde_json::{Value, json};

use super::lab::{Lab, operator, tenant};

/// Authorities are long: lists and watches name them, and one route shows them.
#[tokio::test]
async fn authorities_are_shown_once_with_a_single_route() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let pem = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
    let pem = pem.cert.pem();
    let tls = json!({"server_name": "x", "trust": {"ca-pem": pem}});
    let path = "/v1/routes/www.a.example.org";
    let body = json!({"endpoints": ["10.0.1.1:1"], "tls": tls});
    assert_eq!(lab.call(&a, "PUT", path, body).await.status, 201);
    let body = json!({"ttl": 60, "routes": [
        {"host": "www.a.example.org", "endpoint": "10.0.1.2:1", "tls": tls},
    ]});
    let w1 = "/v1/tenants/a/instances/w1";
    assert_eq!(lab.call(&a, "PUT", w1, body).await.status, 200);
    lab.settle().await;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, pem.as_bytes());
    let digest = crate::registry::hex::to_hex(digest.as_ref());
    let list = lab.call(&a, "GET", "/v1/routes", Value::Null).await.body;
    let listed = &list["routes"][0];
    assert_eq!(listed["sources"].as_array().unwrap().len(), 2);
    for source in listed["sources"].as_array().unwrap() {
        assert_eq!(source["tls"]["trust"], json!({"ca-sha256": digest}));
    }
    assert!(!list.to_string().contains("CERTIFICATE"), "{list}");
    let mut shown = lab.call(&a, "GET", path, Value::Null).await.body;
    assert_eq!(shown["authorities"], json!({digest: pem}));
    shown.as_object_mut().unwrap().remove("authorities");
    assert_eq!(shown, *listed);
}

/// An operator who means one tenant's route does not touch another's.
#[tokio::test]
async fn the_tenant_of_a_query_is_a_condition() {
    let lab = Lab::new().await;
    let path = "/v1/routes/www.a.example.org";
    let body = json!({"endpoints": ["10.0.1.1:1"]});
    assert_eq!(lab.call(&tenant("a"), "PUT", path, body).await.status, 201);
    lab.settle().await;
    let of = |name: &str| format!("{path}?tenant={name}");
    for (caller, method, target, status) in [
        (operator(), "GET", of("b"), 404),
        (operator(), "DELETE", of("b"), 404),
        (tenant("a"), "DELETE", of("b"), 403),
        (tenant("b"), "DELETE", of("b"), 404),
        (operator(), "DELETE", format!("{path}?tenants=a"), 400),
        (operator(), "GET", of("a"), 200),
        (tenant("a"), "GET", of("a"), 200),
        (operator(), "DELETE", of("a"), 204),
    ] {
        let answer = lab.call(&caller, method, &target, Value::Null).await;
        assert_eq!(answer.status, status, "{method} {target}: {answer:?}");
    }
}

#[tokio::test]
async fn a_route_that_is_known_is_not_sent_again() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let path = "/v1/routes/www.a.example.org";
    let body = json!({"endpoints": ["10.0.1.1:1"]});
    let etag = lab.call(&a, "PUT", path, body).await.etag();
    lab.settle().await;
    let weak = format!("\"x\", W/{etag}");
    for (tags, status) in [(&*etag, 304), (&*weak, 304), ("*", 304), ("\"x\"", 200)] {
        let headers = [("if-none-match", tags)];
        let answer = lab.ask(&a, "GET", path, &headers, Value::Null).await;
        assert_eq!((answer.status, answer.etag()), (status, etag.clone()));
        assert_eq!(answer.body.is_null(), status == 304);
    }
    let other = "/v1/routes/other.a.example.org";
    let headers = [("if-none-match", "*")];
    let answer = lab.ask(&a, "GET", other, &headers, Value::Null).await;
    assert_eq!(answer.status, 404);
}

#[tokio::test]
async fn answers_say_for_how_long_the_store_has_been_out_of_reach() {
    let lab = Lab::new().await;
    for reachable in [true, false, true] {
        lab.registry.set_reachable(reachable);
        for path in ["/v1/routes", "/v1/instances", "/v1/zones", "/v1/watch"] {
            let answer = lab
                .response(&operator(), "GET", path, &[], Value::Null)
                .await;
            let stale = answer.headers().get("gatehouse-stale");
            let seconds = stale.map(|it| it.to_str().unwrap().parse::<u64>().unwrap());
            assert_eq!(
                (answer.status().as_u16(), seconds.is_none()),
                (200, reachable),
                "{path}"
            );
        }
        let health = lab
            .response(&operator(), "GET", "/v1/health", &[], Value::Null)
            .await;
        assert!(!health.headers().contains_key("gatehouse-stale"));
    }
}
