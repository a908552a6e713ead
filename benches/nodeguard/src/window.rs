//! One window: bursts of frames to one node, on one core, until enough of them were undisturbed.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use harness::interrupt;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{UsageWho, getrusage};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

use crate::cell::Cell;
use crate::kernel;
use crate::measure::cpu;
use crate::site::{Node, Site};

/// Frames of a burst: what the kernel needs to begin and to end one is well below one per cent.
pub(crate) const BURST: u32 = 16_384;
/// Frames that are sent before the node's core takes them: what a driver gets from its card at
/// once, and fewer than a veth holds (256).
pub(crate) const BATCH: u32 = 64;
/// Bursts that are tried for each one that is wanted.
const PATIENCE: u32 = 4;

/// What a window measured.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Measured {
    /// CPU time of each undisturbed burst, in nanoseconds.
    pub(crate) bursts: Vec<u64>,
    /// Bursts during which somebody else had the core.
    pub(crate) disturbed: u32,
}

/// The core of a window, and its kernel thread for soft interrupts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Core {
    pub(crate) number: usize,
    softirq: u32,
}

impl Core {
    pub(crate) fn new(number: usize) -> Result<Self> {
        let wanted = format!("ksoftirqd/{number}");
        let is_it = |pid: &u32| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm"));
            name.is_ok_and(|name| name.trim() == wanted)
        };
        let entries = fs::read_dir("/proc")?.flatten();
        let pids = entries.filter_map(|it| it.file_name().to_str()?.parse().ok());
        let softirq = pids.into_iter().find(is_it);
        Ok(Self {
            number,
            softirq: softirq.with_context(|| format!("there is no {wanted}"))?,
        })
    }
}

/// Sends `wanted` undisturbed bursts of the cell's frames to the node, on core `core`.
///
/// # Errors
/// If frames are lost, pass that are to be dropped, or the other way round.
pub(crate) fn window(
    site: &Site,
    node: &Node,
    cell: &Cell,
    core: Core,
    wanted: u32,
) -> Result<Measured> {
    let before = node.seen()?;
    let (sent, measured) = site.sender.run(|| {
        claim(core.number)?;
        bursts(node, cell, core, wanted)
    })?;
    let after = node.seen()?;
    let arrived = after.arrived - before.arrived;
    let passed = after.passed - before.passed;
    // The node hears of neighbours now and then; frames of ours must not be lost.
    if arrived < sent {
        bail!("of {sent} frames just {arrived} came out of the wire");
    }
    if after.damaged != before.damaged {
        bail!("packets had wrong checksums");
    }
    let due = if node.contender.lets_pass(cell.scenario) {
        sent
    } else {
        0
    };
    if passed != due {
        bail!("of {sent} packets {passed} passed, and {due} should have");
    }
    Ok(measured)
}

fn bursts(node: &Node, cell: &Cell, core: Core, wanted: u32) -> Result<(u64, Measured)> {
    let mut senders = node.senders.iter();
    let (_, program, template) = senders
        .find(|(it, ..)| it == cell)
        .context("a cell of the node's own group")?;
    let mut measured = Measured {
        bursts: Vec::new(),
        disturbed: 0,
    };
    let mut sent = 0;
    // The first one warms the caches, and does not count.
    program.send(&template.frame, BURST, BATCH)?;
    sent += u64::from(BURST);
    while measured.bursts.len() < wanted as usize && measured.disturbed < wanted * PATIENCE {
        interrupt::check()?;
        let before = Clocks::read(core)?;
        program.send(&template.frame, BURST, BATCH)?;
        let after = Clocks::read(core)?;
        sent += u64::from(BURST);
        if (after.pushed, after.stolen) != (before.pushed, before.stolen) {
            measured.disturbed += 1;
            continue;
        }
        let used = after.own + after.softirq - before.own - before.softirq;
        let used = u64::try_from(used.as_nanos()).context("a burst of centuries")?;
        measured.bursts.push(used);
    }
    Ok((sent, measured))
}

/// What is read before and after a burst.
struct Clocks {
    /// CPU time of this thread, which holds the soft interrupts that it was used for, and, as far
    /// as the hypervisor admits to it, no time that was stolen.
    own: Duration,
    /// CPU time of the kernel's thread for soft interrupts on this core: it does what frames set
    /// off for later, such as freeing what a grace period of RCU has to pass for first.
    softirq: Duration,
    /// How often somebody pushed this thread off the core.
    pushed: i64,
    /// Ticks that the hypervisor has stolen.
    stolen: u64,
}

impl Clocks {
    fn read(core: Core) -> Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).context("getrusage")?;
        let stat = fs::read_to_string("/proc/stat")?;
        let own = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("CPU time")?;
        Ok(Self {
            own: own.into(),
            softirq: cpu(&[core.softirq])?,
            pushed: usage.involuntary_context_switches(),
            stolen: stolen(&stat, core.number).context("/proc/stat")?,
        })
    }
}

/// A core's stolen ticks, from `/proc/stat`.
fn stolen(stat: &str, core: usize) -> Option<u64> {
    let name = format!("cpu{core}");
    let mut lines = stat.lines().map(|line| line.split_whitespace());
    let mut line = lines.find_map(|mut words| (words.next()? == name).then_some(words))?;
    line.nth(7)?.parse().ok()
}

/// Moves this thread to a core and gives it precedence there.
pub(crate) fn claim(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).context("core number")?;
    sched_setaffinity(Pid::from_raw(0), &set).context("sched_setaffinity")?;
    kernel::take_precedence()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stolen_ticks_are_the_core_s_own() {
        let stat = "cpu  1 2 3 4 5 6 7 8 9\ncpu0 1 1 1 1 1 1 1 30 0 0\ncpu1 1 1 1 1 1 1 1 40 0 0\n";
        assert_eq!(stolen(stat, 1), Some(40));
        assert_eq!(stolen(stat, 2), None);
    }
}
