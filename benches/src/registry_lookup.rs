//! What a route costs when there are many: lookups, changes and memory, from 10 to 1,000,000 hosts.
//!
//! The tables are those of a running control plane: it starts without a route and takes them from a
//! registry, change by change. In every round each size has its turn, and who begins changes.

pub(crate) mod memory;
mod record;
mod report;
pub(crate) mod routes;
mod table;

use std::io::{self, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use clap::Args;

use self::record::{Measured, Settings};
use self::routes::Tables;
use crate::process::Cores;

pub(crate) use self::memory::RegistryMemory;
pub(crate) use self::record::Record;
pub(crate) use self::report::{method, tables, verdict};

/// Routes per table.
const SIZES: [u32; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// What to run.
#[derive(Args)]
pub(crate) struct RegistryLookup {
    rounds: u32,
    most: u32,
}

/// Measures tables up to so many routes, in a process of its own: what this one holds in memory must
/// not be in the way.
pub(crate) fn measure(rounds: u32, most: u32) -> Result<Record> {
    let program = std::env::current_exe().context("this program's file")?;
    let mut command = Command::new(program);
    command.args(["registry-lookup", &rounds.to_string(), &most.to_string()]);
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.context("registry-lookup")?;
    ensure!(output.status.success(), "registry-lookup failed");
    serde_json::from_slice(&output.stdout).context("registry-lookup")
}

/// The process that measures.
pub(crate) fn tell(bench: &RegistryLookup) -> Result<()> {
    let sizes: Vec<u32> = SIZES.into_iter().filter(|it| *it <= bench.most).collect();
    let core = Cores::claim()?.rig;
    // First, while this process has nothing that could be in the way.
    let memory = sizes
        .iter()
        .map(|&size| memory::measure(size))
        .collect::<Result<Vec<_>>>()?;
    let mut tables = sizes
        .iter()
        .map(|&size| Tables::fill(size))
        .collect::<Result<Vec<_>>>()?;
    let mut measured: Vec<Measured> = Vec::new();
    for round in 0..bench.rounds {
        eprintln!("lookups: round {} of {}", round + 1, bench.rounds);
        for at in 0..tables.len() {
            let at = (at + round as usize) % tables.len();
            measured.push(table::measure(&mut tables[at], round)?);
        }
    }
    let record = Record {
        settings: Settings {
            rounds: bench.rounds,
            sizes,
            core,
        },
        memory,
        measured,
    };
    show(&serde_json::to_string(&record).context("result")?)
}

fn show(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}
