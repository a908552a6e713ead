//! Puts cases on the wire and judges what came of them.
//!
//! Nothing is concluded from silence. All sending, and so all receiving on veth devices, is done on
//! one CPU, whose queue is first in, first out; a sentinel along every way, sent after a wave's
//! requests, arrives after whatever they caused on the first hop, a second one after the second
//! hop, and so on. When the last has arrived, what did not come out does not come any more, and
//! the counters must say why.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;
use config::guard::Protocol;
use nix::sched::{CpuSet, sched_getaffinity, sched_getcpu, sched_setaffinity};
use nix::unistd::Pid;

use super::case::{Case, Group, Means};
use super::ears::Ears;
use super::guard::{Counted, Counter, Due, Mode};
use super::place::Place;
use super::senders::Senders;
use super::topology::Topology;

/// How many cases are on the wire at once: fewer than fit into a device's queue (1,000), for each
/// may be a handshake.
const WAVE: usize = 250;
/// Hops of the longest way there and back: in by the switch, over VXLAN, to a pod.
const ROUNDS: usize = 4;
/// How long a request that must come out may take. Only failures take that long.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where a failure is what is looked for.
const SHORT_PATIENCE: Duration = Duration::from_millis(300);
/// Sooner than a client's TCP repeats itself.
const BEFORE_RETRANSMISSION: Duration = Duration::from_millis(900);

/// A topology with ears and senders, ready for cases.
#[derive(Debug)]
pub struct Matrix {
    ears: Ears,
    senders: Senders,
    /// The hosts. After the sockets, so that it is dropped after them.
    pub topology: Topology,
    marker: u32,
}

/// A case that went otherwise than it should.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which; several, if only the sum of what they count is wrong, and none if nobody should have
    /// counted.
    pub cases: Vec<String>,
    /// How.
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cases[..] {
            [] => f.write_str("no case of the wave")?,
            [case] => f.write_str(case)?,
            [case, others @ ..] => write!(f, "{case}, or one of {} like it", others.len())?,
        }
        write!(f, ": {}", self.what)
    }
}

/// What was tried in a group of cases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cases that had something to prove.
    pub cases: usize,
    /// Those of them that had to come out.
    pub open: usize,
    /// Frames that were put on the wire for them, not counting what they led to.
    pub packets: u64,
}

/// How a pass went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What was tried.
    pub groups: BTreeMap<Group, Tally>,
    /// Everything that went wrong.
    pub failures: Vec<Failure>,
    /// How long it took.
    pub took: Duration,
}

/// Whether a pass is to find every failure or just one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// All cases, each failure pinned to its case.
    End,
    /// The first wave with a failure.
    Failure,
}

/// How a wave's case went.
enum Went {
    Right,
    Missing(String),
    Wrong(String),
}

impl Outcome {
    /// Everything that was tried.
    #[must_use]
    pub fn total(&self) -> Tally {
        self.groups
            .values()
            .fold(Tally::default(), |sum, it| Tally {
                cases: sum.cases + it.cases,
                open: sum.open + it.open,
                packets: sum.packets + it.packets,
            })
    }
}

impl Matrix {
    /// Builds everything.
    ///
    /// # Errors
    /// As [`Topology::new`].
    pub fn new() -> Result<Self> {
        let topology = Topology::new()?;
        Ok(Self {
            ears: Ears::new(&topology)?,
            senders: Senders::new(&topology)?,
            topology,
            marker: 0,
        })
    }

    /// Runs cases in a mode; `counters` reads all the guards' counters.
    ///
    /// # Errors
    /// If the harness itself fails: what a case does wrong is in the outcome.
    pub fn pass(
        &mut self,
        mode: Mode,
        cases: &[Case],
        until: Until,
        counters: &mut dyn FnMut() -> Result<Counted>,
    ) -> Result<Outcome> {
        let began = Instant::now();
        let _pin = Pin::here()?;
        let mut outcome = Outcome::default();
        let due: Vec<(&Case, Due)> = cases
            .iter()
            .map(|case| (case, mode.due(case)))
            .filter(|(_, due)| *due != Due::Anything)
            .collect();
        // What is unreached now is unreached in the first wave too.
        self.settle(until)?;
        for wave in due.chunks(WAVE) {
            for (case, due) in wave {
                let tally = outcome.groups.entry(case.group).or_default();
                tally.cases += 1;
                tally.open += usize::from(*due == Due::Open);
                tally.packets += u64::from(case.packets());
            }
            let mut failures = self.wave(wave, until, counters)?;
            if until == Until::Failure && !failures.is_empty() {
                outcome.failures = failures;
                break;
            }
            outcome.failures.append(&mut failures);
        }
        outcome.took = began.elapsed();
        Ok(outcome)
    }

    fn wave(
        &mut self,
        wave: &[(&Case, Due)],
        until: Until,
        counters: &mut dyn FnMut() -> Result<Counted>,
    ) -> Result<Vec<Failure>> {
        let before = counters()?;
        let began = Instant::now();
        let first = self.marker + 1;
        self.marker += u32::try_from(wave.len())?;
        let marked: Vec<(u32, &Case)> = (first..).zip(wave.iter().map(|(case, _)| *case)).collect();
        let mut by_sender: BTreeMap<Place, Vec<(u32, &Case)>> = BTreeMap::new();
        for (marker, case) in &marked {
            by_sender
                .entry(case.from)
                .or_default()
                .push((*marker, case));
        }
        for (from, cases) in by_sender {
            self.senders
                .send(&self.topology, from, &cases, &mut self.ears)?;
            self.ears.pump()?;
        }
        loop {
            let unreached = self.settle(until)?;
            let went: Vec<Went> = marked
                .iter()
                .zip(wave)
                .map(|((marker, case), (_, due))| self.went(*marker, case, *due))
                .collect();
            let difference = difference(&before, &counters()?, wave, began.elapsed());
            let is_missing = went.iter().any(|went| matches!(went, Went::Missing(_)));
            let is_final = went.iter().any(|went| matches!(went, Went::Wrong(_)))
                || !difference.is_empty()
                || until == Until::Failure
                || unreached.is_some()
                || began.elapsed() > PATIENCE;
            if is_missing && !is_final {
                std::thread::yield_now();
                continue;
            }
            self.ears.forget();
            let mut failures = self.failures(wave, went, &difference, until, counters)?;
            match until {
                Until::End => failures.extend(unreached.map(|place| Failure {
                    cases: Vec::new(),
                    what: format!("a sentinel did not reach {place}"),
                })),
                // What no case is convicted of may be a sentinel's, or late; a case says more.
                Until::Failure => failures.retain(|failure| !failure.cases.is_empty()),
            }
            return Ok(failures);
        }
    }

    /// Names what went wrong in a wave, and looks again at what only the sum of counters shows.
    fn failures(
        &mut self,
        wave: &[(&Case, Due)],
        went: Vec<Went>,
        difference: &BTreeMap<Counter, (u64, u64)>,
        until: Until,
        counters: &mut dyn FnMut() -> Result<Counted>,
    ) -> Result<Vec<Failure>> {
        let mut failures = Vec::new();
        for ((case, _), went) in wave.iter().zip(went) {
            if let Went::Missing(what) | Went::Wrong(what) = went {
                failures.push(Failure {
                    cases: vec![case.name.clone()],
                    what,
                });
            }
        }
        for (counter, (rose, expected)) in difference {
            let suspects: Vec<&(&Case, Due)> = wave
                .iter()
                .filter(|(_, due)| *due == Due::Counted(*counter))
                .collect();
            let mut found = Vec::new();
            if wave.len() > 1 && until == Until::End {
                for suspect in &suspects {
                    found.append(&mut self.wave(&[**suspect], until, counters)?);
                }
            }
            if found.is_empty() {
                let what = format!("{counter} rose by {rose}, not by {expected}");
                let cases = suspects.iter().map(|(case, _)| case.name.clone()).collect();
                found.push(Failure { cases, what });
            }
            failures.append(&mut found);
        }
        Ok(failures)
    }

    fn went(&self, marker: u32, case: &Case, due: Due) -> Went {
        let heard = &self.ears.heard;
        let lands = (case.lands.0, case.protocol, case.lands.1);
        let arrivals = heard.arrivals.get(&marker);
        let is_answered = heard.answered.contains(&marker);
        match due {
            Due::Anything => Went::Right,
            Due::Open => match arrivals {
                Some(arrivals) if arrivals.iter().any(|it| *it != lands) => {
                    Went::Wrong(format!("came out at {arrivals:?}"))
                }
                Some(_) if is_answered || !case.answered => Went::Right,
                Some(_) => Went::Missing("came out, but its answer did not come back".to_owned()),
                None => match heard.refused.get(&marker) {
                    Some(error) => Went::Missing(format!("did not come out: {error}")),
                    None => Went::Missing("did not come out".to_owned()),
                },
            },
            Due::Counted(_) | Due::Silent => match arrivals {
                Some(arrivals) => Went::Wrong(format!("got through, to {arrivals:?}")),
                None if is_answered => Went::Wrong("was answered".to_owned()),
                None => match heard.refused.get(&marker) {
                    Some(error) => Went::Wrong(format!("was not dropped, but answered: {error}")),
                    None => Went::Right,
                },
            },
        }
    }

    /// Returns when nothing is under way any more, or with a place that a sentinel did not reach: to
    /// pods of another node they go over VXLAN, which a guard that has lost its rules may cut.
    fn settle(&mut self, until: Until) -> Result<Option<Place>> {
        let patience = match until {
            Until::End => PATIENCE,
            Until::Failure => SHORT_PATIENCE,
        };
        for _ in 0..ROUNDS {
            let marker = &mut self.marker;
            let sent = self.senders.sentinels(|| {
                *marker += 1;
                *marker
            })?;
            let deadline = Instant::now() + patience;
            loop {
                self.ears.pump()?;
                let arrivals = &self.ears.heard.arrivals;
                let missing = sent.iter().find(|(_, it)| !arrivals.contains_key(it));
                let Some((place, _)) = missing else { break };
                if Instant::now() > deadline {
                    return Ok(Some(*place));
                }
                std::thread::yield_now();
            }
            for (_, marker) in sent {
                self.ears.heard.arrivals.remove(&marker);
            }
        }
        Ok(None)
    }
}

/// Counters that did not rise by what a wave's cases demand: (by how much, by how much it should).
fn difference(
    before: &Counted,
    after: &Counted,
    wave: &[(&Case, Due)],
    took: Duration,
) -> BTreeMap<Counter, (u64, u64)> {
    let mut expected: BTreeMap<Counter, (u64, u64)> = BTreeMap::new();
    for (case, due) in wave {
        if let Due::Counted(counter) = due {
            let (least, most) = expected.entry(*counter).or_default();
            *least += 1;
            *most += 1;
            // A client that waits repeats its SYN after a second, and after two more.
            let is_patient =
                case.protocol == Protocol::Tcp && matches!(case.means, Means::Client { .. });
            if is_patient && took > BEFORE_RETRANSMISSION {
                *most += took.as_secs() + 1;
            }
        }
    }
    let mut difference = BTreeMap::new();
    for (counter, value) in after {
        let rose = value - before.get(counter).copied().unwrap_or(0);
        let (least, most) = expected.remove(counter).unwrap_or_default();
        if rose < least || rose > most {
            difference.insert(*counter, (rose, least));
        }
    }
    for (counter, (least, _)) in expected {
        difference.insert(counter, (0, least));
    }
    difference
}

/// Keeps this thread on one CPU for as long as it lives.
struct Pin {
    before: CpuSet,
}

impl Pin {
    fn here() -> Result<Self> {
        let before = sched_getaffinity(Pid::from_raw(0))?;
        let mut one = CpuSet::new();
        let cpu = sched_getcpu()?;
        one.set(cpu)?;
        sched_setaffinity(Pid::from_raw(0), &one)?;
        Ok(Self { before })
    }
}

impl std::ops::Drop for Pin {
    fn drop(&mut self) {
        let _ = sched_setaffinity(Pid::from_raw(0), &self.before);
    }
}
