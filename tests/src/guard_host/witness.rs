//! Counters of what came to a host and of what got through, in a table of nftables that has nothing
//! to do with nodeguard's.
//!
//! What arrives is counted before nodeguard's table judges it, so behind what BPF dropped already.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{OPEN_PORT, isolated};
use crate::namespace::Host;

pub(super) const FILE: &str = "/etc/witness.nft";

/// After Debian's nftables.service, whose start flushes everything.
pub(super) const UNIT: &str = "\
[Unit]
Description=Counters of what strangers reach
DefaultDependencies=no
After=local-fs.target nftables.service
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/sbin/nft -f /etc/witness.nft

[Install]
WantedBy=sysinit.target
";

const COUNTERS: [&str; 5] = [
    "stranger_arrived",
    "stranger_through",
    "peer_arrived",
    "peer_through",
    "open_through",
];

/// What the counters of a host say: packets of TCP and UDP, IPv4 and IPv6 together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// All frames that came to its device.
    pub frames: u64,
    /// Of the stranger, to isolated ports, that nodeguard's nftables had to judge.
    pub stranger_arrived: u64,
    /// Of the stranger, to isolated ports, that reached the node's own sockets.
    pub stranger_through: u64,
    /// Of the peer, whether it is one yet or not.
    pub peer_arrived: u64,
    /// Of the peer.
    pub peer_through: u64,
    /// Of the stranger, to ports that are not isolated.
    pub open_through: u64,
}

impl Counts {
    /// From what `nft -j list counters` writes.
    pub(super) fn of(listed: &str, frames: u64) -> Result<Self> {
        let listed: Value = serde_json::from_str(listed)?;
        let objects = listed["nftables"].as_array().context("a list of objects")?;
        let count = |name: &str| {
            let counters = objects.iter().map(|object| &object["counter"]);
            let counter = counters.into_iter().find(|it| it["name"] == name);
            counter
                .and_then(|it| it["packets"].as_u64())
                .with_context(|| format!("no counter {name}"))
        };
        let [a, b, c, d, e] = COUNTERS.map(count);
        Ok(Self {
            frames,
            stranger_arrived: a?,
            stranger_through: b?,
            peer_arrived: c?,
            peer_through: d?,
            open_through: e?,
        })
    }
}

pub(super) fn table(stranger: &Host, peer: &Host) -> String {
    let rules = |counter: &str, from: &Host, matches: &[String]| -> String {
        let Host { v4, v6, .. } = from;
        let rule = |matching| {
            format!(
                "ip saddr {v4} {matching} counter name {counter}\n\
                 ip6 saddr {v6} {matching} counter name {counter}\n"
            )
        };
        matches.iter().map(rule).collect()
    };
    let isolated = isolated("dport");
    let open = [format!("tcp dport {{ 22, {OPEN_PORT} }}")];
    let counters = COUNTERS.map(|name| format!("counter {name} {{ }}\n"));
    let arriving = [("stranger_arrived", stranger), ("peer_arrived", peer)]
        .map(|(counter, host)| rules(counter, host, &isolated));
    let reaching = [("stranger_through", stranger), ("peer_through", peer)]
        .map(|(counter, host)| rules(counter, host, &isolated));
    format!(
        "table inet witness {{\n{}\
         chain arriving {{ type filter hook prerouting priority -500;\n{}}}\n\
         chain reaching {{ type filter hook input priority 0;\n{}{}}}\n}}\n",
        counters.concat(),
        arriving.concat(),
        reaching.concat(),
        rules("open_through", stranger, &open),
    )
}
