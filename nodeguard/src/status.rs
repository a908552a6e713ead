//! What `nodeguard status` shows: one value, for programs as JSON and for people as text.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::policy::counted;

/// How a node guard is doing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Name of the node.
    pub node: String,
    /// Name of its cluster.
    pub cluster: String,
    /// Its role.
    pub role: String,
    /// The verdict over all of this.
    pub health: Health,
    /// What is missing and why, in sentences. Empty when all is well.
    pub problems: Vec<String>,
    /// The daemon; `None` if none answers, and then the kernel was asked directly.
    pub daemon: Option<DaemonStatus>,
    /// What is enforced.
    pub policy: Option<PolicyStatus>,
    /// The authority.
    pub nftables: NftablesStatus,
    /// The plane in front of it.
    pub bpf: BpfStatus,
    /// What was dropped, summed over ports.
    pub drops: Vec<DropStatus>,
}

/// The verdict over a node guard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Everything that was asked for is enforced by every plane that was asked for.
    Ok,
    /// Everything is enforced, and something is missing beside it.
    Degraded,
    /// Isolated ports are open.
    Open,
}

/// The running daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Repairs since then, by what had happened.
    pub repairs: BTreeMap<String, u64>,
    /// Devices and addresses that came or went and were taken in, by which.
    pub followed: BTreeMap<String, u64>,
    /// How the last reload of the files ended: everything that was wrong; empty if nothing was.
    pub refused: Vec<String>,
    /// When that was, in seconds since 1970.
    pub reloaded: u64,
}

/// The policy in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Where it came from: `files`, `stored` or `shut`.
    pub origin: String,
    /// When it was put in force, in seconds since 1970.
    pub applied: u64,
    /// Nodes of the cluster.
    pub nodes: usize,
    /// Routers.
    pub routers: usize,
    /// Addresses and ranges of both.
    pub peers: usize,
    /// Isolated ports of this node.
    pub ports: Vec<String>,
}

/// The authority.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NftablesStatus {
    /// Whether its rules are in place as they should be.
    pub enforcing: bool,
    /// Whether nobody but the daemon can change them.
    pub owned: bool,
}

/// The plane in front.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BpfStatus {
    /// Whether its programs are loaded.
    pub loaded: bool,
    /// Why not, if it was asked for.
    pub problem: Option<String>,
    /// Every device but the loopback one.
    pub devices: Vec<DeviceStatus>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// How BPF is attached: `tcx`, `xdp` or `off`.
    pub attached: String,
    /// Why not as asked for.
    pub problem: Option<String>,
}

/// Drops of one plane for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropStatus {
    /// `nftables` or `bpf`.
    pub plane: String,
    /// The reason's name.
    pub reason: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `tcp`, `udp` or `sctp`; `None` where packets are dropped whatever their port.
    pub protocol: Option<String>,
    /// The port.
    pub port: Option<u16>,
    /// What listens there.
    pub name: Option<String>,
    /// How many.
    pub packets: u64,
}

impl Status {
    /// For a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out)
            .expect("writing to a String cannot fail");
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let health = match self.health {
            Health::Ok => "ok: everything asked for is enforced",
            Health::Degraded => "degraded: isolated ports are shut, but something is missing",
            Health::Open => "OPEN: isolated ports are not guarded",
        };
        writeln!(
            out,
            "{} of {}, {}: {health}",
            self.node, self.cluster, self.role
        )?;
        for problem in &self.problems {
            writeln!(out, "  ! {problem}")?;
        }
        match &self.daemon {
            None => writeln!(out, "daemon    none answers")?,
            Some(daemon) => {
                let (version, pid) = (&daemon.version, daemon.pid);
                writeln!(
                    out,
                    "daemon    {version}, pid {pid}, repairs so far: {}",
                    daemon.repairs.values().sum::<u64>()
                )?;
                for (what, count) in &daemon.repairs {
                    writeln!(out, "            {count} x {what}")?;
                }
            }
        }
        if let Some(policy) = &self.policy {
            writeln!(
                out,
                "policy    from {}: {}, {}, addresses and ranges let in: {}",
                policy.origin,
                counted(policy.nodes, "node"),
                counted(policy.routers, "router"),
                policy.peers
            )?;
            writeln!(out, "ports     {}", policy.ports.join(" "))?;
        }
        let enforcing = if self.nftables.enforcing {
            "enforcing"
        } else {
            "NOT IN PLACE"
        };
        let owned = if self.nftables.owned {
            ", owned by the daemon"
        } else {
            ""
        };
        writeln!(out, "nftables  {enforcing}{owned}")?;
        let problem = self.bpf.problem.as_deref().unwrap_or("not asked for");
        let loaded = if self.bpf.loaded { "loaded" } else { problem };
        writeln!(out, "bpf       {loaded}")?;
        for device in &self.bpf.devices {
            let problem = device
                .problem
                .as_ref()
                .map_or(String::new(), |it| format!(": {it}"));
            writeln!(
                out,
                "            {:<15} {}{problem}",
                device.name, device.attached
            )?;
        }
        if self.drops.is_empty() {
            return writeln!(out, "drops     none");
        }
        writeln!(out, "drops")?;
        for drop in &self.drops {
            let port = match (&drop.protocol, drop.port) {
                (Some(protocol), Some(port)) => format!("{protocol} {port}"),
                _ => "any port".to_owned(),
            };
            writeln!(
                out,
                "  {:>10}  {:<9} {:<9} {}  {port} {}",
                drop.packets,
                drop.plane,
                drop.reason,
                drop.family,
                drop.name.as_deref().unwrap_or(""),
            )?;
        }
        Ok(())
    }
}
