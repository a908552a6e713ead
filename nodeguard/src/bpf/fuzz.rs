//! What must hold for whatever comes in by the wire. The fuzz target and the corpus test call it.

use ebpf_common::decide::{Action, decide};
use ebpf_common::packet::{Flow, parse};
use ebpf_common::table::Unparsed;

use super::tables::Tables;

/// Judges a frame and all its beginnings.
///
/// # Panics
/// If a beginning is judged otherwise than the whole, for another reason than that it is too short:
/// then a byte was looked at that is not part of the headers.
pub fn frame(frame: &[u8]) {
    let whole = judged(frame);
    for length in 0..frame.len().min(512) {
        let beginning = judged(&frame[..length]);
        let same = beginning == whole || beginning == Err(Unparsed::Truncated);
        assert!(same, "{beginning:?} of {length} bytes, {whole:?} of all");
    }
}

fn judged(frame: &[u8]) -> Result<(Flow, Action), Unparsed> {
    let mut flow = Flow::EMPTY;
    parse(&frame, None, &mut flow)?;
    Ok((flow, decide(&flow, &Tables::default())))
}
