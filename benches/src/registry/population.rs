//! The routes that stand in a store, as records, and how they are written there.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use config::net::IpRange;
use config::route::HostMatch;
use router::registry::keys;
use router::registry::record::{Instance, Protocol, RouteSource, Zone};
use router::registry::route::{RegistryEndpoint, RegistryRoute};
use router::registry::shared::RouteRegistry;
use router::registry::store::{Committed, MOST_CHANGES, Put, Revision, Store, Transaction};
use tokio::task::JoinSet;

use crate::registry_lookup::routes::{Random, route};

/// Records of one transaction when many are written.
pub(crate) const TOGETHER: usize = 100;
/// Transactions on their way at a time.
pub(crate) const AT_ONCE: usize = 64;
/// What the names of all routes end with.
const HOSTS: &str = "*.k8s.example.org";
/// Where endpoints are that nobody connects to.
const NODES: &str = "10.0.0.0/8";
/// Where backends are that live.
pub(crate) const BACKENDS: &str = "127.0.0.0/8";
/// Whose routes lead to those.
pub(crate) const BENCH: &str = "bench";
/// The port of a route's last endpoint as long as it was never changed.
const FIRST_PORT: u16 = 31_390;

/// Routes by number, each with how often it was changed.
pub(crate) struct Population {
    versions: Vec<u16>,
    random: Random,
}

/// A change of one route: its last endpoint is at another port than ever before.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) host: HostMatch,
    pub(crate) port: u16,
    pub(crate) put: Put,
}

impl Population {
    pub(crate) fn new(size: u32) -> Self {
        Self {
            versions: vec![0; size as usize],
            random: Random::new(u64::from(size)),
        }
    }

    pub(crate) fn size(&self) -> u32 {
        u32::try_from(self.versions.len()).expect("it was made from a u32")
    }

    /// Every route as it stands now, in transactions, and its tenant's zone.
    pub(crate) fn load(&self) -> impl Iterator<Item = Result<Transaction>> {
        let puts = (0..self.size()).flat_map(|at| with_zone(at, self.versions[at as usize]));
        together(puts)
    }

    /// A route, drawn from all.
    pub(crate) fn any(&mut self) -> u32 {
        self.random(self.versions.len() as u64) as u32
    }

    /// A number below `limit`.
    pub(crate) fn random(&mut self, limit: u64) -> u64 {
        // The remainder favours low numbers by less than a millionth.
        self.random.next() % limit
    }

    /// Changes a route.
    pub(crate) fn change(&mut self, at: u32) -> Result<Change> {
        let version = &mut self.versions[at as usize];
        *version += 1;
        let route = route(at, *version)?;
        Ok(Change {
            host: route.host.clone(),
            port: FIRST_PORT + *version,
            put: put(&route),
        })
    }
}

/// A route, and before the first one of a cluster the zone of its tenant: routers take away what
/// stands in no zone.
pub(crate) fn with_zone(at: u32, version: u16) -> Vec<Result<Put>> {
    let route = route(at, version);
    let zone = match &route {
        Ok(route) if at.is_multiple_of(2) => Some(zone(&route.tenant, HOSTS, NODES)),
        _ => None,
    };
    let put = route.map(|route| put(&route));
    zone.into_iter().chain([put]).collect()
}

/// A lease of names and addresses.
pub(crate) fn zone(tenant: &str, pattern: &str, addresses: &str) -> Result<Put> {
    let pattern = HostMatch::parse(pattern).map_err(|error| anyhow!("{error}"))?;
    let addresses = IpRange::parse(addresses).map_err(|error| anyhow!("{error}"))?;
    let record = Zone {
        addresses: vec![addresses],
        shared: true,
    };
    Ok(Put {
        key: keys::zone(tenant, &pattern),
        value: serde_json::to_vec(&record)
            .expect("a record is JSON")
            .into(),
        lease: None,
    })
}

/// One record per route, with all its endpoints.
pub(crate) fn put(route: &RegistryRoute) -> Put {
    let endpoints = route.endpoints.iter().map(|it| it.address).collect();
    source(route, keys::API_SOURCE, endpoints)
}

/// The routes as they lead to a backend that lives, all of one tenant: whichever is asked for, its
/// connections are warm, so that among many routes nothing but the way through the table is longer.
pub(crate) fn alive(routes: u32, backend: SocketAddr) -> impl Iterator<Item = Result<Transaction>> {
    let zone = zone(BENCH, HOSTS, BACKENDS);
    together([zone].into_iter().chain((0..routes).map(move |at| {
        let tls = None;
        let address = backend;
        let endpoint = RegistryEndpoint { address, tls };
        Ok(put(&RegistryRoute {
            tenant: BENCH.into(),
            endpoints: vec![endpoint],
            ..route(at, 0)?
        }))
    })))
}

/// The routes as registrars announce them: each worker of a cluster names its own endpoint for both
/// rules of the cluster, and has a record of its announcement.
pub(crate) fn announced(routes: u32) -> impl Iterator<Item = Result<Transaction>> {
    let clusters = (0..routes / 2).flat_map(|cluster| {
        let rules = [route(2 * cluster, 0), route(2 * cluster + 1, 0)];
        match rules {
            [Ok(name), Ok(suffix)] => instances(&name, &suffix).into_iter().map(Ok).collect(),
            [Err(error), _] | [_, Err(error)] => vec![Err(error)],
        }
    });
    together(clusters)
}

fn instances(name: &RegistryRoute, suffix: &RegistryRoute) -> Vec<Put> {
    let mut puts = Vec::from_iter(zone(&name.tenant, HOSTS, NODES));
    for (worker, endpoint) in name.endpoints.iter().enumerate() {
        let instance = format!("worker-{worker}");
        for route in [name, suffix] {
            puts.push(source(route, &instance, vec![endpoint.address]));
        }
        let record = Instance {
            digest: "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef".into(),
            ttl: 60,
            hosts: vec![name.host.to_string(), suffix.host.to_string()],
            credential: format!("certificate:{}", name.tenant),
        };
        puts.push(Put {
            key: keys::instance(&name.tenant, &instance),
            value: serde_json::to_vec(&record)
                .expect("a record is JSON")
                .into(),
            lease: None,
        });
    }
    puts
}

fn source(route: &RegistryRoute, name: &str, endpoints: Vec<SocketAddr>) -> Put {
    let record = RouteSource {
        endpoints,
        protocol: Protocol::Http1,
        tls: None,
        shared: route.shared,
        check: None,
        ttl: Some(60),
        credential: None,
    };
    Put {
        key: keys::route(&route.host, &route.tenant, name),
        value: serde_json::to_vec(&record)
            .expect("a record is JSON")
            .into(),
        lease: None,
    }
}

/// A transaction that writes this and nothing else, whatever is there.
pub(crate) fn transaction(puts: Vec<Put>) -> Transaction {
    Transaction {
        puts,
        ..Transaction::default()
    }
}

fn together(puts: impl Iterator<Item = Result<Put>>) -> impl Iterator<Item = Result<Transaction>> {
    const { assert!(TOGETHER <= MOST_CHANGES) };
    let mut puts = puts.peekable();
    std::iter::from_fn(move || {
        puts.peek()?;
        let some: Result<Vec<Put>> = puts.by_ref().take(TOGETHER).collect();
        Some(some.map(transaction))
    })
}

/// A store that is written to. The embedded one is the very store that is followed.
#[derive(Clone)]
pub(crate) struct Writer(Arc<RouteRegistry>);

impl Writer {
    pub(crate) fn new(store: Store) -> Self {
        Self(Arc::new(RouteRegistry::new(store)))
    }

    /// Of a registry whose follower runs in this process.
    pub(crate) fn of(registry: Arc<RouteRegistry>) -> Self {
        Self(registry)
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    /// Commits, and insists that it is done.
    pub(crate) async fn commit(&self, transaction: &Transaction) -> Result<Revision> {
        match self.store().commit(transaction).await.context("commit")? {
            Committed::Done(revision) => Ok(revision),
            Committed::Conflict => bail!("a commit without conditions had a conflict"),
        }
    }

    /// Commits all, some at a time, in no particular order.
    pub(crate) async fn commit_all(
        &self,
        transactions: impl Iterator<Item = Result<Transaction>>,
    ) -> Result<()> {
        let mut running = JoinSet::new();
        for transaction in transactions {
            let transaction = transaction?;
            if running.len() == AT_ONCE
                && let Some(done) = running.join_next().await
            {
                done.context("a commit")??;
            }
            let writer = self.clone();
            running.spawn(async move { writer.commit(&transaction).await });
        }
        while let Some(done) = running.join_next().await {
            done.context("a commit")??;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use router::registry::store::{KeyValue, Listing};
    use router::registry::view::View;

    use super::*;

    fn view(transactions: impl Iterator<Item = Result<Transaction>>) -> View {
        let mut view = View::default();
        let puts = transactions.flat_map(|it| it.unwrap().puts);
        let mut entries: Vec<KeyValue> = puts
            .map(|put| KeyValue {
                key: put.key,
                value: put.value,
                created: Revision(1),
                modified: Revision(1),
                lease: None,
            })
            .collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        view.reset(Listing {
            revision: Revision(1),
            entries,
        });
        view
    }

    #[test]
    fn records_are_read_as_the_routes_they_stand_for() {
        for view in [view(Population::new(250).load()), view(announced(250))] {
            assert_eq!(view.len(), 250);
            assert_eq!(view.unreadable().len(), 0);
            for at in [0, 1, 249] {
                let route = route(at, 0).unwrap();
                assert_eq!(view.route(&route.host), Some(route));
            }
        }
    }

    #[test]
    fn a_change_shows_in_the_port_of_the_last_endpoint() {
        let mut population = Population::new(10);
        population.change(3).unwrap();
        let change = population.change(3).unwrap();
        let view = view(population.load());
        let changed = view.route(&change.host).unwrap();
        assert_eq!(
            changed.endpoints.last().unwrap().address.port(),
            change.port
        );
        assert_ne!(
            view.route(&route(2, 0).unwrap().host).unwrap().endpoints[2]
                .address
                .port(),
            change.port
        );
    }
}
