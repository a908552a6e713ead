//! How long a change takes from a writer to the snapshot that workers read, and how long to a bare
//! watch.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use config::route::HostMatch;
use router::registry::store::Revision;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use super::cluster::WINDOW;
use super::followed::{Event, Followed};
use super::population::{Change, Population, Writer, transaction};
use super::record::{Delays, Kind, Micros, Series, Storm};

/// Changes of a burst, one after the other.
const BURST: u32 = 50;
/// From one change of a burst to the next: all are within a window.
const WITHIN_BURST: Duration = Duration::from_micros(500);

/// A store with routes, somebody who follows it, and somebody who changes it.
pub(crate) struct Stand {
    pub(crate) kind: Kind,
    pub(crate) population: Population,
    pub(crate) followed: Followed,
}

/// A change that was committed.
struct Committed {
    change: Change,
    sent: Instant,
    returned: Instant,
    revision: Revision,
}

/// When what was where.
#[derive(Default)]
struct Sightings {
    /// In the order of revisions: a watch hands on everything up to one.
    heard: Vec<(Revision, Instant)>,
    changes_heard: usize,
    published: HashMap<(HostMatch, u16), Instant>,
    snapshots: u32,
}

impl Stand {
    /// Writes all routes and waits until they are in force.
    pub(crate) fn load(
        kind: Kind,
        followed: Followed,
        routes: u32,
        runtime: &Runtime,
    ) -> Result<Self> {
        let population = Population::new(routes);
        runtime.block_on(followed.writer.commit_all(population.load()))?;
        let all = routes as usize;
        Sightings::collect(&followed, |seen| {
            seen.published.len() == all && seen.changes_heard == all
        })?;
        Ok(Self {
            kind,
            population,
            followed,
        })
    }

    /// Changes that stand alone: the window of each has passed before the next.
    pub(crate) fn singles(&mut self, round: u32, count: u32, runtime: &Runtime) -> Result<Delays> {
        let mut committed = Vec::new();
        for _ in 0..count {
            thread::sleep(WINDOW + self.jitter(10, 30));
            let at = self.population.any();
            let change = self.population.change(at)?;
            committed.push(runtime.block_on(commit(self.followed.writer.clone(), change))?);
        }
        self.delays(Series::Single, round, committed)
    }

    /// Bursts of changes within one window each.
    pub(crate) fn bursts(&mut self, round: u32, count: u32, runtime: &Runtime) -> Result<Delays> {
        let mut committed = Vec::new();
        for _ in 0..count {
            thread::sleep(2 * WINDOW + self.jitter(20, 60));
            let mut drawn = HashSet::new();
            while drawn.len() < BURST as usize {
                drawn.insert(self.population.any());
            }
            let changes = drawn.into_iter().map(|at| self.population.change(at));
            let changes = changes.collect::<Result<Vec<_>>>()?;
            committed.extend(runtime.block_on(burst(&self.followed.writer, changes))?);
        }
        self.delays(Series::Burst, round, committed)
    }

    /// Many changes as fast as the store takes them, so many in each transaction.
    pub(crate) fn storm(
        &mut self,
        round: u32,
        changes: u32,
        together: usize,
        runtime: &Runtime,
    ) -> Result<Storm> {
        let step = self.population.size() / changes;
        let changed = (0..changes).map(|number| self.population.change(number * step));
        let changed = changed.collect::<Result<Vec<_>>>()?;
        let transactions: Vec<_> = changed
            .chunks(together)
            .map(|some| Ok(transaction(some.iter().map(|it| it.put.clone()).collect())))
            .collect();
        // What the last series left behind is not the storm's.
        thread::sleep(2 * WINDOW);
        let begun = Instant::now();
        runtime.block_on(self.followed.writer.commit_all(transactions.into_iter()))?;
        let committed = begun.elapsed();
        let seen = Sightings::collect(&self.followed, |seen| {
            seen.published.len() == changed.len() && seen.changes_heard == changed.len()
        })?;
        let heard = seen.heard.iter().map(|(_, at)| *at).max();
        let published = seen.published.values().max();
        Ok(Storm {
            kind: self.kind,
            routes: self.population.size(),
            round,
            changes,
            together: u32::try_from(together).context("changes of a transaction")?,
            committed: micros(committed),
            heard: micros(heard.context("nothing was heard")? - begun),
            published: micros(*published.context("nothing was published")? - begun),
            snapshots: seen.snapshots,
        })
    }

    fn delays(&self, series: Series, round: u32, committed: Vec<Committed>) -> Result<Delays> {
        let count = committed.len();
        let seen = Sightings::collect(&self.followed, |seen| {
            seen.published.len() == count && seen.changes_heard == count
        })?;
        let mut delays = Delays {
            kind: self.kind,
            routes: self.population.size(),
            series,
            round,
            snapshots: seen.snapshots,
            returned: Micros::default(),
            bare: Micros::default(),
            snapshot: Micros::default(),
        };
        for one in committed {
            let heard = seen.heard(one.revision).context("a change was not heard")?;
            let published = (one.change.host, one.change.port);
            let published = seen.published.get(&published);
            let published = *published.context("a change was not published")?;
            delays.returned.0.push(micros(one.returned - one.sent));
            delays.bare.0.push(micros(heard - one.sent));
            delays.snapshot.0.push(micros(published - one.sent));
        }
        Ok(delays)
    }

    fn jitter(&mut self, least: u64, most: u64) -> Duration {
        let micros = self.population.random(1_000 * (most - least));
        Duration::from_micros(1_000 * least + micros)
    }
}

async fn commit(writer: Writer, change: Change) -> Result<Committed> {
    let transaction = transaction(vec![change.put.clone()]);
    let sent = Instant::now();
    let revision = writer.commit(&transaction).await?;
    Ok(Committed {
        change,
        sent,
        returned: Instant::now(),
        revision,
    })
}

async fn burst(writer: &Writer, changes: Vec<Change>) -> Result<Vec<Committed>> {
    let begun = tokio::time::Instant::now();
    let mut running = JoinSet::new();
    for (number, change) in (0..).zip(changes) {
        tokio::time::sleep_until(begun + WITHIN_BURST * number).await;
        running.spawn(commit(writer.clone(), change));
    }
    let mut committed = Vec::new();
    while let Some(done) = running.join_next().await {
        committed.push(done.context("a commit")??);
    }
    Ok(committed)
}

impl Sightings {
    /// Collects until it is enough.
    fn collect(followed: &Followed, enough: impl Fn(&Self) -> bool) -> Result<Self> {
        let mut seen = Self::default();
        while !enough(&seen) {
            match followed.next()? {
                Event::Published { at, changes } => {
                    seen.snapshots += 1;
                    seen.published
                        .extend(changes.into_iter().map(|change| (change, at)));
                }
                Event::Heard {
                    at,
                    revision,
                    changes,
                } => {
                    seen.changes_heard += changes;
                    seen.heard.push((revision, at));
                }
                Event::Watching | Event::Failed(_) => {}
            }
        }
        Ok(seen)
    }

    fn heard(&self, revision: Revision) -> Option<Instant> {
        let at = self.heard.partition_point(|(last, _)| *last < revision);
        self.heard.get(at).map(|(_, at)| *at)
    }
}

fn micros(time: Duration) -> u32 {
    u32::try_from(time.as_micros()).unwrap_or(u32::MAX)
}
