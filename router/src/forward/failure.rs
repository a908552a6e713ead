//! How an exchange fails, and what the client is told.

use std::io;

use super::respond::Answer;
use crate::http1::body::BodyFault;
use crate::http1::response::Fault;
use crate::upstream;

/// How an exchange failed. The endpoint's connection is of no more use then.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The client closed or reset its connection.
    ClientGone,
    /// The client's body breaks the rules of framing.
    ClientBody(BodyFault),
    /// The client neither sent its body nor took the answer.
    ClientStalled,
    /// The endpoint closed or reset its connection.
    UpstreamGone,
    /// The endpoint's host acknowledges nothing any more: it has lost power, or the way to it.
    UpstreamLost,
    /// The endpoint's answer breaks the rules of framing.
    UpstreamHead(Fault),
    /// The endpoint's answer is well formed and yet no answer to this request.
    UpstreamProtocol(&'static str),
    /// The endpoint's body breaks the rules of framing.
    UpstreamBody(BodyFault),
    /// The endpoint did not answer, or did not take the request, in time.
    UpstreamStalled,
}

impl Failure {
    /// What an error of the endpoint's connection means.
    pub(crate) fn of_upstream(error: &io::Error) -> Self {
        if upstream::is_gone(error) {
            Self::UpstreamLost
        } else {
            Self::UpstreamGone
        }
    }

    /// Whether the endpoint's connection has ended by itself, so that a request that had no answer
    /// may be worth another attempt.
    pub(crate) fn is_of_connection(&self) -> bool {
        matches!(self, Self::UpstreamGone | Self::UpstreamLost)
    }

    /// What the client is told, if it has not been told anything yet.
    pub(crate) fn answer(&self) -> Answer {
        match self {
            Self::ClientGone => Answer::new(499, "client-gone"),
            Self::ClientBody(fault) => Answer::new(400, fault.reason()),
            Self::ClientStalled => Answer::new(408, "client-stalled"),
            Self::UpstreamGone => Answer::new(502, "upstream-gone"),
            Self::UpstreamLost => Answer::new(502, "upstream-lost"),
            Self::UpstreamHead(fault) => Answer::new(502, fault.reason()),
            Self::UpstreamBody(fault) => Answer::new(502, fault.reason()),
            Self::UpstreamProtocol(reason) => Answer::new(502, reason),
            Self::UpstreamStalled => Answer::new(504, "upstream-stalled"),
        }
    }
}
