//! What an upstream may do wrong, and what the client gets then.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use harness::backend::{Backend, OK};
use harness::client::TlsClient;
use harness::edge::{Edge, HOST, Upstream, route_file};
use harness::h2_client::{self, H2Connection};
use harness::load::Load;
use harness::nginx::Ingress;

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn post(path: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello")
}

/// Heads that no client may ever see. Each is followed by the answer to nobody's question.
const BAD_HEADS: &[(&str, &str)] = &[
    (
        "length with coding",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nEVIL!\r\n0\r\n\r\n",
    ),
    (
        "two lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nEVIL!!",
    ),
    (
        "a list of lengths",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\nEVIL!!",
    ),
    (
        "a signed length",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nEVIL!",
    ),
    (
        "an overflowing length",
        "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nEVIL!",
    ),
    (
        "an unknown coding",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nEVIL!",
    ),
    (
        "chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nEVIL!\r\n0\r\n\r\n",
    ),
    (
        "obs-fold",
        "HTTP/1.1 200 OK\r\nX-A: 1\r\n EVIL\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "NUL",
        "HTTP/1.1 200 OK\r\nX-A: \x00EVIL\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "bare CR",
        "HTTP/1.1 200 OK\r\nX-A: 1\rEVIL: 2\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "bare LF",
        "HTTP/1.1 200 OK\nX-Evil: EVIL\nContent-Length: 0\n\n",
    ),
    (
        "a blank before a colon",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nEVIL!",
    ),
    ("no status", "HTTP/1.1 OK EVIL\r\nContent-Length: 0\r\n\r\n"),
    (
        "a status of four digits",
        "HTTP/1.1 2000 EVIL\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "101 that nobody asked for",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: EVIL\r\n\r\nEVIL",
    ),
    ("not HTTP", "SSH-2.0-EVIL\r\n\r\n"),
    (
        "the head of a request",
        "GET /EVIL HTTP/1.1\r\nHost: EVIL\r\n\r\n",
    ),
];

#[test]
fn bad_framing_is_502_and_harms_nobody_else() {
    for (number, (what, bad)) in BAD_HEADS.iter().enumerate() {
        let edge = Edge::with_backend(&format!("upstream-bad-{number}"), 9001).unwrap();
        let bad = bad.to_string();
        let backend = Backend::start(edge.port(9001), move |conversation| {
            while let Some(request) = conversation.request()? {
                let is_bad = request.starts_with(b"GET /bad");
                conversation.send(if is_bad { bad.as_bytes() } else { OK })?;
            }
            Ok(())
        })
        .unwrap();
        let _router = edge.start().unwrap();
        // Another client is served over the upstream connection that the bad answer will use.
        let mut other = edge.connect(HOST).unwrap();
        assert_eq!(other.exchange(get("/good")).unwrap().text(), "ok");

        let mut victim = edge.connect(HOST).unwrap();
        let answer = victim.exchange(get("/bad")).unwrap();
        assert_eq!(answer.status, 502, "{what}");
        let whole = String::from_utf8_lossy(&answer.head).into_owned() + &answer.text();
        assert!(!whole.contains("EVIL"), "{what}: {whole:?}");
        assert_eq!(
            backend.count("/bad"),
            1,
            "{what}: an answered request was sent again"
        );

        for client in [&mut other, &mut edge.connect(HOST).unwrap()] {
            for _ in 0..3 {
                let answer = client.exchange(get("/good")).unwrap();
                assert_eq!((answer.status, answer.text()), (200, "ok".into()), "{what}");
            }
        }
    }
}

#[test]
fn what_comes_behind_an_answer_is_nobodys() {
    let edge = Edge::with_backend("upstream-surplus", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        while let Some(request) = conversation.request()? {
            if request.starts_with(b"GET /split") {
                let mut two = OK.to_vec();
                two.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nEVIL");
                conversation.send(two)?;
            } else {
                conversation.send(OK)?;
            }
        }
        Ok(())
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut first = edge.connect(HOST).unwrap();
    assert_eq!(first.exchange(get("/split")).unwrap().text(), "ok");
    for client in [&mut first, &mut edge.connect(HOST).unwrap()] {
        assert_eq!(
            client.exchange(get("/next")).unwrap().text(),
            "ok",
            "the surplus was served"
        );
    }
    assert!(
        backend.connections() >= 2,
        "the connection with the surplus was used again"
    );
}

#[test]
fn a_body_that_turns_bad_ends_the_answer_short() {
    for (number, (what, body)) in [
        (
            "a bad chunk size",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\nzz\r\nEVIL\r\n0\r\n\r\n",
        ),
        (
            "a chunk without its end",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nfirstEVIL\r\n0\r\n\r\n",
        ),
        (
            "an early close, chunked",
            "Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n",
        ),
        (
            "an early close, by length",
            "Content-Length: 100\r\n\r\nfirst",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let edge = Edge::with_backend(&format!("upstream-short-{number}"), 9001).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\n{body}");
        let _backend = Backend::start(edge.port(9001), move |conversation| {
            match conversation.request()? {
                Some(request) if request.starts_with(b"GET /bad") => conversation.send(&answer),
                Some(_) => conversation.send(OK),
                None => Ok(()),
            }
        })
        .unwrap();
        let _router = edge.start().unwrap();
        let mut victim = edge.connect(HOST).unwrap();
        victim.send(get("/bad")).unwrap();
        let bytes = victim.rest().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(!text.contains("EVIL"), "{what}: {text:?}");
        assert!(
            !text.ends_with("0\r\n\r\n"),
            "{what}: a cut answer looks whole: {text:?}"
        );

        // Over HTTP/2 the stream is reset, and the connection lives.
        let tls = TlsClient::new(&edge.ca, &["h2"]);
        h2_client::run(async {
            let mut connection = H2Connection::open(&tls, edge.https[0], HOST).await?;
            let cut = connection.get(HOST, "/bad").await;
            if let Ok(answer) = cut {
                assert_eq!(answer.status, 502, "{what}: a cut answer looks whole");
            }
            assert_eq!(connection.get(HOST, "/good").await?.body, b"ok");
            Ok(())
        })
        .unwrap();
    }
}

/// A backend that serves the first request of each connection, and cuts a connection on its
/// second one: what a stale pooled connection looks like.
fn stale(edge: &Edge) -> Backend {
    Backend::start(edge.port(9001), |conversation| {
        let Some(_) = conversation.request()? else {
            return Ok(());
        };
        conversation.send(OK)?;
        // Reads the next request and answers nothing.
        conversation.request()?;
        Ok(())
    })
    .unwrap()
}

#[test]
fn a_get_on_a_stale_connection_is_sent_once_more() {
    let edge = Edge::with_backend("upstream-stale-get", 9001).unwrap();
    let backend = stale(&edge);
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    assert_eq!(client.exchange(get("/first")).unwrap().status, 200);
    assert_eq!(client.exchange(get("/second")).unwrap().status, 200);
    assert_eq!(
        backend.count("GET /second "),
        2,
        "once on the stale connection, once anew"
    );
    assert_eq!(backend.connections(), 2);
}

#[test]
fn a_post_on_a_stale_connection_is_not() {
    let edge = Edge::with_backend("upstream-stale-post", 9001).unwrap();
    let backend = stale(&edge);
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    assert_eq!(client.exchange(get("/first")).unwrap().status, 200);
    let answer = client.exchange(post("/second")).unwrap();
    assert_eq!(answer.status, 502);
    assert_eq!(backend.count("POST /second "), 1, "a POST was sent twice");
}

#[test]
fn a_connection_that_the_ingress_closes_is_not_used_again() {
    let edge = Edge::with_backend("upstream-closed", 9001).unwrap();
    let backend = Backend::start(edge.port(9001), |conversation| {
        conversation.request()?;
        conversation.send(OK)
    })
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    for number in 1..=5 {
        // A POST could not be repaired by a second attempt.
        assert_eq!(
            client.exchange(post("/")).unwrap().status,
            200,
            "request {number}"
        );
        harness::wait::until_true("the backend to close", || backend.closed() == number).unwrap();
    }
    assert_eq!(backend.count("POST / "), 5);
}

#[test]
fn connections_are_used_again() {
    let edge = Edge::with_backend("upstream-reuse", 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    for _ in 0..5 {
        let mut client = edge.connect(HOST).unwrap();
        for _ in 0..5 {
            assert_eq!(client.exchange(post("/")).unwrap().status, 200);
        }
    }
    assert_eq!(backend.count("POST / "), 25);
    assert_eq!(
        backend.connections(),
        1,
        "one client at a time needs one connection"
    );
}

#[test]
fn an_answer_that_says_close_ends_the_connection() {
    let edge = Edge::with_backend("upstream-says-close", 9001).unwrap();
    let backend = Backend::answering(
        edge.port(9001),
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    )
    .unwrap();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    for _ in 0..3 {
        let answer = client.exchange(get("/")).unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            !answer.closes(),
            "the upstream's connection is no business of the client's"
        );
    }
    assert_eq!(backend.connections(), 3);
}

#[test]
fn an_endpoint_that_refuses_is_passed_over_and_rests() {
    let mut edge = Edge::with_backend("upstream-refuses", 9001).unwrap();
    edge.more = "timeouts:\n  endpoint_rest: 1h\n".into();
    let endpoints = [edge.port(9001), edge.port(9002)];
    let routes = route_file(
        "acme",
        &[Upstream::plain("workers", &endpoints)],
        &[(HOST, "workers")],
    );
    edge.routes("acme", &routes).unwrap();
    let up = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    // Each on a connection of its own upstream, since the answer is POST: no retry could hide it.
    for number in 0..40 {
        let mut client = edge.connect(HOST).unwrap();
        assert_eq!(
            client.exchange(post("/")).unwrap().status,
            200,
            "request {number}"
        );
        up.cut();
    }
    // By now the dead one has been tried. It rests for an hour, so coming back does not help it.
    let back = Backend::answering(edge.port(9002), OK).unwrap();
    for _ in 0..20 {
        assert_eq!(
            edge.connect(HOST)
                .unwrap()
                .exchange(get("/"))
                .unwrap()
                .status,
            200
        );
    }
    assert_eq!(back.connections(), 0, "a resting endpoint was asked");
}

#[test]
fn an_endpoint_comes_back_after_its_rest() {
    let mut edge = Edge::with_backend("upstream-returns", 9001).unwrap();
    edge.more = "timeouts:\n  endpoint_rest: 100ms\n".into();
    let _router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    let answer = client.exchange(get("/")).unwrap();
    assert!(
        matches!(answer.status, 502 | 503),
        "nobody is there: {}",
        answer.status
    );
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    harness::wait::until_true("the endpoint to be asked again", || {
        let answer = edge.connect(HOST).and_then(|mut it| it.exchange(get("/")));
        answer.is_ok_and(|it| it.status == 200)
    })
    .unwrap();
}

#[test]
fn no_get_fails_when_a_worker_dies() {
    let edge = Edge::new("upstream-death").unwrap();
    edge.certificate("acme", &["*.acme.example.org"], harness::ca::KeyKind::Ecdsa)
        .unwrap();
    let endpoints = [edge.port(31381), edge.port(31382)];
    let mut first = Ingress::plain("acme", "a1", endpoints[0])
        .start(edge.folder())
        .unwrap();
    let _second = Ingress::plain("acme", "a2", endpoints[1])
        .start(edge.folder())
        .unwrap();
    let routes = route_file(
        "acme",
        &[Upstream::plain("workers", &endpoints)],
        &[(HOST, "workers")],
    );
    edge.routes("acme", &routes).unwrap();
    let _router = edge.start().unwrap();

    let tls = TlsClient::new(&edge.ca, &["http/1.1"]);
    let load = Load::start(6, &tls, edge.https[0], &[HOST], None);
    load.wait_for(200).unwrap();
    first.process.crash();
    load.wait_for(200).unwrap();
    // And back again.
    let _first = Ingress::plain("acme", "a1", endpoints[0])
        .start(edge.folder())
        .unwrap();
    load.wait_for(200).unwrap();
    let tally = load.finish();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(tally.workers.len(), 2, "{:?}", tally.workers);
}

#[test]
fn load_is_spread_over_the_workers() {
    let edge = Edge::with_backend("upstream-spread", 9001).unwrap();
    let endpoints = [edge.port(9001), edge.port(9002), edge.port(9003)];
    let routes = route_file(
        "acme",
        &[Upstream::plain("workers", &endpoints)],
        &[(HOST, "workers")],
    );
    edge.routes("acme", &routes).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let backends: Vec<Backend> = endpoints
        .iter()
        .map(|address| {
            let asked = Arc::clone(&asked);
            Backend::start(*address, move |conversation| {
                while conversation.request()?.is_some() {
                    asked.fetch_add(1, Ordering::Relaxed);
                    conversation.send(OK)?;
                }
                Ok(())
            })
            .unwrap()
        })
        .collect();
    let _router = edge.start().unwrap();
    let tls = TlsClient::new(&edge.ca, &["http/1.1"]);
    let load = Load::start(6, &tls, edge.https[0], &[HOST], None);
    load.wait_for(600).unwrap();
    let tally = load.finish();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert_eq!(
        asked.load(Ordering::Relaxed),
        tally.answered(),
        "each request once"
    );
    for backend in &backends {
        // A third each would be 200; a share of a tenth says that nobody is forgotten.
        assert!(
            backend.count("GET / ") >= 60,
            "{} got {}",
            backend.address(),
            backend.count("GET / ")
        );
    }
}
