//! The registry's store on a real etcd, and what it survives: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

mod registry_suite;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::router::EtcdStore;
use harness::ca::{Ca, KeyKind};
use harness::etcd::{Cluster, ELECTION_TIMEOUT, Place};
use harness::folder::Folder;
use harness::namespace::{Host, Network};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use registry_suite::{Follow, done, puts, soon};
use router::registry::store::embedded::{Embedded, FILE_NAME};
use router::registry::store::etcd::Etcd;
use router::registry::store::{
    Batch, Committed, Event, MOST_CHANGES, Put, Revision, Store, StoreError, Transaction,
};

/// The longest that a call may take, and something for a busy machine.
const CALL: Duration = Duration::from_millis(3_500);
/// The longest until a watch notices that its member is silent.
const SILENT: Duration = Duration::from_millis(4_500);
/// Until a watch is ended by a member that has no leader: it has to notice, and etcd waits three
/// election timeouts more.
const LEADERLESS: Duration = Duration::from_secs(4 + 3);

/// A cluster of three, and a host for a router.
struct Scene {
    folder: Folder,
    network: Network,
    router: Host,
    cluster: Cluster,
}

impl Scene {
    fn new(label: &str) -> Self {
        Self::with(label, &[])
    }

    fn with(label: &str, arguments: &[&str]) -> Self {
        let folder = Folder::new(label).unwrap();
        let mut network = Network::new().unwrap();
        let places: Vec<Place> = (0..3)
            .map(|index| Place::on(&network.host(&format!("etcd{index}")).unwrap()))
            .collect();
        let router = network.host("router").unwrap();
        let cluster = Cluster::start_with(folder.path(), &places, arguments).unwrap();
        Self {
            folder,
            network,
            router,
            cluster,
        }
    }

    /// The configuration of a router that asks this member first.
    fn config(&self, prefix: &str, first: usize) -> EtcdStore {
        let mut endpoints = self.cluster.endpoints();
        endpoints.rotate_left(first);
        EtcdStore {
            endpoints,
            ca: self.cluster.ca(),
            certificate: self.cluster.certificate(),
            key: self.cluster.key(),
            prefix: prefix.to_owned(),
        }
    }

    fn store(&self, first: usize) -> Arc<Store> {
        let store = Etcd::open(&self.config("/gatehouse/", first)).unwrap();
        Arc::new(Store::Etcd(store))
    }
}

/// Runs what a router does, on its host.
fn on(host: &Host, action: impl AsyncFnOnce() + Send) {
    host.namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, action());
    });
}

#[test]
fn every_rule_of_a_store_holds() {
    let scene = Scene::new("etcd-rules");
    on(&scene.router, async || {
        registry_suite::run(async |name| {
            let config = scene.config(&format!("/gatehouse/{name}/"), 0);
            Store::Etcd(Etcd::open(&config).unwrap())
        })
        .await;
        // Beside ours, and none of them was touched.
        let store = scene.store(0);
        assert!(!store.list().await.unwrap().entries.is_empty());
    });
}
