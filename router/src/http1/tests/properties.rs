//! What holds for all input, tried on generated heads and bodies. The properties themselves are
//! the ones that the fuzz targets use.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::http1::fuzz;

/// Pieces that heads are made of, good and bad, so that random mixtures get far.
const LINES: &[&str] = &[
    "Host: a.example",
    "host: A.example:443",
    "Host: b",
    "Content-Length: 5",
    "Content-Length: 05",
    "Content_Length: 5",
    "Content-Length : 5",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: identity",
    "Connection: keep-alive",
    "Connection: close, X-Hop, Host",
    "Connection: Upgrade, TE",
    "Upgrade: websocket",
    "TE: trailers",
    "Keep-Alive: timeout=5",
    "X-Hop: 1",
    "X-Forwarded-For: 1.1.1.1",
    "X_Forwarded_For: 1.1.1.1",
    "Forwarded: for=1.1.1.1;proto=http",
    "X-Forwarded-Proto: http",
    "Expect: 100-continue",
    "Cookie: a=b",
    "Accept:",
    " folded: x",
    "no colon",
];

const REQUEST_LINES: &[&str] = &[
    "GET / HTTP/1.1",
    "POST /p?q HTTP/1.1",
    "GET / HTTP/1.0",
    "OPTIONS * HTTP/1.1",
    "GET http://a.example/x HTTP/1.1",
    "GET  / HTTP/1.1",
];

const STATUS_LINES: &[&str] = &[
    "GHTTP/1.1 200 OK",
    "HHTTP/1.1 200 OK",
    "GHTTP/1.0 200 OK",
    "GHTTP/1.1 204 No Content",
    "GHTTP/1.1 304",
    "GHTTP/1.1 101 Switching Protocols",
    "GHTTP/1.1 103 Early Hints",
];

/// A head of known lines, now and then with another line end, then a few bytes overwritten.
fn heads(first: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let ends = prop_oneof![30 => Just("\r\n"), 1 => Just("\n"), 1 => Just("\r")];
    let lines = vec((select(LINES), ends), 0..8);
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (select(first), lines, changes).prop_map(|(first, lines, changes)| {
        let mut text = format!("{first}\r\n");
        for (line, end) in lines {
            text.push_str(line);
            text.push_str(end);
        }
        text.push_str("\r\nrest");
        let mut bytes = text.into_bytes();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

fn bodies() -> impl Strategy<Value = Vec<u8>> {
    let chunk = (vec(any::<u8>(), 1..40), select(&["", ";a", ";a=\"b\""][..])).prop_map(
        |(data, extension)| {
            let mut out = format!("{:X}{extension}\r\n", data.len()).into_bytes();
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
            out
        },
    );
    let trailers = vec(select(&["X: y\r\n", "Host: a\r\n", "bad\r\n"][..]), 0..3);
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (vec(chunk, 0..6), trailers, changes).prop_map(|(chunks, trailers, changes)| {
        let mut bytes = chunks.concat();
        bytes.extend_from_slice(b"0\r\n");
        bytes.extend_from_slice(trailers.concat().as_bytes());
        bytes.extend_from_slice(b"\r\nrest");
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn request_heads_of_lines(head in heads(REQUEST_LINES)) {
        fuzz::request_head(&head);
    }

    #[test]
    fn response_heads_of_lines(head in heads(STATUS_LINES)) {
        fuzz::response_head(&head);
    }

    #[test]
    fn chunked_bodies(body in bodies()) {
        fuzz::chunked_body(&body);
    }

    #[test]
    fn any_bytes(bytes in vec(any::<u8>(), 0..300)) {
        fuzz::request_head(&bytes);
        fuzz::response_head(&bytes);
        fuzz::chunked_body(&bytes);
    }
}
