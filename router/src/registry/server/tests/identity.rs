//! Who is let in.

use rustls::HandshakeKind;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::client::{BOTH, config_of, request};
use super::*;

#[tokio::test]
async fn a_certificate_of_our_authority_says_who_it_is() {
    let setup = Setup::new();
    let acme = setup.clients.client(&[ACME]);
    let jane = setup.clients.client(&["spiffe://gatehouse/operator/jane"]);
    for http in BOTH {
        for (pair, role) in [(&acme, "tenant acme"), (&jane, "operator jane")] {
            let answer = setup.who(Some(pair), http, None).await.unwrap();
            assert_eq!((answer.status, &*answer.text), (200, role), "{http:?}");
        }
    }
}

#[tokio::test]
async fn other_certificates_do_not_get_through_the_handshake() {
    let setup = Setup::new();
    let foreign = Authority::new("clients").client(&[ACME]);
    let expired = setup.clients.client_until(&[ACME], 2021);
    let for_servers = setup.clients.server("127.0.0.1");
    let token = setup.store.issue("acme", 1, None).token.reveal();
    for http in BOTH {
        for (what, pair) in [
            ("foreign", &foreign),
            ("expired", &expired),
            ("a server's", &for_servers),
        ] {
            let answer = setup.who(Some(pair), http, Some(&token)).await;
            assert!(answer.is_err(), "{what}: {answer:?}");
        }
    }
    let counted = async || setup.metric("router_registry_handshakes_failed_total") == 6;
    setup.until("all are counted", counted).await;
}

#[tokio::test]
async fn a_certificate_that_names_nobody_needs_a_token_beside_it() {
    let setup = Setup::new();
    let token = setup.store.issue("acme", 1, None).token.reveal();
    let other = "spiffe://gatehouse/tenant/other";
    for (uris, says) in [
        (&[][..], "holds 0 URIs"),
        (&[ACME, other], "holds 2 URIs"),
        (&["https://example.org/acme"], "neither spiffe://"),
    ] {
        let pair = setup.clients.client(uris);
        let answer = setup.who(Some(&pair), Http::Two, None).await.unwrap();
        assert_eq!(answer.status, 401);
        assert!(answer.text.contains(says), "{}", answer.text);
        let answer = setup
            .who(Some(&pair), Http::Two, Some(&token))
            .await
            .unwrap();
        assert_eq!(answer.text, "tenant acme");
    }
    let pair = setup.clients.client(&[other]);
    let answer = setup
        .who(Some(&pair), Http::One, Some(&token))
        .await
        .unwrap();
    assert_eq!(answer.status, 401, "tenant other with a token of acme");
}

#[tokio::test]
async fn tokens_count_while_they_are_right_known_and_young() {
    let setup = Setup::new();
    let right = setup.store.issue("acme", 1, None);
    let late = setup.store.issue("acme", 2, Some(1));
    let mut wrong = right.token.clone();
    wrong.secret[0] ^= 1;
    let right_text = right.token.reveal();
    for http in BOTH {
        for (token, status, says) in [
            (Some(right_text.clone()), 200, "tenant acme"),
            (Some(wrong.reveal()), 401, "not known"),
            (Some(late.token.reveal()), 401, "expired"),
            (None, 401, "is needed"),
        ] {
            let answer = setup.who(None, http, token.as_deref()).await.unwrap();
            assert_eq!(answer.status, status);
            assert!(answer.text.contains(says), "{}", answer.text);
        }
    }
    let mut client = setup.connect(None, Http::Two).await.unwrap();
    assert_eq!(
        client
            .get("/v1/who", Some(&right_text))
            .await
            .unwrap()
            .status,
        200
    );
    setup.store.revoke(&right);
    let answer = client.get("/v1/who", Some(&right_text)).await.unwrap();
    assert_eq!(answer.status, 401, "revoked, on the same connection");
}

#[tokio::test]
async fn who_asks_too_much_is_told_when_to_come_back() {
    let setup = Setup::with(ApiOptions::default(), 2);
    let token = setup.store.issue("acme", 1, None).token.reveal();
    let mut client = setup.connect(None, Http::Two).await.unwrap();
    let mut answers = Vec::new();
    // One interval may end in between, two do not.
    for _ in 0..5 {
        answers.push(client.get("/v1/who", Some(&token)).await.unwrap());
    }
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert_eq!(refused.retry_after.as_deref(), Some("1"));
    assert!(
        refused.text.contains("too-many-requests"),
        "{}",
        refused.text
    );
}

#[tokio::test]
async fn no_session_is_resumed_and_no_old_version_spoken() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    let config = config(&setup.own, Some(&pair), Http::One);
    for _ in 0..2 {
        let stream = tls(config.clone(), "127.0.0.1", setup.address()).await;
        let mut stream = stream.unwrap();
        let request = "GET /v1/who HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("tenant acme"), "{answer}");
        let session = stream.get_ref().1;
        assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(session.tls13_tickets_received(), 0);
    }
    for (versions, spoken) in [(&[&TLS12][..], false), (&[&TLS13], true)] {
        let config = config_of(versions, &setup.own, None, Http::One);
        let stream = tls(config, "127.0.0.1", setup.address()).await;
        assert_eq!(stream.is_ok(), spoken, "{versions:?}");
    }
}

#[tokio::test]
async fn changes_are_in_the_audit_log_with_who_made_them() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    let mut client = setup.connect(Some(&pair), Http::Two).await.unwrap();
    let answer = client
        .send(request("PUT", "/v1/length", None, "\"four\""))
        .await
        .unwrap();
    assert_eq!(answer.text, "4");
    let log = fs::read_to_string(setup.path("audit.log")).unwrap();
    let event: serde_json::Value = serde_json::from_str(&log).unwrap();
    assert_eq!(event["caller"], format!("certificate:{ACME}"));
    assert_eq!(event["object"], "/v1/length");
    let peer: SocketAddr = event["peer"].as_str().unwrap().parse().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.1");
}
