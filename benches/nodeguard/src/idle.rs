//! What the daemon costs while nothing happens.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::interrupt;
use serde::{Deserialize, Serialize};

use crate::cell::Group;
use crate::contender::{Contender, Hold};
use crate::measure::{cpu, memory};
use crate::site::Site;

/// One daemon, left alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Idle {
    pub(crate) group: Group,
    pub(crate) contender: Contender,
    /// Proportional set size.
    pub(crate) pss_bytes: u64,
    pub(crate) seconds: f64,
    /// CPU time, user and kernel, within those seconds.
    pub(crate) cpu_ns: u64,
}

/// Looks at all daemons for so long.
pub(crate) fn watch(site: &mut Site, time: Duration) -> Result<Vec<Idle>> {
    let mut daemons = Vec::new();
    for node in &mut site.nodes {
        if let Hold::Guard(guard) = &mut node.hold {
            daemons.push((node.group, node.contender, guard.process().pid()));
        }
    }
    let before: Vec<Duration> = cpu_times(&daemons)?;
    let began = Instant::now();
    while began.elapsed() < time {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(100));
    }
    let (seconds, after) = (began.elapsed().as_secs_f64(), cpu_times(&daemons)?);
    let used = before
        .iter()
        .zip(after)
        .map(|(before, after)| after - *before);
    let all = daemons.iter().zip(used);
    all.map(|(&(group, contender, pid), used)| {
        Ok(Idle {
            group,
            contender,
            pss_bytes: memory(&[pid])?,
            seconds,
            cpu_ns: u64::try_from(used.as_nanos())?,
        })
    })
    .collect()
}

fn cpu_times(daemons: &[(Group, Contender, u32)]) -> Result<Vec<Duration>> {
    daemons.iter().map(|(.., pid)| cpu(&[*pid])).collect()
}
