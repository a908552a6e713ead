//! What is measured: which packet, on which node.

use clap::ValueEnum;
use config::roles::Role;
use serde::{Deserialize, Serialize};

/// A kind of node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Group {
    /// A worker with kube-proxy, and so with connection tracking, of a small cluster.
    #[value(name = "worker-8")]
    Worker8,
    /// The same of a huge cluster.
    #[value(name = "worker-10000")]
    Worker10000,
    /// A master without connection tracking.
    #[value(name = "master-8")]
    Master8,
}

/// A kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// A stranger's to an isolated port.
    Drop,
    /// A peer's to an isolated port.
    PassPeer,
    /// A stranger's to another port: what everybody pays.
    PassOther,
}

/// A family of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Family {
    V4,
    V6,
}

/// One comparison of all contenders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Cell {
    pub(crate) group: Group,
    pub(crate) scenario: Scenario,
    pub(crate) family: Family,
}

impl Group {
    pub(crate) const ALL: [Self; 3] = [Self::Worker8, Self::Worker10000, Self::Master8];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Worker8 => "worker-8",
            Self::Worker10000 => "worker-10000",
            Self::Master8 => "master-8",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Worker8 => "a worker, 8 peers, connection tracking on for kube-proxy's sake",
            Self::Worker10000 => {
                "a worker, 10,000 peers, connection tracking on for kube-proxy's sake"
            }
            Self::Master8 => "a master, 8 peers, no connection tracking but a contender's own",
        }
    }

    /// Other nodes of its cluster.
    pub(crate) fn peers(self) -> u16 {
        match self {
            Self::Worker8 | Self::Master8 => 8,
            Self::Worker10000 => 10_000,
        }
    }

    pub(crate) fn role(self) -> Role {
        match self {
            Self::Worker8 | Self::Worker10000 => Role::Worker,
            Self::Master8 => Role::Master,
        }
    }

    /// The isolated port that packets go to.
    pub(crate) fn isolated_port(self) -> u16 {
        match self {
            Self::Worker8 | Self::Worker10000 => 10_250,
            Self::Master8 => 2_379,
        }
    }
}

/// A port that nobody isolates.
pub(crate) const OTHER_PORT: u16 = 4_000;

impl Scenario {
    pub(crate) const ALL: [Self; 3] = [Self::Drop, Self::PassPeer, Self::PassOther];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::PassPeer => "pass-peer",
            Self::PassOther => "pass-other",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Drop => "a stranger's packet to an isolated port is dropped",
            Self::PassPeer => "a peer's packet to an isolated port passes",
            Self::PassOther => "anybody's packet to another port passes",
        }
    }
}

impl Family {
    pub(crate) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl Cell {
    /// Every one of these groups.
    pub(crate) fn all(groups: &[Group]) -> Vec<Self> {
        let mut cells = Vec::new();
        for &group in groups {
            for scenario in Scenario::ALL {
                for family in Family::ALL {
                    cells.push(Self {
                        group,
                        scenario,
                        family,
                    });
                }
            }
        }
        cells
    }

    /// Where its packets go.
    pub(crate) fn port(&self) -> u16 {
        match self.scenario {
            Scenario::Drop | Scenario::PassPeer => self.group.isolated_port(),
            Scenario::PassOther => OTHER_PORT,
        }
    }
}
