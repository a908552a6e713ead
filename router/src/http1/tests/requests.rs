//! Which request heads are refused, and why. Each refusal stands beside a twin that is accepted and
//! differs only in what is refused, so that no test passes by refusing everything.

use super::{LIMITS, head};
use crate::http1::FieldSlots;
use crate::http1::head::{Framing, HeadLimits, Version, declared_length, parse_request};
use crate::http1::host::HostPort;
use crate::http1::refusal::Refusal;
use crate::http1::scan::HeadScanner;

fn verdict(text: &[u8]) -> Result<bool, Refusal> {
    parse_request(text, &mut FieldSlots::new(), &LIMITS).map(|head| head.is_some())
}

/// Each row: refusal, what is refused, its accepted twin; both as whole heads.
#[track_caller]
fn refused(rows: &[(Refusal, &str, &str)]) {
    for (refusal, bad, good) in rows {
        assert_eq!(verdict(bad.as_bytes()), Err(*refusal), "{bad:?}");
        assert_eq!(verdict(good.as_bytes()), Ok(true), "{good:?}");
    }
}

/// As [`refused`], for the field lines of a POST that has a Host.
#[track_caller]
fn refused_fields(rows: &[(Refusal, &str, &str)]) {
    let whole = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n");
    for (refusal, bad, good) in rows {
        refused(&[(*refusal, &whole(bad), &whole(good))]);
    }
}

#[test]
fn line_ends() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\r\n";
    refused(&[
        (
            Refusal::BareLf,
            "GET / HTTP/1.1\nHost: a\r\nB: c\r\n\r\n",
            good,
        ),
        (
            Refusal::BareLf,
            "GET / HTTP/1.1\r\nHost: a\nB: c\r\n\r\n",
            good,
        ),
        (
            Refusal::BareLf,
            "GET / HTTP/1.1\r\nHost: a\r\nB:\n\r\n",
            good,
        ),
        (
            Refusal::BareLf,
            "GET / HTTP/1.1\r\nHost: a\r\nB: c\n\r\n",
            good,
        ),
        (
            Refusal::BareLf,
            "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\n\n",
            good,
        ),
        (Refusal::BareLf, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", good),
        (
            Refusal::BareCr,
            "GET / HTTP/1.1\rHost: a\r\nB: c\r\n\r\n",
            good,
        ),
        (
            Refusal::BareCr,
            "GET / HTTP/1.1\r\nHost: a\rB: c\r\n\r\n",
            good,
        ),
        (
            Refusal::BareCr,
            "GET / HTTP/1.1\r\nHost: a\r\nB\r: c\r\n\r\n",
            good,
        ),
        (
            Refusal::BareCr,
            "GET / HTTP/1.1\r\nHost: a\r\nB: c\r\r\n\r\n",
            good,
        ),
        (
            Refusal::EmptyLine,
            "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ]);
}

#[test]
fn field_lines() {
    refused_fields(&[
        (Refusal::ObsFold, "A: b\r\n c", "A: b\r\nc: "),
        (Refusal::ObsFold, "A: b\r\n\tc: d", "A: b\r\nc: d"),
        (Refusal::BlankBeforeColon, "A : b", "A: b"),
        (Refusal::BlankBeforeColon, "A\t: b", "A:\tb"),
        (Refusal::BlankInName, "A b: c", "A-b: c"),
        (Refusal::BadName, "A(: c", "A!: c"),
        (Refusal::BadName, "\u{e4}: c", "a: c"),
        (Refusal::EmptyName, ": c", "a: c"),
        (Refusal::MissingColon, "abc", "abc:"),
        (Refusal::Nul, "A: b\0", "A: b"),
        (Refusal::Nul, "A\0: b", "A: b"),
        (Refusal::ControlByte, "A: b\x01c", "A: b\tc"),
        (Refusal::ControlByte, "A: b\x7f", "A: b\u{e4}"),
        (Refusal::ControlByte, "A\x1f: b", "A: b"),
        (
            Refusal::AmbiguousName,
            "Content_Length: 1",
            "Content__Length: 1",
        ),
        (
            Refusal::AmbiguousName,
            "TRANSFER_ENCODING: chunked",
            "ENCODING: chunked",
        ),
    ]);
}

#[test]
fn request_lines() {
    let with = |line: &str| format!("{line}\r\nHost: a\r\n\r\n");
    let method = "A".repeat(32);
    for (refusal, bad, good) in [
        (Refusal::BadMethod, "G(T / HTTP/1.1", "G!T / HTTP/1.1"),
        (
            Refusal::BadMethod,
            &format!("{method}A / HTTP/1.1"),
            &format!("{method} / HTTP/1.1"),
        ),
        (
            Refusal::BlankInRequestLine,
            " GET / HTTP/1.1",
            "GET / HTTP/1.1",
        ),
        (
            Refusal::BlankInRequestLine,
            "GET  / HTTP/1.1",
            "GET / HTTP/1.1",
        ),
        (
            Refusal::BlankInRequestLine,
            "GET /  HTTP/1.1",
            "GET / HTTP/1.1",
        ),
        (
            Refusal::BlankInRequestLine,
            "GET / HTTP/1.1 ",
            "GET / HTTP/1.1",
        ),
        (
            Refusal::BadVersion,
            "GET /a b HTTP/1.1",
            "GET /a%20b HTTP/1.1",
        ),
        (
            Refusal::BadTarget,
            "GET /\u{e4} HTTP/1.1",
            "GET /%c3%a4 HTTP/1.1",
        ),
        (Refusal::BadTarget, "GET a HTTP/1.1", "GET /a HTTP/1.1"),
        (
            Refusal::BadTarget,
            "GET ftp://a/ HTTP/1.1",
            "GET HTTP://a/ HTTP/1.1",
        ),
        (
            Refusal::BadTarget,
            "GET http://u@a/ HTTP/1.1",
            "GET http://a/ HTTP/1.1",
        ),
        (
            Refusal::BadTarget,
            "GET http:///x HTTP/1.1",
            "GET http://a/x HTTP/1.1",
        ),
        (
            Refusal::BadTarget,
            "GET http://a?x HTTP/1.1",
            "GET http://a/?x HTTP/1.1",
        ),
        (
            Refusal::BadTarget,
            "GET a:443 HTTP/1.1",
            "GET /a:443 HTTP/1.1",
        ),
        (
            Refusal::ControlByte,
            "GET /\x7f HTTP/1.1",
            "GET /~ HTTP/1.1",
        ),
        (
            Refusal::Fragment,
            "GET /a#b HTTP/1.1",
            "GET /a%23b HTTP/1.1",
        ),
        (
            Refusal::AsteriskForm,
            "GET * HTTP/1.1",
            "OPTIONS * HTTP/1.1",
        ),
        (Refusal::BadVersion, "GET /", "GET / HTTP/1.1"),
        (Refusal::BadVersion, "GET / http/1.1", "GET / HTTP/1.1"),
        (Refusal::BadVersion, "GET / HTTP/1", "GET / HTTP/1.1"),
        (Refusal::BadVersion, "GET / HTTP/1.11", "GET / HTTP/1.1"),
        (
            Refusal::UnsupportedVersion,
            "GET / HTTP/1.2",
            "GET / HTTP/1.0",
        ),
        (
            Refusal::UnsupportedVersion,
            "PRI * HTTP/2.0",
            "OPTIONS * HTTP/1.1",
        ),
        (
            Refusal::Connect,
            "CONNECT a:443 HTTP/1.1",
            "OPTIONS http://a:443 HTTP/1.1",
        ),
        (Refusal::Trace, "TRACE / HTTP/1.1", "trace / HTTP/1.1"),
        (
            Refusal::HostMismatch,
            "GET http://b/ HTTP/1.1",
            "GET http://A/ HTTP/1.1",
        ),
        (
            Refusal::HostMismatch,
            "GET https://a:80/ HTTP/1.1",
            "GET https://a:443/ HTTP/1.1",
        ),
    ] {
        refused(&[(refusal, &with(bad), &with(good))]);
    }
}

#[test]
fn framing_fields() {
    refused_fields(&[
        (
            Refusal::LengthWithCoding,
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: 1",
        ),
        (
            Refusal::LengthWithCoding,
            "Transfer-Encoding: chunked\r\nContent-Length: 1",
            "Transfer-Encoding: chunked",
        ),
        (
            Refusal::RepeatedLength,
            "Content-Length: 5\r\ncontent-length: 5",
            "Content-Length: 5",
        ),
        (
            Refusal::RepeatedLength,
            "Content-Length: 5, 5",
            "Content-Length: 55",
        ),
        (
            Refusal::SignedLength,
            "Content-Length: +5",
            "Content-Length: 5",
        ),
        (
            Refusal::SignedLength,
            "Content-Length: -5",
            "Content-Length: 5",
        ),
        (
            Refusal::EmptyLength,
            "Content-Length:  ",
            "Content-Length: 0",
        ),
        (
            Refusal::BadLength,
            "Content-Length: 5a",
            "Content-Length: 5",
        ),
        (
            Refusal::BadLength,
            "Content-Length: 0x5",
            "Content-Length: 05",
        ),
        (
            Refusal::BadLength,
            "Content-Length: 1 2",
            "Content-Length: 12",
        ),
        (
            Refusal::LengthOverflow,
            "Content-Length: 9223372036854775808",
            "Content-Length: 9223372036854775807",
        ),
        (
            Refusal::LengthOverflow,
            "Content-Length: 36893488147419103237",
            "Content-Length: 00000000000000000000005",
        ),
        (
            Refusal::RepeatedCoding,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked\r\nTE: chunked",
        ),
        (
            Refusal::RepeatedCoding,
            "Transfer-Encoding: chunked, chunked",
            "Transfer-Encoding: CHUNKED",
        ),
        (
            Refusal::UnknownCoding,
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked",
        ),
        (
            Refusal::UnknownCoding,
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked",
        ),
        (
            Refusal::UnknownCoding,
            "Transfer-Encoding: chunked;q=1",
            "Transfer-Encoding: chunked",
        ),
        (
            Refusal::UnknownCoding,
            "Transfer-Encoding: \u{a0}chunked",
            "Transfer-Encoding: \tchunked",
        ),
        (
            Refusal::UnknownCoding,
            "Transfer-Encoding:",
            "Transfer-Encoding: chunked",
        ),
        (
            Refusal::Expectation,
            "Expect: 200-ok",
            "Expect: 100-Continue",
        ),
        (
            Refusal::Expectation,
            "Expect: 100-continue\r\nExpect: 100-continue",
            "Expect: 100-continue",
        ),
    ]);
    refused(&[(
        Refusal::CodingInHttp10,
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    )]);
}

#[test]
fn hosts() {
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    refused(&[
        (Refusal::NoHost, "GET / HTTP/1.1\r\nA: a\r\n\r\n", good),
        (Refusal::NoHost, "GET / HTTP/1.0\r\n\r\n", good),
        (Refusal::NoHost, "GET http://a/ HTTP/1.1\r\n\r\n", good),
        (
            Refusal::RepeatedHost,
            "GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n",
            good,
        ),
    ]);
    for bad in [
        "",
        "a b",
        "a,b",
        "u@a",
        "a/b",
        "a:",
        "a:0",
        "a:65536",
        "a:+1",
        "a:1:2",
        ".a",
        "a..b",
        "::1",
        "[::1",
        "[a]",
        "[::1]x",
        "[::1%25eth0]",
        "%61",
        "a;b",
        "a\"",
        "\u{e4}",
        "[]",
    ] {
        assert_eq!(HostPort::parse(bad.as_bytes()), None, "{bad:?}");
        let text = format!("GET / HTTP/1.1\r\nHost: {bad}\r\n\r\n");
        assert_eq!(verdict(text.as_bytes()), Err(Refusal::BadHost), "{bad:?}");
    }
    for (good, name, port) in [
        ("a", "a", None),
        ("A-b.c_d.Example:8443", "A-b.c_d.Example", Some(8443)),
        ("a.example.", "a.example.", None),
        ("192.0.2.1:1", "192.0.2.1", Some(1)),
        ("[::1]", "[::1]", None),
        ("[2001:DB8::1]:65535", "[2001:DB8::1]", Some(65535)),
    ] {
        let host = HostPort::parse(good.as_bytes()).expect(good);
        assert_eq!((host.text, host.name, host.port), (good, name, port));
    }
}

#[test]
fn limits() {
    let limits = HeadLimits {
        bytes: 64,
        fields: 2,
    };
    let verdict = |text: &str| {
        parse_request(text.as_bytes(), &mut FieldSlots::new(), &limits).map(|head| head.is_some())
    };
    let host = "Host: a\r\n\r\n";
    let fits = format!("GET /{} HTTP/1.1\r\n{host}", "a".repeat(64 - 16 - 11));
    assert_eq!(fits.len(), 64);
    assert_eq!(verdict(&fits), Ok(true));
    assert_eq!(
        verdict(&fits.replace("/a", "/aa")),
        Err(Refusal::HeadTooLong)
    );
    let line = format!("GET /{}", "a".repeat(59));
    assert_eq!(verdict(&line), Err(Refusal::TargetTooLong));
    assert_eq!(verdict(&line[..63]), Ok(false));
    assert_eq!(
        verdict("GET / HTTP/1.1\r\nA: b\r\nHost: a\r\n\r\n"),
        Ok(true)
    );
    assert_eq!(
        verdict("GET / HTTP/1.1\r\nA: b\r\nB: b\r\nHost: a\r\n\r\n"),
        Err(Refusal::TooManyFields)
    );
    // Past the slots on the stack.
    let many = |n: usize| format!("GET / HTTP/1.1\r\n{}{host}", "A: b\r\n".repeat(n));
    for (n, expected) in [
        (63, Ok(true)),
        (64, Ok(true)),
        (99, Ok(true)),
        (100, Err(Refusal::TooManyFields)),
    ] {
        assert_eq!(
            super::requests::verdict(many(n).as_bytes()),
            expected,
            "{n}"
        );
    }
    let options = |n: usize| {
        let names: Vec<String> = (0..n).map(|i| format!("a{i}")).collect();
        format!(
            "GET / HTTP/1.1\r\nConnection: {}\r\n{host}",
            names.join(",")
        )
    };
    assert_eq!(super::requests::verdict(options(32).as_bytes()), Ok(true));
    assert_eq!(
        super::requests::verdict(options(33).as_bytes()),
        Err(Refusal::TooManyOptions)
    );
}

#[test]
fn what_a_head_says() {
    let text = head(&[
        "POST https://A.example/p?q HTTP/1.1",
        "hOST: a.example:443",
        "Content-Length: 7",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
        "Expect: 100-continue",
    ]);
    let mut slots = FieldSlots::new();
    let head = parse_request(&text, &mut slots, &LIMITS)
        .expect("accepted")
        .expect("complete");
    assert_eq!((head.method, head.path), ("POST", "/p?q"));
    assert_eq!(head.host.text, "a.example:443");
    assert_eq!(head.version, Version::Http11);
    assert_eq!(head.framing, Framing::Length(7));
    assert!(head.persistent && head.expect_continue);
    assert_eq!(head.upgrade, Some("websocket"));
    assert_eq!(head.fields.len(), 5);
    assert_eq!(head.len, text.len());
}

#[test]
fn persistence_and_upgrade() {
    for (version, fields, persistent, upgrade) in [
        ("1.1", "A: b", true, None),
        ("1.1", "Connection: Close", false, None),
        ("1.1", "Connection: x , close", false, None),
        (
            "1.1",
            "Connection: keep-alive\r\nConnection: close",
            false,
            None,
        ),
        ("1.0", "A: b", false, None),
        ("1.0", "Connection: Keep-Alive", true, None),
        ("1.0", "Connection: keep-alive, close", false, None),
        ("1.1", "Upgrade: websocket", true, None),
        (
            "1.1",
            "Connection: upgrade\r\nUpgrade: SPDY/3.1",
            true,
            Some("SPDY/3.1"),
        ),
        (
            "1.0",
            "Connection: upgrade\r\nUpgrade: websocket",
            false,
            None,
        ),
        (
            "1.1",
            "Connection: upgrade\r\nUpgrade: a\r\nUpgrade: b",
            true,
            None,
        ),
        ("1.1", "Connection: upgrade\r\nUpgrade:", true, None),
    ] {
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n\r\n");
        let mut slots = FieldSlots::new();
        let head = parse_request(text.as_bytes(), &mut slots, &LIMITS)
            .expect("accepted")
            .expect("complete");
        assert_eq!(
            (head.persistent, head.upgrade),
            (persistent, upgrade),
            "{text:?}"
        );
    }
}

#[test]
fn length_declared_in_http2() {
    let length = |fields: &[(&str, &str)]| {
        declared_length(fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))
    };
    assert_eq!(length(&[("a", "b")]), Ok(None));
    assert_eq!(length(&[("content-length", "5")]), Ok(Some(5)));
    let five = ("content-length", "5");
    assert_eq!(length(&[five, five]), Err(Refusal::RepeatedLength));
    assert_eq!(
        length(&[("content-length", "+5")]),
        Err(Refusal::SignedLength)
    );
    assert_eq!(
        length(&[("content_length", "5")]),
        Err(Refusal::AmbiguousName)
    );
    assert_eq!(
        length(&[("transfer-encoding", "chunked")]),
        Err(Refusal::UnknownCoding)
    );
}

#[test]
fn statuses() {
    for (refusal, status) in [
        (Refusal::BareLf, 400),
        (Refusal::Connect, 405),
        (Refusal::Trace, 405),
        (Refusal::TargetTooLong, 414),
        (Refusal::Expectation, 417),
        (Refusal::HeadTooLong, 431),
        (Refusal::TooManyFields, 431),
        (Refusal::UnsupportedVersion, 505),
    ] {
        assert_eq!(refusal.status(), status);
    }
}

#[test]
fn scanning_byte_by_byte() {
    let ready_at = |text: &str| {
        let mut scanner = HeadScanner::new();
        (0..=text.len()).find(|&end| scanner.ready(&text.as_bytes()[..end], &LIMITS))
    };
    let whole = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(ready_at(whole), Some(whole.len()));
    assert_eq!(ready_at("GET / HTTP/1.1\nHost: a"), Some(15));
    assert_eq!(ready_at("GET / HTTP/1.1\r\nHost: a\r\n"), None);
    // With a body behind it, in one piece.
    let body = format!("{whole}body");
    assert!(HeadScanner::new().ready(body.as_bytes(), &LIMITS));
    assert_eq!(ready_at(&"a".repeat(LIMITS.bytes + 5)), Some(LIMITS.bytes));
}
