//! The client against a scripted registry.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use http::Method;
use serde_json::json;

use super::scripted::{Authority, Reply, Scripted, token};
use super::*;
use crate::registry::api::types::{AnnouncedRoute, Announcement};

fn announcement() -> Announcement {
    Announcement {
        ttl: 60,
        routes: vec![AnnouncedRoute {
            host: "*-7.example.org".into(),
            endpoint: "10.0.7.21:31380".parse().unwrap(),
            protocol: Default::default(),
            tls: None,
            shared: false,
        }],
    }
}

fn announced() -> Reply {
    Reply::json(200, &json!({"revision": 3, "ttl": 60, "renewed": false}))
}

fn route() -> serde_json::Value {
    json!({
        "host": "a.example.org", "tenant": "acme", "endpoints": ["10.0.0.1:1"],
        "protocol": "http1", "shared": false, "sources": [], "revision": 9,
    })
}

#[tokio::test]
async fn calls_go_over_one_connection_with_the_token() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| match seen.method {
        Method::PUT => announced(),
        _ => Reply::status(204),
    })
    .await;
    let client = registry.client(authority.token());
    for _ in 0..2 {
        let answer = client
            .announce("acme", "w1", &announcement(), DEADLINE)
            .await
            .unwrap();
        assert_eq!(answer.revision, 3);
    }
    client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    let seen = registry.seen();
    assert_eq!(seen.len(), 3);
    for request in &seen {
        assert_eq!(request.path, "/v1/tenants/acme/instances/w1");
        assert_eq!(
            request.fields["authorization"],
            format!("Bearer {}", token(1)).as_str()
        );
        assert_eq!(
            request.fields["host"],
            registry.address.to_string().as_str()
        );
        assert_eq!((request.connection, request.certificate), (0, false));
    }
    assert_eq!(
        seen[0].json(),
        json!({"ttl": 60, "routes": [{
            "host": "*-7.example.org", "endpoint": "10.0.7.21:31380", "protocol": "http1",
            "shared": false,
        }]})
    );
    assert_eq!(seen[0].fields["content-type"], "application/json");
}

#[tokio::test]
async fn a_client_certificate_proves_who_calls() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |_| Reply::status(204)).await;
    let client = registry.client(authority.certificate());
    client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    let seen = &registry.seen()[0];
    assert!(seen.certificate && !seen.fields.contains_key("authorization"));
}

#[tokio::test]
async fn a_registry_that_a_stranger_signed_gets_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let registry = Scripted::start(&stranger, |_| Reply::status(204)).await;
    let client = registry.client(authority.token());
    let error = client.withdraw("acme", "w1", DEADLINE).await.unwrap_err();
    assert!(error.is_worth_another_registry());
    assert!(
        error.to_string().contains("invalid peer certificate"),
        "{error}"
    );
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn a_token_that_others_can_read_never_leaves() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |_| Reply::status(204)).await;
    let credentials = authority.token();
    let Proof::Token(file) = &credentials.proof else {
        unreachable!()
    };
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    let client = registry.client(credentials);
    let error = client.withdraw("acme", "w1", DEADLINE).await.unwrap_err();
    assert!(error.to_string().ends_with("chmod go= it"), "{error}");
    assert!(!error.is_worth_another_registry());
    assert!(registry.seen().is_empty());
}

#[tokio::test]
async fn a_replaced_token_is_used_as_soon_as_the_old_one_is_refused() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        match seen.fields["authorization"].to_str().unwrap() {
            bearer if bearer.ends_with(&token(2)) => Reply::status(204),
            _ if seen.connection == 0 && seen.path.ends_with("w1") => Reply::status(204),
            _ => Reply::problem(401, "unauthenticated", None),
        }
    })
    .await;
    let client = registry.client(authority.token());
    client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    let error = client.withdraw("acme", "w2", DEADLINE).await.unwrap_err();
    assert!(
        error.to_string().contains("(401 unauthenticated)"),
        "{error}"
    );
    authority.secret("token", &token(2));
    client.withdraw("acme", "w2", DEADLINE).await.unwrap();
}

#[tokio::test]
async fn a_kept_connection_that_ended_is_replaced_without_a_failure() {
    let authority = Authority::new();
    let mut registry = Scripted::start(&authority, |_| Reply::status(204)).await;
    let client = registry.client(authority.token());
    client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    registry.kill().await;
    registry.revive().await;
    client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    assert_eq!(registry.seen().len(), 2);
}

#[tokio::test]
async fn only_what_does_no_harm_is_asked_twice() {
    let authority = Authority::new();
    // Whatever is asked second on a connection breaks it.
    let first = Mutex::new(std::collections::HashSet::new());
    let registry = Scripted::start(&authority, move |seen| {
        match (first.lock().unwrap().insert(seen.connection), &seen.method) {
            (false, _) => Reply::Break,
            (true, &Method::POST) => Reply::json(201, &json!({"id": "0", "token": "t"})),
            (true, _) => Reply::json(200, &route()),
        }
    })
    .await;
    let client = registry.client(authority.token());
    client.route("a.example.org", None).await.unwrap();
    // Repeated on a second connection.
    client.route("a.example.org", None).await.unwrap();
    assert_eq!(registry.seen().len(), 3);
    let spec = crate::registry::api::types::TokenSpec {
        tenant: "acme".into(),
        note: String::new(),
        expires_in: None,
        scope: None,
    };
    let error = client.create_token(&spec).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. }), "{error}");
    assert_eq!(registry.seen().len(), 4, "the POST was repeated");
}

#[tokio::test]
async fn answers_are_bounded_in_time_and_size() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        if seen.path.ends_with("slow") {
            return Reply::Hang;
        }
        let padding = "x".repeat(MAX_ANSWER);
        Reply::json(200, &json!({"revision": 3, "ttl": 60, "renewed": padding}))
    })
    .await;
    let client = registry.client(authority.token());
    let deadline = Duration::from_millis(300);
    let error = client.withdraw("acme", "slow", deadline).await.unwrap_err();
    assert!(
        error.to_string().ends_with("no answer within 300ms"),
        "{error}"
    );
    let error = client
        .withdraw("acme", "large", DEADLINE)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("more than 1048576 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |_| {
        Reply::status(307).with("location", "https://elsewhere.example/")
    })
    .await;
    let client = registry.client(authority.token());
    let error = client.withdraw("acme", "w1", DEADLINE).await.unwrap_err();
    assert!(
        error.to_string().contains("redirects are not followed"),
        "{error}"
    );
    assert_eq!(registry.seen().len(), 1);
}

#[tokio::test]
async fn refusals_say_why_and_when_to_come_back() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |_| {
        Reply::problem(503, "store-unreachable", None).with("retry-after", "5")
    })
    .await;
    let client = registry.client(authority.token());
    let error = client.health().await.unwrap_err();
    let problem = error.problem().unwrap();
    assert_eq!(problem.reason.as_deref(), Some("store-unreachable"));
    assert_eq!(problem.retry_after, Some(Duration::from_secs(5)));
    assert!(error.is_worth_another_registry());
}

#[tokio::test]
async fn a_registry_without_its_store_is_told_of_by_its_last_answer() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        let answer = Reply::json(200, &route());
        match seen.path.ends_with("/b.example.org") {
            true => answer.with("gatehouse-stale", "17"),
            false => answer,
        }
    })
    .await;
    let client = registry.client(authority.token());
    for (host, stale) in [
        ("a.example.org", None),
        ("b.example.org", Some(17)),
        ("a.example.org", None),
    ] {
        client.route(host, None).await.unwrap();
        assert_eq!(client.stale(), stale);
    }
}

#[tokio::test]
async fn lists_are_read_to_the_last_page() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        let next = match &*seen.path {
            "/v1/routes?tenant=acme&limit=1000" => json!("a b"),
            "/v1/routes?tenant=acme&limit=1000&after=a%20b" => json!(null),
            _ => return Reply::status(404),
        };
        Reply::json(
            200,
            &json!({"routes": [route()], "next": next, "revision": 9}),
        )
    })
    .await;
    let client = registry.client(authority.token());
    assert_eq!(client.routes(Some("acme")).await.unwrap().len(), 2);
}

#[tokio::test]
async fn changes_carry_their_precondition_and_come_back_with_a_version() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |_| {
        Reply::json(201, &route()).with("etag", "\"9\"")
    })
    .await;
    let client = registry.client(authority.token());
    let spec = serde_json::from_value(json!({"endpoints": ["10.0.0.1:1"]})).unwrap();
    for (precondition, field) in [
        (Precondition::None, None),
        (Precondition::Absent, Some(("if-none-match", "*"))),
        (
            Precondition::Match("\"8\"".into()),
            Some(("if-match", "\"8\"")),
        ),
    ] {
        let put = client
            .put_route("a.example.org", None, &spec, &precondition)
            .await
            .unwrap();
        assert_eq!((put.tag.as_deref(), put.created), (Some("\"9\""), true));
        let seen = registry.seen().pop().unwrap();
        for name in ["if-match", "if-none-match"] {
            let value = seen.fields.get(name).map(|value| value.to_str().unwrap());
            let expected = field.filter(|field| field.0 == name).map(|field| field.1);
            assert_eq!(value, expected, "{name}");
        }
    }
}

#[tokio::test]
async fn a_watch_gives_its_events_and_resumes() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        if seen.fields.get("last-event-id").is_none() {
            return Reply::json(200, &json!({}));
        }
        let text = ": hello\n\nevent: gone\nid: 12\ndata: {\"host\":\"a.example.org\"}\n\n";
        let mut response = Response::new(http_body_util::Full::new(text.into()));
        let kind = "text/event-stream".parse().unwrap();
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Reply::Answer(response)
    })
    .await;
    let client = registry.client(authority.token());
    let error = client.watch(None, None).await.err().unwrap();
    assert!(error.to_string().contains("no stream of events"), "{error}");
    let mut events = client.watch(Some("acme"), Some("11")).await.unwrap();
    let event = events.next().await.unwrap().unwrap();
    assert_eq!((event.id.as_deref(), &*event.kind), (Some("12"), "gone"));
    assert_eq!(events.next().await.unwrap(), None);
    let seen = registry.seen().pop().unwrap();
    assert_eq!(
        (&*seen.path, &seen.fields["last-event-id"]),
        ("/v1/watch?tenant=acme", &"11".parse().unwrap())
    );
}

#[tokio::test]
async fn nobody_there_is_told_with_the_address() {
    let authority = Authority::new();
    let mut registry = Scripted::start(&authority, |_| Reply::Hang).await;
    registry.kill().await;
    let client = registry.client(authority.token());
    let error = client.health().await.unwrap_err().to_string();
    let address = registry.address;
    assert!(
        error.starts_with(&format!("https://{address}: cannot connect to {address}:")),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_is_found_again_while_its_name_cannot_be_looked_up() {
    let authority = Authority::new();
    // RFC 6761, section 6.4: no name server knows such a name.
    let name = "registry.invalid";
    let mut registry = Scripted::start_as(name, &authority, |_| Reply::status(204)).await;
    let port = registry.address.port();
    let client_of = |name: &str| {
        let address = format!("https://{name}:{port}").parse().unwrap();
        Client::new(address, authority.token())
    };
    let client = client_of(name);
    client.withdraw("acme", "w1", DEADLINE).await.unwrap_err();
    client.known.set(vec![registry.address]);
    client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    registry.kill().await;
    registry.revive().await;
    let later = client_of(name);
    later.remember(&client);
    for client in [client, later] {
        client.withdraw("acme", "w1", DEADLINE).await.unwrap();
    }
    // Whoever is there has to be who was meant.
    let other = client_of("other.invalid");
    other.known.set(vec![registry.address]);
    let error = other.withdraw("acme", "w1", DEADLINE).await.unwrap_err();
    assert!(error.to_string().contains("no TLS"), "{error}");
}
