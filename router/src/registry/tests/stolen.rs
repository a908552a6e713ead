//! A credential of tenant `b` in the wrong hands: every call of the document, aimed at tenant `a`.

use serde_json::{Value, json};

use super::lab::{Lab, announcement, operator, tenant};
use crate::registry::api::{OPEN_PATHS, document};

const A: &str = "10.0.1.1:31390";

#[tokio::test]
async fn it_opens_nothing_of_another_tenant() {
    let lab = Lab::new().await;
    let a = tenant("a");
    lab.call(
        &a,
        "PUT",
        "/v1/routes/www.a.example.org",
        json!({"endpoints": [A]}),
    )
    .await;
    lab.call(
        &a,
        "PUT",
        "/v1/tenants/a/instances/w1",
        announcement(&[("x.a.example.org", A)]),
    )
    .await;
    let token = json!({"tenant": "a", "note": "secret-note"});
    let token = lab.call(&operator(), "POST", "/v1/tokens", token).await;
    let id = token.body["id"].as_str().unwrap().to_owned();
    lab.settle().await;
    let before = lab.everything().await;

    let thief = tenant("b");
    let document = document();
    let mut calls = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        if OPEN_PATHS.contains(&path.as_str()) {
            continue;
        }
        for method in methods.as_object().unwrap().keys() {
            for target in targets(path, &id) {
                for body in bodies(method, path) {
                    let method = method.to_ascii_uppercase();
                    let response = lab
                        .response(&thief, &method, &target, &[], body.clone())
                        .await;
                    let status = response.status().as_u16();
                    let told = if path == "/v1/watch" && status == 200 {
                        String::new()
                    } else {
                        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20)
                            .await
                            .unwrap();
                        String::from_utf8(bytes.to_vec()).unwrap()
                    };
                    calls += 1;
                    let what = format!("{method} {target} {body}: {status} {told}");
                    // Lists without a tenant answer with b's own: nothing.
                    let own_list = method == "GET" && status == 200 && !target.contains("tenant=a");
                    assert!(own_list || (400..500).contains(&status), "{what}");
                    for secret in ["secret-note", A, "\"a\"", "tenant a"] {
                        assert!(!told.contains(secret), "{what}");
                    }
                }
            }
        }
    }
    assert!(calls > 60, "{calls}");
    assert_eq!(lab.everything().await, before, "nothing was written");
}

/// A path of the document with everything that may stand in it and is a's, or nobody's.
fn targets(path: &str, token: &str) -> Vec<String> {
    let filled = |path: &str, host: &str| {
        path.replace("{host}", host)
            .replace("{pattern}", host)
            .replace("{tenant}", "a")
            .replace("{instance}", "w1")
            .replace("{id}", token)
    };
    let hosts = [
        "www.a.example.org",
        "new.a.example.org",
        "*.a.example.org",
        "*-7.a.example.org",
        "*.example.org",
    ];
    let mut all: Vec<_> = hosts.iter().map(|host| filled(path, host)).collect();
    all.dedup();
    let with_tenant: Vec<_> = all
        .iter()
        .map(|target| format!("{target}?tenant=a"))
        .collect();
    all.extend(with_tenant);
    all
}

fn bodies(method: &str, path: &str) -> Vec<Value> {
    let own = "10.0.2.1:31390";
    match (method, path) {
        ("put", "/v1/routes/{host}") => vec![
            json!({"endpoints": [own]}),
            json!({"endpoints": [A]}),
            json!({"endpoints": [own], "tenant": "a"}),
        ],
        ("put", "/v1/zones/{tenant}/{pattern}") => {
            vec![json!({"addresses": ["10.0.2.0/24"], "shared": true})]
        }
        ("put", _) => vec![
            announcement(&[("www.a.example.org", own)]),
            announcement(&[("x.b.example.org", A)]),
            announcement(&[("*.b.example.org", own), ("*.a.example.org", own)]),
        ],
        ("post", _) => vec![json!({"tenant": "a"}), json!({"tenant": "b"})],
        _ => vec![Value::Null],
    }
}

#[tokio::test]
async fn nor_does_it_lead_its_own_names_to_another_tenants_nodes() {
    let lab = Lab::new().await;
    let thief = tenant("b");
    let put = lab
        .call(
            &thief,
            "PUT",
            "/v1/routes/www.b.example.org",
            json!({"endpoints": [A]}),
        )
        .await;
    assert_eq!((put.status, put.reason()), (403, "address-outside-zones"));
    let body = announcement(&[("x.b.example.org", A)]);
    let announced = lab
        .call(&thief, "PUT", "/v1/tenants/b/instances/w1", body)
        .await;
    assert_eq!(
        (announced.status, announced.reason()),
        (403, "address-outside-zones")
    );
}
