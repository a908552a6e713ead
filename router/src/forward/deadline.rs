//! The deadline of an exchange with an endpoint of HTTP/1.
//!
//! A wait for an answer may be as long as the endpoint likes (long polls), or as
//! `timeouts.response_head` says. Either way it is cut into pieces, with a look in between at
//! whether the endpoint's host is still there.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::failure::Failure;
use crate::upstream::Stream;
use crate::worker::timers::Timer;

/// Whom an exchange waits for.
pub(crate) struct Awaited {
    /// For how long; `None` is for ever.
    pub(crate) patience: Option<Duration>,
    /// What it is called if nothing comes.
    pub(crate) failure: Failure,
    /// Whether it is for the head of the answer, and for nothing else.
    pub(crate) answer: bool,
}

/// A deadline that begins anew whenever something has moved.
#[derive(Default)]
pub(crate) struct Deadline {
    /// Pieces of the wait that are over.
    waited: Duration,
    /// The piece that is not.
    piece: Duration,
}

impl Deadline {
    /// Ready with a failure once the wait is over. `moved`: something has, since the last call.
    /// `look`: how long a request may stay unacknowledged.
    pub(crate) fn poll(
        &mut self,
        awaited: Awaited,
        moved: bool,
        (stream, look): (&Stream, Duration),
        timer: &Timer,
        cx: &mut Context<'_>,
    ) -> Poll<Failure> {
        if moved {
            self.waited = Duration::ZERO;
            self.set(&awaited, look, timer);
        }
        loop {
            ready!(timer.poll_expired(cx));
            if !awaited.answer {
                return Poll::Ready(awaited.failure);
            }
            self.waited += self.piece;
            if stream.is_unacknowledged(look) {
                return Poll::Ready(Failure::UpstreamLost);
            }
            if awaited.patience.is_some_and(|all| self.waited >= all) {
                return Poll::Ready(awaited.failure);
            }
            self.set(&awaited, look, timer);
        }
    }

    fn set(&mut self, awaited: &Awaited, look: Duration, timer: &Timer) {
        let left = awaited.patience.map(|all| all.saturating_sub(self.waited));
        let next = match left {
            _ if !awaited.answer => left,
            Some(left) => Some(left.min(look)),
            None => Some(look),
        };
        match next {
            Some(piece) => {
                self.piece = piece;
                timer.set(piece);
            }
            None => timer.clear(),
        }
    }
}
