//! `./x demo`: the router in front of two tenants that announce themselves, then a guarded cluster and
//! a stranger, on hosts made for the purpose.
//!
//! Shows, with the commands it runs, what the programs do; ends with a table of counts and leaves
//! nothing behind. Fails if anything is not as it should be.

#![forbid(unsafe_code)]

mod acts;
mod announcements;
mod isolation;
mod report;
mod stage;
mod worker;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use harness::interrupt;
use harness::machine::MachineState;
use harness::namespace::processes_of;

use report::Report;
use stage::Stage;

const USAGE: &str = "usage: demo [--loopback]\n\n  --loopback  use addresses of 127.0.0.0/8 \
                     instead of network namespaces, as without root";

fn main() -> ExitCode {
    let mut report = Report::new();
    let loopback = match std::env::args().nth(1).as_deref() {
        None => !nix::unistd::geteuid().is_root(),
        Some("--loopback") => true,
        Some(_) => {
            report.error(USAGE);
            return ExitCode::from(2);
        }
    };
    match run(loopback, &mut report) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if interrupt::is_interrupted() => {
            report.error(&format!("{error:#}; everything was cleaned up"));
            ExitCode::from(130)
        }
        Err(error) => {
            report.error(&format!("the demo failed: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(loopback: bool, report: &mut Report) -> Result<()> {
    let begun = Instant::now();
    interrupt::watch()?;
    let before = MachineState::capture()?;
    let mut namespaces = Vec::new();

    let shown = Stage::set(loopback, &mut namespaces, report).and_then(|mut stage| {
        acts::play(&mut stage, report).inspect_err(|_| {
            report.log("the router's last words", &stage.router.log());
            for worker in &stage.workers {
                let title = format!("the last words of {}'s registrar", worker.name);
                report.log(&title, &worker.registrar_log());
            }
        })
    });
    let shown = shown.and_then(|()| {
        if loopback {
            report.line("(the node guard is not shown: it needs root, for namespaces of its own)");
            return Ok(());
        }
        isolation::play(&mut namespaces, report)
    });
    // The stage is gone by now, whether the play ended well or not.
    let clean = before.assert_unchanged().and_then(|()| {
        match namespaces
            .iter()
            .find(|inode| !processes_of(**inode).is_empty())
        {
            Some(inode) => bail!("processes still run in network namespace {inode}"),
            None => Ok(()),
        }
    });
    // What went wrong first is what the reader needs; a mess left behind is told in any case.
    match (shown, clean) {
        (Ok(()), Ok(())) => {}
        (Err(error), Ok(())) => return Err(error),
        (Ok(()), Err(mess)) => return Err(mess).context("cleaning up"),
        (Err(error), Err(mess)) => return Err(error.context(format!("and cleaning up: {mess:#}"))),
    }
    report.end(begun.elapsed());
    Ok(())
}
