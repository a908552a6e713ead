//! Chance, so that many who wait for the same thing do not all come back at the same moment.

/// Evenly from 0 up to and without 1.
pub(crate) fn fraction() -> f64 {
    let mut bytes = [0; 4];
    // Without random numbers everybody waits equally long, and all else works.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0)
}
