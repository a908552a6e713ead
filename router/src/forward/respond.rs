//! Answers that the router gives itself. They name nothing of what lies behind it.

use std::time::Duration;

use bytes::BytesMut;
use http::StatusCode;

/// What is still read from a client after an answer that closes, so that the answer is not lost
/// to a reset (RFC 9112, section 9.6).
pub(crate) const LINGER_BYTES: usize = 256 * 1024;
/// For how long it is read.
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// An answer of the router's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Status code.
    pub(crate) status: u16,
    /// Why, as a stable token for logs and metrics; never sent.
    pub(crate) reason: &'static str,
}

impl Answer {
    pub(crate) const fn new(status: u16, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// The body: status and its standard phrase, nothing else.
    pub(crate) fn body(self) -> String {
        format!("{} {}\n", self.status, phrase(self.status))
    }

    /// Writes the answer as HTTP/1.1. A client that asked by HEAD gets no body.
    pub(crate) fn write_http1(self, date: &str, head_only: bool, close: bool, out: &mut BytesMut) {
        let body = self.body();
        let connection = if close { "connection: close\r\n" } else { "" };
        let head = format!(
            "HTTP/1.1 {} {}\r\ndate: {date}\r\ncontent-type: text/plain\r\n\
             content-length: {}\r\n{connection}\r\n",
            self.status,
            phrase(self.status),
            body.len(),
        );
        out.extend_from_slice(head.as_bytes());
        if !head_only {
            out.extend_from_slice(body.as_bytes());
        }
    }
}

fn phrase(status: u16) -> &'static str {
    StatusCode::from_u16(status)
        .ok()
        .and_then(|status| status.canonical_reason())
        .unwrap_or("Error")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_a_complete_message() {
        let mut out = BytesMut::new();
        Answer::new(404, "unknown-host").write_http1("D", false, true, &mut out);
        assert_eq!(
            std::str::from_utf8(&out).unwrap(),
            "HTTP/1.1 404 Not Found\r\ndate: D\r\ncontent-type: text/plain\r\n\
             content-length: 14\r\nconnection: close\r\n\r\n404 Not Found\n"
        );
    }

    #[test]
    fn an_answer_to_head_announces_a_body_and_sends_none() {
        let mut out = BytesMut::new();
        Answer::new(404, "unknown-host").write_http1("D", true, false, &mut out);
        let text = std::str::from_utf8(&out).unwrap();
        assert!(text.contains("content-length: 14\r\n"));
        assert!(text.ends_with("\r\n\r\n"));
        assert!(!text.contains("connection"));
    }
}
