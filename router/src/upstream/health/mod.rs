//! The router's own checks of endpoints, for routes of the registry that ask for them.
//!
//! ```text
//! control --HealthUpdate--> run --due--> probe --answer--> schedule --Unhealthy--> workers
//! ```
//!
//! What is due and what an answer means is decided in [`schedule`], which is pure; [`probe`] makes
//! one check. Everything runs on the control thread. Workers read one flag for each endpoint.

mod probe;
mod schedule;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use config::route::HostMatch;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use self::probe::{ProbeError, probe};
use self::schedule::{Change, Schedule};
use super::Endpoint;
use crate::observe::metrics::Registry;
use crate::registry::record::Check;

/// Checks that are under way at once. More are late, not lost: endpoints keep their last state. One
/// tenant has at most [`MOST_OF_ONE`](schedule::MOST_OF_ONE) of them, and each ends after
/// [`Check::LONGEST`] at the latest.
const MOST_AT_ONCE: usize = 256;

/// Which endpoints of an upstream fail their checks, in the upstream's order. Workers pass them
/// over while there are others.
#[derive(Debug)]
pub struct Unhealthy(Box<[AtomicBool]>);

/// A route whose endpoints are to be checked.
#[derive(Clone, Debug)]
pub struct CheckedRoute {
    /// The rule, which also gives the host that a check asks for.
    pub host: HostMatch,
    /// What is checked.
    pub endpoints: Vec<Arc<Endpoint>>,
    /// Where the outcome is published: as many flags as endpoints.
    pub unhealthy: Arc<Unhealthy>,
    /// How it is checked.
    pub check: Check,
}

/// What is to be checked from now on.
#[derive(Clone, Debug)]
pub enum HealthUpdate {
    /// This route, in place of what its rule had before. An endpoint that was checked in the same
    /// way keeps its state.
    Set(CheckedRoute),
    /// No longer the route of this rule, if it was checked at all.
    Gone(HostMatch),
}

impl Unhealthy {
    /// Flags for so many endpoints, all of which count as healthy until a check has failed.
    #[must_use]
    pub fn new(endpoints: usize) -> Self {
        Self((0..endpoints).map(|_| AtomicBool::new(false)).collect())
    }

    /// Whether the endpoint of this index fails its checks.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> bool {
        self.0.get(index).is_some_and(|flag| flag.load(Relaxed))
    }

    pub(super) fn set(&self, index: usize, unhealthy: bool) {
        if let Some(flag) = self.0.get(index) {
            flag.store(unhealthy, Relaxed);
        }
    }
}

/// Both ends of the checks: orders go into the channel, which
/// [`Control::report_checks_to`](crate::control::Control::report_checks_to) takes, and are carried
/// out by the future, which is to be spawned. It ends when the channel is dropped.
pub fn checks(
    metrics: Arc<Registry>,
) -> (
    mpsc::UnboundedSender<HealthUpdate>,
    impl Future<Output = ()> + Send + use<>,
) {
    let (orders, updates) = mpsc::unbounded_channel();
    let random = || {
        let mut bytes = [0; 8];
        // Without random numbers all checks are made at once, which is no worse than that.
        let _ = aws_lc_rs::rand::fill(&mut bytes);
        u64::from_le_bytes(bytes)
    };
    (orders, run(updates, metrics, random))
}

/// Checks what it is told to until `updates` closes. `random` gives numbers that are evenly spread;
/// they spread the first checks.
async fn run(
    mut updates: mpsc::UnboundedReceiver<HealthUpdate>,
    metrics: Arc<Registry>,
    mut random: impl FnMut() -> u64,
) {
    let started = Instant::now();
    let now = || u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let mut schedule = Schedule::default();
    let mut probes: JoinSet<Result<(), ProbeError>> = JoinSet::new();
    // Which check a task makes.
    let mut checks = HashMap::new();
    loop {
        while probes.len() < MOST_AT_ONCE
            && let Some(job) = schedule.take_due(now())
        {
            let id = job.id;
            let task = probes.spawn(async move { probe(&job).await });
            checks.insert(task.id(), id);
        }
        let wake = schedule.next_due().filter(|_| probes.len() < MOST_AT_ONCE);
        let sleep = Duration::from_millis(wake.map_or(0, |due| due.saturating_sub(now())));
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => schedule.update(update, now(), &mut random),
                None => return,
            },
            Some(joined) = probes.join_next_with_id() => {
                let (task, outcome) = match joined {
                    Ok((task, outcome)) => (task, outcome),
                    Err(error) => {
                        tracing::error!(%error, "a check of an endpoint broke off");
                        (error.id(), Err(ProbeError::BrokeOff))
                    }
                };
                if let Some(id) = checks.remove(&task)
                    && let Some(change) = schedule.finished(id, outcome.is_ok(), now())
                {
                    log(&change, outcome.err());
                }
            },
            () = tokio::time::sleep(sleep), if wake.is_some() => {}
        }
        metrics.control.endpoints_unhealthy(schedule.unhealthy());
    }
}

fn log(change: &Change, error: Option<ProbeError>) {
    let Change {
        host,
        endpoint,
        failures,
    } = change;
    match error {
        Some(error) => {
            tracing::warn!(%host, %endpoint, failures, %error, "endpoint fails its checks and is passed over");
        }
        None => tracing::info!(%host, %endpoint, "endpoint passes its check again"),
    }
}
