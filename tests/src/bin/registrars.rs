//! Many registrars in one process, as the daemon of `router announce` runs each: for tests that need
//! more of them than a machine has memory for processes.
//!
//! `registrars GATE ADDRESS FILE...` reads the files, one registrar each, and waits until GATE exists.
//! Then all begin at the same moment, each on a thread and a runtime of its own. On ADDRESS stands
//! what they check: it takes every connection, and closes it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use daemon::logging::{self, LogFormat};
use router::announce::daemon::serve;
use router::announce::load::load;

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let gate = arguments.next().context("which gate?")?;
    let checked = arguments.next().context("which address?")?;
    let checked = TcpListener::bind(checked.to_str().context("an address is a text")?)?;
    std::thread::spawn(move || checked.incoming().for_each(drop));
    let files: Vec<PathBuf> = arguments.collect();
    let logs = logging::start(LogFormat::Json, None, None)?;
    let ready = Arc::new(Barrier::new(files.len() + 1));
    let registrars: Vec<_> = files
        .into_iter()
        .map(|file| {
            let ready = Arc::clone(&ready);
            std::thread::spawn(move || run(&file, &ready))
        })
        .collect();
    while !gate.exists() {
        std::thread::sleep(Duration::from_millis(2));
    }
    ready.wait();
    let ended: Result<Vec<()>> = registrars
        .into_iter()
        .map(|it| it.join().map_err(|_| anyhow!("a registrar panicked"))?)
        .collect();
    logs.finish();
    ended.map(drop)
}

fn run(file: &Path, ready: &Barrier) -> Result<()> {
    let loaded = load(file).map_err(|errors| anyhow!(errors.report()));
    ready.wait();
    serve(file, loaded?)
}
