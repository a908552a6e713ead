//! What a set of processes has used, as the kernel counts it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::{ClockId, clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

/// CPU time, user and kernel, of all threads that these processes ever had. Nanoseconds from the
/// scheduler, not the ticks of `/proc/PID/stat`.
pub(crate) fn cpu(pids: &[u32]) -> Result<Duration> {
    let mut total = Duration::ZERO;
    for pid in pids {
        let time = clock_gettime(clock(*pid)?).context("CPU clock of a process that ended")?;
        total += Duration::from(time);
    }
    Ok(total)
}

/// Proportional set size in bytes: pages that processes share are split among them, so that a
/// master and its worker add up.
pub(crate) fn memory(pids: &[u32]) -> Result<u64> {
    let mut total = 0;
    for pid in pids {
        let path = format!("/proc/{pid}/smaps_rollup");
        let text = fs::read_to_string(&path).with_context(|| path.clone())?;
        total += proportional_bytes(&text).with_context(|| format!("{path} has no Pss"))?;
    }
    Ok(total)
}

fn clock(pid: u32) -> Result<ClockId> {
    let pid = i32::try_from(pid).context("process id")?;
    clock_getcpuclockid(Pid::from_raw(pid)).context("CPU clock")
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

    #[test]
    fn own_cpu_time_grows_with_work() {
        let own = [std::process::id()];
        let before = cpu(&own).unwrap();
        let mut sum = 0_u64;
        for number in 0..5_000_000_u64 {
            sum = std::hint::black_box(sum.wrapping_mul(31) + number);
        }
        assert!(cpu(&own).unwrap() > before, "{sum}");
    }
}
