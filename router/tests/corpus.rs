//! Replays the corpus of the fuzz targets (`router/fuzz/corpus/<target>/`) as plain tests.
//!
//! A file whose name begins with `refused-<reason>`, `accepted` or `incomplete` also states the
//! verdict; what follows a dot only tells files apart. Files that the fuzzer found have other names.

use std::path::Path;

use router::http1::FieldSlots;
use router::http1::body::{BodyDecoder, Event};
use router::http1::fuzz;
use router::http1::head::{Framing, HeadLimits, parse_request};
use router::http1::response::{RequestKind, parse_response};

/// The limits that the invariants use.
const LIMITS: HeadLimits = HeadLimits {
    bytes: 2048,
    fields: 80,
};

#[test]
fn request_heads() {
    replay(
        "request_head",
        fuzz::request_head,
        |data| match parse_request(data, &mut FieldSlots::new(), &LIMITS) {
            Ok(Some(_)) => "accepted".into(),
            Ok(None) => "incomplete".into(),
            Err(refusal) => format!("refused-{}", refusal.reason()),
        },
    );
}

#[test]
fn response_heads() {
    replay("response_head", fuzz::response_head, |data| {
        let kind = match data[0] {
            b'H' => RequestKind::Head,
            b'C' => RequestKind::Connect,
            _ => RequestKind::Other,
        };
        match parse_response(&data[1..], &mut FieldSlots::new(), &LIMITS, kind) {
            Ok(Some(_)) => "accepted".into(),
            Ok(None) => "incomplete".into(),
            Err(fault) => format!("refused-{}", fault.reason()),
        }
    });
}

#[test]
fn chunked_bodies() {
    replay("chunked_body", fuzz::chunked_body, |mut data| {
        let mut decoder = BodyDecoder::request(Framing::Chunked);
        loop {
            match decoder.decode(data) {
                Ok(decoded) => match decoded.event {
                    Event::End => return "accepted".into(),
                    Event::NeedMore => return "incomplete".into(),
                    _ => data = &data[decoded.consumed..],
                },
                Err(fault) => return format!("refused-{}", fault.reason()),
            }
        }
    });
}

fn replay(target: &str, invariants: fn(&[u8]), verdict: fn(&[u8]) -> String) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/corpus")
        .join(target);
    let mut stated = 0;
    for entry in std::fs::read_dir(&folder).expect("the corpus is in the repository") {
        let path = entry.expect("a readable folder").path();
        let data = std::fs::read(&path).expect("a readable file");
        let name = path
            .file_name()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        // Shown only when an invariant panics.
        eprintln!("{target}/{name}");
        invariants(&data);
        let expected = if name.starts_with("accepted") {
            "accepted"
        } else if name.starts_with("incomplete") {
            "incomplete"
        } else if name.starts_with("refused-") {
            name.split('.')
                .next()
                .expect("split gives at least one part")
        } else {
            continue;
        };
        assert_eq!(verdict(&data), expected, "{target}/{name}");
        stated += 1;
    }
    assert!(stated > 10, "no corpus in {}", folder.display());
}
