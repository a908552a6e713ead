//! The guard while no daemon runs: what the boot unit enforces, and what the kernel says.

use std::path::Path;

use config::guard::GuardConfig;
use config::roles::Role;

use crate::compile::compile;
use crate::nft::drift::Integrity;
use crate::nft::{Nft, NftError};
use crate::policy::{Owner, Policy};
use crate::state::Store;
use crate::status::{BpfStatus, Health, NftablesStatus, PolicyStatus, Status};

use super::report::{drop_statuses, of_nftables, ports};
use super::{Origin, stored};

/// Enforces the last good policy, or shuts everything isolated where there is none: for the boot.
///
/// # Errors
/// If nftables cannot be had.
pub fn hold(config: Option<&GuardConfig>) -> Result<(Policy, Origin), NftError> {
    let (policy, origin) = last(config);
    Nft::open()?.replace(&compile(&policy))?;
    Ok((policy, origin))
}

/// What is enforced where a daemon cannot start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// What a daemon before it has left.
    AsItWas,
    /// A policy that was put in force now.
    Policy(Origin),
}

/// Enforces something without a configuration, for a daemon that cannot read its own. What an earlier
/// one has left is better than what this one knows, which is neither the peers nor the folder where
/// they are stored: it stays if its rules are whole.
///
/// # Errors
/// If nftables cannot be had.
pub fn hold_without_config() -> Result<Held, NftError> {
    let mut nft = Nft::open()?;
    for policy in shut_policies() {
        let is_whole = match nft.look(&compile(&policy))? {
            Integrity::Intact => true,
            Integrity::Drifted { what } => what.iter().all(|it| opens_nothing(it)),
        };
        if is_whole {
            return Ok(Held::AsItWas);
        }
    }
    hold(None).map(|(_, origin)| Held::Policy(origin))
}

/// One for each way in which rules and isolated ports depend on the configuration.
fn shut_policies() -> impl Iterator<Item = Policy> {
    let roles = [Role::Single, Role::Worker, Role::Master].into_iter();
    let ways = [(true, true), (true, false), (false, true), (false, false)];
    roles.flat_map(move |role| {
        ways.into_iter().map(move |(reverse_path, is_flannel)| {
            let mut policy = Policy::shut("", "", Some(role));
            policy.reverse_path = reverse_path;
            policy
                .ports
                .retain(|it| is_flannel || it.on != Owner::Nodes);
            policy
        })
    })
}

/// Whether a difference to a policy that shuts everything is one that every policy may have: peers,
/// and more ports.
fn opens_nothing(difference: &str) -> bool {
    let Some((set, change)) = difference
        .strip_prefix("set ")
        .and_then(|rest| rest.split_once(": "))
    else {
        return false;
    };
    let is_of_ports = set == "isolated" || set.ends_with("_ports");
    change.contains(" element") && !(is_of_ports && change.ends_with(" went"))
}

/// How the node is doing while no daemon answers.
///
/// # Errors
/// If nftables cannot be asked.
pub fn status_without_daemon(config: Option<&GuardConfig>) -> Result<Status, NftError> {
    let (policy, origin) = last(config);
    let ruleset = compile(&policy);
    let mut nft = Nft::open()?;
    let what = match nft.look(&ruleset)? {
        Integrity::Intact => Vec::new(),
        Integrity::Drifted { what } => what,
    };
    let enforcing = what.is_empty();
    let mut problems = vec!["no daemon answers: nothing follows the files or mends".to_owned()];
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

/// The last good policy, or the one that shuts everything.
fn last(config: Option<&GuardConfig>) -> (Policy, Origin) {
    let folder = config.map_or_else(|| Path::new(crate::STATE), |config| &config.state);
    match stored(&Store::new(folder)) {
        Some(policy) => (policy, Origin::Stored),
        None => {
            let name = |it: fn(&GuardConfig) -> &str| config.map_or("", it);
            let (cluster, node) = (name(|it| &it.cluster), name(|it| &it.node));
            let shut = Policy::shut(cluster, node, config.map(|config| config.role));
            (shut, Origin::Shut)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lacks_rules_or_ports_is_not_whole() {
        for (difference, is_harmless) in [
            ("set nodes4: 3 elements came", true),
            ("set isolated: 1 element came", true),
            ("set own_ports: 1 element came, 1 went", false),
            ("set isolated: 12 elements went", false),
            ("set nodes4: gone", false),
            ("rule from-stranger of sources: gone", false),
            ("table gone", false),
        ] {
            assert_eq!(opens_nothing(difference), is_harmless, "{difference}");
        }
    }
}
