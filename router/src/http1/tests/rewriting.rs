//! What is passed on, byte for byte.

use std::net::IpAddr;

use bytes::BytesMut;
use http::HeaderMap;

use super::{LIMITS, head};
use crate::http1::FieldSlots;
use crate::http1::head::{Framing, Version, parse_request};
use crate::http1::response::{RequestKind, ResponseFraming, parse_response};
use crate::http1::rewrite::{
    ClientPersistence, Forwarding, client_framing, request_fields, request_framing, request_head,
    response_fields, response_head,
};

fn forwarding(trusted: bool) -> Forwarding<'static> {
    Forwarding {
        client: IpAddr::from([192, 0, 2, 7]),
        host: "a.example",
        port: 443,
        trusted,
    }
}

const OURS: [&str; 5] = [
    "X-Forwarded-For: 192.0.2.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: a.example",
    "X-Forwarded-Port: 443",
    "Forwarded: for=192.0.2.7;host=\"a.example\";proto=https",
];

fn passed_on(lines: &[&str], fwd: &Forwarding<'_>, upgrade: Option<&str>) -> String {
    let text = head(lines);
    let mut slots = FieldSlots::new();
    let parsed = parse_request(&text, &mut slots, &LIMITS)
        .expect("accepted")
        .expect("complete");
    let mut out = BytesMut::new();
    request_head(&parsed, fwd, upgrade, &mut out);
    String::from_utf8(out.to_vec()).expect("tests send UTF-8")
}

/// Fields after Host of a GET, and what comes out between Host and ours.
#[track_caller]
fn passes(fields: &[&str], expected: &[&str]) {
    let lines = [&["GET /x HTTP/1.1", "Host: a.example"], fields].concat();
    let out = passed_on(&lines, &forwarding(false), None);
    let lines = [&["GET /x HTTP/1.1", "Host: a.example"], expected, &OURS].concat();
    assert_eq!(out.as_bytes(), head(&lines), "{fields:?} gave {out}");
}

#[test]
fn fields_keep_bytes_and_order() {
    passes(&[], &[]);
    let fields = ["aCCept: */*", "B:x", "c:  y  ", "D:", "B: again"];
    passes(&fields, &fields);
    passes(
        &[
            "A: 1",
            "Keep-Alive: timeout=5",
            "B: 2",
            "Proxy-Connection: x",
            "Connection: close",
        ],
        &["A: 1", "B: 2"],
    );
}

#[test]
fn host_goes_first_as_the_client_wrote_it() {
    let out = passed_on(
        &[
            "GET http://A.example/x HTTP/1.1",
            "B: c",
            "HOST: A.Example:443",
        ],
        &forwarding(false),
        None,
    );
    assert!(
        out.starts_with("GET /x HTTP/1.1\r\nHost: A.Example:443\r\nB: c\r\n"),
        "{out}"
    );
}

#[test]
fn hop_by_hop_fields_are_left_out() {
    for field in [
        "Connection: keep-alive",
        "Keep-Alive: x",
        "Proxy-Connection: x",
        "Proxy-Authorization: x",
        "Proxy-Authenticate: x",
        "TE: gzip",
        "Upgrade: h2c",
        "HTTP2-Settings: x",
        "Proxy: http://evil",
        "keep_alive: x",
    ] {
        passes(&["A: 1", field, "B: 2"], &["A: 1", "B: 2"]);
    }
    passes(&["Trailer: x"], &["Trailer: x"]);
    passes(&["TE: gzip, Trailers"], &["TE: trailers", "Connection: TE"]);
    passes(
        &[
            "Connection: close, X-Hop",
            "X-Hop: 1",
            "x-hop: 2",
            "X-Hop-2: 3",
        ],
        &["X-Hop-2: 3"],
    );
}

#[test]
fn connection_cannot_take_out_what_is_for_the_origin() {
    let kept = [
        "Authorization: x",
        "Cookie: y",
        "Content-Type: z",
        "Range: bytes=0-",
    ];
    let connection = "Connection: host, Authorization, cookie, content-type, range, content-length, \
                      x-forwarded-for, forwarded, transfer-encoding";
    passes(&[&[connection], &kept[..]].concat(), &kept);
    passes(&[connection, "Content-Length: 5"], &["Content-Length: 5"]);
}

#[test]
fn framing_is_written_in_one_way() {
    passes(&["content-LENGTH:   5 "], &["content-LENGTH:   5 "]);
    passes(
        &["A: b", "Content-Length: 0005"],
        &["Content-Length: 5", "A: b"],
    );
    passes(
        &["A: b", "transfer-encoding: CHUNKED"],
        &["Transfer-Encoding: chunked", "A: b"],
    );
}

#[test]
fn a_client_cannot_say_where_it_came_from() {
    for field in [
        "X-Forwarded-For: 1.1.1.1",
        "x-forwarded-for: 1.1.1.1",
        "X_Forwarded_For: 1.1.1.1",
        "X-Forwarded_For: 1.1.1.1",
        "X-Forwarded-Proto: http",
        "X-Forwarded-Host: evil",
        "X-Forwarded-Port: 1",
        "X-Forwarded-Server: evil",
        "X-Forwarded-Ssl: on",
        "X_FORWARDED_SSL: on",
        "X-Forwarded-Prefix: /",
        "Forwarded: for=1.1.1.1",
        "X-Real-IP: 1.1.1.1",
        "X_Real_IP: 1.1.1.1",
        "X-Original-URL: /admin",
        "X-Original_Host: evil",
        "X-Rewrite-URL: /admin",
        "X-Client-IP: 1.1.1.1",
        "True-Client-IP: 1.1.1.1",
        "X-Cluster-Client-IP: 1.1.1.1",
    ] {
        passes(&["A: 1", field, "B: 2"], &["A: 1", "B: 2"]);
    }
    for field in [
        "X-Request-Id: 1",
        "X-Forward: 1",
        "X-Originals: 1",
        "X_Y: 1",
    ] {
        passes(&[field], &[field]);
    }
}

#[test]
fn a_trusted_peer_is_believed_and_added_to() {
    let lines = [
        "GET /x HTTP/1.1",
        "Host: a.example",
        "X-Forwarded-For: 1.1.1.1",
        "X-Forwarded-For: 2.2.2.2, 3.3.3.3",
        "X-Forwarded-Proto: http",
        "X-Real-IP: 1.1.1.1",
        "X_Forwarded_For: 9.9.9.9",
        "Forwarded: for=1.1.1.1",
        "A: b",
    ];
    let expected = head(&[
        "GET /x HTTP/1.1",
        "Host: a.example",
        "X-Forwarded-Proto: http",
        "X-Real-IP: 1.1.1.1",
        "A: b",
        "X-Forwarded-For: 1.1.1.1, 2.2.2.2, 3.3.3.3, 192.0.2.7",
        "X-Forwarded-Host: a.example",
        "X-Forwarded-Port: 443",
        "Forwarded: for=1.1.1.1, for=192.0.2.7;host=\"a.example\";proto=https",
    ]);
    let out = passed_on(&lines, &forwarding(true), None);
    assert_eq!(out.as_bytes(), expected, "{out}");
}

#[test]
fn peers_that_say_nothing_are_all_alike() {
    for address in ["192.0.2.7", "0.10.100.255", "2001:db8::1", "::"] {
        let [believed, not] = [true, false].map(|trusted| {
            let fwd = Forwarding {
                client: address.parse().expect("an address"),
                ..forwarding(trusted)
            };
            passed_on(&["GET / HTTP/1.1", "Host: a", "B: c"], &fwd, None)
        });
        assert_eq!(believed, not);
        assert!(
            not.contains(&format!("X-Forwarded-For: {address}\r\n")),
            "{not}"
        );
    }
}

#[test]
fn addresses() {
    for (address, plain, forwarded) in [
        ("2001:db8::1", "2001:db8::1", "for=\"[2001:db8::1]\";"),
        ("::ffff:192.0.2.9", "192.0.2.9", "for=192.0.2.9;"),
        ("255.0.10.1", "255.0.10.1", "for=255.0.10.1;"),
    ] {
        let fwd = Forwarding {
            client: address.parse().expect("an address"),
            ..forwarding(false)
        };
        let out = passed_on(&["GET / HTTP/1.1", "Host: a"], &fwd, None);
        assert!(
            out.contains(&format!("X-Forwarded-For: {plain}\r\n")),
            "{out}"
        );
        assert!(out.contains(&format!("Forwarded: {forwarded}")), "{out}");
    }
}

#[test]
fn upgrades_that_are_allowed() {
    let lines = [
        "GET / HTTP/1.1",
        "Host: a",
        "Connection: upgrade",
        "Upgrade: websocket",
    ];
    let out = passed_on(&lines, &forwarding(false), Some("websocket"));
    assert!(
        out.contains("Connection: Upgrade\r\nUpgrade: websocket\r\n"),
        "{out}"
    );
    let out = passed_on(&lines, &forwarding(false), None);
    assert!(!out.contains("pgrade"), "{out}");
}

#[test]
fn expectations_of_http10_are_left_out() {
    let lines = |version| {
        [
            format!("POST / HTTP/{version}"),
            "Host: a".into(),
            "Expect: 100-continue".into(),
        ]
    };
    for (version, kept) in [("1.0", false), ("1.1", true)] {
        let lines = lines(version);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let out = passed_on(&lines, &forwarding(false), None);
        assert_eq!(out.contains("Expect"), kept, "{out}");
    }
}

fn pairs<'a>(fields: &'a [(&'a str, &'a str)]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    fields
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
}

#[test]
fn from_http2_to_http1() {
    let fields = [
        ("accept", "*/*"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("connection", "x"),
        ("host", "other"),
        ("te", "trailers"),
        ("x-forwarded-for", "1.1.1.1"),
    ];
    let mut out = Vec::new();
    request_fields(pairs(&fields), &forwarding(false), &mut out);
    request_framing(Framing::Chunked, &mut out);
    let expected = [
        &[
            "Host: a.example",
            "accept: */*",
            "Cookie: a=1; b=2",
            "te: trailers",
            "Connection: TE",
        ][..],
        &OURS,
        &["Transfer-Encoding: chunked", ""],
    ]
    .concat()
    .join("\r\n");
    assert_eq!(String::from_utf8(out).expect("UTF-8"), expected);
}

#[test]
fn from_http1_to_http2() {
    let text = head(&[
        "POST / HTTP/1.1",
        "Host: a.example",
        "Connection: X-Hop, close",
        "X-Hop: 1",
        "TE: trailers",
        "Content-Length: 5",
        "Cookie: a",
        "X-Keep: 2",
    ]);
    let mut slots = FieldSlots::new();
    let parsed = parse_request(&text, &mut slots, &LIMITS)
        .expect("accepted")
        .expect("complete");
    let mut map = HeaderMap::new();
    request_fields(parsed.end_to_end_fields(), &forwarding(false), &mut map);
    request_framing(parsed.framing, &mut map);
    let mut names: Vec<&str> = map.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "content-length",
            "cookie",
            "forwarded",
            "te",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
            "x-keep"
        ]
    );
}

/// Status line and fields of an upstream, the client's version, and what the client gets.
fn answered(
    lines: &[&str],
    kind: RequestKind,
    client: Version,
    persistence: ClientPersistence,
) -> String {
    let text = head(lines);
    let mut slots = FieldSlots::new();
    let parsed = parse_response(&text, &mut slots, &LIMITS, kind)
        .expect("accepted")
        .expect("complete");
    let mut out = BytesMut::new();
    let framing = client_framing(parsed.framing, client);
    response_head(&parsed, client, framing, persistence, &mut out);
    String::from_utf8(out.to_vec()).expect("tests send UTF-8")
}

#[test]
fn answers() {
    use ClientPersistence::{Close, KeepAlive};
    use RequestKind::{Head, Other};
    use Version::{Http10, Http11};
    let ok = "HTTP/1.1 200 OK";
    let length = "content-length: 2";
    let coding = "Transfer-Encoding: chunked";
    let close = "Connection: close";
    for (lines, kind, client, persistence, expected) in [
        (
            &[ok, "A: b", length][..],
            Other,
            Http11,
            KeepAlive,
            &[ok, "A: b", length][..],
        ),
        (&[ok, length], Other, Http11, Close, &[ok, length, close]),
        (
            &[ok, length],
            Other,
            Http10,
            KeepAlive,
            &[ok, length, "Connection: keep-alive"],
        ),
        (
            &["HTTP/1.0 200 OK", length],
            Other,
            Http11,
            KeepAlive,
            &[ok, length],
        ),
        (
            &[ok, "Content-Length: 02"],
            Other,
            Http11,
            KeepAlive,
            &[ok, "Content-Length: 2"],
        ),
        (
            &[ok, coding, "A: b"],
            Other,
            Http11,
            KeepAlive,
            &[ok, "A: b", coding],
        ),
        (&[ok, coding], Other, Http10, KeepAlive, &[ok, close]),
        (&[ok], Other, Http11, KeepAlive, &[ok, coding]),
        (&[ok], Other, Http10, KeepAlive, &[ok, close]),
        (&[ok, length], Head, Http11, KeepAlive, &[ok, length]),
        (&[ok, coding], Head, Http11, KeepAlive, &[ok]),
        (
            &["HTTP/1.1 204 No", "Content-Length: 0"],
            Other,
            Http11,
            KeepAlive,
            &["HTTP/1.1 204 No"],
        ),
        (
            &["HTTP/1.1 304 No", "Content-Length: 9"],
            Other,
            Http11,
            KeepAlive,
            &["HTTP/1.1 304 No", "Content-Length: 9"],
        ),
        (
            &[
                ok,
                length,
                "Connection: close, X-Hop, Set-Cookie",
                "X-Hop: 1",
                "Set-Cookie: a",
            ],
            Other,
            Http11,
            KeepAlive,
            &[ok, length, "Set-Cookie: a"],
        ),
        (
            &[
                ok,
                length,
                "Keep-Alive: x",
                "Upgrade: h2c",
                "Proxy-Authenticate: x",
                "TE: x",
            ],
            Other,
            Http11,
            KeepAlive,
            &[ok, length],
        ),
        (
            &[
                "HTTP/1.1 101 S",
                "Upgrade: websocket",
                "Connection: upgrade",
                "Sec-A: b",
            ],
            Other,
            Http11,
            Close,
            &[
                "HTTP/1.1 101 S",
                "Sec-A: b",
                "Connection: Upgrade",
                "Upgrade: websocket",
            ],
        ),
        (
            &["HTTP/1.1 103 E", "Link: a"],
            Other,
            Http11,
            Close,
            &["HTTP/1.1 103 E", "Link: a"],
        ),
        (
            &["HTTP/1.1 200", length],
            Other,
            Http11,
            KeepAlive,
            &["HTTP/1.1 200 ", length],
        ),
    ] {
        let out = answered(lines, kind, client, persistence);
        assert_eq!(out.as_bytes(), head(expected), "{lines:?} gave {out}");
    }
}

#[test]
fn answers_to_http2() {
    let text = head(&[
        "HTTP/1.1 200 OK",
        "Connection: X-Hop",
        "X-Hop: 1",
        "Content-Length: 2",
        "Set-Cookie: a",
        "Set-Cookie: b",
        "Keep-Alive: x",
    ]);
    let mut slots = FieldSlots::new();
    let parsed = parse_response(&text, &mut slots, &LIMITS, RequestKind::Other)
        .expect("accepted")
        .expect("complete");
    assert_eq!(parsed.framing, ResponseFraming::Length(2));
    let mut map = HeaderMap::new();
    response_fields(parsed.end_to_end_fields(), &mut map);
    assert_eq!(map.len(), 3);
    assert_eq!(map.get_all("set-cookie").iter().count(), 2);
    assert_eq!(map["content-length"], "2");
}
