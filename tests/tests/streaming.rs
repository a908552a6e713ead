//! Bodies of any size and pace pass in flat memory.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::io::Read;

use harness::backend::{Backend, OK};
use harness::client::Connection;
use harness::edge::{Edge, HOST};
use harness::nginx::pattern;
use harness::wait;

/// Bytes of the large bodies below.
const MUCH: u64 = 200 * 1024 * 1024;

/// How much memory the router may gain while they pass: far below a body, far above its buffers.
const LITTLE: u64 = 32 * 1024 * 1024;

#[test]
fn a_large_download_streams_in_flat_memory() {
    let edge = Edge::with_backend("forward-download", 9001).unwrap();
    let _backend = Backend::start(edge.port(9001), |conversation| {
        let piece = pattern(1024 * 1024);
        while conversation.request()?.is_some() {
            conversation.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"))?;
            for _ in 0..MUCH / (1024 * 1024) {
                conversation.send(&piece)?;
            }
        }
        Ok(())
    })
    .unwrap();
    let router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    client.take_through(b"\r\n\r\n").unwrap();
    let before = router.process.resident_bytes().unwrap();
    let piece = pattern(1024 * 1024);
    let mut got = vec![0; piece.len()];
    let mut most = before;
    for number in 0..MUCH / (1024 * 1024) {
        client.read_exact(&mut got).unwrap();
        assert!(got == piece, "MiB {number} is not what was sent");
        most = most.max(router.process.resident_bytes().unwrap());
    }
    assert!(
        most - before < LITTLE,
        "grew by {} KiB",
        (most - before) / 1024
    );
}

#[test]
fn a_large_upload_streams_in_flat_memory() {
    let edge = Edge::with_backend("forward-upload", 9001).unwrap();
    let _backend = Backend::start(edge.port(9001), |conversation| {
        while conversation.head()?.is_some() {
            conversation.swallow(MUCH)?;
            conversation.send(OK)?;
        }
        Ok(())
    })
    .unwrap();
    let router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {MUCH}\r\n\r\n"
        ))
        .unwrap();
    let before = router.process.resident_bytes().unwrap();
    let piece = pattern(1024 * 1024);
    let mut most = before;
    for _ in 0..MUCH / (1024 * 1024) {
        client.send(&piece).unwrap();
        most = most.max(router.process.resident_bytes().unwrap());
    }
    assert_eq!(client.response("POST").unwrap().text(), "ok");
    assert!(
        most - before < LITTLE,
        "grew by {} KiB",
        (most - before) / 1024
    );
}

#[test]
fn a_client_that_does_not_read_makes_the_backend_wait() {
    let mut edge = Edge::with_backend("forward-backpressure", 9001).unwrap();
    edge.more = "timeouts:\n  body_idle: 10m\n".into();
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let _backend = Backend::start(edge.port(9001), move |conversation| {
        conversation.request()?;
        conversation.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n"))?;
        let piece = vec![b'x'; 64 * 1024];
        loop {
            conversation.send(&piece)?;
            counted.fetch_add(piece.len() as u64, std::sync::atomic::Ordering::Relaxed);
        }
    })
    .unwrap();
    let router = edge.start().unwrap();
    let before = router.process.resident_bytes().unwrap();
    let mut client: Connection = edge.connect(HOST).unwrap();
    client
        .send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    // Until nothing moves any more: the same count twenty looks in a row.
    let (mut last, mut same) = (0, 0);
    wait::until_true("the backend to be held up", || {
        let now = sent.load(std::sync::atomic::Ordering::Relaxed);
        same = if now == last && now > 0 { same + 1 } else { 0 };
        last = now;
        same >= 20
    })
    .unwrap();
    assert!(
        last < MUCH / 2,
        "{last} bytes were taken for a client that reads nothing"
    );
    let grown = router
        .process
        .resident_bytes()
        .unwrap()
        .saturating_sub(before);
    assert!(grown < LITTLE, "grew by {} KiB", grown / 1024);
}

#[test]
fn a_watch_delivers_each_piece_as_it_comes() {
    let edge = Edge::with_backend("forward-watch", 9001).unwrap();
    let (go_on, gate) = std::sync::mpsc::channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let backend = Backend::start(edge.port(9001), move |conversation| {
        conversation.request()?;
        conversation.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
        // Each piece is sent only after the client has got the one before.
        for number in 0..5 {
            conversation.send(format!("7\r\nevent {number}\r\n"))?;
            let gate = gate.lock().expect("nobody panics with the gate in hand");
            let _ = gate.recv_timeout(wait::PATIENCE);
        }
        conversation.until_closed()
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client
        .send(format!("GET /watch HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    for number in 0..5 {
        client
            .take_through(format!("event {number}\r\n").as_bytes())
            .unwrap();
        go_on.send(()).unwrap();
    }
    drop(client);
    wait::until_true("the backend to learn that the client has gone", || {
        backend.closed() == 1
    })
    .unwrap();
}
