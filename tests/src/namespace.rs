//! Hosts: network namespaces on a switch that is connected to nothing else.
//!
//! The namespaces have no name under `/run/netns`. An open file and the processes inside keep one
//! alive, so even SIGKILL to the harness leaves nothing behind. The switch is a bridge in a
//! namespace of its own; the machine's network never sees a link of it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use nix::sched::{CloneFlags, setns, unshare};

use crate::tool::Tool;

/// A network namespace; clones share it.
#[derive(Clone, Debug)]
pub struct Namespace {
    handle: Arc<File>,
}

impl Namespace {
    /// A fresh one, with its loopback up.
    ///
    /// # Errors
    /// Without root (`CAP_SYS_ADMIN`).
    pub fn new() -> Result<Self> {
        let handle = std::thread::spawn(|| -> Result<File> {
            unshare(CloneFlags::CLONE_NEWNET)
                .context("make a network namespace; this needs root")?;
            File::open("/proc/thread-self/ns/net").context("open the new namespace")
        })
        .join()
        .expect("the thread does not panic")?;
        let namespace = Self {
            handle: Arc::new(handle),
        };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Runs `action` on a thread inside: the sockets that it makes stay there for life.
    pub fn run<T: Send>(&self, action: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let inside = scope.spawn(|| {
                setns(&self.handle, CloneFlags::CLONE_NEWNET).expect("whoever made it may enter");
                action()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Pids of the processes inside.
    #[must_use]
    pub fn processes(&self) -> Vec<u32> {
        let Ok(own) = self.handle.metadata() else {
            return Vec::new();
        };
        processes_of(own.ino())
    }

    /// Number of the namespace: what `readlink /proc/PID/ns/net` shows.
    ///
    /// # Errors
    /// If it cannot be asked for.
    pub fn inode(&self) -> Result<u64> {
        Ok(self.handle.metadata()?.ino())
    }

    pub(crate) fn handle(&self) -> Arc<File> {
        Arc::clone(&self.handle)
    }

    /// `/proc/PID/fd/N`, which `ip` takes for a namespace.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<()> {
        Tool::new("ip")
            .args(arguments)
            .namespace(Some(self))
            .succeed()
            .map(drop)
    }
}

/// Pids whose network namespace has this number.
#[must_use]
pub fn processes_of(inode: u64) -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net")).is_ok_and(|it| it.ino() == inode)
        })
        .collect()
}

/// A switch and the hosts on it: `10.77.0.0/24` and `fd77::/64`.
#[derive(Debug)]
pub struct Network {
    switch: Namespace,
    hosts: u8,
}

/// A host on a [`Network`].
#[derive(Clone, Debug)]
pub struct Host {
    /// Its name, for messages.
    pub name: String,
    /// Where its processes run.
    pub namespace: Namespace,
    /// Its IPv4 address.
    pub v4: IpAddr,
    /// Its IPv6 address.
    pub v6: IpAddr,
    /// Hardware address of its `eth0`: the card's own, and so the same after a reboot.
    pub mac: String,
    port: String,
    switch: Namespace,
}

impl Host {
    /// What a power cycle does: a new namespace in place of the old, in the same port of the switch.
    /// Its `eth0` has the same hardware address, is down, and has no other; whatever the old one held
    /// (rules, programs, connections, addresses) ends with the last process in it.
    ///
    /// # Errors
    /// If `ip` cannot make the links.
    pub fn replug(&mut self) -> Result<()> {
        // Takes eth0 with it, even if somebody still keeps the old namespace.
        self.switch.ip(&["link", "delete", &self.port])?;
        self.namespace = Namespace::new()?;
        self.plug_in()
    }

    fn plug_in(&self) -> Result<()> {
        let inside = self.namespace.path();
        let (port, mac) = (self.port.as_str(), self.mac.as_str());
        let peer = ["peer", "name", "eth0", "address", mac, "netns", &inside];
        let link = [&["link", "add", "name", port, "type", "veth"], &peer[..]].concat();
        self.switch.ip(&link)?;
        self.switch
            .ip(&["link", "set", port, "master", "switch", "up"])
    }
}

impl Network {
    /// A switch without hosts.
    ///
    /// # Errors
    /// Without root.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root: run this as root or with sudo");
        }
        let switch = Namespace::new()?;
        switch.ip(&["link", "add", "name", "switch", "type", "bridge"])?;
        switch.ip(&["link", "set", "switch", "up"])?;
        Ok(Self { switch, hosts: 0 })
    }

    /// Plugs a new host in.
    ///
    /// # Errors
    /// If `ip` cannot make the links.
    pub fn host(&mut self, name: &str) -> Result<Host> {
        self.hosts += 1;
        let number = self.hosts;
        let namespace = Namespace::new()?;
        let host = Host {
            name: name.to_owned(),
            namespace,
            v4: Ipv4Addr::new(10, 77, 0, number).into(),
            v6: Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(number)).into(),
            port: format!("port{number}"),
            mac: format!("02:00:0a:4d:00:{number:02x}"),
            switch: self.switch.clone(),
        };
        host.plug_in()?;
        let Host { namespace, .. } = &host;
        namespace.ip(&["address", "add", &format!("{}/24", host.v4), "dev", "eth0"])?;
        // Duplicate address detection would keep the address unusable for a second.
        namespace.ip(&[
            "address",
            "add",
            &format!("{}/64", host.v6),
            "dev",
            "eth0",
            "nodad",
        ])?;
        namespace.ip(&["link", "set", "eth0", "up"])?;
        Ok(host)
    }

    /// Pulls a host's plug: packets to it vanish, nothing is refused.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn unplug(&self, host: &Host) -> Result<()> {
        self.switch.ip(&["link", "set", &host.port, "down"])
    }

    /// Lets no more than this reach a host from now on: a rate as `tc` writes it, such as `30mbit`.
    ///
    /// # Errors
    /// If `tc` fails.
    pub fn slow_down(&self, host: &Host, rate: &str) -> Result<()> {
        Tool::new("tc")
            .args(["qdisc", "replace", "dev", &host.port, "root", "tbf"])
            .args(["rate", rate, "burst", "64kb", "latency", "400ms"])
            .namespace(Some(&self.switch))
            .succeed()
            .map(drop)
    }

    /// Puts the plug back.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn plug(&self, host: &Host) -> Result<()> {
        self.switch.ip(&["link", "set", &host.port, "up"])
    }
}
