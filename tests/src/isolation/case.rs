//! A case: who sends what to whom, and what has to become of it.

use std::fmt;
use std::net::IpAddr;

use config::guard::Protocol;
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::frames::Shape;
use super::place::{Mac, Place};

/// A row of the table of results.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Nodes of the cluster and routers, by the node's own addresses.
    Peers,
    /// A node to itself: own address, 127.0.0.1, ::1.
    Itself,
    /// Everybody, to ports that nobody isolates.
    OpenPorts,
    /// Hosts that are no peers.
    Strangers,
    /// Pods of the cluster.
    Pods,
    /// Nodes and pods of other clusters.
    Foreign,
    /// Addresses of a node that no peer file lists.
    OtherAddresses,
    /// The ingress' NodePorts.
    Ingress,
    /// A tenant's Services, by NodePort.
    NodePort,
    /// A tenant's Services, by ClusterIP.
    ClusterIp,
    /// A tenant's Services, by externalIP.
    ExternalIp,
    /// A node as a way to somebody else.
    Gateway,
    /// Sources that are a lie.
    Spoofed,
    /// 127.0.0.0/8 from outside.
    Loopback,
    /// Tags, options, extension headers, fragments.
    Frames,
    /// The same, by a NodePort.
    FramesByNodePort,
    /// What the guard knowingly cannot stop: a change here is news.
    Limits,
}

impl Group {
    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Peers => "nodes and routers",
            Self::Itself => "a node to itself",
            Self::OpenPorts => "ports that are not isolated",
            Self::Strangers => "strangers",
            Self::Pods => "pods of the cluster",
            Self::Foreign => "other clusters' nodes and pods",
            Self::OtherAddresses => "addresses in no peer file",
            Self::Ingress => "the ingress' NodePorts",
            Self::NodePort => "a tenant's NodePorts",
            Self::ClusterIp => "a tenant's ClusterIPs",
            Self::ExternalIp => "a tenant's externalIPs",
            Self::Gateway => "a node as gateway",
            Self::Spoofed => "spoofed sources",
            Self::Loopback => "127.0.0.0/8 from outside",
            Self::Frames => "crafted frames",
            Self::FramesByNodePort => "crafted frames to NodePorts",
            Self::Limits => "known limits (open)",
        }
    }
}

/// How a request is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Means {
    /// By a socket of the sender: TCP connects and wants its data back, UDP wants an answer where
    /// somebody gives one, SCTP sends an INIT.
    Client {
        /// The address it is bound to, if not the one that the kernel chooses.
        source: Option<IpAddr>,
    },
    /// By frames that are put on the sender's `eth0`.
    Frames {
        /// How they look.
        shape: Shape,
        /// Whose address they bear.
        source: IpAddr,
        /// Who gets them from the wire.
        hop: Mac,
    },
    /// As the inner packet of a VXLAN frame.
    Vxlan {
        /// Who gets the frame.
        to: Place,
        /// Whose address the inner packet bears.
        source: IpAddr,
    },
}

/// A case of the matrix.
#[derive(Clone, Debug)]
pub struct Case {
    /// What it is about, unique.
    pub name: String,
    /// Where it is counted in the results.
    pub group: Group,
    /// Who sends.
    pub from: Place,
    /// How.
    pub means: Means,
    /// The protocol.
    pub protocol: Protocol,
    /// The family.
    pub family: Family,
    /// To which address and port.
    pub to: (IpAddr, u16),
    /// Where the request comes out if nothing stops it.
    pub lands: (Place, u16),
    /// Whether the sender gets an answer that proves it.
    pub answered: bool,
    /// What has to become of it.
    pub expectation: Expectation,
}

/// What has to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// It comes out where it should.
    Open,
    /// A guard drops and counts it.
    Dropped(Drop),
    /// The kernel itself drops it, guard or not; says why.
    Kernel(&'static str),
}

/// Who drops it and how that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drop {
    /// The node whose guard drops it.
    pub node: Place,
    /// Why.
    pub reason: Reason,
    /// The family that is counted.
    pub family: Family,
    /// The protocol that is counted.
    pub protocol: Protocol,
    /// The port that is counted.
    pub port: u16,
    /// What the BPF plane can know of it.
    pub sight: Sight,
}

/// Whether the BPF plane, which sees a packet as it comes in by a device, can tell that it is
/// forbidden.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Sight {
    /// Yes, at `eth0`.
    Wire,
    /// Yes, at `flannel.1`.
    Overlay,
    /// No: it comes in by a bridge, where br_netfilter lets nftables see it first.
    Bridge,
    /// No: what forbids it is how it goes on from here, translated or forwarded.
    Later,
    /// No: only the routing table says that the source is a lie.
    Routing,
    /// No: addressed to a broadcast, multicast or anycast address.
    Everybody,
    /// No: more headers than it reads.
    Unreadable,
}

impl Case {
    /// How many frames it puts on the wire at first.
    #[must_use]
    pub fn packets(&self) -> u32 {
        match self.means {
            Means::Frames { shape, .. } if shape.is_fragmented() => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A family as names of cases write it.
#[must_use]
pub fn family_name(family: Family) -> &'static str {
    match family {
        Family::V4 => "v4",
        Family::V6 => "v6",
    }
}
