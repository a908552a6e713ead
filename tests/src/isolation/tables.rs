//! The policy as the BPF plane takes it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use nodeguard::bpf::{Classes, Flags, Port, Tables};
use nodeguard::devices::Devices;
use nodeguard::policy::{Owner, Policy};

/// The tables of a policy on a node that has these addresses.
#[must_use]
pub fn tables(policy: &Policy, devices: &Devices) -> Tables {
    let mut tables = Tables::default();
    for (slot, ((protocol, port), owners)) in (1..).zip(policy.isolated()) {
        let mut classes = Classes::default();
        for owner in owners {
            classes |= match owner {
                Owner::Masters => Classes::MASTER,
                Owner::Workers => Classes::WORKER,
                Owner::Nodes => Classes::NODE,
            };
            if owner.covers(policy.role) {
                classes |= Classes::OWN;
            }
        }
        let pods = policy.pod_ports.contains(&port);
        let entry = Port {
            classes,
            pods,
            slot,
        };
        tables.ports.insert((protocol, port), entry);
    }
    let add = |hosts: &mut BTreeMap<IpAddr, Flags>, address: IpAddr, flags| {
        *hosts.entry(address).or_default() |= flags;
    };
    for node in policy.nodes.values() {
        for address in &node.addresses {
            let classes = tables.destinations.entry(*address).or_default();
            *classes |= Classes::NODE;
            if node.role.is_master() {
                *classes |= Classes::MASTER;
            }
            if node.role.is_worker() {
                *classes |= Classes::WORKER;
            }
            add(&mut tables.hosts, *address, Flags::PEER);
        }
    }
    for range in policy.routers.values().flatten() {
        match range.address() {
            Some(address) => add(&mut tables.hosts, address, Flags::PEER),
            None => {
                *tables.ranges.entry(*range).or_default() |= Flags::PEER;
            }
        }
    }
    for range in &policy.pods {
        *tables.ranges.entry(*range).or_default() |= Flags::POD;
    }
    for address in devices.addresses.iter().filter(|it| !it.is_loopback()) {
        *tables.destinations.entry(*address).or_default() |= Classes::OWN;
        add(&mut tables.hosts, *address, Flags::OWN);
    }
    tables
}
