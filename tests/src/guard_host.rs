//! A real host that nodeguard guards, installed as an administrator would install it: the program,
//! its two units, its files.
//!
//! Beside nodeguard it has what shows a hole: listeners that are there before the network is, and
//! counters ([`witness`]) that are there before it too. Its boot is held up, behind the network and
//! before the daemon, until it has been under fire: what guards it then is the boot unit alone.

mod onslaught;
mod witness;

use std::io::Read as _;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use config::ports;
use config::roles::Role;
use serde_json::Value;

pub use self::onslaught::{Knocker, Onslaught, answers, watch_answers};
pub use self::witness::Counts;
use crate::namespace::Host;
use crate::program;
use crate::real_host::{RealHost, Root};
use crate::wait;

/// A port that is not isolated, with a listener like those that are.
pub const OPEN_PORT: u16 = 8080;

/// Where the program is, as the units name it.
const PROGRAM: &str = "/usr/local/bin/nodeguard";

/// Its own units, and where they stand in this repository.
const UNITS: [&str; 2] = ["nodeguard-boot.service", "nodeguard.service"];

/// Packets that have to arrive before the daemon may start.
const UNDER_FIRE: u32 = 2000;

/// How long a client waits for what may never come.
const SHORT: Duration = Duration::from_millis(500);

/// How long a listener may take to write once it is connected to.
const GREETING: Duration = Duration::from_secs(2);

const LISTENERS_UNIT: &str = "\
[Unit]
Description=Listeners on isolated ports, before there is a network
DefaultDependencies=no
After=local-fs.target
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
ExecStart=/usr/local/bin/listeners
ExecStartPost=/bin/sh -c 'until [ $(ss -Hltn | wc -l) -ge LISTENERS ]; do sleep 0.02; done'
TimeoutStartSec=30

[Install]
WantedBy=sysinit.target
";

const UNDER_FIRE_UNIT: &str = "\
[Unit]
Description=Waits behind the network, and before the daemon, for packets of strangers
After=gatehouse-network.service witness.service
Before=nodeguard.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'until [ $(cat /sys/class/net/eth0/statistics/rx_packets) -ge PACKETS ]; do sleep 0.02; done'
ExecStart=/bin/sh -c 'nft -j list counters table inet witness >/run/under-fire.json'
ExecStart=/bin/sh -c 'cat /sys/class/net/eth0/statistics/rx_packets >/run/under-fire.frames'
TimeoutStartSec=30

[Install]
WantedBy=multi-user.target
";

/// The isolated ports of such a host, which has both roles. Of UDP there is one more.
pub fn isolated_ports() -> impl Iterator<Item = u16> {
    ports::of(Role::Single).map(|entry| entry.port)
}

fn isolated_udp_ports() -> impl Iterator<Item = u16> {
    isolated_ports().chain([ports::FLANNEL_VXLAN])
}

/// Matches of nft's language for packets to isolated ports (`dport`) or from them (`sport`).
fn isolated(direction: &str) -> [String; 2] {
    let list = |ports: &mut dyn Iterator<Item = u16>| {
        let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
        ports.join(", ")
    };
    [
        format!("tcp {direction} {{ {} }}", list(&mut isolated_ports())),
        format!("udp {direction} {{ {} }}", list(&mut isolated_udp_ports())),
    ]
}

/// A host with nodeguard, or one that will have been guarded once it is on.
#[derive(Debug)]
pub struct GuardHost {
    /// The host itself.
    pub real: RealHost,
    peer: Host,
}

impl GuardHost {
    /// A host that is off. It has never had a policy; `peer` is to be its peer one day, `stranger`
    /// never is.
    ///
    /// # Errors
    /// If nodeguard is not built, or the host's disk cannot be written.
    pub fn new(root: &Root, mut host: Host, stranger: &Host, peer: &Host) -> Result<Self> {
        // A host of the harness has its addresses before it is switched on. No card has.
        host.replug()?;
        let real = RealHost::new(root, host)?;
        real.copy_in(&program::binary("nodeguard")?, PROGRAM, 0o755)?;
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../nodeguard/systemd");
        for unit in UNITS {
            real.copy_in(&source.join(unit), &place_of(unit), 0o644)?;
            real.enable(unit)?;
        }
        let listeners = isolated_udp_ports().count() + 1;
        let held = [
            (
                "listeners.service",
                LISTENERS_UNIT.replace("LISTENERS", &listeners.to_string()),
            ),
            ("witness.service", witness::UNIT.to_owned()),
            (
                "under-fire.service",
                UNDER_FIRE_UNIT.replace("PACKETS", &UNDER_FIRE.to_string()),
            ),
        ];
        for (unit, text) in held {
            real.write(&place_of(unit), text.as_bytes(), 0o644)?;
            real.enable(unit)?;
        }
        let table = witness::table(stranger, peer);
        real.write(witness::FILE, table.as_bytes(), 0o644)?;
        real.write("/usr/local/bin/listeners", listen().as_bytes(), 0o755)?;
        let peer = peer.clone();
        let guarded = Self { real, peer };
        guarded.write_config("")?;
        Ok(guarded)
    }

    /// Writes `nodeguard.yaml`, with more lines.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config(&self, more: &str) -> Result<()> {
        let Host { v4, v6, name, .. } = self.real.host();
        let text = format!(
            "cluster: acme\nnode: {name}\nrole: single\naddresses: [{v4}, \"{v6}\"]\n\
             pods: {{ranges: [10.244.0.0/16]}}\n{more}"
        );
        self.write_config_as(&text)
    }

    /// Writes `nodeguard.yaml` as it is given.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_config_as(&self, text: &str) -> Result<()> {
        self.real
            .write("/etc/nodeguard/nodeguard.yaml", text.as_bytes(), 0o600)
    }

    /// Writes the peer file that makes the peer one.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_peers(&self) -> Result<()> {
        let node = |host: &Host, role| {
            let Host { name, v4, v6, .. } = host;
            format!("  - {{name: {name}, role: {role}, addresses: [{v4}, \"{v6}\"]}}\n")
        };
        let nodes = node(self.real.host(), "single") + &node(&self.peer, "worker");
        self.real.write(
            "/etc/nodeguard/peers.d/cluster.yaml",
            format!("cluster: acme\nnodes:\n{nodes}").as_bytes(),
            0o600,
        )
    }

    /// What its counters say now.
    ///
    /// # Errors
    /// If they are gone: somebody flushed all of nftables.
    pub fn counts(&self) -> Result<Counts> {
        let listed = self
            .real
            .succeed(&["nft", "-j", "list", "counters", "table", "inet", "witness"])?;
        Counts::of(&listed, self.frames()?)
    }

    /// What they said when the network was up, the host under fire, and the daemon not yet started.
    ///
    /// # Errors
    /// If it has not booted.
    pub fn counts_under_fire(&self) -> Result<Counts> {
        let listed = self.real.succeed(&["cat", "/run/under-fire.json"])?;
        let frames = self.real.succeed(&["cat", "/run/under-fire.frames"])?;
        Counts::of(&listed, frames.trim().parse()?)
    }

    /// All frames that came to its device since it was switched on.
    ///
    /// # Errors
    /// If it is off.
    pub fn frames(&self) -> Result<u64> {
        let file = "/sys/class/net/eth0/statistics/rx_packets";
        let frames = self.real.succeed(&["cat", file])?;
        Ok(frames.trim().parse()?)
    }

    /// Waits until that many more frames have come.
    ///
    /// # Errors
    /// If they do not.
    pub fn wait_for_frames(&self, more: u64) -> Result<()> {
        let wanted = self.frames()? + more;
        wait::until_true("frames of the flood", || {
            self.frames().is_ok_and(|it| it >= wanted)
        })
    }

    /// Flushes all of nftables, as somebody might who knows nothing of nodeguard. Only our own
    /// counters come back, in the same transaction.
    ///
    /// # Errors
    /// If nft does not take it.
    pub fn flush_ruleset(&self) -> Result<()> {
        let script = format!("(echo flush ruleset; cat {}) | nft -f -", witness::FILE);
        self.real.succeed(&["sh", "-ec", &script]).map(drop)
    }

    /// What `nodeguard status` ends with, and what `nodeguard status --json` writes.
    ///
    /// # Errors
    /// If it writes no JSON.
    pub fn status(&self) -> Result<(i32, Value)> {
        let output = self.real.run(&["nodeguard", "status", "--json"])?;
        let status = serde_json::from_str(&output.stdout)
            .with_context(|| format!("no status: {output:?}"))?;
        Ok((output.status.code().context("it was killed")?, status))
    }

    /// Waits until `nodeguard status` ends so; gives what it says.
    ///
    /// # Errors
    /// With the last status, if it does not.
    pub fn wait_for_status(&self, wanted: i32) -> Result<Value> {
        let mut last = None;
        wait::until(
            &format!("nodeguard status to end with {wanted}"),
            wait::PATIENCE,
            || {
                let (code, status) = self.status().ok()?;
                last = Some((code, status.clone()));
                (code == wanted).then_some(status)
            },
        )
        .with_context(|| format!("the last: {last:#?}"))
    }

    /// One connection to a listener of it, from another host; whether the listener wrote its port.
    #[must_use]
    pub fn answers(&self, from: &Host, port: u16) -> bool {
        let Host { v4, v6, .. } = self.real.host();
        [*v4, *v6]
            .into_iter()
            .all(|address| from.namespace.run(|| reach(address, port, SHORT)))
    }

    /// The same, from the host itself, by each of its addresses.
    ///
    /// # Errors
    /// With what failed.
    pub fn reaches_itself(&self, port: u16) -> Result<()> {
        let Host { v4, v6, .. } = self.real.host();
        for address in ["127.0.0.1", "::1", &v4.to_string(), &v6.to_string()] {
            let script = format!(
                "exec 3<>/dev/tcp/{address}/{port} && read -r greeting <&3 && [ $greeting = {port} ]"
            );
            self.real
                .succeed(&["timeout", "5", "bash", "-ec", &script])?;
        }
        Ok(())
    }
}

/// One connection from where this thread is, to a listener that writes its port.
fn reach(address: IpAddr, port: u16, patience: Duration) -> bool {
    let connect = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::new(address, port), patience)?;
        stream.set_read_timeout(Some(GREETING))?;
        let mut greeting = [0; 8];
        let length = stream.read(&mut greeting)?;
        Ok(String::from_utf8_lossy(&greeting[..length]).into_owned())
    };
    connect().is_ok_and(|greeting| greeting.trim() == port.to_string())
}

fn place_of(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}")
}

/// A script that listens on every isolated port, and on one that is not; on UDP as well, where it
/// only reads.
fn listen() -> String {
    let all: Vec<String> = isolated_udp_ports()
        .chain([OPEN_PORT])
        .map(|port| port.to_string())
        .collect();
    format!(
        "#!/bin/sh\n\
         for port in {}; do\n\
         socat TCP6-LISTEN:$port,ipv6only=0,reuseaddr,fork,backlog=64 SYSTEM:\"echo $port\" &\n\
         socat -u UDP6-RECV:$port,ipv6only=0 OPEN:/dev/null,wronly &\n\
         done\n\
         wait\n",
        all.join(" ")
    )
}
