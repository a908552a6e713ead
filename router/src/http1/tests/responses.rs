//! Which upstream answers are passed on, and how their bodies end.

use super::{LIMITS, head};
use crate::http1::FieldSlots;
use crate::http1::response::{Fault, RequestKind, ResponseFraming, parse_response};

fn verdict(text: &[u8]) -> Result<bool, Fault> {
    parse_response(text, &mut FieldSlots::new(), &LIMITS, RequestKind::Other)
        .map(|head| head.is_some())
}

#[test]
fn faults() {
    let ok = "HTTP/1.1 200 OK";
    for (fault, bad, good) in [
        (
            Fault::BadStatusLine,
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/1.1 100 x\r\n\r\n",
        ),
        (
            Fault::BadStatusLine,
            "HTTP/1.1 20 x\r\n\r\n",
            "HTTP/1.1 200 x\r\n\r\n",
        ),
        (
            Fault::BadStatusLine,
            "HTTP/1.1 2000\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
        ),
        (
            Fault::BadStatusLine,
            "HTTP/1.1  200\r\n\r\n",
            "HTTP/1.1 200 \r\n\r\n",
        ),
        (
            Fault::BadStatusLine,
            "\r\nHTTP/1.1 200\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
        ),
        (
            Fault::BadStatusLine,
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 200\r\n\r\n",
        ),
        (
            Fault::UnsupportedVersion,
            "HTTP/2.0 200\r\n\r\n",
            "HTTP/1.0 200\r\n\r\n",
        ),
        (
            Fault::BareLf,
            "HTTP/1.1 200 OK\nA: b\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        ),
        (
            Fault::BareLf,
            "HTTP/1.1 200 OK\r\nA: b\n\r\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        ),
        (
            Fault::BareLf,
            "HTTP/1.1 200 OK\r\nA: b\r\n\n",
            "HTTP/1.1 200 OK\r\nA: b\r\n\r\n",
        ),
        (
            Fault::BareCr,
            "HTTP/1.1 200 O\rK\r\n\r\n",
            "HTTP/1.1 200 O K\r\n\r\n",
        ),
    ] {
        assert_eq!(verdict(bad.as_bytes()), Err(fault), "{bad:?}");
        assert_eq!(verdict(good.as_bytes()), Ok(true), "{good:?}");
    }
    for (fault, bad, good) in [
        (Fault::Nul, "A: \0", "A: "),
        (Fault::ControlByte, "A: \x02", "A: \t"),
        (Fault::ObsFold, "A: b\r\n c", "A: b\r\nc:"),
        (
            Fault::BlankBeforeColon,
            "Content-Length : 2",
            "Content-Length: 2",
        ),
        (Fault::BadName, "A b: c", "Ab: c"),
        (Fault::BadName, "abc", "abc:"),
        (
            Fault::RepeatedLength,
            "Content-Length: 2\r\nContent-Length: 2",
            "Content-Length: 2",
        ),
        (
            Fault::RepeatedLength,
            "Content-Length: 2, 2",
            "Content-Length: 2",
        ),
        (Fault::BadLength, "Content-Length: +2", "Content-Length: 2"),
        (
            Fault::BadLength,
            "Content-Length: 99999999999999999999",
            "Content-Length: 9",
        ),
        (
            Fault::LengthWithCoding,
            "Content-Length: 2\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked",
        ),
        (
            Fault::BadCoding,
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked",
        ),
        (
            Fault::BadCoding,
            "Transfer-Encoding: identity",
            "Transfer-Encoding: chunked",
        ),
        (
            Fault::BadCoding,
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: chunked",
        ),
    ] {
        assert_eq!(verdict(&head(&[ok, bad])), Err(fault), "{bad:?}");
        assert_eq!(verdict(&head(&[ok, good])), Ok(true), "{good:?}");
    }
    let coding = "Transfer-Encoding: chunked";
    assert_eq!(
        verdict(&head(&["HTTP/1.0 200 OK", coding])),
        Err(Fault::CodingInHttp10)
    );
    let long = format!("A: {}", "b".repeat(LIMITS.bytes));
    assert_eq!(verdict(&head(&[ok, &long])), Err(Fault::HeadTooLong));
    let lines = vec!["A: b"; LIMITS.fields + 2];
    assert_eq!(
        verdict(&head(&[&[ok], &lines[..]].concat())),
        Err(Fault::TooManyFields)
    );
    assert_eq!(
        verdict(&head(&[&[ok], &lines[..LIMITS.fields]].concat())),
        Ok(true)
    );
}

#[test]
fn where_bodies_end() {
    use RequestKind::{Connect, Head, Other};
    use ResponseFraming::{Chunked, Length, None, UntilClose};
    let length = "Content-Length: 2";
    let coding = "Transfer-Encoding: chunked";
    for (line, field, kind, framing, persistent) in [
        ("HTTP/1.1 200 OK", length, Other, Length(2), true),
        ("HTTP/1.1 200 OK", coding, Other, Chunked, true),
        ("HTTP/1.1 200 OK", "A: b", Other, UntilClose, false),
        ("HTTP/1.1 200 OK", length, Head, None, true),
        ("HTTP/1.1 200 OK", coding, Head, None, true),
        ("HTTP/1.1 200 OK", "A: b", Head, None, true),
        ("HTTP/1.1 200 OK", length, Connect, None, true),
        ("HTTP/1.1 404 x", length, Connect, Length(2), true),
        ("HTTP/1.1 204 x", "A: b", Other, None, true),
        ("HTTP/1.1 204 x", "Content-Length: 0", Other, None, true),
        // A body that may not be there might still come.
        ("HTTP/1.1 204 x", length, Other, None, false),
        ("HTTP/1.1 204 x", coding, Other, None, false),
        ("HTTP/1.1 304 x", length, Other, None, true),
        ("HTTP/1.1 304 x", coding, Other, None, false),
        ("HTTP/1.1 100 x", "A: b", Other, None, true),
        ("HTTP/1.0 200 OK", length, Other, Length(2), false),
        ("HTTP/1.0 200 OK", "A: b", Other, UntilClose, false),
    ] {
        let text = head(&[line, field]);
        let mut slots = FieldSlots::new();
        let head = parse_response(&text, &mut slots, &LIMITS, kind)
            .expect("accepted")
            .expect("complete");
        assert_eq!(
            (head.framing, head.persistent),
            (framing, persistent),
            "{line} {field} {kind:?}"
        );
    }
}

#[test]
fn what_a_head_says() {
    let text = head(&[
        "HTTP/1.1 101 Switching",
        "Connection: Upgrade",
        "Upgrade: websocket",
    ]);
    let mut slots = FieldSlots::new();
    let parsed = parse_response(&text, &mut slots, &LIMITS, RequestKind::Other)
        .expect("accepted")
        .expect("complete");
    assert_eq!((parsed.status, parsed.reason), (101, &b"Switching"[..]));
    assert_eq!(parsed.upgrade, Some("websocket"));
    assert!(!parsed.is_interim());
    for (line, reason) in [
        ("HTTP/1.1 200", &b""[..]),
        ("HTTP/1.1 200 ", b""),
        ("HTTP/1.1 200 Not \u{e4}", b"Not \xc3\xa4"),
    ] {
        for fields in [&[line][..], &[line, "A: b"]] {
            let text = head(fields);
            let mut slots = FieldSlots::new();
            let parsed = parse_response(&text, &mut slots, &LIMITS, RequestKind::Other)
                .expect("accepted")
                .expect("complete");
            assert_eq!(parsed.reason, reason);
        }
    }
}
