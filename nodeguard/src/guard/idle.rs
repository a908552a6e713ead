//! The guard while no daemon runs: what the boot unit enforces, and what the kernel says.

use std::path::Path;

use config::guard::GuardConfig;

use crate::compile::compile;
use crate::nft::drift::Integrity;
use crate::nft::{Nft, NftError};
use crate::policy::Policy;
use crate::state::{StateError, Store};
use crate::status::{BpfStatus, Health, NftablesStatus, PolicyStatus, Status};

use super::Origin;
use super::report::{drop_statuses, of_nftables, ports};

/// What is enforced where no daemon is.
#[derive(Debug)]
pub struct Last {
    /// The last good policy, or the one that shuts everything isolated.
    pub policy: Policy,
    /// Which of the two.
    pub origin: Origin,
    /// Why there is no last good one, if one was stored.
    pub damage: Option<StateError>,
}

impl Last {
    pub(super) fn good(config: Option<&GuardConfig>) -> Self {
        let folder = config.map_or_else(|| Path::new(crate::STATE), |config| &config.state);
        let (stored, damage) = match Store::new(folder).load() {
            Ok(stored) => (stored, None),
            Err(error) => (None, Some(error)),
        };
        let (policy, origin) = match stored {
            Some(policy) => (policy, Origin::Stored),
            None => {
                let name = |it: fn(&GuardConfig) -> &str| config.map_or("", it);
                let (cluster, node) = (name(|it| &it.cluster), name(|it| &it.node));
                let shut = Policy::shut(cluster, node, config.map(|config| config.role));
                (shut, Origin::Shut)
            }
        };
        Self {
            policy,
            origin,
            damage,
        }
    }
}

/// Enforces the last good policy, or shuts everything isolated where there is none. For the boot
/// unit.
///
/// # Errors
/// If nftables cannot be had.
pub fn hold(config: Option<&GuardConfig>) -> Result<Last, NftError> {
    let last = Last::good(config);
    Nft::open()?.replace(&compile(&last.policy))?;
    Ok(last)
}

/// Like [`hold`], but what an earlier daemon enforces is left as it is: better than the last good
/// policy of a folder that may not even be the right one. For a daemon that cannot start. `None`:
/// something was in force.
///
/// # Errors
/// If nftables cannot be had.
pub fn hold_if_open() -> Result<Option<Last>, NftError> {
    let mut nft = Nft::open()?;
    if nft.is_there()? {
        return Ok(None);
    }
    let last = Last::good(None);
    nft.replace(&compile(&last.policy))?;
    Ok(Some(last))
}

/// How the node is doing while no daemon answers.
///
/// # Errors
/// If nftables cannot be asked.
pub fn status_without_daemon(config: Option<&GuardConfig>) -> Result<Status, NftError> {
    let Last {
        policy,
        origin,
        damage,
    } = Last::good(config);
    let ruleset = compile(&policy);
    let mut nft = Nft::open()?;
    let what = match nft.look(&ruleset)? {
        Integrity::Intact => Vec::new(),
        Integrity::Drifted { what } => what,
    };
    let enforcing = what.is_empty();
    let mut problems = vec!["no daemon answers: nothing follows the files or mends".to_owned()];
    problems.extend(damage.map(|error| format!("the last good policy cannot be read: {error}")));
    problems.extend(what.into_iter().map(|what| format!("nftables: {what}")));
    let drops = if enforcing {
        let counts = nft.counts(&ruleset)?;
        of_nftables(&counts)
            .into_iter()
            .filter(|(_, packets)| *packets > 0)
            .collect()
    } else {
        Default::default()
    };
    Ok(Status {
        node: policy.node.clone(),
        cluster: policy.cluster.clone(),
        role: policy.role.to_string(),
        health: if enforcing {
            Health::Degraded
        } else {
            Health::Open
        },
        problems,
        daemon: None,
        policy: enforcing.then(|| PolicyStatus {
            origin: origin.as_str().to_owned(),
            applied: 0,
            nodes: policy.nodes.len(),
            routers: policy.routers.len(),
            peers: policy.peers(),
            ports: ports(&policy),
        }),
        nftables: NftablesStatus {
            enforcing,
            owned: false,
        },
        bpf: BpfStatus {
            loaded: false,
            problem: Some("only the daemon knows; its programs stay attached".to_owned()),
            devices: Vec::new(),
        },
        drops: drop_statuses(&policy, &drops),
    })
}
