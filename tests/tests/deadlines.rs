//! Deadlines end what stalls, and nothing that moves.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::thread::sleep;
use std::time::Duration;

use harness::backend::{Backend, OK};
use harness::client::TlsClient;
use harness::edge::{Edge, HOST};
use harness::h2_client::{self, H2Connection};
use harness::tool::Tool;

/// Short against the answer below, long against a slow machine's hiccups between two bytes.
const SHORT: &str =
    "timeouts: {response_head: 2s, body_idle: 2s, client_idle: 2s, request_head: 2s}\n";

/// An edge with short deadlines, whose backend answers byte by byte for twice as long, or never.
fn edge(label: &str) -> (Edge, Backend) {
    let mut edge = Edge::with_backend(label, 9001).unwrap();
    edge.more.push_str(SHORT);
    let backend = Backend::start(edge.port(9001), |client| {
        while let Some(head) = client.head()? {
            if head.windows(7).any(|part| part == b" /never") {
                return client.until_closed();
            }
            if head.starts_with(b"GET /short") {
                client.send(OK)?;
                continue;
            }
            client.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n")?;
            for _ in 0..20 {
                // The pace is what is tested here, not a wait for something.
                sleep(Duration::from_millis(200));
                client.send("x")?;
            }
        }
        Ok(())
    })
    .unwrap();
    (edge, backend)
}

fn ask(edge: &Edge, version: &str, path: &str) -> String {
    Tool::new("curl")
        .args(["-sS", "--max-time", "60", version, "-w", " %{http_code}"])
        .args(edge.curl(HOST).unwrap())
        .args([format!("https://{HOST}{path}")])
        .succeed()
        .unwrap()
}

#[test]
fn an_answer_that_moves_outlives_every_deadline() {
    let (edge, _backend) = edge("moving");
    let _router = edge.start().unwrap();
    for version in ["--http1.1", "--http2"] {
        let answer = ask(&edge, version, "/slow");
        assert_eq!(
            answer.trim(),
            format!("{} 200", "x".repeat(20)),
            "{version}"
        );
    }
}

#[test]
fn an_endpoint_that_never_answers_is_given_up() {
    let (edge, _backend) = edge("silent");
    let _router = edge.start().unwrap();
    for version in ["--http1.1", "--http2"] {
        let answer = ask(&edge, version, "/never");
        assert!(answer.trim().ends_with("504"), "{version}: {answer}");
    }
}

#[test]
fn a_client_that_never_finishes_its_head_is_told_so() {
    let (edge, backend) = edge("slow-head");
    let _router = edge.start().unwrap();
    let mut connection = edge.connect(HOST).unwrap();
    let answer = connection
        .exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n"))
        .unwrap();
    assert_eq!(answer.status, 408);
    assert_eq!(backend.connections(), 0);
}

#[test]
fn a_body_that_never_comes_is_given_up() {
    let (edge, _backend) = edge("slow-body");
    let _router = edge.start().unwrap();
    let mut connection = edge.connect(HOST).unwrap();
    let request = format!("POST /never HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhe");
    assert_eq!(connection.exchange(request).unwrap().status, 408);
}

#[test]
fn a_client_that_never_opens_its_window_is_let_go() {
    let (edge, _backend) = edge("window");
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["h2"]);
    h2_client::run(async {
        let mut closed = h2::client::Builder::new();
        closed.initial_window_size(0);
        let mut connection = H2Connection::open_as(&closed, &tls, edge.https[0], HOST).await?;
        let request = http::Request::get(format!("https://{HOST}/short")).body(())?;
        let answer = connection.start(request).await?.await?;
        assert_eq!(answer.status(), 200);
        // The answer's body waits in the router for a window that stays shut; it must not do so
        // for ever. How the connection ends does not matter.
        let _ = connection.driver.await?;
        drop(answer);
        Ok(())
    })
    .unwrap();
}
