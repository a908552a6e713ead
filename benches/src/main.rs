//! Gatehouse beside its peers, in the same run on the same machine: `./x bench router`. And the
//! route registry beside a bare watch of etcd, and among few and many routes: `./x bench registry`.
//!
//! NGINX, HAProxy, the router and a rival built on pingora-proxy stand side by side on one core
//! and are loaded in turn; client and backend have the other core. What counts is the CPU time a
//! contender spends per request, and the ratio to its peers within the same round.
#![forbid(unsafe_code)]

mod backend;
mod contender;
mod contenders;
mod load;
mod machine;
mod measure;
mod process;
mod publication;
mod record;
mod registry;
mod registry_lookup;
mod report;
mod row;
mod runner;
mod site;
mod statistics;
mod summary;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::contender::Contender;
use crate::registry::RegistryBench;
use crate::registry_lookup::{RegistryLookup, RegistryMemory};
use crate::row::Row;

// The router has it, and the table of routes is measured in this very process.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Benchmarks of Gatehouse.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The router beside NGINX, HAProxy and pingora-proxy.
    Router(RouterBench),
    /// The route registry: how fast a change is in force, and what many routes cost.
    Registry(RegistryBench),
    /// Lookups in small and large tables; a process of its own, which `registry` starts.
    #[command(hide = true)]
    RegistryLookup(RegistryLookup),
    /// What a number of routes takes; a process of its own, which `registry-lookup` starts.
    #[command(hide = true)]
    RegistryMemory(RegistryMemory),
}

/// What to run. Without --contender and --rows everything is run and the results are written to
/// docs/results; a partial run is only printed, unless --out says where to write it.
#[derive(Args)]
pub(crate) struct RouterBench {
    /// Rounds; each goes over all contenders.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// About how long one window of load lasts on a core of 2025, in seconds. It fixes the number
    /// of requests; contenders always get the same number.
    #[arg(long, default_value_t = 2.0, value_parser = seconds)]
    seconds: f64,
    /// Rows to run, comma separated.
    #[arg(long, value_enum, value_delimiter = ',')]
    rows: Vec<Row>,
    /// Contenders to run, comma separated.
    #[arg(long, visible_alias = "contenders", value_enum, value_delimiter = ',')]
    contender: Vec<Contender>,
    /// The router's binary, or else the variable GATEHOUSE_ROUTER; built by cargo (release) when
    /// both are absent.
    #[arg(long)]
    router: Option<PathBuf>,
    /// The pingora rival's binary; built by cargo (release) when absent.
    #[arg(long)]
    rival: Option<PathBuf>,
    /// TLS connections held open in the row `idle`.
    #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(1..=9_000))]
    idle_connections: u32,
    /// Folder that router.md and router.json are written to.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write to docs/results although there are fewer than five rounds or the machine is busy; the
    /// page then says so.
    #[arg(long)]
    anyway: bool,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Router(bench) => runner::run(bench),
        Command::Registry(bench) => registry::run(&bench),
        Command::RegistryLookup(bench) => registry_lookup::tell(&bench),
        Command::RegistryMemory(one) => registry_lookup::memory::tell(&one),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("a number from 0.1 to 60 is expected".to_owned()),
    }
}
