//! Connections on which nobody has shown a good credential.

use super::client::{BOTH, request};
use super::*;

/// Places for few.
fn small() -> ApiOptions {
    ApiOptions {
        connections: 8,
        connections_per_source: 8,
        ..ApiOptions::default()
    }
}

#[tokio::test]
async fn strangers_who_hold_every_place_do_not_keep_out_who_is_known() {
    let setup = Setup::with(small(), 1000);
    let pair = setup.clients.client(&[ACME]);
    let token = setup.store.issue("acme", 1, None).token.reveal();
    let mut strangers = Vec::new();
    for from in 1..=12 {
        let from = format!("127.0.0.{from}");
        let mut client = setup.connect_from(&from, None, Http::Two).await.unwrap();
        // It keeps its connection in use as well as it can.
        let health = client.get("/v1/health", None).await.unwrap();
        assert_eq!(health.status, 200);
        strangers.push(client);
    }
    let mut known = Vec::new();
    for (number, http) in (0..8).zip(BOTH.iter().cycle()) {
        let (pair, token) = match number % 3 {
            0 => (Some(&pair), None),
            _ => (None, Some(&*token)),
        };
        let mut client = setup.connect_from("127.0.0.99", pair, *http).await.unwrap();
        assert_eq!(client.get("/v1/who", token).await.unwrap().status, 200);
        known.push((client, token));
    }
    // Not even another stranger takes a place of theirs.
    let refused = async || match setup.connect_from("127.0.0.1", None, Http::Two).await {
        Ok(mut client) => client.get("/v1/health", None).await.is_err(),
        Err(_) => true,
    };
    assert!(refused().await);
    for (client, token) in &mut known {
        assert_eq!(client.get("/v1/who", *token).await.unwrap().status, 200);
    }
    for stranger in &mut strangers {
        assert!(stranger.get("/v1/health", None).await.is_err());
    }
}

#[tokio::test]
async fn a_stranger_rests_less_long_than_who_is_known() {
    let setup = Setup::with(
        ApiOptions {
            idle_stranger: Duration::from_millis(200),
            ..ApiOptions::default()
        },
        1000,
    );
    let token = setup.store.issue("acme", 1, None).token.reveal();
    let open = async || setup.metric("router_registry_connections_open");
    for http in BOTH {
        let mut known = setup.connect(None, http).await.unwrap();
        assert_eq!(
            known.get("/v1/who", Some(&token)).await.unwrap().status,
            200
        );
        let mut stranger = setup.connect(None, http).await.unwrap();
        assert_eq!(stranger.get("/v1/health", None).await.unwrap().status, 200);
        setup
            .until("the stranger has gone", async || open().await == 1)
            .await;
        assert_eq!(
            known.get("/v1/who", Some(&token)).await.unwrap().status,
            200
        );
        drop(known);
        setup
            .until("nobody is left", async || open().await == 0)
            .await;
    }
}

#[tokio::test]
async fn who_is_refused_as_nobody_has_to_come_again() {
    let setup = Setup::new();
    for http in BOTH {
        let mut client = setup.connect(None, http).await.unwrap();
        let refused = client
            .begin(request("GET", "/v1/who", None, ""))
            .await
            .unwrap();
        assert_eq!(refused.status(), 401);
        let says = refused.headers().get("connection").cloned();
        assert_eq!(says.is_some(), http == Http::One);
        assert!(setup.heard(refused).await.unwrap().starts_with(b"{"));
        let gone = async || client.get("/v1/health", None).await.is_err();
        setup.until("the connection has ended", gone).await;
    }
}
