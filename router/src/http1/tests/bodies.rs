//! Chunked coding and the other framings.

use crate::http1::body::{
    BodyDecoder, BodyFault, Event, MAX_CHUNK_LINE, relay_chunked, write_chunk, write_chunk_head,
    write_last_chunk,
};
use crate::http1::head::Framing;
use crate::http1::response::ResponseFraming;

/// Relays a chunked body and says what came out, and whether it was complete.
fn relay(input: &[u8]) -> Result<(String, bool), BodyFault> {
    let mut decoder = BodyDecoder::request(Framing::Chunked);
    let mut out = Vec::new();
    relay_chunked(&mut decoder, input, &mut out)?;
    Ok((
        String::from_utf8_lossy(&out).into_owned(),
        decoder.is_done(),
    ))
}

#[test]
fn relayed_chunks_are_normalised() {
    for (input, output) in [
        ("0\r\n\r\n", "0\r\n\r\n"),
        (
            "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            "5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
        ),
        (
            "00A;x=\"y z\"\r\n0123456789\r\n000;q\r\n\r\n",
            "a\r\n0123456789\r\n0\r\n\r\n",
        ),
        (
            "0\r\nX-Sum:  1 \r\nHost: b\r\nTransfer-Encoding: chunked\r\nContent_Length: 5\r\n\r\n",
            "0\r\nX-Sum: 1\r\n\r\n",
        ),
        (
            "0\r\nX-Forwarded-For: 1\r\nAuthorization: x\r\n\r\n",
            "0\r\n\r\n",
        ),
        ("0\r\n\r\nGET /", "0\r\n\r\n"),
    ] {
        assert_eq!(
            relay(input.as_bytes()),
            Ok((output.into(), true)),
            "{input:?}"
        );
    }
    assert_eq!(relay(b"5\r\nhel"), Ok(("5\r\nhel".into(), false)));
}

#[test]
fn chunk_faults() {
    let line = "a".repeat(MAX_CHUNK_LINE);
    let total = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(90) + "0\r\n\r\n";
    let few = format!("1;{}\r\nx\r\n", "a".repeat(200)).repeat(70) + "0\r\n\r\n";
    let trailer = |n: usize| format!("0\r\nA: {}\r\n\r\n", "a".repeat(n));
    let trailers = |n: usize| format!("0\r\n{}\r\n", "A: b\r\n".repeat(n));
    let good = "5\r\nhello\r\n0\r\n\r\n";
    let ok = "0\r\nA: b\r\n\r\n";
    for (fault, bad, good) in [
        (BodyFault::BadChunkSize, "\r\nhello\r\n0\r\n\r\n", good),
        (BodyFault::BadChunkSize, "+5\r\nhello\r\n0\r\n\r\n", good),
        (BodyFault::BadChunkSize, "-5\r\nhello\r\n0\r\n\r\n", good),
        (
            BodyFault::BadChunkSize,
            "0x5\r\nhello\r\n0\r\n\r\n",
            "05\r\nhello\r\n0\r\n\r\n",
        ),
        (BodyFault::BadChunkSize, "5 \r\nhello\r\n0\r\n\r\n", good),
        (BodyFault::BadChunkSize, " 5\r\nhello\r\n0\r\n\r\n", good),
        (
            BodyFault::BadChunkSize,
            "5\t;a\r\nhello\r\n0\r\n\r\n",
            "5;\ta\r\nhello\r\n0\r\n\r\n",
        ),
        (BodyFault::BadChunkSize, ";a\r\nhello\r\n0\r\n\r\n", good),
        (BodyFault::BadChunkSize, "5_0\r\nhello\r\n0\r\n\r\n", good),
        (
            BodyFault::BadChunkSize,
            "0000000000000005\r\nhello\r\n0\r\n\r\n",
            "000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        (BodyFault::BadChunkSize, "10000000000000005\r\nhello", good),
        (BodyFault::BadChunkEnd, "5\nhello\r\n0\r\n\r\n", good),
        (
            BodyFault::BadChunkEnd,
            "5;a\nhello\r\n0\r\n\r\n",
            "5;a\r\nhello\r\n0\r\n\r\n",
        ),
        (BodyFault::BadChunkEnd, "5\rhello\r\n0\r\n\r\n", good),
        (BodyFault::BadChunkEnd, "5\r\nhello\n0\r\n\r\n", good),
        (BodyFault::BadChunkEnd, "5\r\nhello!\r\n0\r\n\r\n", good),
        (BodyFault::BadChunkEnd, "5\r\nhello0\r\n\r\n", good),
        (
            BodyFault::BadExtension,
            "5;a\0\r\nhello\r\n0\r\n\r\n",
            "5;a\r\nhello\r\n0\r\n\r\n",
        ),
        (
            BodyFault::ExtensionTooLong,
            &format!("5;{line}\r\nhello\r\n0\r\n\r\n"),
            &format!("5;{}\r\nhello\r\n0\r\n\r\n", &line[2..]),
        ),
        (BodyFault::ExtensionTooLong, &total, &few),
        (BodyFault::BadTrailer, "0\r\nA: b\r\n c\r\n\r\n", ok),
        (BodyFault::BadTrailer, "0\r\nA: b\n\r\n", ok),
        (BodyFault::BadTrailer, "0\r\n\nA: b\r\n\r\n", ok),
        (BodyFault::BadTrailer, "0\r\n\rA: b\r\n\r\n", ok),
        (BodyFault::BadTrailer, "0\r\nA : b\r\n\r\n", ok),
        (BodyFault::BadTrailer, "0\r\nA: \0\r\n\r\n", ok),
        (BodyFault::BadTrailer, "0\r\nA\r\n\r\n", ok),
        (
            BodyFault::TrailersTooLong,
            &trailer(8192),
            &trailer(8192 - 7),
        ),
        (BodyFault::TrailersTooLong, &trailers(65), &trailers(64)),
    ] {
        assert_eq!(relay(bad.as_bytes()), Err(fault), "{bad:?}");
        assert!(
            relay(good.as_bytes()).is_ok_and(|(_, done)| done),
            "{good:?}"
        );
    }
}

#[test]
fn steps_of_a_chunked_body() {
    let mut rest = &b"3\r\nabc\r\n0\r\nX: y\r\n\r\nnext"[..];
    let mut decoder = BodyDecoder::response(ResponseFraming::Chunked);
    let mut events = Vec::new();
    loop {
        let decoded = decoder.decode(rest).expect("a good body");
        rest = &rest[decoded.consumed..];
        events.push(decoded.event);
        if decoded.event == Event::Trailers {
            let trailers: Vec<_> = decoder.trailers().collect();
            assert_eq!(trailers, [(&b"X"[..], &b"y"[..])]);
        }
        if decoded.event == Event::End {
            break;
        }
        assert!(decoder.end_of_stream().is_err() || decoded.event == Event::Trailers);
    }
    assert_eq!(
        events,
        [
            Event::ChunkStart(3),
            Event::Data(3),
            Event::ChunkEnd,
            Event::Trailers,
            Event::End
        ]
    );
    assert_eq!(rest, b"next");
    assert!(decoder.is_done());
}

#[test]
fn other_framings() {
    assert!(BodyDecoder::request(Framing::None).is_done());
    assert!(BodyDecoder::request(Framing::Length(0)).is_done());
    assert!(BodyDecoder::response(ResponseFraming::None).is_done());

    let mut decoder = BodyDecoder::request(Framing::Length(5));
    assert_eq!(
        decoder.decode(b"").expect("no fault").event,
        Event::NeedMore
    );
    assert_eq!(
        decoder.decode(b"abc").expect("no fault").event,
        Event::Data(3)
    );
    assert_eq!(decoder.remaining(), Some(2));
    assert_eq!(decoder.end_of_stream(), Err(BodyFault::Truncated));
    let decoded = decoder.decode(b"defg").expect("no fault");
    assert_eq!((decoded.consumed, decoded.event), (2, Event::Data(2)));
    assert!(decoder.is_done());
    let decoded = decoder.decode(b"fg").expect("no fault");
    assert_eq!((decoded.consumed, decoded.event), (0, Event::End));

    let mut decoder = BodyDecoder::response(ResponseFraming::UntilClose);
    assert_eq!(
        decoder.decode(b"").expect("no fault").event,
        Event::NeedMore
    );
    assert_eq!(
        decoder.decode(b"abc").expect("no fault").event,
        Event::Data(3)
    );
    assert!(!decoder.is_done());
    assert_eq!(decoder.end_of_stream(), Ok(()));
}

#[test]
fn writing_chunks() {
    let mut out = Vec::new();
    write_chunk(b"", &mut out);
    write_chunk(b"hello", &mut out);
    write_chunk_head(0xabcd_ef01_2345_6789, &mut out);
    write_last_chunk([(&b"A"[..], &b"b"[..])].into_iter(), &mut out);
    assert_eq!(out, b"5\r\nhello\r\nabcdef0123456789\r\n0\r\nA: b\r\n\r\n");
}
