//! What must hold for any bytes. The fuzz targets under `router/fuzz` and the tests that replay
//! their corpus call these; each panics on a violation.

use std::net::{IpAddr, Ipv4Addr};

use bytes::BytesMut;
use http::HeaderMap;

use super::body::{BodyDecoder, BodyFault, Event, relay_chunked};
use super::fields::FieldSlots;
use super::head::{self, Framing, HeadLimits, Progress, RequestHead, parse_request};
use super::names::{self, Name};
use super::refusal::Refusal;
use super::response::{self, Fault, RequestKind, ResponseFraming, ResponseHead, parse_response};
use super::rewrite::{self, ClientPersistence, Forwarding};
use super::scan::HeadScanner;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 2048,
    fields: 80,
};
/// A rewritten head may be longer than the one that came.
const ROOMY: HeadLimits = HeadLimits {
    bytes: 64 * 1024,
    fields: 256,
};

/// Request heads: the verdict does not depend on segmentation, agrees with the byte-wise grammar,
/// and what is passed on reads the same again.
pub fn request_head(data: &[u8]) {
    let whole = request_verdict(data);
    let mut scanner = HeadScanner::new();
    for end in cuts(data.len()) {
        let prefix = &data[..end];
        let verdict = request_verdict(prefix);
        match verdict {
            Ok(None) => {}
            _ => assert_eq!(verdict, whole, "the first {end} bytes"),
        }
        if let (Ok(Some(len)), Ok(None)) = (whole, verdict) {
            assert!(end < len, "incomplete, though {end} bytes hold the head");
        }
        let ready = scanner.ready(prefix, &LIMITS);
        match verdict {
            Ok(None) => assert!(!ready, "told to parse the first {end} bytes for nothing"),
            Ok(Some(_)) => assert!(ready, "told to wait with a whole head"),
            // A fault inside a line may wait for the end of the head.
            Err(_) => {}
        }
    }

    let view = &data[..data.len().min(LIMITS.bytes)];
    let bytes = view.strip_prefix(b"\r\n").unwrap_or(view);
    if whole != Err(Refusal::EmptyLine) {
        match head::check(bytes, LIMITS.fields) {
            Err(refusal) => assert_eq!(whole, Err(refusal)),
            Ok(Progress::Complete) => {
                assert_ne!(whole, Ok(None));
                assert_ne!(whole, Err(Refusal::BadName), "httparse sees another fault");
            }
            Ok(_) if data.len() < LIMITS.bytes => assert_eq!(whole, Ok(None)),
            Ok(Progress::RequestLine) => assert_eq!(whole, Err(Refusal::TargetTooLong)),
            Ok(Progress::Fields) => assert_eq!(whole, Err(Refusal::HeadTooLong)),
        }
    }

    let mut slots = FieldSlots::new();
    if let Ok(Some(head)) = parse_request(data, &mut slots, &LIMITS) {
        assert_eq!(
            memchr::memchr_iter(b'\n', head.raw).count(),
            head.fields.len() + 2
        );
        assert_eq!(
            memchr::memchr_iter(b'\r', head.raw).count(),
            head.fields.len() + 2
        );
        for (trusted, upgrade) in [(false, false), (true, true)] {
            rewritten_request(&head, trusted, upgrade);
        }
    }
}

/// Response heads: as [`request_head`]; the first byte says what was asked.
pub fn response_head(data: &[u8]) {
    let Some((&kind, data)) = data.split_first() else {
        return;
    };
    let kind = match kind {
        b'H' => RequestKind::Head,
        b'C' => RequestKind::Connect,
        _ => RequestKind::Other,
    };
    let whole = response_verdict(data, kind);
    for end in cuts(data.len()) {
        let verdict = response_verdict(&data[..end], kind);
        match verdict {
            Ok(None) => {}
            _ => assert_eq!(verdict, whole, "the first {end} bytes"),
        }
    }
    match response::check(&data[..data.len().min(LIMITS.bytes)], LIMITS.fields) {
        Err(fault) => assert_eq!(whole, Err(fault)),
        Ok(true) => {
            assert_ne!(whole, Ok(None));
            assert_ne!(
                whole,
                Err(Fault::BadStatusLine),
                "httparse sees another fault"
            );
        }
        Ok(false) if data.len() < LIMITS.bytes => assert_eq!(whole, Ok(None)),
        Ok(false) => assert_eq!(whole, Err(Fault::HeadTooLong)),
    }

    let mut slots = FieldSlots::new();
    if let Ok(Some(head)) = parse_response(data, &mut slots, &LIMITS, kind) {
        assert_eq!(
            memchr::memchr_iter(b'\n', head.raw).count(),
            head.fields.len() + 2
        );
        rewritten_response(&head, kind);
    }
}

/// Chunked bodies: segmentation does not matter, and what is relayed decodes to the same.
pub fn chunked_body(data: &[u8]) {
    let whole = decode(data, usize::MAX);
    for piece in [1, 2, 3, 7, 64] {
        assert_eq!(decode(data, piece), whole, "in pieces of {piece}");
    }

    let mut out = Vec::new();
    let mut decoder = BodyDecoder::request(Framing::Chunked);
    match (relay_chunked(&mut decoder, data, &mut out), &whole) {
        (Err(fault), whole) => assert_eq!(whole.fault, Some(fault)),
        (Ok(consumed), whole) => {
            assert_eq!(whole.fault, None);
            assert_eq!(consumed, whole.consumed);
            let again = decode(&out, usize::MAX);
            assert_eq!(again.fault, None);
            assert_eq!(again.done, whole.done);
            assert_eq!(again.payload, whole.payload);
            assert_eq!(again.chunks, whole.chunks);
            assert_eq!(again.trailers, whole.trailers);
            assert_eq!(again.consumed, out.len());
        }
    }
}

/// All prefixes of short input, some of long input, and the whole.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    let step = len / 512 + 1;
    (0..len).step_by(step).chain([len])
}

fn request_verdict(data: &[u8]) -> Result<Option<usize>, Refusal> {
    let mut slots = FieldSlots::new();
    parse_request(data, &mut slots, &LIMITS).map(|head| head.map(|head| head.len))
}

fn response_verdict(data: &[u8], kind: RequestKind) -> Result<Option<usize>, Fault> {
    let mut slots = FieldSlots::new();
    parse_response(data, &mut slots, &LIMITS, kind).map(|head| head.map(|head| head.len))
}

fn rewritten_request(head: &RequestHead<'_, '_>, trusted: bool, upgrade: bool) {
    let fwd = Forwarding {
        client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
        host: head.host.text,
        port: 443,
        trusted,
    };
    let upgrade = head.upgrade.filter(|_| upgrade);
    let mut out = BytesMut::new();
    rewrite::request_head(head, &fwd, upgrade, &mut out);
    let mut slots = FieldSlots::new();
    let again = parse_request(&out, &mut slots, &ROOMY)
        .expect("a rewritten head is accepted")
        .expect("a rewritten head is complete");
    assert_eq!(again.len, out.len());
    assert_eq!(again.method, head.method);
    assert_eq!(again.path, head.path);
    assert_eq!(again.host, head.host);
    assert_eq!(again.framing, head.framing);
    assert_eq!(again.upgrade, upgrade);
    assert_eq!(again.expect_continue, head.expect_continue);
    assert!(again.persistent);

    let ours = |name: &[u8]| !matches!(names::classify(name), Name::Other | Name::Expect);
    let kept = |head: &RequestHead<'_, '_>| {
        head.end_to_end_fields()
            .filter(|(name, _)| !ours(name))
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect::<Vec<_>>()
    };
    assert_eq!(kept(&again), kept(head));
    for field in again.fields {
        let class = names::classify(field.name.as_bytes());
        assert!(
            !matches!(class, Name::Dropped | Name::Ambiguous),
            "{} was passed on",
            field.name
        );
        if matches!(class, Name::Forwarding(_)) && !trusted {
            let from_client = head
                .fields
                .iter()
                .any(|theirs| theirs.value == field.value && theirs.name == field.name);
            let ours = field.value.windows(9).any(|part| part == b"192.0.2.1")
                || [&b"https"[..], b"443", head.host.text.as_bytes()].contains(&field.value);
            assert!(ours || !from_client, "{} was believed", field.name);
        }
    }

    // The same head by way of the policy for HTTP/2.
    let mut map = HeaderMap::new();
    rewrite::request_fields(head.end_to_end_fields(), &fwd, &mut map);
    for name in map.keys() {
        let class = names::classify(name.as_str().as_bytes());
        assert!(matches!(
            class,
            Name::Other | Name::Expect | Name::Te | Name::Forwarding(_)
        ));
    }
    let mut text = b"GET / HTTP/1.1\r\n".to_vec();
    rewrite::request_fields(head.end_to_end_fields(), &fwd, &mut text);
    rewrite::request_framing(head.framing, &mut text);
    text.extend_from_slice(b"\r\n");
    let mut slots = FieldSlots::new();
    let third = parse_request(&text, &mut slots, &ROOMY)
        .expect("a head from fields is accepted")
        .expect("a head from fields is complete");
    assert_eq!(third.framing, head.framing);
}

fn rewritten_response(head: &ResponseHead<'_, '_>, kind: RequestKind) {
    for client in [head::Version::Http10, head::Version::Http11] {
        for persistence in [ClientPersistence::KeepAlive, ClientPersistence::Close] {
            let framing = rewrite::client_framing(head.framing, client);
            let mut out = BytesMut::new();
            rewrite::response_head(head, client, framing, persistence, &mut out);
            let mut slots = FieldSlots::new();
            let again = parse_response(&out, &mut slots, &ROOMY, kind)
                .expect("a rewritten head is accepted")
                .expect("a rewritten head is complete");
            assert_eq!(again.len, out.len());
            assert_eq!(again.status, head.status);
            assert_eq!(again.reason, head.reason);
            assert_eq!(again.framing, framing);
            assert_eq!(
                again.length,
                match framing {
                    ResponseFraming::Chunked | ResponseFraming::UntilClose => None,
                    _ => head.length,
                }
            );
            if !head.is_interim() && head.status != 101 {
                let lives = persistence == ClientPersistence::KeepAlive
                    && framing != ResponseFraming::UntilClose;
                assert_eq!(again.persistent, lives);
            }
            let kept = |head: &ResponseHead<'_, '_>| {
                head.end_to_end_fields()
                    .filter(|(name, _)| names::classify(name) != Name::ContentLength)
                    .map(|(name, value)| (name.to_vec(), value.to_vec()))
                    .collect::<Vec<_>>()
            };
            assert_eq!(kept(&again), kept(head));
        }
    }
    let mut map = HeaderMap::new();
    rewrite::response_fields(head.end_to_end_fields(), &mut map);
    assert!(!map.contains_key("transfer-encoding") && !map.contains_key("connection"));
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Body {
    consumed: usize,
    done: bool,
    fault: Option<BodyFault>,
    payload: Vec<u8>,
    chunks: Vec<u64>,
    ended_chunks: usize,
    trailers: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Decodes `data` in pieces until the end, a fault, or nothing is left.
fn decode(data: &[u8], piece: usize) -> Body {
    let mut body = Body::default();
    let mut decoder = BodyDecoder::request(Framing::Chunked);
    for input in data.chunks(piece.min(data.len()).max(1)) {
        let mut at = 0;
        loop {
            let decoded = match decoder.decode(&input[at..]) {
                Ok(decoded) => decoded,
                Err(fault) => {
                    body.fault = Some(fault);
                    // How far it came before the fault depends on the pieces.
                    body.consumed = 0;
                    return body;
                }
            };
            at += decoded.consumed;
            body.consumed += decoded.consumed;
            match decoded.event {
                Event::NeedMore => {
                    assert_eq!(at, input.len(), "waits with input left");
                    break;
                }
                Event::ChunkStart(size) => {
                    assert_ne!(size, 0);
                    body.chunks.push(size);
                }
                Event::Data(n) => {
                    assert_ne!(n, 0);
                    body.payload.extend_from_slice(&input[at - n..at]);
                }
                Event::ChunkEnd => body.ended_chunks += 1,
                Event::Trailers => {
                    body.trailers = decoder
                        .trailers()
                        .map(|(name, value)| (name.to_vec(), value.to_vec()))
                        .collect();
                    assert!(!body.trailers.is_empty());
                }
                Event::End => {
                    assert!(decoder.is_done());
                    body.done = true;
                    return body;
                }
            }
        }
    }
    body
}
