//! What there is of a host only while it is on: its supervisor, and the way into its namespaces.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::PATIENCE;
use super::boot::Plan;
use crate::namespace::Host;
use crate::process::Process;
use crate::tool::Tool;
use crate::wait;

#[derive(Debug)]
pub(crate) struct Power {
    pub(crate) supervisor: Process,
    /// nsenter's option for each namespace of its pid 1, and the namespace.
    namespaces: Vec<(&'static str, File)>,
}

impl Power {
    /// Returns as soon as systemd is the host's pid 1.
    pub(crate) fn on(plan: &Plan, boot: u32, host: &Host) -> Result<Self> {
        let mut command = Command::new(program()?);
        command.args(plan.arguments("supervise"));
        let label = format!("boot-{boot}");
        let inside = Some(&host.namespace);
        let mut supervisor = Process::start(&label, command, inside, &plan.disk)?;
        let what = format!("systemd to be the first process of {}", host.name);
        let namespaces = wait::until(&what, PATIENCE, || match supervisor.ended() {
            Some(_) => Some(None),
            None => first_process(supervisor.pid()).map(Some),
        })?;
        let Some(namespaces) = namespaces else {
            bail!("{} did not boot:\n{}", host.name, supervisor.log());
        };
        Ok(Self {
            supervisor,
            namespaces,
        })
    }

    /// A command in the host. If the host has ended, it fails: nothing can be started any more in
    /// a namespace of pids without its first process, whoever has got that one's number since.
    pub(crate) fn tool(&self, command: &[&str]) -> Tool {
        let own = std::process::id();
        let options = self.namespaces.iter().map(|(option, namespace)| {
            format!("--{option}=/proc/{own}/fd/{}", namespace.as_raw_fd())
        });
        let environment = [
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME=/root",
            "LANG=C.UTF-8",
            "SYSTEMD_PAGER=",
        ];
        Tool::new("nsenter")
            .args(options)
            .args(["--", "env", "-i"])
            .args(environment)
            .args(command)
    }
}

/// Where the program `boot-host` is: built by cargo with every test of this crate.
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let mut folders = own.ancestors().skip(1).take(2);
    folders
        .find_map(|folder| Some(folder.join("boot-host")).filter(|it| it.is_file()))
        .with_context(|| format!("there is no boot-host beside {}: build it", own.display()))
}

/// The namespaces of a supervisor's host, once its first process is systemd and so is certain to
/// have left the machine's root.
fn first_process(supervisor: u32) -> Option<Vec<(&'static str, File)>> {
    let children = format!("/proc/{supervisor}/task/{supervisor}/children");
    let children = fs::read_to_string(children).ok()?;
    let process = PathBuf::from(format!("/proc/{}", children.trim()));
    let systemd = || {
        let program = fs::read_link(process.join("exe")).ok()?;
        (program.file_name()? == "systemd").then_some(())
    };
    systemd()?;
    let names = [
        ("mount", "mnt"),
        ("uts", "uts"),
        ("ipc", "ipc"),
        ("net", "net"),
        ("pid", "pid"),
        ("cgroup", "cgroup"),
    ];
    let namespaces = names
        .into_iter()
        .map(|(option, name)| Some((option, File::open(process.join("ns").join(name)).ok()?)))
        .collect();
    // Still: the supervisor has not reaped it, so what was opened between is of the same process.
    systemd()?;
    namespaces
}
