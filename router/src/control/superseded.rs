//! Snapshots that are no longer in force, until nobody looks at them any more.
//!
//! Whoever lets go of a snapshot last frees what only that one had, and after a change of a million
//! routes that takes a while. It must not be a worker in the middle of its requests, so the control
//! plane holds on for longer than all of them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use super::Control;
use crate::snapshot::Snapshot;

/// How many are looked at with each new one: more than one, so that the number falls; few, since a
/// request that takes days keeps its snapshot for days.
const LOOKS: usize = 4;

/// How often all are looked at when nothing changes.
const PERIOD: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Superseded(VecDeque<Arc<Snapshot>>);

impl Superseded {
    pub(super) fn push(&mut self, snapshot: Arc<Snapshot>) {
        self.look(LOOKS);
        self.0.push_back(snapshot);
    }

    pub(super) fn look_at_all(&mut self) {
        self.look(self.0.len());
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Drops those that nobody else has: nobody can get hold of them again.
    fn look(&mut self, most: usize) {
        for _ in 0..most.min(self.0.len()) {
            if let Some(snapshot) = self.0.pop_front()
                && Arc::strong_count(&snapshot) > 1
            {
                self.0.push_back(snapshot);
            }
        }
    }
}

/// Drops what is superseded and no longer used, for as long as the runtime lives.
pub async fn drop_superseded(control: Arc<Control>) {
    let mut ticks = tokio::time::interval(PERIOD);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        control.drop_superseded();
    }
}
