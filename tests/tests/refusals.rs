//! What the edge refuses: 4xx, the end of the connection, and nothing forwarded.
//!
//! Each line of [`REFUSED`] has a twin among [`FORWARDED`] that differs in the fault alone, so that
//! a router that refuses everything does not pass either.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::backend::{Backend, OK};
use harness::client::Connection;
use harness::edge::{Edge, HOST};

/// What, the request (`HOST` stands for the routed host), the status.
const REFUSED: &[(&str, &str, u16)] = &[
    // Lengths.
    (
        "length with coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "coding with length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "doubled length, equal",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        400,
    ),
    (
        "doubled length, different",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\nContent-Length: 0\r\n\r\nhello",
        400,
    ),
    (
        "doubled length in one field",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5, 5\r\n\r\nhello",
        400,
    ),
    (
        "signed length, plus",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +5\r\n\r\nhello",
        400,
    ),
    (
        "signed length, minus",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: -5\r\n\r\nhello",
        400,
    ),
    (
        "overflowing length, 2^64 + 5",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
        400,
    ),
    (
        "overflowing length, 2^63",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 9223372036854775808\r\n\r\nhello",
        400,
    ),
    (
        "hexadecimal length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0x5\r\n\r\nhello",
        400,
    ),
    (
        "length with a blank inside",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5 5\r\n\r\nhello",
        400,
    ),
    (
        "empty length",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length:\r\n\r\nhello",
        400,
    ),
    // Codings.
    (
        "unknown coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip\r\n\r\nhello",
        400,
    ),
    (
        "unknown coding before chunked",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "coding that starts like chunked",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "quoted coding",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "identity",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: identity\r\n\r\nhello",
        400,
    ),
    (
        "repeated coding in two fields",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "identity, then chunked, in two fields",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "repeated coding in one field",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunked in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    (
        "coding with a vertical tab",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    // Lines and bytes.
    (
        "obs-fold with a blank",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n 2\r\n\r\n",
        400,
    ),
    (
        "obs-fold with a tab",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r\n\t2\r\n\r\n",
        400,
    ),
    (
        "a first field that is a fold",
        "GET / HTTP/1.1\r\n X-A: 1\r\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "bare LF after the request line",
        "GET / HTTP/1.1\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "bare LF after a field",
        "GET / HTTP/1.1\r\nHost: HOST\nX-A: 1\r\n\r\n",
        400,
    ),
    (
        "bare LF at the end of the head",
        "GET / HTTP/1.1\r\nHost: HOST\r\n\n",
        400,
    ),
    ("bare LF throughout", "GET / HTTP/1.1\nHost: HOST\n\n", 400),
    (
        "bare CR in a value",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: 1\r2\r\n\r\n",
        400,
    ),
    (
        "bare CR in the request line",
        "GET /\r HTTP/1.1\r\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "bare CR that hides a field",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: 1\rContent-Length: 5\r\n\r\n",
        400,
    ),
    (
        "NUL in a value",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A: 1\x002\r\n\r\n",
        400,
    ),
    (
        "NUL in a name",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX\x00A: 1\r\n\r\n",
        400,
    ),
    (
        "NUL in the target",
        "GET /\x00 HTTP/1.1\r\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "blank before a colon",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A : 1\r\n\r\n",
        400,
    ),
    (
        "tab before a colon",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A\t: 1\r\n\r\n",
        400,
    ),
    (
        "blank before the colon of a framing field",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length : 5\r\n\r\nhello",
        400,
    ),
    (
        "blank in a name",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX A: 1\r\n\r\n",
        400,
    ),
    (
        "a field without a colon",
        "GET / HTTP/1.1\r\nHost: HOST\r\nX-A\r\n\r\n",
        400,
    ),
    (
        "a field without a name",
        "GET / HTTP/1.1\r\nHost: HOST\r\n: 1\r\n\r\n",
        400,
    ),
    // Hosts.
    ("no Host", "GET / HTTP/1.1\r\nX-A: 1\r\n\r\n", 400),
    ("no Host in HTTP/1.0", "GET / HTTP/1.0\r\n\r\n", 400),
    (
        "two Hosts, equal",
        "GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "two Hosts, different",
        "GET / HTTP/1.1\r\nHost: HOST\r\nHost: other.example.org\r\n\r\n",
        400,
    ),
    ("an empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    (
        "a Host with a path",
        "GET / HTTP/1.1\r\nHost: HOST/a\r\n\r\n",
        400,
    ),
    (
        "a Host with user information",
        "GET / HTTP/1.1\r\nHost: user@HOST\r\n\r\n",
        400,
    ),
    (
        "absolute-form that contradicts Host",
        "GET http://other.example.org/ HTTP/1.1\r\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "absolute-form without Host",
        "GET https://HOST/ HTTP/1.1\r\n\r\n",
        400,
    ),
    // The request line, and methods that are not for an edge.
    ("no version", "GET /\r\nHost: HOST\r\n\r\n", 400),
    ("two blanks", "GET  / HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    ("a bad method", "G(T / HTTP/1.1\r\nHost: HOST\r\n\r\n", 400),
    (
        "a relative target",
        "GET a HTTP/1.1\r\nHost: HOST\r\n\r\n",
        400,
    ),
    (
        "CONNECT",
        "CONNECT HOST:443 HTTP/1.1\r\nHost: HOST:443\r\n\r\n",
        405,
    ),
    (
        "HTTP/2.0 in a request line",
        "GET / HTTP/2.0\r\nHost: HOST\r\n\r\n",
        505,
    ),
];

/// Bodies that are bad from their first chunk on: not a byte goes up, not even the head, which is
/// good by itself.
const BAD_CHUNKS: &[(&str, &str, u16)] = &[
    (
        "chunk size with a sign",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunk size with 0x",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunk size with a blank before it",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunk size with a blank after it",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunk size that overflows",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "no chunk size",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunk size that is no number",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "chunk size ended by LF",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n",
        400,
    ),
    (
        "bare CR in a chunk extension",
        "POST / HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n",
        400,
    ),
];

/// Twins of the above without the fault.
const FORWARDED: &[(&str, &str)] = &[
    (
        "a length",
        "POST /T HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello",
    ),
    (
        "a length of many digits",
        "POST /T HTTP/1.1\r\nHost: HOST\r\nContent-Length: 00000000000000000000005\r\n\r\nhello",
    ),
    (
        "chunked",
        "POST /T HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        "chunked in capitals",
        "POST /T HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "a chunk extension",
        "POST /T HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
    ),
    (
        "blanks around a value",
        "GET /T HTTP/1.1\r\nHost: HOST\r\nX-A:  \t 1 2 \r\n\r\n",
    ),
    (
        "an empty value",
        "GET /T HTTP/1.1\r\nHost: HOST\r\nX-A:\r\n\r\n",
    ),
    (
        "bytes beyond ASCII in a value",
        "GET /T HTTP/1.1\r\nHost: HOST\r\nX-A: ü\r\n\r\n",
    ),
    (
        "a tab in a value",
        "GET /T HTTP/1.1\r\nHost: HOST\r\nX-A: 1\t2\r\n\r\n",
    ),
    ("Host in capitals", "GET /T HTTP/1.1\r\nHOST: HOST\r\n\r\n"),
    (
        "Host with a port",
        "GET /T HTTP/1.1\r\nHost: HOST:443\r\n\r\n",
    ),
    (
        "absolute-form that agrees with Host",
        "GET https://HOST/T HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "HTTP/1.0 with Host",
        "GET /T HTTP/1.0\r\nHost: HOST\r\n\r\n",
    ),
    (
        "an unusual method",
        "PROPFIND /T HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
    (
        "OPTIONS of a path",
        "OPTIONS /T HTTP/1.1\r\nHost: HOST\r\n\r\n",
    ),
];

/// Comes right behind each bad request: it must be neither answered nor forwarded.
const NEXT: &str = "GET /smuggled HTTP/1.1\r\nHost: HOST\r\n\r\n";

fn edge(label: &str) -> (Edge, Backend) {
    let edge = Edge::with_backend(label, 9001).unwrap();
    let backend = Backend::answering(edge.port(9001), OK).unwrap();
    (edge, backend)
}

/// Checks that exactly one answer of this status comes, and then the end.
fn insist_on_refusal(mut connection: Connection, what: &str, status: u16) {
    let bytes = connection
        .rest()
        .unwrap_or_else(|error| panic!("{what}: {error:#}"));
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(
        text.starts_with(&format!("HTTP/1.1 {status} ")),
        "{what}: {text:?}"
    );
    assert_eq!(
        text.matches("HTTP/1.1 ").count(),
        1,
        "{what}: more than one answer: {text:?}"
    );
    assert!(
        text.to_ascii_lowercase()
            .contains("\r\nconnection: close\r\n"),
        "{what}: {text:?}"
    );
}

/// Checks that the backend has got nothing, and gets nothing but the next good request.
fn insist_on_silence(edge: &Edge, backend: &Backend) {
    assert_eq!(backend.text(), "", "something was forwarded");
    let good = format!("GET /good HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    assert_eq!(
        edge.connect(HOST).unwrap().exchange(good).unwrap().text(),
        "ok"
    );
    let text = backend.text();
    assert!(text.starts_with("GET /good HTTP/1.1\r\n"), "{text}");
    assert_eq!(text.matches(" HTTP/1.1\r\n").count(), 1, "{text}");
}

#[test]
fn a_bad_head_is_refused_and_nothing_is_forwarded() {
    let (edge, backend) = edge("refusals");
    let _router = edge.start().unwrap();
    for (what, request, status) in REFUSED {
        let request = request.replace("HOST", HOST) + &NEXT.replace("HOST", HOST);
        let mut connection = edge.connect(HOST).unwrap();
        connection.send(request).unwrap();
        insist_on_refusal(connection, what, *status);
        assert_eq!(backend.connections(), 0, "{what}: the backend was bothered");
    }
    insist_on_silence(&edge, &backend);
}

#[test]
fn a_bad_chunk_is_refused_and_nothing_is_forwarded() {
    let (edge, backend) = edge("refusals-chunks");
    let _router = edge.start().unwrap();
    for (what, request, status) in BAD_CHUNKS {
        let request = request.replace("HOST", HOST) + &NEXT.replace("HOST", HOST);
        let mut connection = edge.connect(HOST).unwrap();
        connection.send(request).unwrap();
        insist_on_refusal(connection, what, *status);
        assert_eq!(backend.text(), "", "{what}: something was forwarded");
    }
    insist_on_silence(&edge, &backend);
}

#[test]
fn a_bad_head_is_refused_however_it_is_cut_up() {
    let (edge, backend) = edge("refusals-cut");
    let _router = edge.start().unwrap();
    for (what, request, status) in REFUSED {
        let request = request.replace("HOST", HOST);
        let mut connection = edge.connect(HOST).unwrap();
        for piece in request.as_bytes().chunks(7) {
            // The router may answer and close before it has heard everything.
            if connection.send(piece).is_err() {
                break;
            }
        }
        insist_on_refusal(connection, what, *status);
        assert_eq!(backend.connections(), 0, "{what}: the backend was bothered");
    }
}

#[test]
fn the_good_twins_are_forwarded_once_each() {
    let (edge, backend) = edge("refusals-twins");
    let _router = edge.start().unwrap();
    for (number, (what, request)) in FORWARDED.iter().enumerate() {
        let path = format!("/twin-{number}-");
        let request = request.replace("HOST", HOST).replace("/T", &path);
        // "HOST" as a field's name has become the host's own name.
        let request = request.replace(&format!("{HOST}: {HOST}"), &format!("HOST: {HOST}"));
        let mut connection = edge.connect(HOST).unwrap();
        let response = connection
            .exchange(request)
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert_eq!(response.status, 200, "{what}: {}", response.text());
        assert_eq!(
            backend.count(&format!(" {path} HTTP/1.1\r\n")),
            1,
            "{what}: {}",
            backend.text()
        );
    }
}

#[test]
fn heads_beyond_a_limit_are_refused() {
    let (edge, backend) = edge("refusals-limits");
    let _router = edge.start().unwrap();
    let many: String = (0..101)
        .map(|number| format!("X-{number}: 1\r\n"))
        .collect();
    let long = "a".repeat(33 * 1024);
    for (what, request, allowed) in [
        (
            "fields",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{many}\r\n"),
            &[431][..],
        ),
        (
            "bytes",
            format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nX-A: {long}\r\n\r\n"),
            &[431],
        ),
        (
            "target",
            format!("GET /{long} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"),
            &[414, 431],
        ),
    ] {
        let mut connection = edge.connect(HOST).unwrap();
        connection.send(request).unwrap();
        let response = connection.response("GET").unwrap();
        assert!(
            allowed.contains(&response.status),
            "{what}: {}",
            response.status
        );
        connection.rest().unwrap();
    }
    let extension = "a".repeat(64 * 1024);
    let mut connection = edge.connect(HOST).unwrap();
    let _ = connection.send(format!(
        "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5;{extension}\r\nhello\r\n0\r\n\r\n"
    ));
    let bytes = connection.rest().unwrap();
    assert!(
        !bytes.starts_with(b"HTTP/1.1 200"),
        "an extension of 64 KiB was let through"
    );
    assert_eq!(backend.count("aaaaaaaa"), 0, "extensions are not passed on");
    assert_eq!(
        backend.count("0\r\n\r\n"),
        0,
        "a body with a bad chunk was completed"
    );
}

#[test]
fn a_body_that_turns_bad_later_is_never_completed() {
    let (edge, backend) = edge("refusals-later");
    let _router = edge.start().unwrap();
    for (number, bad) in [
        "zz\r\n",
        "5;\x00\r\nhello\r\n",
        "5\r\nhelloXX0\r\n\r\n",
        "-1\r\n",
    ]
    .iter()
    .enumerate()
    {
        let mut connection = edge.connect(HOST).unwrap();
        connection
            .send(format!(
                "POST /late-{number} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
            ))
            .unwrap();
        backend.wait_for(&format!("/late-{number} ")).unwrap();
        connection
            .send(format!("{bad}{}", NEXT.replace("HOST", HOST)))
            .unwrap();
        let bytes = connection.rest().unwrap();
        let text = String::from_utf8_lossy(&bytes);
        assert!(
            text.is_empty() || text.starts_with("HTTP/1.1 400 "),
            "{bad:?}: {text:?}"
        );
    }
    assert_eq!(
        backend.count("0\r\n\r\n"),
        0,
        "a body was completed: {:?}",
        backend.text()
    );
    assert_eq!(backend.count("smuggled"), 0);
}
