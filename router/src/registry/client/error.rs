//! What can go wrong between a client and a registry.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;

use super::Address;
use crate::tls::UpstreamTlsError;

/// Characters of one text of a registry that are shown.
const SHOWN: usize = 500;

/// Why a call has no result.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ClientError {
    /// One of our own files is of no use. Asking another registry does not help.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// No CA file is named, and the system has no authorities of its own.
    #[error(transparent)]
    NoAuthorities(#[from] Arc<UpstreamTlsError>),
    /// There is no connection, or it broke.
    #[error("{address}: {reason}")]
    Unreachable {
        /// The registry.
        address: Address,
        /// What happened.
        reason: String,
    },
    /// The registry answered, and said no.
    #[error("{address}: {problem}")]
    Refused {
        /// The registry.
        address: Address,
        /// Its reason.
        problem: Box<Problem>,
    },
    /// Something answered that does not speak like a registry.
    #[error("{address} does not answer like a registry: {reason}")]
    Unexpected {
        /// The registry.
        address: Address,
        /// What is odd.
        reason: String,
    },
}

impl ClientError {
    /// Whether another registry may do what this one did not.
    #[must_use]
    pub fn is_worth_another_registry(&self) -> bool {
        match self {
            Self::File { .. } | Self::NoAuthorities(_) => false,
            Self::Unreachable { .. } | Self::Unexpected { .. } => true,
            Self::Refused { problem, .. } => problem.status.is_server_error(),
        }
    }

    /// What the registry said, if it said no.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused { problem, .. } => Some(problem),
            _ => None,
        }
    }
}

/// Why a registry refuses (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The status of the answer.
    pub status: StatusCode,
    /// A stable word, such as `outside-zones`.
    pub reason: Option<String>,
    /// For people.
    pub detail: String,
    /// The route that it is about, if it is about a single one of several.
    pub host: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

/// The members that count. Others are ignored: a newer registry may say more.
#[derive(Default, Deserialize)]
struct Members {
    #[serde(default)]
    title: Option<String>,
    #[serde(default)]
    detail: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    host: Option<String>,
}

impl Problem {
    /// Reads what came with a status that is no success. Whoever stands between (a proxy, say) may
    /// have sent anything; then the status alone is told.
    pub(super) fn read(status: StatusCode, retry_after: Option<&str>, body: &[u8]) -> Self {
        let members: Members = serde_json::from_slice(body).unwrap_or_default();
        let title = || status.canonical_reason().unwrap_or("refused").to_owned();
        let detail = members.detail.or(members.title).unwrap_or_else(title);
        Self {
            status,
            reason: members.reason.as_deref().map(printable),
            detail: printable(&detail),
            host: members.host,
            // A date would need a clock; registries send seconds.
            retry_after: retry_after
                .and_then(|seconds| seconds.parse().ok())
                .map(|seconds: u32| Duration::from_secs(seconds.into())),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let status = self.status.as_u16();
        match &self.reason {
            Some(reason) => write!(f, "{} ({status} {reason})", self.detail),
            None => write!(f, "{} ({status})", self.detail),
        }
    }
}

/// One line of bounded length, whatever was sent: it may end on a terminal.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_detail_and_reason() {
        let body = br#"{"type":"about:blank","title":"Forbidden","status":403,"new":1,
            "detail":"the zones of acme do not hold a.example.net","reason":"outside-zones",
            "host":"a.example.net"}"#;
        let problem = Problem::read(StatusCode::FORBIDDEN, None, body);
        assert_eq!(
            problem.to_string(),
            "the zones of acme do not hold a.example.net (403 outside-zones)"
        );
        assert_eq!(problem.host.as_deref(), Some("a.example.net"));
    }

    #[test]
    fn whatever_else_is_answered_is_told_by_its_status() {
        for body in [&b""[..], b"<html>", b"[1]", b"{\"detail\":1}"] {
            let problem = Problem::read(StatusCode::BAD_GATEWAY, Some("soon"), body);
            assert_eq!(problem.to_string(), "Bad Gateway (502)");
            assert_eq!(problem.retry_after, None);
        }
    }

    #[test]
    fn texts_of_a_registry_are_cut_and_stay_one_line() {
        let long = format!("{{\"detail\":\"a\\nb\\u001b[2J{}\"}}", "x".repeat(10_000));
        let problem = Problem::read(StatusCode::CONFLICT, Some("7"), long.as_bytes());
        assert!(problem.detail.starts_with("a b [2Jxx"), "{problem}");
        assert_eq!(problem.detail.chars().count(), SHOWN + 1);
        assert_eq!(problem.retry_after, Some(Duration::from_secs(7)));
    }
}
