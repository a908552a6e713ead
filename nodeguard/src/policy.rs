//! The policy: who may reach what, decided from the files and from nothing else.
//!
//! It is a value that can be stored: the last good one is what a node enforces before its network
//! comes up ([`crate::state`]).

use std::collections::BTreeMap;
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;
use config::ports;
use config::roles::Role;
use serde::{Deserialize, Serialize};

/// Who may reach which ports of which nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The cluster's name.
    pub cluster: String,
    /// This node's name.
    pub node: String,
    /// What this node is for; decides which ports are isolated here.
    pub role: Role,
    /// Every isolated port, of this node and of the other nodes, by port and name.
    pub ports: Vec<GuardedPort>,
    /// The cluster's nodes by name, this one among them.
    pub nodes: BTreeMap<String, Node>,
    /// Edge routers by name.
    pub routers: BTreeMap<String, Vec<IpRange>>,
    /// The cluster's pod networks.
    pub pods: Vec<IpRange>,
    /// Isolated ports that the cluster's pods may reach.
    pub pod_ports: Vec<u16>,
    /// Whether a peer's packet must come by the device that an answer would leave by.
    pub reverse_path: bool,
}

/// A port that is isolated somewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuardedPort {
    /// The port.
    pub port: u16,
    /// The protocol; all three when absent.
    pub protocol: Option<Protocol>,
    /// Short name, as in `config::ports`.
    pub name: String,
    /// On which nodes.
    pub on: Owner,
}

/// Whose port it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Owner {
    /// Masters' (and a single node's).
    Masters,
    /// Workers' (and a single node's).
    Workers,
    /// Every node's: the extra ports of the file. Other nodes are taken to have them as well.
    Nodes,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// What it is for.
    pub role: Role,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

impl Owner {
    /// Whether nodes of this role have the port.
    #[must_use]
    pub fn covers(self, role: Role) -> bool {
        match self {
            Self::Masters => role.is_master(),
            Self::Workers => role.is_worker(),
            Self::Nodes => true,
        }
    }
}

impl GuardedPort {
    /// The protocols it is isolated for.
    pub fn protocols(&self) -> impl Iterator<Item = Protocol> + use<> {
        let only = self.protocol;
        let all = Protocol::ALL.into_iter();
        all.filter(move |protocol| only.is_none_or(|only| only == *protocol))
    }
}

impl Policy {
    /// What a node enforces that has no policy yet: everything isolated is shut, but to the node
    /// itself. Without a known role, that of both.
    #[must_use]
    pub fn shut(cluster: &str, node: &str, role: Option<Role>) -> Self {
        let vxlan = GuardedPort {
            port: ports::FLANNEL_VXLAN,
            protocol: Some(Protocol::Udp),
            name: "flannel-vxlan".to_owned(),
            on: Owner::Nodes,
        };
        Self {
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            role: role.unwrap_or(Role::Single),
            ports: role_ports().chain([vxlan]).collect(),
            nodes: BTreeMap::new(),
            routers: BTreeMap::new(),
            pods: Vec::new(),
            pod_ports: Vec::new(),
            reverse_path: true,
        }
    }

    /// The policy in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} and {} of {} reach the isolated ports of {}, a {}",
            counted(self.nodes.len(), "node"),
            counted(self.routers.len(), "router"),
            self.cluster,
            self.node,
            self.role,
        )
    }

    /// How many addresses and ranges are let in as nodes or routers.
    #[must_use]
    pub fn peers(&self) -> usize {
        let nodes = self.nodes.values().map(|node| node.addresses.len());
        let routers = self.routers.values().map(Vec::len);
        nodes.chain(routers).sum()
    }

    /// Every isolated protocol and port once, sorted, with who has it. Where an extra port is also
    /// a role's, both owners have it.
    #[must_use]
    pub fn isolated(&self) -> BTreeMap<(Protocol, u16), Vec<Owner>> {
        let mut isolated: BTreeMap<_, Vec<Owner>> = BTreeMap::new();
        for port in &self.ports {
            for protocol in port.protocols() {
                let owners = isolated.entry((protocol, port.port)).or_default();
                if !owners.contains(&port.on) {
                    owners.push(port.on);
                }
            }
        }
        isolated
    }

    /// The name of a port, for reports.
    #[must_use]
    pub fn port_name(&self, protocol: Protocol, port: u16) -> Option<&str> {
        let of = |it: &&GuardedPort| it.port == port && it.protocols().any(|its| its == protocol);
        self.ports.iter().find(of).map(|it| it.name.as_str())
    }
}

/// A number of things in words.
pub(crate) fn counted(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}

/// The ports of both roles.
pub(crate) fn role_ports() -> impl Iterator<Item = GuardedPort> {
    let of = |table: &'static [ports::IsolatedPort], on| {
        table.iter().map(move |entry| GuardedPort {
            port: entry.port,
            protocol: None,
            name: entry.name.to_owned(),
            on,
        })
    };
    of(&ports::MASTER, Owner::Masters).chain(of(&ports::WORKER, Owner::Workers))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_files_everything_isolated_is_shut() {
        let policy = Policy::shut("acme", "w1", None);
        assert_eq!((policy.peers(), policy.pods.len()), (0, 0));
        // Eleven ports of three protocols, and VXLAN.
        assert_eq!(policy.isolated().len(), 34);
        assert!(policy.isolated().values().all(|owners| owners.len() == 1));
    }

    #[test]
    fn a_policy_survives_being_stored() {
        let mut policy = Policy::shut("acme", "w1", Some(Role::Worker));
        policy.pods.push(IpRange::parse("10.244.0.0/16").unwrap());
        policy.nodes.insert(
            "m1".to_owned(),
            Node {
                role: Role::Master,
                addresses: vec!["fd00::1".parse().unwrap()],
            },
        );
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
        let newer = text.replacen('{', "{\"later\":1,", 1);
        assert!(
            serde_json::from_str::<Policy>(&newer).is_err(),
            "half understood"
        );
    }
}
