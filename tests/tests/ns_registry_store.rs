//! The registry's stores, embedded and on a real etcd: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::etcd::{Cluster, Place};
use harness::folder::Folder;
use harness::namespace::Network;

#[test]
fn the_harness_cluster_elects_again_when_its_leader_is_killed_or_halted() {
    let folder = Folder::new("etcd").unwrap();
    let mut network = Network::new().unwrap();
    let places: Vec<Place> = (0..3)
        .map(|index| Place::on(&network.host(&format!("etcd{index}")).unwrap()))
        .collect();
    let mut cluster = Cluster::start(folder.path(), &places).unwrap();
    let first = cluster.leader().unwrap();
    cluster.kill(first);
    let second = cluster.leader().unwrap();
    assert_ne!(first, second);
    cluster.restart(first).unwrap();
    cluster.wait_healthy().unwrap();
    cluster.stop(second);
    assert_ne!(cluster.leader().unwrap(), second);
    cluster.etcdctl(&["put", "key", "value"]).unwrap();
    cluster.cont(second);
    cluster.wait_healthy().unwrap();
    assert!(cluster.etcdctl(&["get", "key"]).unwrap().contains("value"));
}
