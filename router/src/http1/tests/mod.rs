//! Tests by subject. `router/tests/corpus.rs` replays the fuzz corpus on top of these.

mod bodies;
mod properties;
mod requests;
mod responses;
mod rewriting;

use super::head::HeadLimits;

const LIMITS: HeadLimits = HeadLimits {
    bytes: 16 * 1024,
    fields: 100,
};

/// A head from lines, with CRLF after each and the empty line at the end.
fn head(lines: &[&str]) -> Vec<u8> {
    let mut text = lines.join("\r\n").into_bytes();
    text.extend_from_slice(b"\r\n\r\n");
    text
}
