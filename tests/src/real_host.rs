//! Real hosts: Debian with systemd as pid 1 and sshd, on a [`namespace::Host`](crate::namespace::Host).
//!
//! A host has a disk of its own over a root that all share, and its own network, mounts, pids, name,
//! messages (ipc) and cgroups. It boots, reboots, and loses power; its disk survives all three, its
//! network namespace and whatever the kernel held for it none. What is not its own is the kernel:
//! most settings in `/proc/sys` are read-only in it, and it has no say over devices.
//!
//! The machine is guarded twice: pid 1 makes sure of its root before it becomes systemd
//! ([`boot`](self::boot_host)), and commands are executed in a host only through namespaces that
//! were opened once it had.

mod boot;
pub mod cgroup;
mod disk;
mod inside;
mod mount;
mod power;
pub mod root;
mod ssh;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use self::boot::Plan;
pub use self::boot::{End, boot_host};
use self::disk::Disk;
use self::power::Power;
pub use self::root::Root;
use self::ssh::Keys;
use crate::namespace::{Host, Namespace};
use crate::tool::{Output, Tool};
use crate::wait;

/// How long a boot or an orderly end may take. It takes two seconds where nothing else runs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lines of the journal that are part of an error.
const TAIL: &str = "60";

/// The unit that gives a host its addresses: at every boot, as networkd does, and as late.
const NETWORK_UNIT: &str = "gatehouse-network.service";

/// A host, on or off.
#[derive(Debug)]
pub struct RealHost {
    // Before the disk, because fields end in this order.
    power: Option<Power>,
    host: Host,
    root: Root,
    disk: Disk,
    keys: Keys,
    boots: u32,
}

impl RealHost {
    /// A host that is off, with an empty disk of its own, on this place of the switch.
    ///
    /// # Errors
    /// If its folder or its keys cannot be made.
    pub fn new(root: &Root, host: Host) -> Result<Self> {
        let disk = Disk::new(&host.name, root.folder())?;
        let keys = Keys::make(&disk)?;
        let name = &host.name;
        disk.write("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
        let names = format!("127.0.0.1 localhost\n::1 localhost\n127.0.1.1 {name}\n");
        disk.write("/etc/hosts", names.as_bytes(), 0o644)?;
        let unit = network_unit(&host);
        disk.write(
            &format!("/etc/systemd/system/{NETWORK_UNIT}"),
            unit.as_bytes(),
            0o644,
        )?;
        disk.enable(NETWORK_UNIT)?;
        Ok(Self {
            power: None,
            host,
            root: root.clone(),
            disk,
            keys,
            boots: 0,
        })
    }

    /// Its place in the network. The namespace is another one after each end of a boot.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Switches it on and waits until all its units have started; says how long that took.
    ///
    /// # Errors
    /// If it does not come to `running`, with the end of its journal.
    pub fn boot(&mut self) -> Result<Duration> {
        let began = Instant::now();
        self.switch_on()?;
        self.wait_until_running()?;
        Ok(began.elapsed())
    }

    /// Switches it on and returns as soon as systemd is its pid 1, before any unit has started.
    ///
    /// # Errors
    /// If it is on already, or ends before systemd is executed, with the reason.
    pub fn switch_on(&mut self) -> Result<()> {
        if self.power.is_some() {
            bail!("{} is on already", self.host.name);
        }
        self.boots += 1;
        let folder = self.disk.folder();
        let unique = folder.file_name().context("a folder has a name")?;
        let plan = Plan {
            lower: self.root.folder().to_owned(),
            disk: folder.to_owned(),
            name: self.host.name.clone(),
            volumes: self.disk.volumes().to_owned(),
            cgroup: cgroup::prefix_of(std::process::id())? + &unique.to_string_lossy(),
        };
        self.power = Some(Power::on(&plan, self.boots, &self.host)?);
        Ok(())
    }

    /// Waits until all its units have started.
    ///
    /// # Errors
    /// If one fails or it takes too long, with the end of its journal.
    pub fn wait_until_running(&mut self) -> Result<()> {
        let what = format!("{} to be running", self.host.name);
        let mut state = String::new();
        let waited = wait::until(&what, PATIENCE, || {
            state = self
                .systemctl_is_running()
                .unwrap_or_else(|it| it.to_string());
            matches!(
                state.as_str(),
                "running" | "degraded" | "maintenance" | "stopping"
            )
            .then_some(())
        });
        if state == "running" {
            return waited;
        }
        let failed = self
            .run(&["systemctl", "--failed", "--no-legend", "--plain"])
            .map_or_else(|it| it.to_string(), |it| it.stdout);
        bail!(
            "{}: its state is `{state}`, not `running`. Failed units:\n{failed}{}",
            self.host.name,
            self.last_lines()
        );
    }

    /// What `systemctl is-system-running --wait` says: `running`, `degraded`, or what it complains
    /// of if systemd does not answer yet.
    ///
    /// # Errors
    /// If the host is off.
    pub fn systemctl_is_running(&self) -> Result<String> {
        let wait = ["timeout", "30", "systemctl", "is-system-running", "--wait"];
        let output = self.run(&wait)?;
        let said = format!("{}{}", output.stdout, output.stderr);
        Ok(said.trim().to_owned())
    }

    /// Executes a command in it, as root, whatever it ends with.
    ///
    /// # Errors
    /// If the host is off, or as [`Tool::run`].
    pub fn run(&self, command: &[&str]) -> Result<Output> {
        self.tool(command)?.run()
    }

    /// As [`RealHost::run`], and insists that it succeeds; gives its standard output.
    ///
    /// # Errors
    /// Also if the command fails, with what it said.
    pub fn succeed(&self, command: &[&str]) -> Result<String> {
        let output = self.run(command)?;
        if !output.status.success() {
            bail!(
                "on {}: `{}` failed ({}):\n{}{}",
                self.host.name,
                command.join(" "),
                output.status,
                output.stdout,
                output.stderr
            );
        }
        Ok(output.stdout)
    }

    /// A command in it, for what [`RealHost::run`] cannot express, such as input.
    ///
    /// # Errors
    /// If the host is off.
    pub fn tool(&self, command: &[&str]) -> Result<Tool> {
        let power = self.power.as_ref();
        let power = power.with_context(|| format!("{} is off", self.host.name))?;
        Ok(power.tool(command))
    }

    /// Executes a command line in it by its sshd, from another place in the network.
    ///
    /// # Errors
    /// If it cannot be reached, does not prove itself by its own key, or as [`Tool::run`]. ssh's
    /// own failures, such as no answer, are status 255.
    pub fn ssh(&self, from: &Namespace, line: &str) -> Result<Output> {
        self.keys
            .ssh(self.host.v4, line)
            .namespace(Some(from))
            .run()
    }

    /// Its host key, as in `ssh-ed25519 AAAA...`.
    #[must_use]
    pub fn host_key(&self) -> &str {
        self.keys.host_key()
    }

    /// Writes a file of it, on or off. Folders are made if they are missing.
    ///
    /// # Errors
    /// If it cannot be written; while it is off, also if the path leads through a symlink.
    pub fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        if self.power.is_none() {
            return self.disk.write(path, bytes, mode);
        }
        // By a program inside: only there do absolute symlinks lead to the host's files.
        let script = r#"umask 077; mkdir -p -m 755 "${1%/*}/" && cat >"$1.partial" && \
            chmod "$2" "$1.partial" && mv -f "$1.partial" "$1""#;
        let mode = format!("{mode:o}");
        self.tool(&["sh", "-c", script, "sh", path, &mode])?
            .input(bytes)
            .succeed()
            .map(drop)
    }

    /// From its next boot on, this folder of it lies on its disk without the overlay: for programs
    /// that mount overlays in it themselves, as container runtimes do.
    ///
    /// # Errors
    /// If it is on, or the path leads through a symlink.
    pub fn add_volume(&mut self, path: &str) -> Result<()> {
        if self.power.is_some() {
            bail!("{} is on", self.host.name);
        }
        self.disk.make_volume(path)
    }

    /// Copies a file of the machine into it, on or off.
    ///
    /// # Errors
    /// As [`RealHost::write`], or if it cannot be read.
    pub fn copy_in(&self, source: &Path, path: &str, mode: u32) -> Result<()> {
        let bytes = fs::read(source).with_context(|| format!("read {}", source.display()))?;
        self.write(path, &bytes, mode)
    }

    /// Has a unit started at every boot from the next on.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn enable(&self, unit: &str) -> Result<()> {
        if self.power.is_none() {
            return self.disk.enable(unit);
        }
        self.succeed(&["systemctl", "enable", "--quiet", unit])
            .map(drop)
    }

    /// What a unit logged during the last boot.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn journal(&self, unit: &str) -> Result<String> {
        self.journalctl(&["--boot", "--unit", unit])
    }

    /// Reboots it as its administrator would, and waits until it runs again: `systemctl reboot`,
    /// then the network of a host whose power was off, then [`RealHost::boot`], which is what the
    /// time is of.
    ///
    /// # Errors
    /// If it does not end in order, or as [`RealHost::boot`].
    pub fn reboot(&mut self) -> Result<Duration> {
        self.end_by("reboot", End::Reboot)?;
        self.boot()
    }

    /// Switches it off as its administrator would.
    ///
    /// # Errors
    /// If it does not end in order.
    pub fn shutdown(&mut self) -> Result<()> {
        self.end_by("poweroff", End::PowerOff)
    }

    /// Loss of power: all its processes are killed at once.
    ///
    /// # Errors
    /// If it is off, or something of it cannot be removed.
    pub fn kill(&mut self) -> Result<()> {
        let name = &self.host.name;
        let power = self
            .power
            .as_mut()
            .with_context(|| format!("{name} is off"))?;
        power.supervisor.signal(Signal::SIGTERM);
        self.wait_for(End::Killed)
    }

    /// Whether it has a first process.
    pub fn is_on(&mut self) -> bool {
        let power = self.power.as_mut();
        power.is_some_and(|it| it.supervisor.ended().is_none())
    }

    /// Waits until its pid 1 has ended, and says how. Then no process of it is left, its cgroups are
    /// removed, and its place in the network is as after a power cycle ([`Host::replug`]).
    ///
    /// # Errors
    /// If it takes too long, or its supervisor failed to clear away.
    pub fn wait_for_end(&mut self) -> Result<End> {
        let name = &self.host.name;
        let power = self
            .power
            .as_mut()
            .with_context(|| format!("{name} is off"))?;
        let status = power.supervisor.wait(PATIENCE)?;
        let log = power.supervisor.log();
        self.power = None;
        let end = End::of_supervisor(status)
            .with_context(|| format!("the supervisor of {name} ended: {status}\n{log}"))?;
        self.host.replug()?;
        Ok(end)
    }

    fn end_by(&mut self, command: &str, wanted: End) -> Result<()> {
        // How this ends says nothing: it may be killed by what it asked for.
        self.run(&["systemctl", "--no-block", command])?;
        self.wait_for(wanted)
    }

    fn wait_for(&mut self, wanted: End) -> Result<()> {
        let end = self
            .wait_for_end()
            .with_context(|| format!("{}\n{}", self.host.name, self.last_lines()))?;
        if end != wanted {
            bail!("{} ended by {end:?}, not by {wanted:?}", self.host.name);
        }
        Ok(())
    }

    fn last_lines(&self) -> String {
        let journal = self
            .journalctl(&["--boot", "--lines", TAIL])
            .unwrap_or_else(|error| format!("(cannot be read: {error:#})"));
        format!(
            "--- end of the journal of {} ---\n{journal}",
            self.host.name
        )
    }

    /// Works on and off, and on a machine that has no journalctl: the shared root's reads the files
    /// of this host, in a mount namespace that ends with it.
    fn journalctl(&self, arguments: &[&str]) -> Result<String> {
        let journal = self.disk.folder().join("upper/var/log/journal");
        let script = r#"mount --bind "$1" "$2/var/log/journal"; root=$2; shift 2
            exec chroot "$root" journalctl --directory=/var/log/journal --no-pager \
                --output=short-monotonic "$@""#;
        Tool::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-ec",
                script,
                "sh",
            ])
            .args([&journal, self.root.folder()])
            .args(arguments)
            .succeed()
    }
}

impl Drop for RealHost {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.last_lines());
        }
        // Also after a panic: a supervisor that is killed itself leaves its cgroups behind.
        if let Some(power) = &mut self.power {
            power.supervisor.stop();
        }
    }
}

fn network_unit(host: &Host) -> String {
    let Host { v4, v6, .. } = host;
    format!(
        "[Unit]\n\
         Description=Addresses of this host\n\
         DefaultDependencies=no\n\
         Wants=network-pre.target network.target\n\
         After=network-pre.target systemd-sysctl.service\n\
         Before=network.target network-online.target shutdown.target\n\
         Conflicts=shutdown.target\n\
         \n\
         [Service]\n\
         Type=oneshot\n\
         RemainAfterExit=yes\n\
         ExecStart=/usr/sbin/ip link set lo up\n\
         ExecStart=/usr/sbin/ip link set eth0 up\n\
         ExecStart=/usr/sbin/ip address replace {v4}/24 dev eth0\n\
         ExecStart=/usr/sbin/ip address replace {v6}/64 dev eth0 nodad\n\
         \n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    )
}
