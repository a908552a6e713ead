//! What the guard tells of itself: status and metrics.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::bpf::Counters;
use crate::compile::{COUNTED_SETS, LOOPBACK_COUNTER};
use crate::drops::{Key, Plane};
use crate::metrics::{Numbers, render};
use crate::nft::counts::Counts;
use crate::policy::Policy;
use crate::ruleset::Family;
use crate::status::{
    BpfStatus, DaemonStatus, DropStatus, Health, NftablesStatus, PolicyStatus, Status,
};
use crate::verdict::Reason;

use super::{Guard, Origin};

impl Guard {
    /// How the guard is doing.
    pub fn status(&mut self) -> Status {
        self.count_drops();
        let bpf = BpfStatus {
            loaded: self.fast.is_loaded(),
            problem: self.fast.problem(),
            devices: self.fast.devices(&self.devices),
        };
        let nftables = NftablesStatus {
            enforcing: self.broken.is_none(),
            owned: self.nft.is_exclusive(),
        };
        let problems = self.problems(&bpf);
        let health = match (nftables.enforcing, problems.is_empty()) {
            (false, _) => Health::Open,
            (true, false) => Health::Degraded,
            (true, true) => Health::Ok,
        };
        let drops = self.drops.totals();
        Status {
            node: self.policy.node.clone(),
            cluster: self.policy.cluster.clone(),
            role: self.policy.role.to_string(),
            health,
            problems,
            daemon: Some(DaemonStatus {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                started: seconds(self.started),
                repairs: self.repairs.clone(),
                followed: self.followed.clone(),
                refused: self.reloads.reasons.clone(),
                reloaded: seconds(self.reloads.at),
            }),
            policy: Some(PolicyStatus {
                origin: self.origin.as_str().to_owned(),
                applied: seconds(self.applied),
                nodes: self.policy.nodes.len(),
                routers: self.policy.routers.len(),
                peers: self.policy.peers(),
                ports: ports(&self.policy),
            }),
            nftables,
            bpf,
            drops: drop_statuses(&self.policy, &drops),
        }
    }

    /// The Prometheus page.
    pub fn metrics(&mut self) -> String {
        let status = self.status();
        let counters = self.fast.counters().unwrap_or_default();
        render(&Numbers {
            status: &status,
            drops: &self.drops.totals(),
            unparsed: &crate::bpf::unparsed(&counters),
            lost_events: counters.lost_events,
            reloads: (self.reloads.followed, self.reloads.refused),
        })
    }

    /// Takes in the counters of both planes.
    pub(super) fn count_drops(&mut self) {
        match self.nft.counts(&self.ruleset) {
            Ok(counts) => self.drops.read(Plane::Nftables, of_nftables(&counts)),
            Err(error) => tracing::warn!(%error, "the counters of nftables cannot be read"),
        }
        if let Some(counters) = self.fast.counters() {
            self.drops.read(Plane::Bpf, of_bpf(&counters));
        }
    }

    fn problems(&self, bpf: &BpfStatus) -> Vec<String> {
        let mut problems = Vec::new();
        problems.extend(self.broken.iter().map(|why| format!("nftables: {why}")));
        match self.origin {
            Origin::Files => {}
            Origin::Stored => {
                problems.push("the files are refused: the last good policy is enforced".to_owned())
            }
            Origin::Shut => problems.push(
                "there is no policy yet: everything isolated is shut but to the node itself"
                    .to_owned(),
            ),
        }
        let refused = self.reloads.reasons.iter();
        problems.extend(refused.map(|reason| format!("refused: {reason}")));
        let stored = self.not_stored.iter();
        problems
            .extend(stored.map(|why| format!("the next boot will not know this policy: {why}")));
        problems.extend(bpf.problem.iter().map(|why| format!("bpf: {why}")));
        for device in &bpf.devices {
            let why = device.problem.iter();
            problems.extend(why.map(|why| format!("bpf on {}: {why}", device.name)));
        }
        if !self.nft.is_exclusive() {
            problems.push(
                "this kernel keeps no table for its owner (Linux 6.9): others can change the rules, \
                 and are mended after the fact"
                    .to_owned(),
            );
        }
        problems
    }
}

/// The isolated ports of this node, by protocol where not for all.
pub(super) fn ports(policy: &Policy) -> Vec<String> {
    let own = policy.ports.iter().filter(|it| it.on.covers(policy.role));
    own.map(|it| match it.protocol {
        None => it.port.to_string(),
        Some(protocol) => format!("{}/{protocol}", it.port),
    })
    .collect()
}

/// Drops in the order of ports, with their names.
pub(super) fn drop_statuses(
    policy: &Policy,
    drops: &std::collections::BTreeMap<Key, u64>,
) -> Vec<DropStatus> {
    let status = |(key, packets): (&Key, &u64)| DropStatus {
        plane: key.plane.to_string(),
        reason: key.reason.to_string(),
        family: key.family.as_str().to_owned(),
        protocol: key.port.map(|(protocol, _)| protocol.to_string()),
        port: key.port.map(|(_, port)| port),
        name: key
            .port
            .and_then(|(protocol, port)| policy.port_name(protocol, port))
            .map(str::to_owned),
        packets: *packets,
    };
    let mut all: Vec<DropStatus> = drops.iter().map(status).collect();
    all.sort_by_key(|it| (it.port, it.protocol.clone()));
    all
}

/// What nftables has counted, by key.
pub(super) fn of_nftables(counts: &Counts) -> Vec<(Key, u64)> {
    let mut all = Vec::new();
    let reasons = [
        Reason::Stranger,
        Reason::Pod,
        Reason::Relayed,
        Reason::Spoofed,
    ];
    for (set, reason) in std::iter::zip(COUNTED_SETS, reasons) {
        debug_assert_eq!(set, reason.as_str());
        for (port, count) in counts.sets.get(set).into_iter().flatten() {
            let key = Key {
                plane: Plane::Nftables,
                reason,
                family: port.family,
                port: Some((port.protocol, port.port)),
            };
            all.push((key, count.packets));
        }
    }
    if let Some(count) = counts.named.get(LOOPBACK_COUNTER) {
        let key = Key {
            plane: Plane::Nftables,
            reason: Reason::Loopback,
            family: Family::V4,
            port: None,
        };
        all.push((key, count.packets));
    }
    all
}

fn of_bpf(counters: &Counters) -> Vec<(Key, u64)> {
    let drops = counters.drops.iter();
    drops
        .map(|drops| {
            let key = Key {
                plane: Plane::Bpf,
                reason: drops.reason.into(),
                family: drops.family.into(),
                port: drops.port,
            };
            (key, drops.packets)
        })
        .collect()
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
