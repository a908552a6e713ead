//! The grammar of a head, byte by byte.
//!
//! Runs only where speed does not count: to name the fault in a head that `httparse` or the line
//! checks refused, to find a fault early in a head that is still incomplete, and for trailers. It
//! reports the first fault in byte order, so that the verdict on a head does not depend on how the
//! network cut it into pieces.

/// What can be wrong with field lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldFault {
    BareLf,
    BareCr,
    Nul,
    ControlByte,
    ObsFold,
    BlankBeforeColon,
    BlankInName,
    BadName,
    EmptyName,
    MissingColon,
    TooMany,
}

/// One step through field lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A field; `next` is where the next line begins.
    Field { colon: usize, next: usize },
    /// The empty line that ends the fields.
    End,
    /// Nothing wrong yet, more bytes are needed.
    Incomplete,
}

/// Checks field lines from `at` to the empty line or the end of what is there.
pub(crate) fn check_fields(buf: &[u8], mut at: usize, max: usize) -> Result<Line, FieldFault> {
    let mut count = 0;
    loop {
        match field_line(buf, at)? {
            Line::Field { next, .. } => {
                count += 1;
                if count > max {
                    return Err(FieldFault::TooMany);
                }
                at = next;
            }
            other => return Ok(other),
        }
    }
}

/// Checks the line that begins at `at`.
pub(crate) fn field_line(buf: &[u8], at: usize) -> Result<Line, FieldFault> {
    let mut i = at;
    let colon = loop {
        let Some(&b) = buf.get(i) else {
            return Ok(Line::Incomplete);
        };
        match b {
            b':' if i == at => return Err(FieldFault::EmptyName),
            b':' => break i,
            b' ' | b'\t' if i == at => return Err(FieldFault::ObsFold),
            b' ' | b'\t' => {
                return match buf[i..].iter().find(|b| !matches!(b, b' ' | b'\t')) {
                    None => Ok(Line::Incomplete),
                    Some(b':') => Err(FieldFault::BlankBeforeColon),
                    Some(_) => Err(FieldFault::BlankInName),
                };
            }
            b'\r' => {
                return match buf.get(i + 1) {
                    None => Ok(Line::Incomplete),
                    Some(b'\n') if i == at => Ok(Line::End),
                    Some(b'\n') => Err(FieldFault::MissingColon),
                    Some(_) => Err(FieldFault::BareCr),
                };
            }
            b'\n' => return Err(FieldFault::BareLf),
            0 => return Err(FieldFault::Nul),
            b if is_token(b) => i += 1,
            b if b.is_ascii_control() => return Err(FieldFault::ControlByte),
            _ => return Err(FieldFault::BadName),
        }
    };
    match end_of_text(buf, colon + 1)? {
        Some(next) => Ok(Line::Field { colon, next }),
        None => Ok(Line::Incomplete),
    }
}

/// Passes over a value or a reason phrase and its CRLF: `field-content` of RFC 9110 section 5.5.
pub(crate) fn end_of_text(buf: &[u8], at: usize) -> Result<Option<usize>, FieldFault> {
    for (i, &b) in buf.iter().enumerate().skip(at) {
        match b {
            b'\r' => {
                return match buf.get(i + 1) {
                    None => Ok(None),
                    Some(b'\n') => Ok(Some(i + 2)),
                    Some(_) => Err(FieldFault::BareCr),
                };
            }
            b'\n' => return Err(FieldFault::BareLf),
            0 => return Err(FieldFault::Nul),
            b'\t' => {}
            b if b.is_ascii_control() => return Err(FieldFault::ControlByte),
            _ => {}
        }
    }
    Ok(None)
}

/// `tchar` of RFC 9110 section 5.6.2.
pub(crate) fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

/// Without blanks at both ends.
pub(crate) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = text {
        text = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}
