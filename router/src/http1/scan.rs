//! Whether a head is worth parsing yet.

use super::head::HeadLimits;

/// Remembers how far a growing buffer was looked at, so that a head that arrives byte by byte costs
/// time in proportion to its length and not to its square.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    scanned: usize,
}

impl HeadScanner {
    /// For a buffer that begins with a head.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether parsing `buf` will give a verdict: the head may be complete, a line ends without CR,
    /// or the limit is reached. `buf` is the same buffer as before, with more at its end.
    #[inline]
    pub fn ready(&mut self, buf: &[u8], limits: &HeadLimits) -> bool {
        // A request without a body, in one piece.
        if buf.ends_with(b"\r\n\r\n") || buf.len() >= limits.bytes {
            return true;
        }
        self.look(buf)
    }

    fn look(&mut self, buf: &[u8]) -> bool {
        for at in memchr::memchr_iter(b'\n', &buf[self.scanned.min(buf.len())..]) {
            let end = self.scanned + at;
            let line = &buf[..end];
            if !line.ends_with(b"\r") || line.ends_with(b"\r\n\r") {
                return true;
            }
        }
        self.scanned = buf.len();
        false
    }
}
