//! Wall clocks that are wrong: libfaketime (Debian's `faketime`) between a process and libc.
//!
//! Only the wall clock moves; the monotonic one, which timers use, goes on as it is, as on a host
//! whose clock somebody sets. Programs that ask the kernel without libc, such as Go's (etcd), are
//! not reached.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::folder;
use crate::namespace::Namespace;
use crate::process::Process;
use crate::tool::Tool;

/// A wall clock apart from the machine's, for any number of processes.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    file: PathBuf,
    pids: Mutex<Vec<u32>>,
}

impl Clock {
    /// A clock that is this far off: `+3h`, `-2d`, `+90` (seconds). `name` is unique in `folder`.
    ///
    /// # Errors
    /// If libfaketime is not installed.
    pub fn new(name: &str, offset: &str, folder: &Path) -> Result<Self> {
        let clock = Self {
            library: library().context("no libfaketime: apt-get install faketime")?,
            file: folder.join(format!("{name}.clock")),
            pids: Mutex::default(),
        };
        clock.set(offset)?;
        Ok(clock)
    }

    /// Sets it; processes notice within a second.
    ///
    /// # Errors
    /// If the folder is gone.
    pub fn set(&self, offset: &str) -> Result<()> {
        folder::write(&self.file, format!("{offset}\n"))
    }

    /// As [`Process::start`], with this clock on the wall.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start(
        &self,
        name: &str,
        mut command: Command,
        namespace: Option<&Namespace>,
        folder: &Path,
    ) -> Result<Process> {
        command
            .env("LD_PRELOAD", &self.library)
            .env("FAKETIME_TIMESTAMP_FILE", &self.file)
            .env("FAKETIME_CACHE_DURATION", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1");
        let process = Process::start(name, command, namespace, folder)?;
        self.lock().push(process.pid());
        Ok(process)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<u32>> {
        self.pids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        // A process that ends in good order does this by itself; one that still runs needs them no
        // more once it has opened them.
        for pid in self.lock().iter() {
            for name in ["faketime_shm_", "sem.faketime_sem_"] {
                let _ = std::fs::remove_file(format!("/dev/shm/{name}{pid}"));
            }
        }
    }
}

/// How far a clock is from the machine's, in seconds, by a moment that it has just told
/// (`Thu, 01 Jan 1970 00:00:00 GMT`, `1970-01-01T00:00:00Z`).
///
/// # Errors
/// If `date` does not understand it.
pub fn apart(told: &str) -> Result<i64> {
    let theirs = Tool::new("date").args(["--date", told, "+%s"]).succeed()?;
    let ours = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    let theirs: i64 = theirs.trim().parse().context("seconds")?;
    Ok(theirs - ours.as_secs().cast_signed())
}

/// For programs with several threads.
fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?;
    folders
        .flatten()
        .map(|it| it.path().join("faketime/libfaketimeMT.so.1"))
        .find(|it| it.is_file())
}
