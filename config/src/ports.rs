//! The port table of the node guard: the one place where these eleven ports stand.

use crate::roles::Role;

/// A port that only the cluster's own nodes and the routers may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IsolatedPort {
    /// The port; the guard isolates it for TCP, UDP and SCTP.
    pub port: u16,
    /// Short name for rules, counters and reports.
    pub name: &'static str,
    /// What listens there.
    pub listener: &'static str,
}

/// etcd, its clients.
pub const ETCD_CLIENT: u16 = 2379;
/// etcd, its other members.
pub const ETCD_PEER: u16 = 2380;
/// kube-apiserver: where `api-*` names lead.
pub const API_SERVER: u16 = 8443;
/// The ingress' NodePort for plain HTTP.
pub const INGRESS_HTTP: u16 = 31380;
/// The ingress' NodePort for HTTPS.
pub const INGRESS_HTTPS: u16 = 31390;
/// flannel's VXLAN (UDP). Unauthenticated, so isolated where flannel is the network; not one of
/// the eleven.
pub const FLANNEL_VXLAN: u16 = 8472;

/// Ports of a master.
pub const MASTER: [IsolatedPort; 7] = [
    entry(ETCD_CLIENT, "etcd-client", "etcd, clients"),
    entry(ETCD_PEER, "etcd-peer", "etcd, other members"),
    entry(API_SERVER, "apiserver", "kube-apiserver"),
    // Gone since Kubernetes 1.23, and still shut: nothing else may take their place.
    entry(
        10251,
        "scheduler-http",
        "kube-scheduler, plain HTTP before 1.23",
    ),
    entry(
        10252,
        "controllers-http",
        "kube-controller-manager, plain HTTP before 1.23",
    ),
    entry(10257, "controllers", "kube-controller-manager"),
    entry(10259, "scheduler", "kube-scheduler"),
];

/// Ports of a worker.
pub const WORKER: [IsolatedPort; 4] = [
    entry(10250, "kubelet", "kubelet"),
    entry(10256, "kube-proxy", "kube-proxy, health"),
    entry(INGRESS_HTTP, "ingress-http", "ingress NodePort, plain HTTP"),
    entry(INGRESS_HTTPS, "ingress-https", "ingress NodePort, HTTPS"),
];

/// The ports of a role, masters' before workers'.
pub fn of(role: Role) -> impl Iterator<Item = &'static IsolatedPort> {
    let masters = if role.is_master() { &MASTER[..] } else { &[] };
    let workers = if role.is_worker() { &WORKER[..] } else { &[] };
    masters.iter().chain(workers)
}

const fn entry(port: u16, name: &'static str, listener: &'static str) -> IsolatedPort {
    IsolatedPort {
        port,
        name,
        listener,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(role: Role) -> Vec<u16> {
        of(role).map(|entry| entry.port).collect()
    }

    #[test]
    fn the_published_table() {
        assert_eq!(
            numbers(Role::Master),
            [2379, 2380, 8443, 10251, 10252, 10257, 10259]
        );
        assert_eq!(numbers(Role::Worker), [10250, 10256, 31380, 31390]);
    }

    #[test]
    fn a_single_node_has_all_eleven_once() {
        let mut all = numbers(Role::Single);
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 11);
    }
}
