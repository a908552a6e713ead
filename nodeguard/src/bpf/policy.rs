//! Policy -> tables: what BPF may drop, for it is what nftables would drop.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use config::net::IpRange;

use ebpf_common::table::{self, Unparsed};

use super::{Classes, Counters, Flags, Port, Tables};
use crate::policy::{Owner, Policy};
use crate::ruleset::Family;
use crate::verdict::Reason;

impl Tables {
    /// The tables of a policy on a node with these addresses, be they in a file or not.
    ///
    /// Only what is decided on arrival is here: what a Service makes of a packet later, and whether
    /// an answer would leave by the same device, is for nftables to judge.
    #[must_use]
    pub fn of(policy: &Policy, own: &BTreeSet<IpAddr>) -> Self {
        let own = || own.iter().filter(|address| !address.is_loopback());
        let mut destinations: BTreeMap<IpAddr, Classes> = BTreeMap::new();
        let mut hosts: BTreeMap<IpAddr, Flags> = BTreeMap::new();
        let mut ranges: BTreeMap<IpRange, Flags> = BTreeMap::new();
        for address in own() {
            destinations.insert(address.to_canonical(), Classes::OWN);
        }
        for node in policy.nodes.values() {
            let mut classes = Classes::NODE;
            if node.role.is_master() {
                classes |= Classes::MASTER;
            }
            if node.role.is_worker() {
                classes |= Classes::WORKER;
            }
            for address in &node.addresses {
                *destinations.entry(*address).or_default() |= classes;
                *hosts.entry(*address).or_default() |= Flags::PEER;
            }
        }
        for range in policy.routers.values().flatten() {
            match range.address() {
                Some(address) => *hosts.entry(address).or_default() |= Flags::PEER,
                None => *ranges.entry(*range).or_default() |= Flags::PEER,
            }
        }
        for range in &policy.pods {
            *ranges.entry(*range).or_default() |= Flags::POD;
        }
        // nftables knows a peer's borrowed address by its way alone; where that is not looked at,
        // it may not be held against anybody here.
        if policy.reverse_path {
            for address in own() {
                if let Some(flags) = hosts.get_mut(&address.to_canonical()) {
                    *flags |= Flags::OWN;
                }
            }
        }
        Self {
            ports: ports(policy),
            destinations,
            hosts,
            ranges,
        }
    }
}

fn ports(policy: &Policy) -> BTreeMap<(config::guard::Protocol, u16), Port> {
    let isolated = policy.isolated();
    let numbered = isolated.into_iter().zip(1_u32..);
    numbered
        .map(|((port, owners), number)| {
            let mut classes = Classes::default();
            for owner in &owners {
                classes |= match owner {
                    Owner::Masters => Classes::MASTER,
                    Owner::Workers => Classes::WORKER,
                    Owner::Nodes => Classes::NODE,
                };
                if owner.covers(policy.role) {
                    classes |= Classes::OWN;
                }
            }
            let entry = Port {
                classes,
                pods: policy.pod_ports.contains(&port.1),
                // More ports than counters: the last ones count together.
                slot: u8::try_from(number).unwrap_or(0),
            };
            (port, entry)
        })
        .collect()
}

/// Frames that were left to nftables, by why; with the names that metrics use.
#[must_use]
pub fn unparsed(counters: &Counters) -> Vec<(&'static str, u64)> {
    let named = |(why, frames): &(Unparsed, u64)| {
        let name = match why {
            Unparsed::NotIp => "not-ip",
            Unparsed::Vlan => "vlan",
            Unparsed::Tags => "tags",
            Unparsed::Headers => "headers",
            Unparsed::Truncated => "truncated",
            Unparsed::Malformed => "malformed",
        };
        (name, *frames)
    };
    counters.unparsed.iter().map(named).collect()
}

impl From<table::Reason> for Reason {
    fn from(reason: table::Reason) -> Self {
        match reason {
            table::Reason::Stranger => Self::Stranger,
            table::Reason::Pod => Self::Pod,
            table::Reason::Spoofed => Self::Spoofed,
            table::Reason::Loopback => Self::Loopback,
        }
    }
}

impl From<table::Family> for Family {
    fn from(family: table::Family) -> Self {
        match family {
            table::Family::V4 => Self::V4,
            table::Family::V6 => Self::V6,
        }
    }
}
