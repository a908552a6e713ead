//! What the daemon costs while nothing happens.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use harness::interrupt;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cell::Group;
use crate::contender::{Contender, Hold};
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
            pss_bytes: memory(pid)?,
            seconds,
            cpu_ns: u64::try_from(used.as_nanos())?,
        })
    })
    .collect()
}

/// CPU time of all threads that a process ever had.
pub(crate) fn cpu_time(pid: u32) -> Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.cast_signed())).context("CPU clock")?;
    Ok(clock_gettime(clock)
        .context("CPU clock of a process that ended")?
        .into())
}

fn cpu_times(daemons: &[(Group, Contender, u32)]) -> Result<Vec<Duration>> {
    daemons.iter().map(|(.., pid)| cpu_time(*pid)).collect()
}

fn memory(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).context(path)?;
    proportional_bytes(&text).context("no Pss")
}

fn proportional_bytes(rollup: &str) -> Option<u64> {
    let value = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pss_is_read_in_bytes() {
        let rollup = "0-1 ---p 0 00:00 0  [rollup]\nRss:  16 kB\nPss:  7 kB\nPss_Anon: 3 kB\n";
        assert_eq!(proportional_bytes(rollup), Some(7 * 1024));
        assert_eq!(proportional_bytes("Rss: 16 kB\n"), None);
    }
}
