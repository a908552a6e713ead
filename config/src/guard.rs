//! `nodeguard.yaml`: what the node guard of one node enforces, and its peer drop-ins.

mod agree;
mod fields;
mod peers;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

pub use agree::agree;
pub(crate) use peers::ReadRouter;
pub use peers::{Node, PeerFile, Router};

use crate::error::ConfigErrors;
use crate::net::IpRange;
use crate::reader;
use crate::roles::Role;

/// Everything in `nodeguard.yaml`. Relative paths are resolved against the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardConfig {
    /// The cluster this node belongs to; peer files of another are refused.
    pub cluster: String,
    /// This node's name, as peers know it.
    pub node: String,
    /// Which ports are isolated here: see [`crate::ports`].
    pub role: Role,
    /// This node's own addresses; at least one.
    pub addresses: Vec<IpAddr>,
    /// Devices that the BPF plane is attached to; all when empty. nftables covers every device
    /// either way.
    pub interfaces: Vec<Interface>,
    /// Folder of peer files (`*.yaml`).
    pub peers: PathBuf,
    /// Routers that are not in a peer file.
    pub routers: Vec<Router>,
    /// What carries packets between pods.
    pub network: PodNetwork,
    /// Ports isolated besides the role's. flannel's VXLAN port is among them where flannel is the
    /// network.
    pub extra_ports: Vec<ExtraPort>,
    /// The cluster's pods and what they may reach.
    pub pods: Pods,
    /// How the BPF plane is attached where `interfaces` says nothing else.
    pub bpf: BpfMode,
    /// Whether a peer's packet must come by the device that an answer would leave by.
    pub reverse_path: bool,
    /// Address of the Prometheus page; loopback only. Absent: none.
    pub metrics: Option<SocketAddr>,
    /// Folder of the last good ruleset, which the boot unit loads.
    pub state: PathBuf,
    /// Folder of the control socket and of what keeps the BPF plane in place; gone after a reboot.
    pub runtime: PathBuf,
}

/// A device of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// The device's name, as in `ip link`.
    pub name: String,
    /// How BPF is attached to it; the file's `bpf` when absent.
    pub bpf: Option<BpfMode>,
}

/// How the BPF plane is attached. nftables enforces in every mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BpfMode {
    /// At tcx ingress, beside other programs. The default.
    Tcx,
    /// In the driver (native XDP).
    Xdp,
    /// Not at all.
    Off,
}

/// What carries packets between pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PodNetwork {
    /// flannel: its VXLAN port is isolated too.
    Flannel,
    /// Something that needs no port isolated.
    Other,
}

/// A port isolated besides the role's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraPort {
    /// The port.
    pub port: u16,
    /// The protocol; all three when absent.
    pub protocol: Option<Protocol>,
    /// Short name for rules, counters and reports.
    pub name: String,
}

/// A transport protocol with ports.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// The cluster's pods and what they may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pods {
    /// The cluster's pod networks; pods of nobody else are let in.
    pub ranges: Vec<IpRange>,
    /// Isolated ports that these pods may reach.
    pub ports: Vec<u16>,
}

impl Protocol {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Its number in an IP header (IANA's protocol numbers).
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// Its name in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl GuardConfig {
    /// Reads `nodeguard.yaml`. Pure: `file` only names the text in errors and gives the folder
    /// that relative paths are resolved against.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        reader::read(text, file)
    }
}
