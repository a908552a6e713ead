//! Trailer sections (RFC 9112 section 7.1.2).

use super::body::BodyFault;
use super::names;
use super::syntax::{self, Line, trim};

/// The most bytes of a trailer section.
pub const MAX_TRAILER_BYTES: usize = 8 * 1024;
/// The most fields of a trailer section.
pub const MAX_TRAILER_FIELDS: usize = 64;

/// Collects a trailer section line by line and keeps the fields that may stand there.
///
/// Takes memory only when there are trailers.
#[derive(Debug, Default)]
pub(crate) struct TrailerSection {
    /// Whole lines that are kept, then the line that is still arriving from `line` on.
    lines: Vec<u8>,
    line: usize,
    bytes: usize,
    fields: usize,
}

impl TrailerSection {
    /// Takes bytes up to the empty line; how many, and whether it was reached.
    pub(crate) fn take(&mut self, input: &[u8]) -> Result<(usize, bool), BodyFault> {
        let mut at = 0;
        while at < input.len() {
            let room = MAX_TRAILER_BYTES - self.bytes;
            if room == 0 {
                return Err(BodyFault::TrailersTooLong);
            }
            let part = &input[at..input.len().min(at + room)];
            let (part, ended) = match memchr::memchr(b'\n', part) {
                Some(end) => (&part[..=end], true),
                None => (part, false),
            };
            at += part.len();
            self.bytes += part.len();
            self.lines.extend_from_slice(part);
            if ended && self.end_of_line()? {
                return Ok((at, true));
            }
        }
        Ok((at, false))
    }

    /// Checks the line that just ended; whether it was the empty one.
    fn end_of_line(&mut self) -> Result<bool, BodyFault> {
        let line = &self.lines[self.line..];
        match syntax::field_line(line, 0) {
            Ok(Line::Field { colon, .. }) => {
                self.fields += 1;
                if self.fields > MAX_TRAILER_FIELDS {
                    return Err(BodyFault::TrailersTooLong);
                }
                if names::is_forbidden_in_trailers(&line[..colon]) {
                    self.lines.truncate(self.line);
                }
                self.line = self.lines.len();
                Ok(false)
            }
            Ok(Line::End) => {
                self.lines.truncate(self.line);
                Ok(true)
            }
            // A line that ended is not incomplete.
            Ok(Line::Incomplete) | Err(_) => Err(BodyFault::BadTrailer),
        }
    }

    /// The lines that were kept, each with its CRLF.
    pub(crate) fn lines(&self) -> &[u8] {
        &self.lines[..self.line]
    }

    /// The fields that were kept.
    pub(crate) fn fields(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.lines()
            .split_inclusive(|&b| b == b'\n')
            .filter_map(|line| {
                let colon = line.iter().position(|&b| b == b':')?;
                let value = line[colon + 1..].strip_suffix(b"\r\n")?;
                Some((&line[..colon], trim(value)))
            })
    }
}
