//! How much memory routes take: the proportional set size of a process without them and with them.
//!
//! A process of its own for each number, since an allocator does not give everything back. Routes are
//! announced in batches and dropped as soon as they are in force, as when a router follows the store;
//! what counts is what the control plane keeps of them, the table included.

use std::fs;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;

use super::record::Memory;
use super::routes::{announce, empty_control};

/// After which mimalloc has given back what it was going to (its purge delay is 10 ms).
const SETTLE: Duration = Duration::from_millis(200);

/// How many routes.
#[derive(Args)]
pub(crate) struct RegistryMemory {
    routes: u32,
}

/// Measures in a process of its own.
pub(crate) fn measure(routes: u32) -> Result<Memory> {
    let program = std::env::current_exe().context("this program's file")?;
    let mut command = Command::new(program);
    command.args(["registry-memory", &routes.to_string()]);
    let output = command.output().context("registry-memory")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "registry-memory: {errors}");
    serde_json::from_slice(&output.stdout).context("registry-memory")
}

/// The process that measures.
pub(crate) fn tell(one: &RegistryMemory) -> Result<()> {
    let (control, _folder) = empty_control()?;
    // So that what the first change brings along is not counted as a route's.
    announce(&control, 1)?;
    thread::sleep(SETTLE);
    let before = proportional_set_size()?;
    announce(&control, one.routes)?;
    thread::sleep(SETTLE);
    let memory = Memory {
        routes: one.routes,
        before,
        after: proportional_set_size()?,
    };
    super::show(&serde_json::to_string(&memory).context("result")?)
}

fn proportional_set_size() -> Result<u64> {
    let text = fs::read_to_string("/proc/self/smaps_rollup").context("smaps_rollup")?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    let kilobytes: u64 = kilobytes.context("no Pss")?.parse().context("Pss")?;
    Ok(kilobytes * 1024)
}
