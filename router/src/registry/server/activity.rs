//! What happens on a connection, and whether it goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The requests of one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    /// Since when each of them has waited for the client to take its answer; `None` while it is
    /// the client that waits, as in a watch.
    requests: HashMap<u64, Option<Instant>>,
    begun: u64,
    /// When a request last ended, or the connection began.
    progress: Instant,
}

/// A request whose answer has not been sent yet.
#[derive(Debug)]
pub(super) struct OpenRequest {
    activity: Arc<Activity>,
    number: u64,
}

/// How a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something goes on, or did a moment ago.
    Alive,
    /// Nothing has been asked for a while.
    Idle,
    /// An answer has not been taken for a while, whatever became of others.
    Stalled,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            requests: HashMap::new(),
            begun: 0,
            progress: Instant::now(),
        })))
    }

    /// A request begins. It ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        state.requests.insert(number, Some(Instant::now()));
        OpenRequest {
            activity: Arc::clone(self),
            number,
        }
    }

    /// Whether an answer has not been sent yet.
    pub(super) fn is_open(&self) -> bool {
        !self.lock().requests.is_empty()
    }

    pub(super) fn verdict(&self, now: Instant, idle: Duration, stall: Duration) -> Verdict {
        let state = self.lock();
        let quiet = |since: Instant| now.saturating_duration_since(since);
        if state.requests.is_empty() {
            return match quiet(state.progress) >= idle {
                true => Verdict::Idle,
                false => Verdict::Alive,
            };
        }
        let mut waiting = state.requests.values().flatten();
        match waiting.any(|since| quiet(*since) >= stall) {
            true => Verdict::Stalled,
            false => Verdict::Alive,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// A piece of the answer was taken.
    pub(super) fn progresses(&self) {
        self.set(Some(Instant::now()));
    }

    /// The client would take more than there is.
    pub(super) fn is_waited_for(&self) {
        self.set(None);
    }

    fn set(&self, since: Option<Instant>) {
        self.activity.lock().requests.insert(self.number, since);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        state.requests.remove(&self.number);
        state.progress = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(30);
    const STALL: Duration = Duration::from_secs(60);

    #[test]
    fn quiet_connections_are_idle_and_stuck_ones_are_stalled() {
        let activity = Activity::new();
        let after = |seconds| {
            let now = Instant::now() + Duration::from_secs(seconds);
            activity.verdict(now, IDLE, STALL)
        };
        assert_eq!((after(29), after(31)), (Verdict::Alive, Verdict::Idle));
        let stuck = activity.begin();
        let watch = activity.begin();
        assert_eq!((after(59), after(61)), (Verdict::Alive, Verdict::Stalled));
        watch.is_waited_for();
        assert_eq!(after(61), Verdict::Stalled, "the other is still there");
        stuck.is_waited_for();
        assert_eq!(after(61), Verdict::Alive, "a watch may be quiet");
        stuck.progresses();
        assert_eq!((after(59), after(61)), (Verdict::Alive, Verdict::Stalled));
        drop(activity.begin());
        assert_eq!(after(61), Verdict::Stalled, "others change nothing");
        drop((stuck, watch));
        assert_eq!((after(29), after(31)), (Verdict::Alive, Verdict::Idle));
    }
}
