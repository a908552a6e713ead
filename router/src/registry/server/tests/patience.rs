//! Clients that ask for too much, too slowly, or not at all.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{BOTH, request};
use super::*;
use crate::registry::server::connection::MOST_BODY;

/// Short enough for a test; long enough for a busy machine to get a request through.
const SHORT: Duration = Duration::from_millis(400);

fn impatient() -> ApiOptions {
    ApiOptions {
        handshake: SHORT,
        idle: SHORT,
        stall: SHORT,
        ..ApiOptions::default()
    }
}

/// Waits for the other side's end of a connection; an abrupt one counts.
async fn ends(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "still open");
}

#[tokio::test]
async fn who_says_nothing_or_half_a_head_is_cut_off() {
    let setup = Setup::with(impatient(), 1000);
    let mut silent = TcpStream::connect(setup.address()).await.unwrap();
    let tls_to = async |http, bytes: &[u8]| {
        let config = config(&setup.own, None, http);
        let stream = tls(config, "127.0.0.1", setup.address()).await;
        let mut stream = stream.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    };
    let mut quiet = tls_to(Http::One, b"").await;
    let mut half = tls_to(Http::One, b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-").await;
    let mut quiet2 = tls_to(Http::Two, b"").await;
    let mut preface = tls_to(
        Http::Two,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
    )
    .await;
    // A HEADERS frame without END_HEADERS, whose rest never comes.
    let mut headers = tls_to(
        Http::Two,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\
          \x00\x00\x01\x01\x00\x00\x00\x00\x01\x82",
    )
    .await;
    // A head that comes byte by byte.
    let drip = tokio::spawn({
        let stream = tls_to(Http::One, b"GET / HTTP/1.1\r\nX: ").await;
        async move {
            let (mut read, mut write) = tokio::io::split(stream);
            let drip = async {
                while write.write_all(b"x").await.is_ok() && write.flush().await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::select! {
                () = ends(&mut read) => {}
                () = drip => {}
            }
        }
    });
    ends(&mut silent).await;
    for stream in [
        &mut quiet,
        &mut half,
        &mut quiet2,
        &mut preface,
        &mut headers,
    ] {
        ends(stream).await;
    }
    timeout(PATIENCE, drip).await.unwrap().unwrap();
    let none = async || setup.metric("router_registry_connections_open") == 0;
    setup.until("no connection is left", none).await;
}

#[tokio::test]
async fn a_connection_in_use_is_not_idle() {
    let setup = Setup::with(impatient(), 1000);
    let pair = setup.clients.client(&[ACME]);
    for http in BOTH {
        let mut client = setup.connect(Some(&pair), http).await.unwrap();
        let watched = async {
            let mut watching = setup.connect(Some(&pair), http).await.unwrap();
            let watch = watching.begin(request("GET", "/v1/watch", None, "")).await;
            let mut body = watch.unwrap().into_body();
            let begins = body.frame().await;
            assert!(begins.unwrap().is_ok());
            let more = timeout(SHORT * 2, body.frame()).await;
            assert!(more.is_err(), "{http:?}: the watch has ended");
        };
        let used = async {
            for _ in 0..8 {
                let answer = client.get("/v1/who", None).await.unwrap();
                assert_eq!(answer.status, 200);
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        tokio::join!(watched, used);
    }
}

#[tokio::test]
async fn a_client_that_does_not_take_its_answer_is_cut_off() {
    let setup = Setup::with(impatient(), 1000);
    let pair = setup.clients.client(&[ACME]);
    for http in BOTH {
        let mut client = setup.connect(Some(&pair), http).await.unwrap();
        // Held, and not read.
        let answer = client
            .begin(request("GET", "/v1/big", None, ""))
            .await
            .unwrap();
        let none = async || setup.metric("router_registry_connections_open") == 0;
        setup.until("the connection is cut", none).await;
        drop(answer);
    }
}

/// An answer that is stuck is not kept because others on the same connection get through.
#[tokio::test]
async fn a_stuck_answer_is_cut_off_whatever_else_is_asked() {
    let setup = Setup::with(impatient(), 1000);
    let pair = setup.clients.client(&[ACME]);
    for path in ["/v1/big", "/v1/flood"] {
        let config = config(&setup.own, Some(&pair), Http::Two);
        let stream = tls(config, "127.0.0.1", setup.address()).await.unwrap();
        let mut client = Client::over_windows_of(stream, 64).await.unwrap();
        let stuck = client.begin(request("GET", path, None, "")).await.unwrap();
        let cut = async || {
            tokio::time::sleep(SHORT / 8).await;
            client.get("/v1/who", None).await.is_err()
        };
        let patience = timeout(PATIENCE, setup.until("the connection is cut", cut));
        patience.await.expect("an answer, or the end");
        drop(stuck);
    }
}

#[tokio::test]
async fn a_body_is_as_long_as_it_may_be_and_no_longer() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    let body = |length: usize| format!("\"{}\"", "x".repeat(length - 2));
    for http in BOTH {
        let mut client = setup.connect(Some(&pair), http).await.unwrap();
        let put = |length| request("PUT", "/v1/length", None, body(length));
        let answer = client.send(put(MOST_BODY)).await.unwrap();
        assert_eq!(answer.text, (MOST_BODY - 2).to_string());
        for length in [MOST_BODY + 1, 1 << 20] {
            // HTTP/1.1 ends with what it does not read.
            let mut client = setup.connect(Some(&pair), http).await.unwrap();
            let answer = client.send(put(length)).await.unwrap();
            assert_eq!(answer.status, 413, "{http:?}");
            assert!(answer.text.contains("too-large"), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_body_that_does_not_come_is_not_waited_for() {
    let setup = Setup::with(
        ApiOptions {
            deadline: SHORT * 2,
            ..ApiOptions::default()
        },
        1000,
    );
    let pair = setup.clients.client(&[ACME]);
    let config = config(&setup.own, Some(&pair), Http::One);
    let mut stream = tls(config, "127.0.0.1", setup.address()).await.unwrap();
    let head = "PUT /v1/length HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
                Content-Length: 10\r\n\r\n\"half";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("an answer, and the end").unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.contains("too-slow"),
        "{answer}"
    );
}

#[tokio::test]
async fn heads_have_limits() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    for http in BOTH {
        let mut client = setup.connect(Some(&pair), http).await.unwrap();
        let mut long = request("GET", "/v1/who", None, "");
        let value = "x".repeat(40 << 10).parse().unwrap();
        long.headers_mut().insert("x-long", value);
        match client.send(long).await {
            Ok(answer) => assert_eq!(answer.status, 431, "{http:?}"),
            // A client that knows the server's limit need not even send it.
            Err(_) => assert_eq!(http, Http::Two),
        }
    }
}

#[tokio::test]
async fn there_are_so_many_connections_in_all_and_from_each_source() {
    let setup = Setup::with(
        ApiOptions {
            connections: 5,
            connections_per_source: 3,
            ..ApiOptions::default()
        },
        1000,
    );
    let token = setup.store.issue("acme", 1, None).token.reveal();
    let mut clients = Vec::new();
    for (from, taken) in [
        ("127.0.0.1", true),
        ("127.0.0.1", true),
        ("127.0.0.1", true),
        ("127.0.0.1", false),
        ("127.0.0.2", true),
        ("127.0.0.3", true),
        ("127.0.0.4", false),
    ] {
        let client = setup.connect_from(from, None, Http::Two).await;
        assert_eq!(client.is_ok(), taken, "{from} {}", clients.len());
        clients.extend(client);
    }
    for client in &mut clients {
        let answer = client.get("/v1/who", Some(&token)).await.unwrap();
        assert_eq!(answer.status, 200, "those that are in stay in");
    }
    assert_eq!(
        setup.metric("router_registry_connections_over_limit_total"),
        2
    );
    clients.clear();
    let again = async || {
        setup
            .connect_from("127.0.0.4", None, Http::Two)
            .await
            .is_ok()
    };
    setup.until("there is room again", again).await;
}

#[tokio::test]
async fn a_panic_ends_a_request_and_nothing_else() {
    let setup = Setup::new();
    let pair = setup.clients.client(&[ACME]);
    for http in BOTH {
        let mut client = setup.connect(Some(&pair), http).await.unwrap();
        let answer = client.get("/v1/panics", None).await.unwrap();
        assert_eq!(answer.status, 500);
        assert!(answer.text.contains("\"internal\""), "{}", answer.text);
        assert_eq!(client.get("/v1/who", None).await.unwrap().status, 200);
    }
}
