//! New files without a cut, bad files without a change, and a drain to the end.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use harness::backend::{Backend, OK};
use harness::client::{Connection, TlsClient};
use harness::edge::{Edge, HOST, Upstream, route_file};
use harness::load::Load;
use harness::nginx::Ingress;
use harness::{folder, wait, websocket};

const OTHER: &str = "other.acme.example.org";

fn get(host: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")
}

fn status(edge: &Edge, host: &str) -> u16 {
    edge.connect(HOST)
        .unwrap()
        .exchange(get(host))
        .unwrap()
        .status
}

/// Writes the edge's one route file with these hosts.
fn route(edge: &Edge, hosts: &[&str]) {
    let routes: Vec<_> = hosts.iter().map(|host| (*host, "workers")).collect();
    let upstream = Upstream::plain("workers", &[edge.port(9001)]);
    edge.routes("acme", &route_file("acme", &[upstream], &routes))
        .unwrap();
}

#[test]
fn sighup_brings_new_routes_in_and_takes_old_ones_out() {
    let edge = Edge::with_backend("reload-hup", 9001).unwrap();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    let mut router = edge.start().unwrap();
    let mut open = edge.connect(HOST).unwrap();
    assert_eq!(
        (
            open.exchange(get(HOST)).unwrap().status,
            status(&edge, OTHER)
        ),
        (200, 404)
    );
    route(&edge, &[OTHER]);
    router.reload();
    wait::until_true("the new route", || status(&edge, OTHER) == 200).unwrap();
    assert_eq!(status(&edge, HOST), 404, "the old route is gone");
    // A connection from before knows the new routes too.
    assert_eq!(open.exchange(get(OTHER)).unwrap().status, 200);
}

#[test]
fn a_changed_file_is_noticed_without_a_signal() {
    let edge = Edge::with_backend("reload-watch", 9001).unwrap();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    let _router = edge.start().unwrap();
    assert_eq!(status(&edge, OTHER), 404);
    // A new file, a changed one, a removed one.
    let extra = route_file(
        "acme",
        &[Upstream::plain("more", &[edge.port(9001)])],
        &[(OTHER, "more")],
    );
    edge.routes("acme-more", &extra).unwrap();
    wait::until_true("the new file", || status(&edge, OTHER) == 200).unwrap();
    let third = "third.acme.example.org";
    edge.routes("acme-more", &extra.replace(OTHER, third))
        .unwrap();
    wait::until_true("the changed file", || status(&edge, third) == 200).unwrap();
    assert_eq!(status(&edge, OTHER), 404);
    std::fs::remove_file(edge.folder().join("routes.d/acme-more.yaml")).unwrap();
    wait::until_true("the removed file", || status(&edge, third) == 404).unwrap();
    assert_eq!(status(&edge, HOST), 200);
}

#[test]
fn a_bad_file_changes_nothing_and_says_why() {
    let edge = Edge::with_backend("reload-bad", 9001).unwrap();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    let mut router = edge.start().unwrap();
    let good = route_file(
        "acme",
        &[Upstream::plain("workers", &[edge.port(9001)])],
        &[(HOST, "workers")],
    );
    for (what, bad, words) in [
        (
            "an unknown key",
            good.replace("upstream: workers", "upstraem: workers"),
            &["acme.yaml:8", "upstraem"][..],
        ),
        (
            "an upstream that is not there",
            good.replace("upstream: workers", "upstream: wokers"),
            &["acme.yaml:8", "wokers"],
        ),
        (
            "a bad address",
            good.replace(":9001", ":99999"),
            &["acme.yaml:5", "endpoints"],
        ),
        ("no YAML", "tenant: [".to_owned(), &["acme.yaml:2"]),
        ("an empty file", String::new(), &["acme.yaml"]),
    ] {
        let before = router.log().len();
        // The other, good change in the same load must not come either.
        edge.routes(
            "zz-extra",
            &route_file(
                "acme",
                &[Upstream::plain("x", &[edge.port(9001)])],
                &[(OTHER, "x")],
            ),
        )
        .unwrap();
        edge.routes("acme", &bad).unwrap();
        router.reload();
        let said = wait::until(&format!("a word about {what}"), wait::PATIENCE, || {
            let log = router.log().split_off(before);
            words.iter().all(|word| log.contains(word)).then_some(log)
        });
        said.unwrap_or_else(|error| panic!("{error:#}; log: {}", router.log().split_off(before)));
        assert_eq!(status(&edge, HOST), 200, "{what}");
        // Back to good files, and the router is as able as before.
        edge.routes("acme", &good).unwrap();
        router.reload();
        wait::until_true("the good files", || status(&edge, OTHER) == 200).unwrap();
        std::fs::remove_file(edge.folder().join("routes.d/zz-extra.yaml")).unwrap();
        router.reload();
        wait::until_true("the extra route to go", || status(&edge, OTHER) == 404).unwrap();
    }
    // router.yaml itself.
    folder::write(
        &edge.configuration(),
        edge.settings().replace("https:\n", "htps:\n"),
    )
    .unwrap();
    router.reload();
    router.wait_for_log(&["router.yaml", "htps"]).unwrap();
    assert_eq!(status(&edge, HOST), 200);
}

#[test]
fn settings_change_without_a_restart() {
    let mut edge = Edge::with_backend("reload-settings", 9001).unwrap();
    let mut router = edge.start().unwrap();
    let status = |edge: &Edge| {
        Connection::plain(edge.http[0])
            .unwrap()
            .exchange(get(HOST))
            .unwrap()
            .status
    };
    assert_eq!(status(&edge), 308);
    edge.redirect = Some(301);
    edge.write_settings().unwrap();
    router.reload();
    wait::until_true("the new redirect", || status(&edge) == 301).unwrap();
}

#[test]
fn reloads_cut_neither_websocket_nor_download_nor_get() {
    let edge = Edge::with_backend("reload-live", 31380).unwrap();
    let echo = websocket::EchoServer::start(None, edge.port(9000)).unwrap();
    let ingress = Ingress {
        websocket: Some(echo.address()),
        ..Ingress::plain("acme", "a1", edge.port(31380))
    };
    let _nginx = ingress.start(edge.folder()).unwrap();
    let (go_on, slow) = gated(&edge);
    let routes = |number: usize| {
        let workers = Upstream::plain("workers", &[edge.port(31380)]);
        let slow = Upstream::plain("slow", &[edge.port(9001)]);
        let extra = format!("extra-{number}.acme.example.org");
        let text = route_file(
            "acme",
            &[workers, slow],
            &[(HOST, "workers"), (OTHER, "slow"), (&extra, "slow")],
        );
        edge.routes("acme", &text).unwrap();
        extra
    };
    routes(0);
    let mut router = edge.start().unwrap();

    let mut socket =
        websocket::Client::open(&format!("wss://{HOST}/ws"), edge.connect(HOST).unwrap()).unwrap();
    socket.echo("before").unwrap();
    let mut download = edge.connect(OTHER).unwrap();
    download.send(get(OTHER)).unwrap();
    download.take_through(b"begins;").unwrap();
    let tls = TlsClient::new(&edge.ca, &["http/1.1"]);
    let load = Load::start(2, &tls, edge.https[0], &[HOST], None).unwrap();
    for number in 1..=5 {
        load.wait_for(20).unwrap();
        let extra = routes(number);
        router.reload();
        // Any answer but 404 says that the new routes are in force; the slow one gives none.
        wait::until_true("the reload", || {
            let mut probe = edge.connect(HOST).unwrap();
            probe
                .send(format!("GET /probe HTTP/1.1\r\nHost: {extra}\r\n\r\n"))
                .unwrap();
            probe.response("GET").unwrap().status == 200
        })
        .unwrap();
        socket.echo(&format!("after reload {number}")).unwrap();
    }
    go_on.send(()).unwrap();
    assert_eq!(download.response_rest(), "ends");
    socket.close().unwrap();
    assert_eq!(load.finish().failures, Vec::<String>::new());
    drop(slow);
}

/// A backend whose answer to `/` is in two parts, the second one when told.
fn gated(edge: &Edge) -> (Sender<()>, Backend) {
    let (go_on, gate) = channel::<()>();
    let gate = Mutex::new(gate);
    let backend = Backend::start(edge.port(9001), move |conversation| {
        while let Some(request) = conversation.request()? {
            if request.starts_with(b"GET / ") {
                conversation.send("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nbegins;")?;
                let gate = gate.lock().expect("nobody panics with the gate in hand");
                let _ = gate.recv_timeout(wait::PATIENCE);
                conversation.send("ends")?;
            } else {
                conversation.send(OK)?;
            }
        }
        Ok(())
    })
    .unwrap();
    (go_on, backend)
}

/// The last four bytes of the gated answer.
trait ResponseRest {
    fn response_rest(&mut self) -> String;
}

impl ResponseRest for Connection {
    fn response_rest(&mut self) -> String {
        String::from_utf8(self.take(4).unwrap()).unwrap()
    }
}

#[test]
fn sigterm_lets_requests_finish_and_takes_no_new_ones() {
    let edge = Edge::with_backend("drain", 9001).unwrap();
    let (go_on, _backend) = gated(&edge);
    let mut router = edge.start().unwrap();
    let mut idle = edge.connect(HOST).unwrap();
    assert_eq!(
        idle.exchange(format!("GET /idle HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
            .unwrap()
            .status,
        200
    );
    let mut plain = Connection::plain(edge.http[0]).unwrap();
    assert_eq!(plain.exchange(get(HOST)).unwrap().status, 308);
    let mut busy = edge.connect(HOST).unwrap();
    busy.send(get(HOST)).unwrap();
    let head = busy.take_through(b"begins;").unwrap();
    assert!(
        !String::from_utf8_lossy(&head)
            .to_ascii_lowercase()
            .contains("connection: close")
    );

    router.terminate();
    wait::until_true("the listeners to close", || {
        router.connect(edge.https[0]).is_err()
    })
    .unwrap();
    assert!(
        router.connect(edge.http[0]).is_err(),
        "plain HTTP is closed too"
    );
    // An idle connection ends by itself; one that is in a request, with it.
    assert_eq!(idle.rest().unwrap(), b"");
    assert_eq!(plain.rest().unwrap(), b"");
    assert!(
        router.process.ended().is_none(),
        "a request is still in flight"
    );
    go_on.send(()).unwrap();
    assert_eq!(busy.response_rest(), "ends");
    assert_eq!(busy.rest().unwrap(), b"");
    assert!(
        router.process.wait(wait::PATIENCE).unwrap().success(),
        "{}",
        router.log()
    );
}

#[test]
fn an_answer_that_begins_during_a_drain_says_close() {
    let edge = Edge::with_backend("drain-close", 9001).unwrap();
    let (backend, go_on) = Backend::gated(edge.port(9001)).unwrap();
    let mut router = edge.start().unwrap();
    let mut client = edge.connect(HOST).unwrap();
    client.send(get(HOST)).unwrap();
    backend.wait_for("GET / ").unwrap();
    router.terminate();
    wait::until_true("the listeners to close", || {
        router.connect(edge.https[0]).is_err()
    })
    .unwrap();
    go_on.send(()).unwrap();
    let answer = client.response("GET").unwrap();
    assert_eq!((answer.status, answer.text()), (200, "ok".into()));
    assert!(answer.closes(), "{:?}", answer.headers);
    assert!(router.process.wait(wait::PATIENCE).unwrap().success());
}

#[test]
fn a_drain_ends_at_its_deadline() {
    let mut edge = Edge::with_backend("drain-deadline", 9001).unwrap();
    edge.more = "timeouts:\n  drain: 1s\n".into();
    // Nobody ever tells it to go on.
    let (_go_on, _backend) = gated(&edge);
    let mut router = edge.start().unwrap();
    let mut stuck = edge.connect(HOST).unwrap();
    stuck.send(get(HOST)).unwrap();
    stuck.take_through(b"begins;").unwrap();
    router.terminate();
    router.process.wait(wait::PATIENCE).unwrap();
    assert_eq!(stuck.rest().unwrap(), b"", "cut, without a made-up end");
}

#[test]
fn a_drain_that_is_to_wait_serves_meanwhile_and_says_that_it_is_not_ready() {
    let mut edge = Edge::with_backend("drain-delay", 9001).unwrap();
    edge.more = "timeouts:\n  drain_delay: 2s\n  drain: 1s\n".into();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    let mut router = edge.start().unwrap();
    let mut kept = edge.connect(HOST).unwrap();
    assert_eq!(kept.exchange(get(HOST)).unwrap().status, 200);
    let since = Instant::now();
    router.terminate();
    wait::until_true("it to say that it is not ready", || {
        router.admin("/readyz").is_err()
    })
    .unwrap();
    assert!(router.admin("/healthz").is_err());
    while since.elapsed() < Duration::from_millis(1_500) {
        assert_eq!(kept.exchange(get(HOST)).unwrap().status, 200, "an old one");
        let mut new = edge.connect(HOST).unwrap();
        assert_eq!(new.exchange(get(HOST)).unwrap().status, 200, "a new one");
    }
    router.process.wait(wait::PATIENCE).unwrap();
    assert!(since.elapsed() >= Duration::from_secs(2));

    // Whoever does not want to wait says so twice.
    edge.more = "timeouts:\n  drain_delay: 5m\n".into();
    let mut router = edge.start().unwrap();
    router.terminate();
    wait::until_true("it to say that it is not ready", || {
        router.admin("/readyz").is_err()
    })
    .unwrap();
    router.terminate();
    router.process.wait(wait::PATIENCE).unwrap();
}
