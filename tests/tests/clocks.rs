//! A router whose wall clock is wrong.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::SocketAddr;
use std::time::Duration;

use harness::backend::{Backend, OK};
use harness::client::Connection;
use harness::edge::{Edge, HOST};
use harness::faketime::{self, Clock};
use harness::router::Router;
use harness::wait;

const HOUR: i64 = 3600;

/// How far the router's clock is from ours, in seconds, by the `Date` of a redirect.
fn apart(edge: &Edge) -> i64 {
    let answer = Connection::plain(edge.http[0])
        .unwrap()
        .exchange(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
        .unwrap();
    faketime::apart(answer.header("date").unwrap()).unwrap()
}

fn about(seconds: i64, expected: i64) -> bool {
    (seconds - expected).abs() < 120
}

#[test]
fn a_wrong_clock_shows_in_dates_and_stops_no_request() {
    let edge = Edge::with_backend("clock", 9001).unwrap();
    let _backend = Backend::answering(edge.port(9001), OK).unwrap();
    edge.write_settings().unwrap();
    let clock = Clock::new("router", "+3h", edge.folder()).unwrap();
    let command = Router::command(&edge.configuration()).unwrap();
    let process = clock.start("router", command, None, edge.folder()).unwrap();
    let addresses: Vec<SocketAddr> = edge.http.iter().chain(&edge.https).copied().collect();
    let _router = Router::of(process, None, &addresses, edge.admin).unwrap();
    assert!(about(apart(&edge), 3 * HOUR), "{}", apart(&edge));

    // Somebody sets it while requests come: on a connection from before, and to new ones.
    let mut open = edge.connect(HOST).unwrap();
    let get = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert_eq!(open.exchange(&get).unwrap().status, 200);
    clock.set("-2d").unwrap();
    wait::until("the clock to be set", Duration::from_secs(30), || {
        about(apart(&edge), -48 * HOUR).then_some(())
    })
    .unwrap();
    assert_eq!(open.exchange(&get).unwrap().status, 200);
    assert_eq!(
        edge.connect(HOST).unwrap().exchange(&get).unwrap().status,
        200
    );
}
