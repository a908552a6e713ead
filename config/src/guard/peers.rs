//! A peer drop-in (`peers.d/*.yaml`): who else may reach this cluster's isolated ports.

use std::net::IpAddr;
use std::path::Path;

use serde_json::json;

use crate::document::Position;
use crate::error::{ConfigErrors, InvalidValue};
use crate::net::IpRange;
use crate::net::kinds::{ip_address, ip_range, label};
use crate::reader::kinds::{Placed, list, mapping, placed, refuse_twice, values};
use crate::reader::{self, Fields, Mapping};
use crate::roles::{Role, role};

/// Everything in one peer file. The provisioner writes `peers.d/cluster.yaml`; people may add
/// others beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerFile {
    /// The cluster these peers belong to.
    pub cluster: String,
    /// Where that stands.
    pub position: Position,
    /// The cluster's own nodes, this one among them.
    pub nodes: Vec<Node>,
    /// Edge routers.
    pub routers: Vec<Router>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub position: Position,
    /// What it is for.
    pub role: Role,
    /// Its addresses; at least one. Never a range: a range would let strangers in.
    pub addresses: Vec<IpAddr>,
}

/// An edge router, or a range of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Router {
    /// Its name.
    pub name: String,
    /// Where its name stands.
    pub position: Position,
    /// Its addresses or ranges; at least one.
    pub addresses: Vec<IpRange>,
}

impl PeerFile {
    /// Reads a peer file. Pure: `file` only names the text in errors.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        reader::read(text, file)
    }
}

impl Mapping for PeerFile {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let cluster = f.required(
            "cluster",
            "The cluster these peers belong to.",
            placed(label()),
        );
        let nodes = f.defaulted(
            "nodes",
            "The cluster's own nodes, this one among them.",
            list(mapping::<ReadNode>()),
            json!([]),
        );
        let routers = f.defaulted(
            "routers",
            "Edge routers.",
            list(mapping::<ReadRouter>()),
            json!([]),
        );
        if let (Some(nodes), Some(routers)) = (&nodes, &routers) {
            if nodes.is_empty() && routers.is_empty() {
                let reason = InvalidValue::new("names no peer")
                    .help("list at least one node or router, or delete the file");
                f.refuse("nodes", reason);
            }
            let names: Vec<Placed<String>> = nodes
                .iter()
                .map(|node| &node.name)
                .chain(routers.iter().map(|router| &router.name))
                .cloned()
                .collect();
            refuse_twice(f, &names, "this name", Clone::clone);
            let addresses: Vec<Placed<IpAddr>> = nodes
                .iter()
                .flat_map(|node| &node.addresses)
                .cloned()
                .collect();
            refuse_twice(f, &addresses, "this address", |address| *address);
        }
        let cluster = cluster?;
        Some(Self {
            cluster: cluster.value,
            position: cluster.position,
            nodes: nodes?
                .into_iter()
                .map(|node| Node {
                    position: node.name.position,
                    name: node.name.value,
                    role: node.role,
                    addresses: values(node.addresses),
                })
                .collect(),
            routers: routers?.into_iter().map(Router::from).collect(),
        })
    }
}

struct ReadNode {
    name: Placed<String>,
    role: Role,
    addresses: Vec<Placed<IpAddr>>,
}

impl Mapping for ReadNode {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required("name", "Its name.", placed(label()));
        let role = f.required("role", "What it is for.", role());
        let addresses = f.required(
            "addresses",
            "Its addresses, at least one; no ranges.",
            list(placed(ip_address())).of_length(1..=64),
        );
        for item in addresses.iter().flatten() {
            if item.value.is_loopback() || item.value.is_unspecified() || item.value.is_multicast()
            {
                let message = format!("{} is no address that a node could send from", item.value);
                f.refuse_item(item, InvalidValue::new(message));
            }
        }
        Some(Self {
            name: name?,
            role: role?,
            addresses: addresses?,
        })
    }
}

/// A router with the place of its name.
pub(crate) struct ReadRouter {
    pub(crate) name: Placed<String>,
    pub(crate) addresses: Vec<Placed<IpRange>>,
}

impl Mapping for ReadRouter {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required("name", "Its name.", placed(label()));
        let addresses = f.required(
            "addresses",
            "Its addresses or ranges, at least one.",
            list(placed(ip_range())).of_length(1..=64),
        );
        if let Some(addresses) = &addresses {
            refuse_twice(f, addresses, "this range", |range| *range);
            for item in addresses.iter().filter(|item| item.value.prefix() == 0) {
                let reason = InvalidValue::new("a range of all addresses guards nothing");
                f.refuse_item(item, reason.help("name the routers' own addresses"));
            }
        }
        Some(Self {
            name: name?,
            addresses: addresses?,
        })
    }
}

impl From<ReadRouter> for Router {
    fn from(read: ReadRouter) -> Self {
        Self {
            position: read.name.position,
            name: read.name.value,
            addresses: values(read.addresses),
        }
    }
}
