//! Plain HTTP: every request is redirected, none is forwarded.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::address;
use harness::backend::{Backend, OK};
use harness::client::{Connection, Response};
use harness::edge::{Edge, HOST};
use harness::tool::Tool;

/// An edge whose only backend must never hear anything.
fn edge(label: &str) -> (Edge, Backend) {
    let edge = Edge::with_backend(label, 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    (edge, backend)
}

fn ask(edge: &Edge, request: impl AsRef<[u8]>) -> Response {
    Connection::plain(edge.http[0])
        .unwrap()
        .exchange(request)
        .unwrap()
}

#[test]
fn every_request_is_sent_to_the_same_place_under_https() {
    let (edge, backend) = edge("redirect");
    let _router = edge.start().unwrap();
    let acme = "/.well-known/acme-challenge/token";
    for (what, request, location) in [
        (
            "a known host",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            format!("https://{HOST}/"),
        ),
        (
            "an unknown host",
            "GET /a HTTP/1.1\r\nHost: nobody.example.net\r\n\r\n".into(),
            "https://nobody.example.net/a".into(),
        ),
        (
            "path and query, byte for byte",
            format!(
                "GET /a/../b%2Fc//d;e?x=1&y=%20&z=//&u=https://evil HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
            ),
            format!("https://{HOST}/a/../b%2Fc//d;e?x=1&y=%20&z=//&u=https://evil"),
        ),
        (
            "an ACME challenge",
            format!("GET {acme} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            format!("https://{HOST}{acme}"),
        ),
        (
            "a port in Host",
            format!("GET /a HTTP/1.1\r\nHost: {HOST}:8080\r\n\r\n"),
            format!("https://{HOST}/a"),
        ),
        (
            "a POST with a body",
            format!("POST /form HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 5\r\n\r\nhello"),
            format!("https://{HOST}/form"),
        ),
        (
            "a chunked POST",
            format!(
                "POST /form HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            ),
            format!("https://{HOST}/form"),
        ),
        (
            "HTTP/1.0",
            format!("GET /old HTTP/1.0\r\nHost: {HOST}\r\n\r\n"),
            format!("https://{HOST}/old"),
        ),
        (
            "HEAD",
            format!("HEAD /h HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            format!("https://{HOST}/h"),
        ),
        (
            "an absolute target",
            format!("GET http://{HOST}/abs?q HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            format!("https://{HOST}/abs?q"),
        ),
        (
            "a WebSocket",
            format!(
                "GET /ws HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
            ),
            format!("https://{HOST}/ws"),
        ),
    ] {
        let response = ask(&edge, request);
        assert_eq!(response.status, 308, "{what}");
        assert_eq!(
            response.header("location"),
            Some(location.as_str()),
            "{what}"
        );
        assert!(response.body.is_empty(), "{what}");
    }
    assert_eq!(backend.connections(), 0, "something was forwarded");
}

#[test]
fn a_body_is_never_taken_for_the_next_request() {
    let (edge, backend) = edge("redirect-body");
    let _router = edge.start().unwrap();
    let inner = format!("GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut connection = Connection::plain(edge.http[0]).unwrap();
    connection
        .send(format!(
            "POST /form HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {}\r\n\r\n{inner}",
            inner.len()
        ))
        .unwrap();
    connection.finish().unwrap();
    let answers = String::from_utf8(connection.rest().unwrap()).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 308").count(), 1, "{answers}");
    assert!(!answers.contains("smuggled"), "{answers}");
    assert_eq!(backend.connections(), 0);
}

#[test]
fn requests_on_one_connection_are_answered_in_turn() {
    let (edge, _backend) = edge("redirect-pipeline");
    let _router = edge.start().unwrap();
    let mut connection = Connection::plain(edge.http[0]).unwrap();
    connection
        .send(format!(
            "GET /1 HTTP/1.1\r\nHost: {HOST}\r\n\r\nGET /2 HTTP/1.1\r\nHost: other.example\r\n\r\n"
        ))
        .unwrap();
    for location in [
        format!("https://{HOST}/1"),
        "https://other.example/2".into(),
    ] {
        let response = connection.response("GET").unwrap();
        assert_eq!(response.header("location"), Some(location.as_str()));
    }
}

#[test]
fn without_a_valid_host_there_is_nowhere_to_send_anybody() {
    let (edge, backend) = edge("redirect-host");
    let _router = edge.start().unwrap();
    for (what, request) in [
        ("none", "GET / HTTP/1.1\r\n\r\n".to_owned()),
        ("none, HTTP/1.0", "GET / HTTP/1.0\r\n\r\n".to_owned()),
        ("an empty one", "GET / HTTP/1.1\r\nHost:\r\n\r\n".to_owned()),
        (
            "two",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"),
        ),
        (
            "two in one",
            format!("GET / HTTP/1.1\r\nHost: {HOST}, {HOST}\r\n\r\n"),
        ),
        (
            "a path",
            format!("GET / HTTP/1.1\r\nHost: {HOST}/evil\r\n\r\n"),
        ),
        (
            "user information",
            format!("GET / HTTP/1.1\r\nHost: {HOST}@evil.example\r\n\r\n"),
        ),
        ("a blank", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned()),
        (
            "another in the target",
            format!("GET http://evil.example/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
        ),
    ] {
        let mut connection = Connection::plain(edge.http[0]).unwrap();
        let response = connection.exchange(request).unwrap();
        assert_eq!(response.status, 400, "Host: {what}");
        assert_eq!(response.header("location"), None, "Host: {what}");
        assert_eq!(connection.rest().unwrap(), b"", "Host: {what}; and a close");
    }
    assert_eq!(backend.connections(), 0);
}

#[test]
fn status_and_port_are_those_of_the_configuration() {
    let (mut edge, _backend) = edge("redirect-301");
    edge.redirect = Some(301);
    edge.https_port = 8443;
    let _router = edge.start().unwrap();
    let response = ask(
        &edge,
        format!("GET /a?b HTTP/1.1\r\nHost: {HOST}:8080\r\n\r\n"),
    );
    assert_eq!(response.status, 301);
    assert_eq!(
        response.header("location"),
        Some(format!("https://{HOST}:8443/a?b").as_str())
    );
}

#[test]
fn ipv6_is_served_alike() {
    let (mut edge, _backend) = edge("redirect-v6");
    let v6 = address::free_v6().unwrap();
    edge.http.push(v6);
    let _router = edge.start().unwrap();
    let request = format!("GET /six HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let response = Connection::plain(v6).unwrap().exchange(request).unwrap();
    assert_eq!(response.status, 308);
    assert_eq!(
        response.header("location"),
        Some(format!("https://{HOST}/six").as_str())
    );

    let literal = Connection::plain(v6)
        .unwrap()
        .exchange(format!("GET /six HTTP/1.1\r\nHost: {v6}\r\n\r\n"))
        .unwrap();
    assert_eq!(literal.header("location"), Some("https://[::1]/six"));
}

#[test]
fn curl_follows_to_the_page() {
    let (mut edge, backend) = edge("redirect-curl");
    edge.https_port = edge.https[0].port();
    let _router = edge.start().unwrap();
    let mut arguments = edge.curl(HOST).unwrap();
    let (http, https) = (edge.http[0], edge.https[0]);
    arguments.extend([
        "--location".to_owned(),
        "--connect-to".to_owned(),
        format!("{HOST}:80:{http}"),
        "--connect-to".to_owned(),
        format!("{HOST}:{}:{https}", https.port()),
        "--write-out".to_owned(),
        " %{num_redirects} %{scheme}".to_owned(),
        format!("http://{HOST}/page"),
    ]);
    let shown = Tool::new("curl").args(arguments).succeed().unwrap();
    assert_eq!(shown.to_ascii_lowercase(), "ok 1 https");
    assert_eq!(backend.count("GET /page HTTP/1.1"), 1);
}
