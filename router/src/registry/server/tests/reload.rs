//! Files that change while the API is served, and its end.

use super::client::request;
use super::*;

/// The certificate that a new connection is shown.
async fn shown(setup: &Setup) -> Vec<u8> {
    let config = config(&setup.own, None, Http::One);
    let stream = tls(config, "127.0.0.1", setup.address()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

#[tokio::test]
async fn a_new_certificate_is_shown_and_no_connection_falls() {
    let setup = Setup::new();
    let first = shown(&setup).await;
    let pair = setup.clients.client(&[ACME]);
    let mut old = setup.connect(Some(&pair), Http::Two).await.unwrap();
    assert_eq!(old.get("/v1/who", None).await.unwrap().status, 200);
    let renewed = setup.own.server("127.0.0.1");
    // For a moment they are no pair.
    write(&setup.path("api.key"), &renewed.key);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(
        shown(&setup).await,
        first,
        "files that are no pair change nothing"
    );
    write(&setup.path("api.crt"), &renewed.chain);
    let expected = renewed.der().0[0].to_vec();
    setup
        .until("the new certificate", async || {
            shown(&setup).await == expected
        })
        .await;
    assert_eq!(old.get("/v1/who", None).await.unwrap().text, "tenant acme");
}

#[tokio::test]
async fn operators_come_and_go_with_the_lines_of_their_file() {
    let setup = Setup::new();
    let new = new_token(TokenKind::Operator, &[9; 40]);
    let token = new.token.reveal();
    let is = async |status: u16| {
        let answer = setup.who(None, Http::Two, Some(&token)).await.unwrap();
        // Failures are limited.
        answer.status == status || (status == 401 && answer.status == 429)
    };
    assert!(is(401).await);
    write(&setup.path("operators"), &new.operators_line("jane"));
    setup.until("jane is known", async || is(200).await).await;
    write(&setup.path("operators"), "jane");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(is(200).await, "a bad file changes nothing");
    write(&setup.path("operators"), "# nobody\n");
    setup.until("jane has gone", async || is(401).await).await;
}

#[tokio::test]
async fn an_authority_that_is_taken_away_is_not_trusted_on_open_connections_either() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    let token = setup.store.issue("acme", 1, None).token.reveal();
    let mut trusted = setup.connect(Some(&pair), Http::Two).await.unwrap();
    let mut by_token = setup.connect(None, Http::Two).await.unwrap();
    assert_eq!(trusted.get("/v1/who", None).await.unwrap().status, 200);
    assert_eq!(
        by_token.get("/v1/who", Some(&token)).await.unwrap().status,
        200
    );
    let watch = trusted
        .begin(request("GET", "/v1/watch", None, ""))
        .await
        .unwrap();
    write(&setup.path("clients.pem"), &Authority::new("others").pem);
    let heard = setup.heard(watch).await.unwrap();
    assert_eq!(heard, "begins\n", "the watch ends, and cleanly");
    setup
        .until("the connection has ended", async || {
            trusted.get("/v1/who", None).await.is_err()
        })
        .await;
    assert!(setup.who(Some(&pair), Http::Two, None).await.is_err());
    assert_eq!(
        by_token.get("/v1/who", Some(&token)).await.unwrap().status,
        200
    );
}

#[tokio::test]
async fn a_single_certificate_is_revoked_on_open_connections_as_well() {
    let setup = Setup::new();
    let (stolen, other) = (setup.clients.client(&[ACME]), setup.clients.client(&[ACME]));
    let mut thief = setup.connect(Some(&stolen), Http::Two).await.unwrap();
    assert_eq!(thief.get("/v1/who", None).await.unwrap().status, 200);
    let watch = thief
        .begin(request("GET", "/v1/watch", None, ""))
        .await
        .unwrap();
    // A list that is none, and one that others signed, revoke nothing.
    write(&setup.path("clients.crl"), "nothing");
    let foreign = Authority::new("others").revoking(&[&stolen]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(thief.get("/v1/who", None).await.unwrap().status, 200);
    assert_eq!(
        setup
            .who(Some(&stolen), Http::Two, None)
            .await
            .unwrap()
            .status,
        200
    );
    let list = setup.clients.revoking(&[&stolen]);
    write(&setup.path("clients.crl"), &format!("{foreign}{list}"));
    let heard = setup.heard(watch).await.unwrap();
    assert_eq!(heard, "begins\n", "the watch ends, and cleanly");
    setup
        .until("the connection has ended", async || {
            thief.get("/v1/who", None).await.is_err()
        })
        .await;
    for http in [Http::One, Http::Two] {
        let token = setup.store.issue("acme", 1, None).token.reveal();
        let refused = setup.who(Some(&stolen), http, Some(&token)).await;
        assert!(refused.is_err(), "{refused:?}");
        let answer = setup.who(Some(&other), http, None).await.unwrap();
        assert_eq!(answer.text, "tenant acme");
    }
    // What is taken off a list counts again.
    write(&setup.path("clients.crl"), &setup.clients.revoking(&[]));
    setup
        .until("it is no longer revoked", async || {
            setup.who(Some(&stolen), Http::Two, None).await.is_ok()
        })
        .await;
}

#[tokio::test]
async fn a_drain_lets_requests_finish_and_ends_watches() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    let mut watching = setup.connect(Some(&pair), Http::One).await.unwrap();
    let watch = watching
        .begin(request("GET", "/v1/watch", None, ""))
        .await
        .unwrap();
    let mut waiting = setup.connect(Some(&pair), Http::Two).await.unwrap();
    let idle = setup.connect(Some(&pair), Http::Two).await.unwrap();
    let waits =
        tokio::spawn(async move { waiting.send(request("DELETE", "/v1/wait", None, "")).await });
    let begun = async || setup.gate.waiting.load(Relaxed) == 1;
    setup.until("the change has begun", begun).await;
    setup.drain.begin(PATIENCE);
    let heard = setup.heard(watch).await.unwrap();
    assert_eq!(heard, "begins\n");
    let fewer = async || setup.metric("router_registry_connections_open") == 1;
    setup.until("others have ended", fewer).await;
    assert!(setup.connect(None, Http::One).await.is_err(), "nobody new");
    setup.gate.opens.add_permits(1);
    let answer = waits.await.unwrap().unwrap();
    assert_eq!((answer.status, &*answer.text), (200, "done"));
    drop(idle);
    setup.stop(PATIENCE).await;
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    let mut waiting = setup.connect(Some(&pair), Http::Two).await.unwrap();
    let waits =
        tokio::spawn(async move { waiting.send(request("DELETE", "/v1/wait", None, "")).await });
    let begun = async || setup.gate.waiting.load(Relaxed) == 1;
    setup.until("the change has begun", begun).await;
    setup.stop(Duration::from_millis(20)).await;
    assert!(waits.await.unwrap().is_err());
}

#[test]
fn files_that_are_of_no_use_keep_the_api_from_starting() {
    let setup = Setup::new();
    let path = |name: &str| setup.path(name);
    let config = || RegistryApi {
        addresses: vec!["127.0.0.1:0".parse().unwrap()],
        certificate: path("api.crt"),
        key: path("api.key"),
        client_ca: Some(path("clients.pem")),
        client_crl: Some(path("clients.crl")),
        operators: Some(path("operators")),
        audit_log: None,
        requests_per_second: 1,
        routes_per_tenant: 1,
        instances_per_tenant: 1,
        bytes_per_tenant: 1,
    };
    let try_start = |config: &RegistryApi| {
        let tokens = Arc::clone(&setup.store) as Arc<dyn TokenSource>;
        let options = ApiOptions::default();
        let started = start(
            config,
            Router::new(),
            tokens,
            &setup.metrics,
            &setup.drain,
            options,
        );
        started.map(drop).map_err(|error| error.to_string())
    };
    let wrong = [
        (
            "api.crt",
            RegistryApi {
                certificate: path("no"),
                ..config()
            },
        ),
        (
            "api.key",
            RegistryApi {
                key: path("api.crt"),
                ..config()
            },
        ),
        (
            "clients.pem",
            RegistryApi {
                client_ca: Some(path("api.key")),
                ..config()
            },
        ),
        (
            "clients.crl",
            RegistryApi {
                client_crl: Some(path("clients.pem")),
                ..config()
            },
        ),
        (
            "operators",
            RegistryApi {
                operators: Some(path("api.crt")),
                ..config()
            },
        ),
        (
            "audit_log",
            RegistryApi {
                audit_log: Some(setup.folder.path().into()),
                ..config()
            },
        ),
        (
            "address",
            RegistryApi {
                addresses: vec!["192.0.2.1:1".parse().unwrap()],
                ..config()
            },
        ),
    ];
    for (what, config) in wrong {
        let error = try_start(&config).unwrap_err();
        assert!(error.starts_with("registry.api"), "{what}: {error}");
        // The others are no files that `router check` could read.
        let file = !["audit_log", "address"].contains(&what);
        assert_eq!(check(&config).is_err(), file, "{what}");
    }
    check(&config()).unwrap();
    try_start(&config()).unwrap();
}
