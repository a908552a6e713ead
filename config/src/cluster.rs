//! `cluster.yaml`: what a cluster should be. The provisioner makes it so.

mod fields;
mod version;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

pub use version::Version;

use crate::error::ConfigErrors;
use crate::guard::Router;
use crate::net::{HostName, IpRange};
use crate::plans::{Plan, Size};
use crate::reader;
use crate::roles::Role;

/// Everything in `cluster.yaml`. Relative paths are resolved against the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSpec {
    /// The cluster's name.
    pub name: String,
    /// Which counts of hosts are allowed.
    pub plan: Plan,
    /// The Kubernetes version.
    pub version: Version,
    /// Masters; with the `single` plan the one host that is everything.
    pub masters: Vec<Host>,
    /// Workers; none with the `single` plan.
    pub workers: Vec<Host>,
    /// The cluster's own networks.
    pub networks: Networks,
    /// Names inside and outside.
    pub dns: Dns,
    /// Edge routers, which are let in beside the cluster's nodes.
    pub routers: Vec<Router>,
    /// What is installed besides Kubernetes itself.
    pub components: Components,
}

/// A machine that the provisioner reaches by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The node's name; its host name too.
    pub name: String,
    /// The address that the cluster's nodes and the routers use.
    pub address: IpAddr,
    /// What it must have at least.
    pub size: Size,
    /// How it is reached.
    pub ssh: Ssh,
}

/// How a host is reached by SSH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Name or address; the host's `address` when absent.
    pub address: Option<String>,
    /// Port. 22.
    pub port: u16,
    /// User; becomes root by sudo where it is not. `root`.
    pub user: String,
    /// Private key; the SSH agent's or the user's own when absent.
    pub key: Option<PathBuf>,
    /// `[user@]host[:port]` of a host to jump over (`ssh -J`).
    pub bastion: Option<String>,
}

/// The cluster's own networks. None overlaps another, a host or a router.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks {
    /// Pods. `10.244.0.0/16`.
    pub pods: IpRange,
    /// Services. `10.96.0.0/16`.
    pub services: IpRange,
    /// How packets between pods travel. VXLAN.
    pub backend: NetworkBackend,
}

/// How packets between pods travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkBackend {
    /// flannel's VXLAN, UDP 8472.
    Vxlan,
    /// Routes between hosts of one segment.
    HostGw,
}

/// Names inside and outside of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dns {
    /// The zone of the names that routers serve: `api-NAME.ZONE`, `APP-apps-NAME.ZONE`.
    pub zone: HostName,
    /// The domain inside the cluster. `cluster.local`.
    pub cluster_domain: HostName,
}

/// What is installed besides Kubernetes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Components {
    /// The NGINX ingress controller on 31380 and 31390. On.
    pub ingress: bool,
    /// The Linkerd service mesh. Off.
    pub linkerd: bool,
    /// The node guard on every host. On.
    pub nodeguard: bool,
    /// A registrar on every host. On.
    pub registrar: bool,
}

impl ClusterSpec {
    /// Reads `cluster.yaml`. Pure: `file` only names the text in errors and gives the folder that
    /// relative paths are resolved against.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        reader::read(text, file)
    }

    /// Every host with its role, masters first.
    pub fn hosts(&self) -> impl Iterator<Item = (Role, &Host)> {
        let master = match self.plan {
            Plan::Single => Role::Single,
            Plan::Clustered => Role::Master,
        };
        let masters = self.masters.iter().map(move |host| (master, host));
        masters.chain(self.workers.iter().map(|host| (Role::Worker, host)))
    }

    /// Whether losing any one master would stop etcd: true for one and for two. Two are a step on
    /// the way between one and three, not a place to stay.
    #[must_use]
    pub fn tolerates_no_master_loss(&self) -> bool {
        self.masters.len() < 3
    }
}
