//! keepalived on a host: moves a virtual address to a host whose router is well.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::folder;
use crate::namespace::Host;
use crate::process::Process;
use crate::tool::Tool;
use crate::wait;

/// A running keepalived; ended in an orderly way, it takes its addresses back.
#[derive(Debug)]
pub struct Keepalived {
    /// The one that its own child is started by.
    pub process: Process,
    /// Where the child's number stands: it is the child that speaks VRRP.
    child: PathBuf,
}

impl Keepalived {
    /// Starts it on a host, with everything that it writes in `folder`, a host's own.
    ///
    /// # Errors
    /// If it is not installed or refuses its configuration.
    pub fn start(host: &Host, configuration: &str, folder: &Path) -> Result<Self> {
        let file = folder.join("keepalived.conf");
        // It takes no file that others may write to.
        folder::write_secret(&file, configuration)?;
        let child = folder.join("vrrp.pid");
        let mut command = Command::new("/usr/sbin/keepalived");
        command
            .args([
                "--dont-fork",
                "--log-console",
                "--log-detail",
                "--no-syslog",
                "--vrrp",
            ])
            .arg("--use-file")
            .arg(&file)
            .arg("--pid")
            .arg(folder.join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(&child);
        let process = Process::start("keepalived", command, Some(&host.namespace), folder)
            .context("start keepalived: apt-get install keepalived")?;
        let mut keepalived = Self { process, child };
        let process = &mut keepalived.process;
        let child = &keepalived.child;
        wait::until_true("keepalived to start its child", || {
            process.ended().is_some() || child.exists()
        })?;
        if let Some(status) = process.ended() {
            anyhow::bail!("keepalived ended at once ({status}):\n{}", process.log());
        }
        Ok(keepalived)
    }

    /// Kills it without notice: it keeps its addresses, and tells nobody.
    ///
    /// # Errors
    /// If its child cannot be found.
    pub fn crash(&mut self) -> Result<()> {
        let text = std::fs::read_to_string(&self.child).context("read vrrp.pid")?;
        let child = Pid::from_raw(text.trim().parse().context("a number in vrrp.pid")?);
        // Stopped first: it would end in good order when it sees its parent die.
        kill(child, Signal::SIGSTOP)?;
        self.process.crash();
        kill(child, Signal::SIGKILL)?;
        Ok(())
    }
}

/// Whether a host has an address at present.
///
/// # Errors
/// If `ip` cannot be asked.
pub fn holds(host: &Host, address: IpAddr) -> Result<bool> {
    let shown = Tool::new("ip")
        .args(["-oneline", "address", "show", "dev", "eth0"])
        .namespace(Some(&host.namespace))
        .succeed()?;
    let address = format!(" {address}/");
    Ok(shown.contains(&address))
}
