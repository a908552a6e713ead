//! Names, and who holds them.

use serde_json::{Value, json};

use super::lab::{Lab, MOST, MOST_INSTANCES, announcement, operator, tenant};

const A: &str = "10.0.1.1:31390";

fn route(endpoint: &str) -> Value {
    json!({"endpoints": [endpoint]})
}

#[tokio::test]
async fn a_route_is_put_shown_changed_and_deleted() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let path = "/v1/routes/www.a.example.org";
    let created = lab.call(&a, "PUT", path, route(A)).await;
    assert_eq!(
        (created.status, &created.body["tenant"]),
        (201, &json!("a"))
    );
    assert_eq!(lab.endpoints("www.a.example.org").await, [A]);
    let shown = lab.call(&a, "GET", path, Value::Null).await;
    assert_eq!((shown.status, &shown.body), (200, &created.body));
    assert_eq!(shown.etag(), created.etag());
    let replaced = lab.call(&a, "PUT", path, route("10.0.1.2:1")).await;
    assert_eq!(replaced.status, 200);
    assert_ne!(replaced.etag(), created.etag());
    assert_eq!(lab.endpoints("www.a.example.org").await, ["10.0.1.2:1"]);
    assert_eq!(lab.call(&a, "DELETE", path, Value::Null).await.status, 204);
    assert_eq!(lab.endpoints("www.a.example.org").await, [""; 0]);
    for method in ["GET", "DELETE"] {
        let gone = lab.call(&a, method, path, Value::Null).await;
        assert_eq!((gone.status, gone.reason()), (404, "not-found"));
    }
}

#[tokio::test]
async fn conditions_keep_one_writer_from_undoing_another() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let path = "/v1/routes/www.a.example.org";
    let none = [("if-none-match", "*")];
    let some = [("if-match", "*")];
    let missing = lab.ask(&a, "PUT", path, &some, route(A)).await;
    assert_eq!((missing.status, missing.reason()), (412, "changed"));
    let first = lab.ask(&a, "PUT", path, &none, route(A)).await;
    assert_eq!(first.status, 201);
    assert_eq!(lab.ask(&a, "PUT", path, &none, route(A)).await.status, 412);
    let etag = first.etag();
    let known = [("if-match", &*etag)];
    let second = lab.ask(&a, "PUT", path, &known, route("10.0.1.2:1")).await;
    assert_eq!(second.status, 200);
    for (method, body) in [("PUT", route(A)), ("DELETE", Value::Null)] {
        let stale = lab.ask(&a, method, path, &known, body).await;
        assert_eq!((stale.status, stale.reason()), (412, "changed"), "{method}");
    }
    assert_eq!(lab.endpoints("www.a.example.org").await, ["10.0.1.2:1"]);
    let etag = second.etag();
    let gone = lab
        .ask(&a, "DELETE", path, &[("if-match", &*etag)], Value::Null)
        .await;
    assert_eq!(gone.status, 204);
}

#[tokio::test]
async fn the_second_claimant_is_refused_and_gets_no_traffic() {
    let lab = Lab::new().await;
    let zone = json!({"addresses": ["10.0.0.0/8"], "shared": true});
    for name in ["a", "b"] {
        let path = format!("/v1/zones/{name}/*.shared.example.org");
        assert_eq!(
            lab.call(&operator(), "PUT", &path, zone.clone())
                .await
                .status,
            201
        );
    }
    let (a, b) = (tenant("a"), tenant("b"));
    let name = "/v1/routes/x-7.shared.example.org";
    assert_eq!(
        lab.call(&a, "PUT", name, route("10.0.0.1:1")).await.status,
        201
    );
    let second = lab.call(&b, "PUT", name, route("10.0.0.2:1")).await;
    assert_eq!(
        (second.status, second.reason()),
        (409, "held-by-another-tenant")
    );
    let told = second.body.to_string();
    assert!(!told.contains("tenant a"), "{told}");
    let told_operator = lab
        .call(
            &operator(),
            "PUT",
            &format!("{name}?tenant=b"),
            route("10.0.0.2:1"),
        )
        .await;
    assert!(told_operator.body.to_string().contains("tenant a"));
    // Neither a suffix above it, nor, once that is held, a name within.
    let above = lab
        .call(
            &b,
            "PUT",
            "/v1/routes/*-7.shared.example.org",
            route("10.0.0.2:1"),
        )
        .await;
    assert_eq!(
        (above.status, above.reason()),
        (409, "held-by-another-tenant")
    );
    assert_eq!(
        lab.call(
            &a,
            "PUT",
            "/v1/routes/*-8.shared.example.org",
            route("10.0.0.1:1")
        )
        .await
        .status,
        201
    );
    let within = lab
        .call(
            &b,
            "PUT",
            "/v1/routes/y-8.shared.example.org",
            route("10.0.0.2:1"),
        )
        .await;
    assert_eq!(
        (within.status, within.reason()),
        (409, "within-another-tenants-suffix")
    );
    let path = "/v1/tenants/b/instances/w1";
    let announced = lab
        .call(
            &b,
            "PUT",
            path,
            announcement(&[("y-8.shared.example.org", "10.0.0.2:1")]),
        )
        .await;
    assert_eq!(
        (announced.status, announced.reason()),
        (409, "within-another-tenants-suffix")
    );
    assert_eq!(announced.body["host"], "y-8.shared.example.org");
    assert_eq!(
        lab.endpoints("x-7.shared.example.org").await,
        ["10.0.0.1:1"]
    );
    assert_eq!(lab.endpoints("y-8.shared.example.org").await, [""; 0]);
    // When the first lets go, the second may.
    assert_eq!(lab.call(&a, "DELETE", name, Value::Null).await.status, 204);
    assert_eq!(
        lab.call(&b, "PUT", name, route("10.0.0.2:1")).await.status,
        201
    );
}

#[tokio::test]
async fn of_many_claimants_at_once_one_holds() {
    let lab = Lab::new().await;
    for index in 0..12 {
        let zone = json!({"addresses": ["10.0.0.0/8"], "shared": true});
        let path = format!("/v1/zones/t{index}/*.shared.example.org");
        assert_eq!(lab.call(&operator(), "PUT", &path, zone).await.status, 201);
    }
    for name in ["race.shared.example.org", "*-race.shared.example.org"] {
        let claims = (0..12).map(|index| {
            let lab = &lab;
            // Names that lie within each other race as well as equal ones do.
            let name = if index % 3 == 0 {
                name.replace('*', "x")
            } else {
                name.to_owned()
            };
            async move {
                let body = announcement(&[(&name, &format!("10.0.0.{index}:1"))]);
                let path = format!("/v1/tenants/t{index}/instances/w1");
                lab.call(&tenant(&format!("t{index}")), "PUT", &path, body)
                    .await
                    .status
            }
        });
        let mut won = 0;
        for status in join_all(claims).await {
            assert!(matches!(status, 200 | 409), "{status}");
            won += usize::from(status == 200);
        }
        assert_eq!(won, 1, "{name}");
        lab.settle().await;
        let held = lab
            .published
            .lock()
            .unwrap()
            .values()
            .filter(|it| it.host.to_string().contains("race"))
            .count();
        assert_eq!(held, 1);
        for index in 0..12 {
            let path = format!("/v1/tenants/t{index}/instances/w1");
            lab.call(&operator(), "DELETE", &path, Value::Null).await;
        }
        lab.settle().await;
    }
}

async fn join_all<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut running: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    std::future::poll_fn(|cx| {
        let mut pending = false;
        for (future, done) in running.iter_mut().zip(&mut done) {
            if done.is_none() {
                match future.as_mut().poll(cx) {
                    std::task::Poll::Ready(value) => *done = Some(value),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn names_and_addresses_outside_the_zones_are_refused() {
    let lab = Lab::new().await;
    let a = tenant("a");
    for (host, endpoint, reason) in [
        ("www.b.example.org", A, "outside-zones"),
        ("a.example.org", A, "outside-zones"),
        (
            "www.a.example.org",
            "10.0.2.1:31390",
            "address-outside-zones",
        ),
        (
            "www.a.example.org",
            "127.0.0.1:9000",
            "address-outside-zones",
        ),
        ("www.a.example.org", "[::1]:9000", "address-outside-zones"),
    ] {
        let put = lab
            .call(&a, "PUT", &format!("/v1/routes/{host}"), route(endpoint))
            .await;
        assert_eq!(
            (put.status, put.reason()),
            (403, reason),
            "{host} {endpoint}"
        );
        let body = announcement(&[("ok.a.example.org", A), (host, endpoint)]);
        let announced = lab
            .call(&a, "PUT", "/v1/tenants/a/instances/w1", body)
            .await;
        assert_eq!((announced.status, announced.reason()), (403, reason));
        assert_eq!(announced.body["host"], host);
    }
    // One spelling per address.
    let mapped = lab
        .call(
            &a,
            "PUT",
            "/v1/routes/www.a.example.org",
            route("[::ffff:10.0.1.1]:31390"),
        )
        .await;
    assert_eq!(
        (mapped.status, &mapped.body["endpoints"]),
        (201, &json!([A]))
    );
}

#[tokio::test]
async fn a_name_that_stands_in_a_file_is_nobodys_to_claim() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let put = lab
        .call(&a, "PUT", "/v1/routes/file.a.example.org", route(A))
        .await;
    assert_eq!((put.status, put.reason()), (409, "stands-in-a-file"));
    let body = announcement(&[("file.a.example.org", A)]);
    let announced = lab
        .call(&a, "PUT", "/v1/tenants/a/instances/w1", body)
        .await;
    assert_eq!(
        (announced.status, announced.reason()),
        (409, "stands-in-a-file")
    );
    // Whoever has no zone for a name does not learn whether it stands in a file.
    let mut told = Vec::new();
    for name in ["file.b.example.org", "nofile.b.example.org"] {
        let body = announcement(&[(name, A)]);
        for (path, body) in [
            (format!("/v1/routes/{name}"), route(A)),
            ("/v1/tenants/a/instances/w1".to_owned(), body),
        ] {
            let refused = lab.call(&a, "PUT", &path, body).await;
            assert_eq!((refused.status, refused.reason()), (403, "outside-zones"));
            told.push(refused.body.to_string().replace("nofile", "file"));
        }
    }
    assert_eq!(told[..2], told[2..]);
}

#[tokio::test]
async fn who_is_at_the_limit_may_put_one_name_in_the_place_of_another() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let announce = async |instance: &str, hosts: &[&str]| {
        let hosts: Vec<_> = hosts
            .iter()
            .map(|host| format!("{host}.a.example.org"))
            .collect();
        let routes: Vec<_> = hosts.iter().map(|host| (&**host, A)).collect();
        let path = format!("/v1/tenants/a/instances/{instance}");
        let answer = lab.call(&a, "PUT", &path, announcement(&routes)).await;
        lab.settle().await;
        (answer.status, answer.reason().to_owned())
    };
    for index in 2..MOST {
        let path = format!("/v1/routes/n{index}.a.example.org");
        lab.call(&a, "PUT", &path, route(A)).await;
    }
    let full = (409, "too-many-routes".to_owned());
    assert_eq!(announce("w1", &["x", "y"]).await.0, 200);
    assert_eq!(announce("w1", &["x", "y", "z"]).await, full);
    assert_eq!(announce("w1", &["x", "z"]).await.0, 200);
    // Another instance has it as well: nothing is given up.
    assert_eq!(announce("w2", &["z"]).await.0, 200);
    assert_eq!(announce("w1", &["x", "y"]).await, full);
}

#[tokio::test]
async fn a_tenant_holds_only_so_many_routes() {
    let lab = Lab::new().await;
    let a = tenant("a");
    for index in 0..MOST {
        let path = format!("/v1/routes/n{index}.a.example.org");
        assert_eq!(lab.call(&a, "PUT", &path, route(A)).await.status, 201);
    }
    lab.settle().await;
    let one_more = lab
        .call(&a, "PUT", "/v1/routes/more.a.example.org", route(A))
        .await;
    assert_eq!(
        (one_more.status, one_more.reason()),
        (409, "too-many-routes")
    );
    let body = announcement(&[("more.a.example.org", A)]);
    let announced = lab
        .call(&a, "PUT", "/v1/tenants/a/instances/w1", body)
        .await;
    assert_eq!(
        (announced.status, announced.reason()),
        (409, "too-many-routes")
    );
    // What it holds it may change, and announce as well.
    assert_eq!(
        lab.call(
            &a,
            "PUT",
            "/v1/routes/n1.a.example.org",
            route("10.0.1.9:1")
        )
        .await
        .status,
        200
    );
    let body = announcement(&[("n2.a.example.org", A)]);
    assert_eq!(
        lab.call(&a, "PUT", "/v1/tenants/a/instances/w1", body)
            .await
            .status,
        200
    );
}

#[tokio::test]
async fn nor_more_by_asking_for_many_at_once() {
    let lab = Lab::new().await;
    let puts = (0..MOST + 10).map(|index| {
        let (lab, path) = (&lab, format!("/v1/routes/n{index}.a.example.org"));
        async move { lab.call(&tenant("a"), "PUT", &path, route(A)).await.status }
    });
    let statuses = join_all(puts).await;
    let with = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!((with(201), with(409)), (MOST, 10));
}

#[tokio::test]
async fn only_so_many_instances_of_a_tenant_announce() {
    let lab = Lab::new().await;
    let announce = async |index: usize, endpoint: &str| {
        let path = format!("/v1/tenants/a/instances/w{index}");
        let body = announcement(&[("x.a.example.org", endpoint)]);
        let answer = lab.call(&tenant("a"), "PUT", &path, body).await;
        (answer.status, answer.reason().to_owned())
    };
    // The view need not know of them to count them.
    lab.stop_following();
    let announcing = (0..MOST_INSTANCES + 5).map(|index| announce(index, A));
    let answers = join_all(announcing).await;
    let refused = (409, "too-many-instances".to_owned());
    let count = answers.iter().filter(|it| **it == refused).count();
    assert_eq!(count, 5, "{answers:?}");
    assert!(answers.iter().all(|it| it.0 == 200 || *it == refused));
    lab.follow_again();
    lab.settle().await;
    let known = answers.iter().position(|it| it.0 == 200).unwrap();
    assert_eq!(announce(known, "10.0.1.2:1").await.0, 200);
    assert_eq!(announce(MOST_INSTANCES + 9, A).await, refused);
    let path = format!("/v1/tenants/a/instances/w{known}");
    lab.call(&tenant("a"), "DELETE", &path, Value::Null).await;
    assert_eq!(announce(MOST_INSTANCES + 9, A).await.0, 200);
}

#[tokio::test]
async fn a_route_has_only_so_many_endpoints_of_all_sources_together() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let path = |index: usize| format!("/v1/tenants/a/instances/w{index}");
    let ports = |index: usize, count: usize| {
        let endpoints: Vec<_> = (0..count)
            .map(|port| format!("10.0.1.{index}:{}", port + 1))
            .collect();
        let routes: Vec<_> = endpoints
            .iter()
            .map(|it| ("x.a.example.org", &**it))
            .collect();
        announcement(&routes)
    };
    for index in 0..8 {
        let answer = lab.call(&a, "PUT", &path(index), ports(index, 32)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let refused = lab.call(&a, "PUT", &path(8), ports(8, 1)).await;
    assert_eq!(
        (refused.status, refused.reason()),
        (409, "too-many-endpoints")
    );
    assert_eq!(refused.body["host"], "x.a.example.org");
    let put = lab
        .call(&a, "PUT", "/v1/routes/x.a.example.org", route("10.0.1.9:1"))
        .await;
    assert_eq!(put.reason(), "too-many-endpoints");
    assert_eq!(
        lab.call(&a, "PUT", &path(0), ports(0, 31)).await.status,
        200
    );
    assert_eq!(lab.call(&a, "PUT", &path(8), ports(8, 1)).await.status, 200);
}

#[tokio::test]
async fn all_that_is_kept_of_a_tenant_is_only_so_large() {
    let lab = Lab::new().await;
    let a = tenant("a");
    let endpoints: Vec<_> = (0..64)
        .map(|it| format!("10.0.1.100:{}", 10_000 + it))
        .collect();
    let large = json!({"endpoints": endpoints});
    let mut refused = 0;
    for index in 0..MOST {
        let path = format!("/v1/routes/n{index}.a.example.org");
        let answer = lab.call(&a, "PUT", &path, large.clone()).await;
        if answer.status != 201 {
            assert_eq!((answer.status, answer.reason()), (409, "too-much-data"));
            refused += 1;
        }
    }
    assert!((1..20).contains(&refused), "{refused}");
    let path = "/v1/routes/n0.a.example.org";
    assert_eq!(
        lab.call(&a, "PUT", path, large).await.status,
        200,
        "as large as before"
    );
    assert_eq!(lab.call(&a, "DELETE", path, Value::Null).await.status, 204);
    assert_eq!(lab.call(&a, "PUT", path, route(A)).await.status, 201);
    let other = "/v1/routes/n.b.example.org";
    let other = lab
        .call(&tenant("b"), "PUT", other, route("10.0.2.1:1"))
        .await;
    assert_eq!(other.status, 201);
}

#[tokio::test]
async fn zones_do_not_overlap_unless_both_are_shared() {
    let lab = Lab::new().await;
    let ops = operator();
    let zone = |shared: bool| json!({"addresses": ["10.0.0.0/8"], "shared": shared});
    for pattern in [
        "*.a.example.org",
        "*-7.a.example.org",
        "www.a.example.org",
        "*.example.org",
    ] {
        let path = format!("/v1/zones/b/{pattern}");
        for shared in [false, true] {
            let put = lab.call(&ops, "PUT", &path, zone(shared)).await;
            assert_eq!(
                (put.status, put.reason()),
                (409, "zones-overlap"),
                "{pattern}"
            );
        }
    }
    assert_eq!(
        lab.call(&ops, "PUT", "/v1/zones/a/*.a.example.org", zone(true))
            .await
            .status,
        200
    );
    assert_eq!(
        lab.call(&ops, "PUT", "/v1/zones/b/*-7.a.example.org", zone(true))
            .await
            .status,
        201
    );
    let narrowed = lab
        .call(&ops, "PUT", "/v1/zones/a/*.a.example.org", zone(false))
        .await;
    assert_eq!(narrowed.reason(), "zones-overlap");
}

#[tokio::test]
async fn who_loses_a_zone_loses_its_routes_at_once() {
    let lab = Lab::new().await;
    let (a, ops) = (tenant("a"), operator());
    lab.call(&a, "PUT", "/v1/routes/www.a.example.org", route(A))
        .await;
    let body = announcement(&[("x.a.example.org", A), ("y.a.example.org", "10.0.1.200:1")]);
    let announce = async || {
        lab.call(&a, "PUT", "/v1/tenants/a/instances/w1", body.clone())
            .await
    };
    assert_eq!(announce().await.status, 200);
    // Half of the addresses are taken out.
    let narrower = json!({"addresses": ["10.0.1.0/25"]});
    assert_eq!(
        lab.call(
            &ops,
            "PUT",
            "/v1/zones/a/*.a.example.org?evict=true",
            narrower
        )
        .await
        .status,
        200
    );
    assert_eq!(lab.endpoints("x.a.example.org").await, [A]);
    assert_eq!(lab.endpoints("y.a.example.org").await, [""; 0]);
    let again = announce().await;
    assert_eq!(
        (again.status, again.reason()),
        (403, "address-outside-zones"),
        "not merely renewed"
    );
    assert_eq!(
        lab.call(
            &ops,
            "DELETE",
            "/v1/zones/a/*.a.example.org?evict=true",
            Value::Null
        )
        .await
        .status,
        200
    );
    lab.settle().await;
    assert!(lab.published.lock().unwrap().is_empty());
    assert_eq!(announce().await.reason(), "outside-zones");
}

#[tokio::test]
async fn lists_come_in_pages_and_show_tenants_their_own() {
    let lab = Lab::new().await;
    let (a, b) = (tenant("a"), tenant("b"));
    for index in 0..7 {
        lab.call(
            &a,
            "PUT",
            &format!("/v1/routes/n{index}.a.example.org"),
            route(A),
        )
        .await;
    }
    lab.call(
        &b,
        "PUT",
        "/v1/routes/www.b.example.org",
        route("10.0.2.1:1"),
    )
    .await;
    for index in 0..3 {
        let body = announcement(&[("i.a.example.org", A)]);
        lab.call(
            &a,
            "PUT",
            &format!("/v1/tenants/a/instances/w{index}"),
            body,
        )
        .await;
    }
    lab.settle().await;
    for (caller, list, expected) in [
        (a.clone(), "routes", 8),
        (b.clone(), "routes", 1),
        (operator(), "routes", 9),
        (a, "instances", 3),
        (b, "instances", 0),
        (operator(), "instances", 3),
    ] {
        let pages = lab.pages(&caller, list, "").await;
        let entries = pages.iter().flat_map(|page| page[list].as_array().unwrap());
        let mut found: Vec<_> = entries.map(ToString::to_string).collect();
        let count = found.len();
        found.sort();
        found.dedup();
        assert_eq!((count, found.len()), (expected, expected), "{list}");
    }
}
