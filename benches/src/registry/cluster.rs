//! A real etcd cluster: three members on loopback, mutual TLS, their data in memory.
//!
//! Its disks would slow a bare watch and the router's follower alike, and hide what lies between the
//! two.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use config::router::{EtcdStore, RegistryConfig, RegistryStore};
use harness::etcd;
use router::registry::store::Store;

use super::population::Writer;
use crate::contender::first_line;
use crate::process;
use crate::site::Site;

/// Members of a cluster.
const MEMBERS: usize = 3;

/// The router's default.
pub(crate) const WINDOW: Duration = Duration::from_millis(50);

/// The cluster; its members are killed when this is dropped.
pub(crate) struct Cluster(etcd::Cluster);

impl Cluster {
    /// Starts it and waits until all members are healthy.
    pub(crate) fn start(site: &mut Site) -> Result<Self> {
        // One address for all: a member looks for the address that another comes from in that
        // one's certificate, and on loopback that is this one.
        let place = |client: SocketAddr, peer: SocketAddr| etcd::Place {
            namespace: None,
            ip: client.ip(),
            client_port: client.port(),
            peer_port: peer.port(),
        };
        let places = (0..MEMBERS)
            .map(|_| Ok(place(site.address()?, site.address()?)))
            .collect::<Result<Vec<_>>>()?;
        etcd::Cluster::start(&site.home("etcd")?, &places).map(Self)
    }

    /// How a router gets to the part of it under a prefix.
    pub(crate) fn store(&self, prefix: &str) -> EtcdStore {
        EtcdStore {
            endpoints: self.0.endpoints(),
            ca: self.0.ca(),
            certificate: self.0.certificate(),
            key: self.0.key(),
            prefix: format!("/{prefix}/"),
            compaction: Duration::ZERO,
        }
    }

    /// Keeps all members to a core, behind whoever else has something to do there.
    pub(crate) fn stand_back(&self, core: usize) -> Result<()> {
        for member in 0..MEMBERS {
            process::stand_back(self.0.pid(member), core)?;
        }
        Ok(())
    }
}

/// Opens a part of a cluster for writing, on connections of its own.
pub(crate) async fn open(store: EtcdStore) -> Result<Writer> {
    let config = registry_config(RegistryStore::Etcd(store), Path::new("/"));
    let store = Store::open(&config).await.context("etcd")?;
    Ok(Writer::new(store))
}

/// What the registry is told in a router's configuration.
pub(crate) fn registry_config(store: RegistryStore, state: &Path) -> RegistryConfig {
    RegistryConfig {
        api: None,
        store,
        state: state.to_owned(),
        batch: WINDOW,
        ticket_rotation: Duration::from_secs(6 * 3600),
    }
}

/// What etcd says about itself.
pub(crate) fn version() -> String {
    first_line("etcd", &["--version"])
}
