//! What a new policy is held against before it replaces one that works.
//!
//! Each of these has shut a cluster's nodes against each other somewhere: an inventory that came
//! back empty, half a list, a list of somebody else. They are refused unless the operator insists.

use std::net::IpAddr;

use crate::policy::Policy;

/// Why a policy looks like a mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// There is nobody to let in.
    #[error("the peer files name no node: every other node would be shut out")]
    NoNodes,
    /// This node is not among the nodes.
    #[error(
        "this node, {node}, is not in any peer file: the list is another cluster's, or not whole"
    )]
    WithoutThisNode {
        /// Its name.
        node: String,
    },
    /// The others know this node by other addresses.
    #[error(
        "{address}, an address of this node, is not in the peer files: its own packets would be dropped by the others"
    )]
    WithoutOwnAddress {
        /// The address.
        address: IpAddr,
    },
    /// There is no control plane.
    #[error("the peer files name no master: the control plane would be shut out")]
    WithoutMaster,
    /// Most of the peers are gone.
    #[error(
        "the peers shrink from {before} addresses to {after}: more than half would be shut out at once"
    )]
    Shrinks {
        /// Addresses and ranges of nodes and routers in force.
        before: usize,
        /// The same in the new policy.
        after: usize,
    },
}

/// Everything that speaks against a policy. `own` are the addresses that the node's own file
/// names, `before` is the last good policy.
#[must_use]
pub fn objections(policy: &Policy, own: &[IpAddr], before: Option<&Policy>) -> Vec<Objection> {
    let mut objections = Vec::new();
    if policy.nodes.is_empty() {
        objections.push(Objection::NoNodes);
    } else {
        match policy.nodes.get(&policy.node) {
            None => objections.push(Objection::WithoutThisNode {
                node: policy.node.clone(),
            }),
            Some(this) => {
                let missing = own.iter().filter(|it| !this.addresses.contains(it));
                objections.extend(missing.map(|it| Objection::WithoutOwnAddress { address: *it }));
            }
        }
        if !policy.nodes.values().any(|node| node.role.is_master()) {
            objections.push(Objection::WithoutMaster);
        }
    }
    if let Some(before) = before.map(Policy::peers)
        && policy.peers() * 2 < before
    {
        objections.push(Objection::Shrinks {
            before,
            after: policy.peers(),
        });
    }
    objections
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Node;
    use config::roles::Role;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// A master `m1` and as many workers.
    fn policy(workers: u8) -> Policy {
        let mut policy = Policy::shut("acme", "m1", Some(Role::Master));
        let mut add = |name: String, role, last| {
            let addresses = vec![address(last)];
            policy.nodes.insert(name, Node { role, addresses });
        };
        add("m1".to_owned(), Role::Master, 1);
        for number in 0..workers {
            add(format!("w{number}"), Role::Worker, 10 + number);
        }
        policy
    }

    #[test]
    fn a_whole_list_meets_no_objection() {
        assert_eq!(objections(&policy(3), &[address(1)], None), []);
        // Half may go at once, not more.
        let before = policy(3);
        assert_eq!(objections(&policy(1), &[address(1)], Some(&before)), []);
    }

    #[test]
    fn each_mistake_is_named() {
        let own = [address(1)];
        let shut = Policy::shut("acme", "m1", Some(Role::Master));
        assert_eq!(objections(&shut, &own, None), [Objection::NoNodes]);

        let mut foreign = policy(1);
        foreign.node = "m7".to_owned();
        let node = "m7".to_owned();
        assert_eq!(
            objections(&foreign, &own, None),
            [Objection::WithoutThisNode { node }]
        );

        let moved = [address(1), address(99)];
        let address = address(99);
        assert_eq!(
            objections(&policy(1), &moved, None),
            [Objection::WithoutOwnAddress { address }]
        );

        let mut headless = policy(2);
        headless.nodes.remove("m1");
        headless.node = "w0".to_owned();
        assert_eq!(objections(&headless, &[], None), [Objection::WithoutMaster]);

        let (before, after) = (4, 1);
        assert_eq!(
            objections(&policy(0), &own, Some(&policy(3))),
            [Objection::Shrinks { before, after }]
        );
    }
}
