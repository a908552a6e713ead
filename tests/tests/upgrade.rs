//! Switching protocols: WebSocket, SPDY/3.1, and what must not be switched.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::backend::{Backend, OK};
use harness::ca::KeyKind;
use harness::client::{Connection, TlsClient};
use harness::edge::{Edge, HOST, Upstream, route_file};
use harness::h2_client::{self, H2Connection};
use harness::nginx::{Ingress, pattern};
use harness::{folder, wait, websocket};

const SWITCH: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n";

fn spdy(path: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n"
    )
}

#[test]
fn a_websocket_passes_through_router_and_nginx() {
    let edge = Edge::with_backend("upgrade-ws", 31380).unwrap();
    let echo = websocket::EchoServer::start(None, edge.port(9000)).unwrap();
    let ingress = Ingress {
        websocket: Some(echo.address()),
        ..Ingress::plain("acme", "a1", edge.port(31380))
    };
    let _nginx = ingress.start(edge.folder()).unwrap();
    let _router = edge.start().unwrap();
    let mut sockets: Vec<_> = (0..5)
        .map(|_| {
            websocket::Client::open(&format!("wss://{HOST}/ws"), edge.connect(HOST).unwrap())
                .unwrap()
        })
        .collect();
    let large = "x".repeat(1024 * 1024);
    for round in 0..3 {
        for (number, socket) in sockets.iter_mut().enumerate() {
            socket.echo(&format!("round {round} of {number}")).unwrap();
        }
    }
    sockets[0].echo(&large).unwrap();
    for socket in sockets {
        socket.close().unwrap();
    }
}

#[test]
fn a_websocket_passes_over_tls_to_an_upstream_of_http2() {
    let edge = Edge::new("upgrade-ws-tls").unwrap();
    edge.certificate("acme", &["*.acme.example.org"], KeyKind::Ecdsa)
        .unwrap();
    let echo = websocket::EchoServer::start(None, edge.port(9000)).unwrap();
    let leaf = edge
        .ca
        .issue(&["ingress.acme.internal"], KeyKind::Ecdsa)
        .unwrap();
    let _nginx = Ingress {
        http: Vec::new(),
        https: Some((vec![edge.port(31390)], &leaf)),
        websocket: Some(echo.address()),
        ..Ingress::plain("acme", "a1", edge.port(31390))
    }
    .start(edge.folder())
    .unwrap();
    folder::write(&edge.folder().join("upstream-ca.pem"), edge.ca.pem()).unwrap();
    let upstream = Upstream {
        protocol: "http2",
        tls: Some("{server_name: ingress.acme.internal, ca: ../upstream-ca.pem}".into()),
        ..Upstream::plain("workers", &[edge.port(31390)])
    };
    edge.routes(
        "acme",
        &route_file("acme", &[upstream], &[(HOST, "workers")]),
    )
    .unwrap();
    let _router = edge.start().unwrap();
    let mut socket =
        websocket::Client::open(&format!("wss://{HOST}/ws"), edge.connect(HOST).unwrap()).unwrap();
    socket
        .echo("an upgrade still uses HTTP/1.1 upstream")
        .unwrap();
    socket.close().unwrap();
}

#[test]
fn spdy_becomes_a_tunnel_of_bytes() {
    let edge = Edge::with_backend("upgrade-spdy", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        conversation.head()?;
        // The first bytes of the new protocol come right behind the answer.
        conversation.send(format!("{SWITCH}hello from below"))?;
        loop {
            let bytes = conversation.some()?;
            if bytes.is_empty() {
                return conversation.send("farewell");
            }
            conversation.send(bytes)?;
        }
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client.send(spdy("/exec")).unwrap();
    let answer = client.response("POST").unwrap();
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("SPDY/3.1"));
    assert!(
        answer
            .header("connection")
            .unwrap()
            .eq_ignore_ascii_case("upgrade")
    );
    assert_eq!(client.take(16).unwrap(), b"hello from below");
    // Bytes that would be nonsense in HTTP.
    let bytes = pattern(300_000);
    for piece in bytes.chunks(100_000) {
        client.send(piece).unwrap();
        assert!(client.take(piece.len()).unwrap() == piece);
    }
    // Half of the tunnel may close before the other.
    client.finish().unwrap();
    assert_eq!(client.rest().unwrap(), b"farewell");
    let recorded = backend.received().concat();
    let head = String::from_utf8_lossy(&recorded[..200.min(recorded.len())]).to_ascii_lowercase();
    assert!(
        head.contains("\r\nupgrade: spdy/3.1\r\n") && head.contains("\r\nconnection: upgrade\r\n"),
        "{head}"
    );
    assert!(
        recorded.ends_with(&bytes),
        "the tunnel changed what went through it"
    );
}

#[test]
fn nothing_goes_up_before_the_endpoint_has_agreed() {
    for agrees in [false, true] {
        let edge = Edge::with_backend(&format!("upgrade-premature-{agrees}"), 9001).unwrap();
        let (decide, gate) = std::sync::mpsc::channel::<()>();
        let gate = std::sync::Mutex::new(gate);
        let backend = Backend::start(edge.port(9001), move |conversation| {
            conversation.head()?;
            let gate = gate.lock().expect("nobody panics with the gate in hand");
            let _ = gate.recv_timeout(wait::PATIENCE);
            drop(gate);
            if agrees {
                conversation.send(SWITCH)?;
                return conversation.until_closed();
            }
            conversation.send(OK)?;
            while conversation.request()?.is_some() {
                conversation.send(OK)?;
            }
            Ok(())
        })
        .unwrap();
        let _router = edge.start().unwrap();
        let premature = format!("GET /premature HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let mut client = edge.connect(HOST).unwrap();
        client
            .send(format!("{}{premature}", spdy("/exec")))
            .unwrap();
        backend.wait_for("/exec ").unwrap();
        // The only worker has gone round its loop once more when it has answered this.
        let redirect = Connection::plain(edge.http[0])
            .unwrap()
            .exchange(&premature)
            .unwrap();
        assert_eq!(redirect.status, 308);
        assert_eq!(backend.count("/premature"), 0, "sent before any answer");
        decide.send(()).unwrap();
        if agrees {
            assert_eq!(client.response("POST").unwrap().status, 101);
            backend.wait_for("/premature ").unwrap();
            continue;
        }
        assert_eq!(client.response("POST").unwrap().status, 200);
        client.finish().unwrap();
        let _ = client.rest().unwrap();
        // Now they are a request like any other, or they are gone with the connection.
        let requests = 1 + backend.count("/premature");
        let heads = backend
            .text()
            .to_ascii_lowercase()
            .matches("\r\nx-forwarded-for:")
            .count();
        assert_eq!(heads, requests, "{}", backend.text());
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let edge = Edge::with_backend("upgrade-refused", 9001).unwrap();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    let answer = client.exchange(spdy("/")).unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ok".into()));
}

#[test]
fn an_upgrade_that_is_not_listed_is_dropped() {
    let edge = Edge::with_backend("upgrade-unlisted", 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    for protocol in [
        "h2c",
        "HTTP/2.0",
        "TLS/1.0",
        "foo",
        "websocketx",
        "h2c, websocketx",
    ] {
        let mut client = edge.connect(HOST).unwrap();
        let answer = client
            .exchange(format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                 Upgrade: {protocol}\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            ))
            .unwrap();
        assert_eq!(answer.text(), "ok", "{protocol}");
    }
    let recorded = backend.text().to_ascii_lowercase();
    assert_eq!(recorded.matches("get / http/1.1").count(), 6);
    for word in ["upgrade", "h2c", "http2-settings"] {
        assert!(
            !recorded.contains(&format!("\r\n{word}:")) && !recorded.contains("h2c"),
            "{recorded}"
        );
    }
}

#[test]
fn what_may_be_switched_to_is_a_matter_of_configuration() {
    let mut edge = Edge::with_backend("upgrade-listed", 9001).unwrap();
    edge.more = "upgrades: [\"frobnicate/1\"]\n".into();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    for protocol in ["FROBNICATE/1", "websocket"] {
        edge.connect(HOST)
            .unwrap()
            .exchange(format!(
                "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n"
            ))
            .unwrap();
    }
    let recorded = backend.text().to_ascii_lowercase();
    assert!(
        recorded.contains("\r\nupgrade: frobnicate/1\r\n"),
        "{recorded}"
    );
    assert!(!recorded.contains("websocket"), "{recorded}");
}

#[test]
fn a_101_over_http2_reaches_nobody() {
    let edge = Edge::with_backend("upgrade-h2", 9001).unwrap();
    let _backend = Backend::start(edge.port(9001), |conversation| {
        while let Some(request) = conversation.request()? {
            let odd = request.starts_with(b"GET /odd");
            conversation.send(if odd { SWITCH.as_bytes() } else { OK })?;
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut connection = H2Connection::open(&tls, edge.https[0], HOST).await?;
        assert_eq!(connection.get(HOST, "/odd").await?.status, 502);
        assert_eq!(connection.get(HOST, "/even").await?.body, b"ok");
        Ok(())
    })
    .unwrap();
}
