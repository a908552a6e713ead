//! One router that keeps a registry by itself: what it makes of routes that ask for checks, and
//! sessions that outlive it.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use harness::backend::Backend;
use harness::ca::KeyKind;
use harness::client::TlsClient;
use harness::edge::{Edge, HOST};
use harness::router::Router;
use harness::wait;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};
use serde_json::json;

/// An edge without route files, whose registry knows an operator by certificate.
fn edge(label: &str) -> Edge {
    let mut edge = Edge::new(label).unwrap();
    edge.certificate("acme", &["*.acme.example.org"], KeyKind::Ecdsa)
        .unwrap();
    let (api, folder) = (edge.port(8444), edge.folder().to_owned());
    let names = [api.ip().to_string()];
    let leaf = edge.ca.issue(&[&names[0]], KeyKind::Ecdsa).unwrap();
    leaf.write(&folder, "registry").unwrap();
    harness::folder::write(&folder.join("ca.pem"), edge.ca.pem()).unwrap();
    edge.more = format!(
        "registry:\n  api:\n    addresses: [\"{api}\"]\n    certificate: registry.crt\n    \
         key: registry.key\n    client_ca: ca.pem\n  state: state\n"
    );
    edge
}

/// Puts something into the registry, as an operator.
fn put(edge: &Edge, path: &str, body: &serde_json::Value) {
    let uri = "spiffe://gatehouse/operator/ops";
    let operator = edge.ca.issue_client(uri).unwrap();
    let client = TlsClient::with_identity(&edge.ca, &operator, &["http/1.1"]).unwrap();
    let api = edge.port(8444);
    let mut connection = client.connect(api, &api.ip().to_string()).unwrap();
    let body = body.to_string();
    let request = format!(
        "PUT {path} HTTP/1.1\r\nHost: {api}\r\nContent-Type: application/json\r\nContent-Length: \
         {}\r\n\r\n{body}",
        body.len()
    );
    let answer = connection.exchange(request).unwrap();
    assert_eq!(answer.status, 201, "{path}: {}", answer.text());
}

/// Says its name to everybody, and to a check whether it is well.
fn backend(address: SocketAddr, name: &'static str) -> (Backend, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&well);
    let backend = Backend::start(address, move |conversation| {
        while let Some(request) = conversation.request()? {
            let is_check = request.starts_with(b"GET /healthz ");
            let status = match is_check && !now.load(Relaxed) {
                true => "503 Service Unavailable",
                false => "200 OK",
            };
            let length = name.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{name}");
            conversation.send(answer)?;
        }
        Ok(())
    });
    (backend.unwrap(), well)
}

/// Who answers of many requests, each on a connection of its own.
fn answering(edge: &Edge) -> Vec<String> {
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut names: Vec<String> = (0..30)
        .map(|_| {
            let mut connection = edge.connect(HOST).unwrap();
            let answer = connection.exchange(&request).unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            answer.text()
        })
        .collect();
    names.sort();
    names.dedup();
    names
}

fn wait_for_unhealthy(router: &Router, count: u32) {
    let line = format!("\nrouter_endpoints_unhealthy {count}\n");
    wait::until_true(&line, || {
        router
            .admin("/metrics")
            .is_ok_and(|page| page.contains(&line))
    })
    .unwrap();
}

#[test]
fn endpoints_that_fail_their_checks_are_passed_over_while_there_are_others() {
    let edge = edge("registry-checks");
    let router = edge.start().unwrap();
    let (one, one_is_well) = backend(edge.port(9001), "one");
    let (two, two_is_well) = backend(edge.port(9002), "two");
    let zone = json!({"addresses": [format!("{}/32", one.address().ip())]});
    put(&edge, "/v1/zones/acme/*.acme.example.org", &zone);
    let route = json!({
        "endpoints": [one.address(), two.address()],
        "check": {"path": "/healthz", "interval": 1, "timeout": 1, "failures": 2},
    });
    put(&edge, &format!("/v1/routes/{HOST}?tenant=acme"), &route);
    wait::until_true("the route to be in force", || {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let answer = edge.connect(HOST).and_then(|mut it| it.exchange(request));
        answer.is_ok_and(|answer| answer.status == 200)
    })
    .unwrap();
    assert_eq!(answering(&edge), ["one", "two"]);

    one_is_well.store(false, Relaxed);
    wait_for_unhealthy(&router, 1);
    assert_eq!(answering(&edge), ["two"]);
    two_is_well.store(false, Relaxed);
    wait_for_unhealthy(&router, 2);
    assert_eq!(answering(&edge), ["one", "two"], "all are tried");
    one_is_well.store(true, Relaxed);
    wait_for_unhealthy(&router, 1);
    assert_eq!(answering(&edge), ["one"]);
    router
        .wait_for_log(&["endpoint fails its checks", "answered with 503"])
        .unwrap();
    router
        .wait_for_log(&["endpoint passes its check again"])
        .unwrap();
}

/// A client that keeps sessions, and how its handshake went.
fn visit(config: &Arc<ClientConfig>, address: SocketAddr) -> HandshakeKind {
    let name = ServerName::try_from(HOST).unwrap();
    let session = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(session, TcpStream::connect(address).unwrap());
    write!(stream, "GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").unwrap();
    // Tickets come before the answer.
    let mut byte = [0; 1];
    stream.read_exact(&mut byte).unwrap();
    stream.conn.handshake_kind().unwrap()
}

#[test]
fn sessions_outlive_the_router_that_made_them() {
    let edge = edge("registry-sessions");
    let mut config = ClientConfig::clone(&TlsClient::new(&edge.ca, &["http/1.1"]).config());
    config.resumption = Resumption::default();
    let config = Arc::new(config);
    let ready = |router: &Router| {
        wait::until_true("secrets of session tickets", || {
            router
                .admin("/metrics")
                .is_ok_and(|page| page.contains("\nrouter_ticket_epoch 1\n"))
        })
        .unwrap();
    };
    let mut router = edge.start().unwrap();
    ready(&router);
    assert_eq!(visit(&config, edge.https[0]), HandshakeKind::Full);
    assert_eq!(visit(&config, edge.https[0]), HandshakeKind::Resumed);
    router.process.crash();
    drop(router);
    let router = edge.start().unwrap();
    ready(&router);
    assert_eq!(visit(&config, edge.https[0]), HandshakeKind::Resumed);
}
