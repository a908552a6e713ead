//! A credential of tenant `b` in the wrong hands: every call of the document, aimed at tenant `a`.

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::lab::{Lab, announcement, operator, tenant};
use crate::registry::api::{OPEN_PATHS, document};
use crate::registry::auth::{BearerToken, Caller, Tokens};

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

/// A token of tenant `b` that an operator made for something narrow, and what it tries beyond that.
#[tokio::test]
async fn a_scoped_one_is_worth_no_more_than_what_it_is_for() {
    let lab = Lab::new().await;
    let b = tenant("b");
    let own = "10.0.2.1:31390";
    let (master, worker) = ("/v1/tenants/b/instances/m1", "/v1/tenants/b/instances/w1");
    let masters = announcement(&[("api.b.example.org", "10.0.2.9:443")]);
    assert_eq!(
        lab.call(&b, "PUT", master, masters.clone()).await.status,
        200
    );
    let kept = json!({"endpoints": ["10.0.2.9:443"]});
    let put = lab
        .call(&b, "PUT", "/v1/routes/kept.b.example.org", kept)
        .await;
    assert_eq!(put.status, 201);

    let scope =
        json!({"instance": "w1", "patterns": ["*.apps.b.example.org"], "addresses": ["10.0.2.1"]});
    let (of_instance, id) = scoped(&lab, scope.clone()).await;
    let listed = lab
        .call(&operator(), "GET", "/v1/tokens", Value::Null)
        .await;
    let listed = listed.body["tokens"].as_array().unwrap();
    let listed = listed.iter().find(|it| it["id"] == *id).unwrap();
    assert_eq!(listed["scope"], scope);
    let rest = json!({"patterns": ["*.apps.b.example.org"]});
    let (of_routes, _) = scoped(&lab, rest).await;
    lab.settle().await;
    let before = lab.everything().await;
    let mine = announcement(&[("x.apps.b.example.org", own)]);
    let hosts = |host: &str| announcement(&[("x.apps.b.example.org", own), (host, own)]);
    let route = json!({"endpoints": [own]});
    let none = Value::Null;
    for (caller, method, path, body) in [
        (&of_instance, "DELETE", master, none.clone()),
        (&of_instance, "PUT", master, mine.clone()),
        (&of_instance, "PUT", master, masters.clone()),
        (&of_instance, "PUT", worker, hosts("api.b.example.org")),
        (&of_instance, "PUT", worker, hosts("*.b.example.org")),
        (
            &of_instance,
            "PUT",
            worker,
            announcement(&[("x.apps.b.example.org", "10.0.2.2:31390")]),
        ),
        (
            &of_instance,
            "PUT",
            "/v1/routes/x.apps.b.example.org",
            route.clone(),
        ),
        (
            &of_instance,
            "DELETE",
            "/v1/routes/kept.b.example.org",
            none.clone(),
        ),
        (
            &of_routes,
            "PUT",
            "/v1/routes/kept.b.example.org",
            route.clone(),
        ),
        (
            &of_routes,
            "PUT",
            "/v1/routes/*.b.example.org",
            route.clone(),
        ),
        (
            &of_routes,
            "DELETE",
            "/v1/routes/kept.b.example.org",
            none.clone(),
        ),
        (&of_routes, "DELETE", master, none.clone()),
        (&of_routes, "PUT", master, mine.clone()),
        (&of_routes, "PUT", worker, mine.clone()),
    ] {
        let answer = lab.call(caller, method, path, body.clone()).await;
        let what = format!("{method} {path} {body}: {answer:?}");
        assert_eq!(
            (answer.status, answer.reason()),
            (403, "outside-scope"),
            "{what}"
        );
    }
    // Others' things are others' as ever.
    let foreign = lab
        .call(
            &of_instance,
            "DELETE",
            "/v1/tenants/a/instances/w1",
            none.clone(),
        )
        .await;
    assert_eq!(foreign.reason(), "wrong-tenant");
    assert_eq!(lab.everything().await, before, "nothing was written");
    // What they are for, they do.
    assert_eq!(
        lab.call(&of_instance, "PUT", worker, mine).await.status,
        200
    );
    assert_eq!(
        lab.call(&of_instance, "DELETE", worker, none.clone())
            .await
            .status,
        204
    );
    let path = "/v1/routes/y.apps.b.example.org";
    assert_eq!(lab.call(&of_routes, "PUT", path, route).await.status, 201);
    assert_eq!(lab.call(&of_routes, "DELETE", path, none).await.status, 204);
}

#[tokio::test]
async fn a_scope_is_narrower_than_the_zones_and_never_wider() {
    let lab = Lab::new().await;
    let wide = json!({"instance": "w1", "patterns": ["*.a.example.org", "*.b.example.org"], "addresses": ["10.0.0.0/8"]});
    let (caller, _) = scoped(&lab, wide).await;
    for (host, endpoint, reason) in [
        ("x.a.example.org", "10.0.2.1:1", "outside-zones"),
        ("x.b.example.org", A, "address-outside-zones"),
    ] {
        let body = announcement(&[(host, endpoint)]);
        let answer = lab
            .call(&caller, "PUT", "/v1/tenants/b/instances/w1", body)
            .await;
        assert_eq!((answer.status, answer.reason()), (403, reason));
    }
    for wrong in [
        json!({}),
        json!({"instance": "W1"}),
        json!({"patterns": ["*"]}),
        json!({"addresses": ["10.0.0.1/8"]}),
        json!({"instances": ["w1"]}),
        json!({"patterns": ["*.b.example.org", "*.B.example.org"]}),
        json!({"addresses": ["10.0.0.1", "10.0.0.1"]}),
        json!({"patterns": vec!["*.b.example.org"; 33]}),
    ] {
        let body = json!({"tenant": "b", "scope": wrong});
        let answer = lab.call(&operator(), "POST", "/v1/tokens", body).await;
        assert_eq!(
            (answer.status, answer.reason()),
            (422, "invalid"),
            "{answer:?}"
        );
    }
}

/// A token of `b` as an operator makes it and the guard knows it, and its id.
async fn scoped(lab: &Lab, scope: Value) -> (Caller, String) {
    let body = json!({"tenant": "b", "scope": scope});
    let made = lab.call(&operator(), "POST", "/v1/tokens", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    lab.settle().await;
    let token = BearerToken::parse(made.body["token"].as_str().unwrap()).unwrap();
    let tokens = Tokens::new(Arc::clone(&lab.registry) as _, None);
    let caller = tokens.check(&token, SystemTime::now()).unwrap();
    (caller, token.id)
}
