//! What the program `boot-host` does: first as the supervisor of a host, then as its pid 1.
//!
//! The supervisor stays on the machine. It makes the host's cgroups, starts pid 1 and waits for its
//! end, and clears away what the kernel does not: also when the harness itself has been killed.
//! Pid 1 gives itself the other namespaces, changes its root, makes sure of it, and becomes systemd.

use std::convert::Infallible;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{chdir, dup2_stdin, getppid, pivot_root};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::interrupt;
use crate::namespace::Network;
use crate::real_host::cgroup::Cgroups;
use crate::real_host::root::{Root, bears_marker};
use crate::real_host::{RealHost, inside, mount};

/// How a host's pid 1 ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It asked for a reboot.
    Reboot,
    /// It asked to be switched off.
    PowerOff,
    /// It was killed: a loss of power.
    Killed,
}

/// What a host is booted from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// The root that hosts share.
    pub(crate) lower: PathBuf,
    /// The folder of this host; see [`crate::real_host::disk`].
    pub(crate) disk: PathBuf,
    /// Its host name.
    pub(crate) name: String,
    /// Name of its cgroups.
    pub(crate) cgroup: String,
    /// Folders of the disk, and where each is mounted in the host.
    pub(crate) volumes: Vec<(PathBuf, String)>,
}

impl Plan {
    pub(crate) fn arguments(&self, role: &str) -> Vec<String> {
        let path = |it: &Path| it.to_string_lossy().into_owned();
        let mut arguments = vec![
            role.to_owned(),
            path(&self.lower),
            path(&self.disk),
            self.name.clone(),
            self.cgroup.clone(),
        ];
        for (plain, inside) in &self.volumes {
            arguments.extend([path(plain), inside.clone()]);
        }
        arguments
    }

    /// The role, and the plan for it.
    fn parse(arguments: &[String]) -> Result<(&str, Self)> {
        let [role, lower, disk, name, cgroup, volumes @ ..] = arguments else {
            bail!("boot-host is started by the harness of real hosts and by nobody else");
        };
        let volumes = volumes.chunks_exact(2);
        let plan = Self {
            lower: lower.into(),
            disk: disk.into(),
            name: name.clone(),
            cgroup: cgroup.clone(),
            volumes: volumes
                .map(|it| (PathBuf::from(&it[0]), it[1].clone()))
                .collect(),
        };
        Ok((role, plan))
    }

    fn cgroups(&self) -> PathBuf {
        self.disk.join("cgroup")
    }

    /// Where the host's root is mounted before it is the root.
    fn merged(&self) -> PathBuf {
        self.disk.join("merged")
    }
}

impl End {
    const ALL: [Self; 3] = [Self::Reboot, Self::PowerOff, Self::Killed];

    /// The supervisor's exit code for it; 1 is what it ends with when something went wrong.
    fn code(self) -> u8 {
        match self {
            Self::Reboot => 10,
            Self::PowerOff => 11,
            Self::Killed => 12,
        }
    }

    pub(crate) fn of_supervisor(status: ExitStatus) -> Option<Self> {
        let code = status.code()?;
        Self::ALL
            .into_iter()
            .find(|end| i32::from(end.code()) == code)
    }

    /// What reboot(2) turns into where pid 1 is not the machine's: `pid_namespaces(7)`.
    fn of_pid_1(status: ExitStatus) -> Option<Self> {
        match Signal::try_from(status.signal()?).ok()? {
            Signal::SIGHUP => Some(Self::Reboot),
            Signal::SIGINT => Some(Self::PowerOff),
            Signal::SIGKILL => Some(Self::Killed),
            _ => None,
        }
    }
}

/// `main` of the program `boot-host`.
#[must_use]
pub fn boot_host(arguments: &[String]) -> ExitCode {
    if let [role, name] = arguments
        && role == "hold"
    {
        return hold(name).map_or_else(failed, |()| ExitCode::SUCCESS);
    }
    let done = Plan::parse(arguments).and_then(|(role, plan)| match role {
        "supervise" => supervise(&plan).map(|end| ExitCode::from(end.code())),
        "init" => become_init(&plan).map(|never| match never {}),
        _ => bail!("there is no role {role}"),
    });
    done.unwrap_or_else(failed)
}

fn failed(error: anyhow::Error) -> ExitCode {
    eprintln!("boot-host: {error:#}");
    ExitCode::FAILURE
}

/// `boot-host hold NAME`: one host, until it ends by itself or this process is told to end.
///
/// It writes to standard error `running in network namespace N`, the number of which is what
/// [`crate::namespace::processes_of`] takes.
fn hold(name: &str) -> Result<()> {
    interrupt::watch()?;
    let mut network = Network::new()?;
    let mut host = RealHost::new(&Root::get()?, network.host(name)?)?;
    host.boot()?;
    let inode = host.host().namespace.inode()?;
    eprintln!("running in network namespace {inode}");
    while host.is_on() && !interrupt::is_interrupted() {
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn supervise(plan: &Plan) -> Result<End> {
    let harness = getppid();
    // Before the next line, since what it asks for would kill us otherwise.
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM])?;
    // In place of SIGKILL: there is something to clear away when the harness is no more.
    set_pdeathsig(Signal::SIGTERM)?;
    mount::detach_from_machine()?;
    mount::folder(&plan.cgroups())?;
    let cgroups = Cgroups::mount(&plan.cgroups())?;
    let end = cgroups
        .make(&plan.cgroup)
        .and_then(|()| start_pid_1(plan))
        .and_then(|child| wait_for_end(child, &mut signals));
    let removed = cgroups.remove(&plan.cgroup);
    // Nobody else is left to remove it then. Never with the cgroups still mounted in it.
    if getppid() != harness {
        removed?;
        umount2(&plan.cgroups(), MntFlags::MNT_DETACH)?;
        fs::remove_dir_all(&plan.disk)?;
        return end;
    }
    let end = end?;
    removed.map(|()| end)
}

fn start_pid_1(plan: &Plan) -> Result<Child> {
    unshare(CloneFlags::CLONE_NEWPID).context("make a namespace of pids")?;
    let mut child = Command::new("/proc/self/exe")
        .args(plan.arguments("init"))
        .stdin(Stdio::piped())
        .spawn()
        .context("start pid 1")?;
    // Pid 1 takes this for the sign that we still live, after it has asked to die with us.
    let alive = child
        .stdin
        .take()
        .expect("asked for a pipe")
        .write_all(b"1");
    // If it is gone already, its end says more than our pipe.
    if let Err(error) = alive {
        eprintln!("boot-host: to pid 1: {error}");
    }
    Ok(child)
}

fn wait_for_end(mut child: Child, signals: &mut Signals) -> Result<End> {
    let mut ended = child.try_wait()?;
    while ended.is_none() {
        for signal in signals.wait() {
            if signal != SIGCHLD {
                child.kill()?;
            }
        }
        ended = child.try_wait()?;
    }
    // The kernel lets us reap pid 1 only after all the others in its namespace are gone.
    let status = ended.expect("the loop ends with it");
    End::of_pid_1(status).with_context(|| format!("pid 1 ended: {status}"))
}

/// In the order that each step needs; nothing is executed unless all of them succeed.
fn become_init(plan: &Plan) -> Result<Infallible> {
    if std::process::id() != 1 {
        bail!("init: only as the first process of a namespace of its own");
    }
    set_pdeathsig(Signal::SIGKILL)?;
    let mut alive = [0; 1];
    std::io::stdin()
        .read_exact(&mut alive)
        .context("the supervisor is gone")?;
    let cgroups = Cgroups::at(&plan.cgroups())?;
    cgroups.enter(&plan.cgroup)?;
    mount::detach_from_machine()?;
    unshare(CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC)
        .context("make namespaces for names and messages")?;
    let machine = identity(Path::new("/"))?;
    let program = std::env::current_exe().context("find our own program")?;
    let merged = plan.merged();
    mount_overlay(plan)?;
    inside::mount_all(&merged, &plan.name, &cgroups)?;
    for (plain, inside) in &plan.volumes {
        mount::bind(plain, &merged.join(inside.trim_start_matches('/')))?;
    }
    change_root(&merged)?;
    verify(machine, &[&program, &plan.disk, &plan.lower])?;
    mount::share_below_root()?;
    // Our standard input is still the supervisor's pipe.
    dup2_stdin(fs::File::open("/dev/null")?)?;
    let failure = Command::new("/lib/systemd/systemd")
        .env_clear()
        .env("container", "gatehouse")
        .exec();
    Err(failure).context("execute systemd")
}

fn mount_overlay(plan: &Plan) -> Result<()> {
    let merged = plan.merged();
    mount::folder(&merged)?;
    let mut options = String::new();
    for (name, path) in [
        ("lowerdir", plan.lower.clone()),
        ("upperdir", plan.disk.join("upper")),
        ("workdir", plan.disk.join("work")),
    ] {
        let path = path.to_str().context("a path that is no UTF-8")?;
        if path.contains([':', ',', '\\']) {
            bail!("{path}: what a host is made of must have no `:`, `,` or `\\` in its path");
        }
        options.push_str(&format!("{name}={path},"));
    }
    let options = options.trim_end_matches(',');
    mount::fresh("overlay", &merged, MsFlags::empty(), options).context(
        "an overlay cannot lie on an overlay: if the temporary folder does, name another in TMPDIR",
    )
}

fn change_root(merged: &Path) -> Result<()> {
    let old = merged.join("run/machine");
    fs::create_dir(&old)?;
    pivot_root(merged, &old).context("change the root")?;
    chdir("/")?;
    umount2("/run/machine", MntFlags::MNT_DETACH).context("unmount the machine's root")?;
    fs::remove_dir("/run/machine")?;
    Ok(())
}

fn identity(path: &Path) -> Result<(u64, u64)> {
    let found = fs::metadata(path)?;
    Ok((found.dev(), found.ino()))
}

/// Whatever went wrong before, systemd never starts on the machine's own root: it would clear the
/// temporary folder there, take the consoles, and start its services.
fn verify(machine: (u64, u64), unseen: &[&Path]) -> Result<()> {
    if identity(Path::new("/"))? == machine {
        bail!("refused: the root is still the machine's");
    }
    if !bears_marker(Path::new("/")) {
        bail!("refused: the root does not bear the marker of a host's");
    }
    for path in unseen {
        if path.symlink_metadata().is_ok() {
            bail!("refused: {} of the machine is visible", path.display());
        }
    }
    Ok(())
}
