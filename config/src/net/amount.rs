//! Durations (`1m30s`) and sizes (`32KiB`). A number needs a unit: `30` could mean anything.

use std::time::Duration;

use crate::error::{InvalidValue, quoted};

/// A duration such as `500ms`, `10s`, `1m30s`, `1h`, `2d`: whole numbers with units, largest unit
/// first, each at most once.
///
/// # Errors
/// If a number or unit is missing, unknown, repeated or out of order, or the sum overflows.
pub fn parse_duration(text: &str) -> Result<Duration, InvalidValue> {
    const UNITS: [(&str, u64); 5] = [
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let wrong = || {
        InvalidValue::new(format!("{} is not a duration", quoted(text)))
            .help("write for example `500ms`, `10s` or `1m30s`")
    };
    let mut millis = 0_u64;
    let mut rest = text;
    let mut allowed = 0;
    while !rest.is_empty() || allowed == 0 {
        let (number, tail) = split_number(rest).ok_or_else(wrong)?;
        let end = tail
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(tail.len());
        let unit = &tail[..end];
        let index = UNITS
            .iter()
            .position(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        if index < allowed {
            return Err(wrong());
        }
        allowed = index + 1;
        millis = number
            .checked_mul(UNITS[index].1)
            .and_then(|part| millis.checked_add(part))
            .ok_or_else(|| InvalidValue::new(format!("{} is too long", quoted(text))))?;
        rest = &tail[end..];
    }
    Ok(Duration::from_millis(millis))
}

/// A size in bytes such as `512B`, `32KiB`, `1MiB`, `2GiB`.
///
/// # Errors
/// If the number or unit is missing or unknown, or the product overflows.
pub fn parse_size(text: &str) -> Result<u64, InvalidValue> {
    const UNITS: [(&str, u64); 4] = [
        ("B", 1),
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
    ];
    let wrong = || {
        InvalidValue::new(format!("{} is not a size", quoted(text)))
            .help("write for example `512B`, `32KiB` or `1MiB`")
    };
    let (number, unit) = split_number(text).ok_or_else(wrong)?;
    let factor = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(wrong)?
        .1;
    number
        .checked_mul(factor)
        .ok_or_else(|| InvalidValue::new(format!("{} is too large", quoted(text))))
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}
