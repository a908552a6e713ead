//! Processes under our care: pinned to a core, ended with us, ended by their id.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

/// The two cores of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    /// Client and backend.
    pub(crate) rig: usize,
    /// The contender whose turn it is.
    pub(crate) contender: usize,
}

impl Cores {
    /// The first two that this process may use; moves this process to the first.
    pub(crate) fn claim() -> Result<Self> {
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("sched_getaffinity")?;
        let mut cores = (0..CpuSet::count()).filter(|core| allowed.is_set(*core).unwrap_or(false));
        let (Some(rig), Some(contender)) = (cores.next(), cores.next()) else {
            bail!("two cores are needed: one for the contender, one for client and backend");
        };
        let mut own = CpuSet::new();
        own.set(rig).context("core number")?;
        sched_setaffinity(Pid::from_raw(0), &own).context("sched_setaffinity")?;
        Ok(Cores { rig, contender })
    }
}

/// A running server; ended when dropped.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` on `core`, its output going to a file in `home`.
    pub(crate) fn start(name: &str, command: &Command, core: usize, home: &Path) -> Result<Self> {
        let log = home.join("output.log");
        let output = File::create(&log).context("log file")?;
        // util-linux' setpriv ends the server should this process be killed without a chance to
        // do so itself; taskset and setpriv exec, so the child's id is the server's.
        let mut pinned = self::command("setpriv");
        pinned.args([
            "--pdeathsig",
            "TERM",
            "taskset",
            "--cpu-list",
            &core.to_string(),
        ]);
        pinned.arg(command.get_program()).args(command.get_args());
        let child = pinned
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("log file")?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Returns when somebody accepts at `address`.
    ///
    /// # Errors
    ///
    /// The process ended, or nobody listens after ten seconds; with what the process printed.
    pub(crate) fn wait_for(&mut self, address: SocketAddr) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            self.check()?;
            if TcpStream::connect_timeout(&address, POLL).is_ok() {
                return Ok(());
            }
            thread::sleep(POLL);
        }
        bail!(
            "{} does not listen on {address}: {}",
            self.name,
            self.output()
        )
    }

    /// That the process has not ended.
    ///
    /// # Errors
    ///
    /// It has; with its status and what it printed.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("wait")? {
            None => Ok(()),
            Some(status) => bail!("{} ended ({status}): {}", self.name, self.output()),
        }
    }

    /// The process and its descendants.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while next < pids.len() {
            pids.extend(children(pids[next])?);
            next += 1;
        }
        Ok(pids)
    }

    fn output(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).expect("Linux' process ids are below 2^22");
        // Errors below mean that the process has already ended.
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(3) {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that also finds what Debian keeps in sbin.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(program);
    command.env("PATH", format!("{path}:/usr/local/sbin:/usr/sbin:/sbin"));
    command
}

/// The OpenSSL that Debian's programs are linked with.
pub(crate) fn openssl() -> String {
    crate::contender::first_line("openssl", &["version"])
}

/// Keeps all threads of a process to a core, and there behind all others.
pub(crate) fn stand_back(pid: u32, core: usize) -> Result<()> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("process ended")?;
    for task in tasks {
        let task = task.context("process ended")?.file_name();
        stand_back_thread(&task.to_string_lossy(), core)?;
    }
    Ok(())
}

/// The same for a thread: the lowest priority, which those that it starts inherit.
pub(crate) fn stand_back_thread(thread: &str, core: usize) -> Result<()> {
    let core = core.to_string();
    for arguments in [
        ["taskset", "--pid", "--cpu-list", &core, thread],
        ["renice", "-n", "19", "-p", thread],
    ] {
        let output = command(arguments[0]).args(&arguments[1..]).output();
        let output = output.context("util-linux and bsdutils")?;
        // It may have ended meanwhile.
        if !output.status.success() && Path::new("/proc").join(thread).exists() {
            bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }
    Ok(())
}

fn children(pid: u32) -> Result<Vec<u32>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).context("process ended")?;
    let mut children = Vec::new();
    for task in tasks {
        let list = task.context("process ended")?.path().join("children");
        match fs::read_to_string(list) {
            Ok(list) => {
                let ids = list
                    .split_whitespace()
                    .filter_map(|id| id.parse::<u32>().ok());
                children.extend(ids);
            }
            // A thread may end between the listing and the reading.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("children"),
        }
    }
    Ok(children)
}
