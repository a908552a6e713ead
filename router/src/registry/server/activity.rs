//! What happens on a connection, and whether it goes on.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Counts the requests of one connection.
#[derive(Debug)]
pub(super) struct Activity(Mutex<State>);

#[derive(Debug)]
struct State {
    requests: usize,
    watches: usize,
    /// When a request last ended, or was the only one to begin.
    progress: Instant,
}

/// A request whose answer has not been sent yet.
#[derive(Debug)]
pub(super) struct OpenRequest {
    activity: Arc<Activity>,
    watch: bool,
}

/// How a connection does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Something goes on, or did a moment ago.
    Alive,
    /// Nothing has been asked for a while.
    Idle,
    /// No answer has got through for a while: the client does not take them.
    Stalled,
}

impl Activity {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            requests: 0,
            watches: 0,
            progress: Instant::now(),
        })))
    }

    /// A request begins. It ends when what is returned is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> OpenRequest {
        let mut state = self.lock();
        if state.requests == 0 {
            state.progress = Instant::now();
        }
        state.requests += 1;
        OpenRequest {
            activity: Arc::clone(self),
            watch: false,
        }
    }

    /// Whether an answer has not been sent yet.
    pub(super) fn is_open(&self) -> bool {
        let state = self.lock();
        state.requests + state.watches > 0
    }

    pub(super) fn verdict(&self, now: Instant, idle: Duration, stall: Duration) -> Verdict {
        let state = self.lock();
        let quiet = now.saturating_duration_since(state.progress);
        match (state.requests, state.watches) {
            (0, 0) if quiet >= idle => Verdict::Idle,
            (1.., _) if quiet >= stall => Verdict::Stalled,
            _ => Verdict::Alive,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenRequest {
    /// Its answer is a watch, which may take as long as it likes.
    pub(super) fn is_watch(&mut self) {
        if !self.watch {
            self.watch = true;
            let mut state = self.activity.lock();
            state.requests -= 1;
            state.watches += 1;
        }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let mut state = self.activity.lock();
        if self.watch {
            state.watches -= 1;
        } else {
            state.requests -= 1;
        }
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
        let request = activity.begin();
        let mut watch = activity.begin();
        assert_eq!((after(59), after(61)), (Verdict::Alive, Verdict::Stalled));
        watch.is_watch();
        watch.is_watch();
        assert_eq!(after(61), Verdict::Stalled, "the request is still there");
        drop(request);
        assert_eq!(after(61), Verdict::Alive, "a watch may be quiet");
        drop(watch);
        assert_eq!((after(29), after(31)), (Verdict::Alive, Verdict::Idle));
    }
}
