//! What routes take in a running router, and whether replacing them takes more.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use router::registry::store::embedded::Embedded;
use router::registry::store::{Put, Store, Transaction};
use tokio::runtime::Runtime;

use super::cluster::{self, Cluster};
use super::population::{self, Population, TOGETHER, Writer, transaction, with_zone};
use super::record::{Kind, Memory, Replaced, Shape};
use super::served::served_and_leased;
use super::server::{Place, Server};
use crate::site::Site;

/// Full replacements.
const REPLACEMENTS: u32 = 10;

/// What is needed to start routers.
pub(crate) struct Workshop<'a> {
    pub(crate) router: &'a Path,
    pub(crate) core: usize,
    pub(crate) site: &'a mut Site,
    pub(crate) runtime: &'a Runtime,
}

impl Workshop<'_> {
    /// A router on an embedded store with so many routes.
    pub(crate) fn embedded(&mut self, shape: Shape, routes: u32) -> Result<Memory> {
        let name = format!("memory-embedded-{shape:?}-{routes}").to_lowercase();
        let state = self.prepare(&name, async |writer| fill(&writer, shape, routes).await)?;
        let place = Place::Embedded(state);
        self.measure(&name, &place, Kind::Embedded, shape, routes)
    }

    /// A router that follows a prefix of a cluster, where these routes are or are put now.
    pub(crate) fn etcd(
        &mut self,
        cluster: &Cluster,
        prefix: &str,
        shape: Shape,
        routes: u32,
    ) -> Result<Memory> {
        let writer = self
            .runtime
            .block_on(cluster::open(cluster.store(prefix)))?;
        self.runtime.block_on(fill(&writer, shape, routes))?;
        let place = Place::Etcd(cluster.store(prefix));
        let name = format!("memory-{prefix}");
        self.measure(&name, &place, Kind::Etcd, shape, routes)
    }

    /// Replaces all routes of a router by others, names and endpoints alike, again and again.
    pub(crate) fn replaced(&mut self, cluster: &Cluster, routes: u32) -> Result<Replaced> {
        let prefix = "replaced";
        let writer = self
            .runtime
            .block_on(cluster::open(cluster.store(prefix)))?;
        let filled = fill(&writer, Shape::Put, routes);
        self.runtime.block_on(filled)?;
        let place = Place::Etcd(cluster.store(prefix));
        let mut server = self.start(prefix, &place, routes)?;
        let mut bytes = vec![server.memory()?];
        for generation in 0..REPLACEMENTS {
            let before = server.metric("router_registry_changes_total")?;
            let replacement = replacement(routes, generation);
            self.runtime.block_on(writer.commit_all(replacement))?;
            // Each route that went, and each that came.
            let after = before + 2 * u64::from(routes);
            server.wait("router_registry_changes_total", after)?;
            server.wait("router_registry_routes", u64::from(routes))?;
            bytes.push(server.memory()?);
        }
        Ok(Replaced { routes, bytes })
    }

    /// A folder with an embedded store that `fill` has written to; nobody has it open.
    fn prepare(
        &mut self,
        name: &str,
        fill: impl AsyncFnOnce(Writer) -> Result<()>,
    ) -> Result<PathBuf> {
        let state = self.site.home(name)?.join("state");
        let filled = async {
            std::fs::create_dir_all(&state).context("state folder")?;
            let store = Embedded::open(&state).await.context("embedded store")?;
            fill(Writer::new(Store::Embedded(store))).await
        };
        self.runtime.block_on(filled)?;
        Ok(state)
    }

    /// A router on an embedded store with so many routes to a backend, and [`served`] besides.
    pub(crate) fn alive(&mut self, routes: u32, backend: SocketAddr) -> Result<Server> {
        let name = format!("alive-{routes}");
        let state = self.prepare(&name, async |writer| {
            writer.commit(&served_and_leased(backend)?).await?;
            writer.commit_all(population::alive(routes, backend)).await
        })?;
        self.start(&name, &Place::Embedded(state), routes + 1)
    }

    /// A router whose registry has so many routes.
    pub(crate) fn start(&mut self, name: &str, place: &Place, routes: u32) -> Result<Server> {
        Server::start(self.router, name, place, routes, self.core, self.site)
    }

    fn measure(
        &mut self,
        name: &str,
        place: &Place,
        kind: Kind,
        shape: Shape,
        routes: u32,
    ) -> Result<Memory> {
        let server = self.start(name, place, routes)?;
        let memory = Memory {
            kind,
            shape,
            routes,
            bytes: server.memory()?,
            ready_ms: u32::try_from(server.ready.as_millis()).context("time until ready")?,
        };
        drop(server);
        if let Place::Embedded(state) = place {
            // They lie in memory, and the next is larger.
            std::fs::remove_dir_all(state).context("state folder")?;
        }
        Ok(memory)
    }
}

async fn fill(writer: &Writer, shape: Shape, routes: u32) -> Result<()> {
    match shape {
        Shape::Put => writer.commit_all(Population::new(routes).load()).await,
        Shape::Announced => writer.commit_all(population::announced(routes)).await,
    }
}

/// Takes out the routes of a generation and puts in those of the next.
fn replacement(routes: u32, generation: u32) -> impl Iterator<Item = Result<Transaction>> {
    // Old and new ones, each with half as many zones.
    let half = TOGETHER / 3;
    let puts = move |first: u32, from: u32, to: u32| -> Result<Vec<Put>> {
        let numbers = from..to;
        numbers.flat_map(|at| with_zone(first + at, 0)).collect()
    };
    (0..routes).step_by(half).map(move |from| {
        let to = routes.min(from + half as u32);
        let old = puts(generation * routes, from, to)?;
        let mut made = transaction(puts((generation + 1) * routes, from, to)?);
        made.deletes = old.into_iter().map(|put| put.key).collect();
        Ok(made)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_replacement_leaves_nothing_of_what_there_was() {
        let before: HashSet<String> = Population::new(130)
            .load()
            .flat_map(|it| it.unwrap().puts)
            .map(|put| put.key)
            .collect();
        let (mut gone, mut come) = (HashSet::new(), HashSet::new());
        for transaction in replacement(130, 0) {
            let transaction = transaction.unwrap();
            gone.extend(transaction.deletes);
            come.extend(transaction.puts.into_iter().map(|put| put.key));
        }
        assert_eq!(gone, before);
        assert_eq!(come.len(), 130 + 65, "two routes, and the zone of both");
        assert!(come.is_disjoint(&before));
    }
}
