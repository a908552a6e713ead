//! What a node is for.

use std::fmt;

use crate::reader::kinds::{Choice, choice};

/// What a node of a cluster runs.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// etcd and the control plane; no pods.
    Master,
    /// kubelet, kube-proxy, the ingress and pods.
    Worker,
    /// Both on one node: the `single` plan.
    Single,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 3] = [Self::Master, Self::Worker, Self::Single];

    /// Whether the node runs etcd and the control plane.
    #[must_use]
    pub fn is_master(self) -> bool {
        matches!(self, Self::Master | Self::Single)
    }

    /// Whether the node runs pods and the ingress.
    #[must_use]
    pub fn is_worker(self) -> bool {
        matches!(self, Self::Worker | Self::Single)
    }

    /// The role's name in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Master => "master",
            Self::Worker => "worker",
            Self::Single => "single",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A field that holds a role.
#[must_use]
pub fn role() -> Choice<Role> {
    choice(&[
        ("master", Role::Master),
        ("worker", Role::Worker),
        ("single", Role::Single),
    ])
}
