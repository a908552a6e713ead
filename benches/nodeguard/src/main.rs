//! The node guard beside its peers, in the same run on the same machine: `./x bench nodeguard`.
//!
//! One core sends frames to a node and does all the work that they set off there; what counts is
//! the CPU time per packet, and its ratio to that of others who enforce the same policy.

mod cell;
mod change;
mod contender;
mod frames;
mod idle;
mod kernel;
mod machine;
mod program;
mod record;
mod report;
mod runner;
mod site;
// Both benches measure and sum up in the same way; the other one's package brings pingora.
#[path = "../../src/measure.rs"]
mod measure;
#[path = "../../src/statistics.rs"]
mod statistics;
mod summary;
mod window;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use crate::cell::Group;
use crate::contender::Contender;

/// The node guard beside iptables with ipset and an nftables firewall. A run without --groups,
/// --contender and --no-changes is written to docs/results; a partial one is only printed, unless
/// --out says where to write it.
#[derive(Parser)]
pub(crate) struct Bench {
    /// Rounds; each goes over all contenders.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Undisturbed bursts of a window, 16,384 packets each.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    bursts: u32,
    /// Kinds of nodes, comma separated.
    #[arg(long, value_enum, value_delimiter = ',')]
    groups: Vec<Group>,
    /// Contenders to run, comma separated. Costs are told without those of `bare`, and as
    /// multiples of those of `nobody`.
    #[arg(long, visible_alias = "contenders", value_enum, value_delimiter = ',')]
    contender: Vec<Contender>,
    /// Rounds of the changes of policies.
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=100))]
    change_rounds: u32,
    /// How long the daemons are left alone.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=600))]
    idle_seconds: u32,
    /// Neither changes of policies nor idle daemons.
    #[arg(long)]
    no_changes: bool,
    /// Folder that nodeguard-cost.md and nodeguard-cost.json are written to.
    #[arg(long)]
    out: Option<PathBuf>,
}

fn main() -> ExitCode {
    match runner::run(&Bench::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
