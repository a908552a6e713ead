//! What a route costs when there are many: lookups, changes and memory, from 10 to 1,000,000 hosts.
//!
//! The tables are those of a running control plane: it starts without a route and takes them from a
//! registry, change by change. In every round each size has its turn, and who begins changes.

pub(crate) mod memory;
mod record;
mod report;
mod routes;
mod table;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use self::record::{Measured, Record, Settings};
use self::routes::Tables;
use crate::machine::Machine;
use crate::process::Cores;

pub(crate) use self::memory::RegistryMemory;

/// Routes per table.
const SIZES: [u32; 6] = [10, 100, 1_000, 10_000, 100_000, 1_000_000];

/// What to run. A run over all sizes writes its results to docs/results; a partial one is only
/// printed, unless --out says where to write it.
#[derive(Args)]
pub(crate) struct RegistryLookup {
    /// Rounds; each goes over all sizes.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// The largest table, for a quick look.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10..))]
    most: u32,
    /// Folder that registry-lookup.md and registry-lookup.json are written to.
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Runs the bench and writes or prints its results.
pub(crate) fn run(bench: &RegistryLookup) -> Result<()> {
    let sizes: Vec<u32> = SIZES.into_iter().filter(|it| *it <= bench.most).collect();
    let machine = Machine::look();
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
        eprintln!("round {} of {}", round + 1, bench.rounds);
        for at in 0..tables.len() {
            let at = (at + round as usize) % tables.len();
            measured.push(table::measure(&mut tables[at], round)?);
        }
    }
    let record = Record {
        machine,
        settings: Settings {
            rounds: bench.rounds,
            sizes,
            core,
        },
        memory,
        measured,
    };
    show(&report::tables(&record))?;
    let complete = bench.most >= SIZES[SIZES.len() - 1];
    let out = bench.out.clone();
    match out.or_else(|| complete.then(|| PathBuf::from("docs/results"))) {
        Some(out) => write(&record, &out),
        None => Ok(()),
    }
}

fn write(record: &Record, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("folder {}", out.display()))?;
    let json = serde_json::to_string_pretty(record).context("raw results")?;
    let file = |ending: &str| out.join(format!("registry-lookup.{ending}"));
    fs::write(file("json"), json + "\n").context("registry-lookup.json")?;
    fs::write(file("md"), report::document(record)).context("registry-lookup.md")?;
    show(&format!("Written to {}\n", out.display()))
}

fn show(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}
