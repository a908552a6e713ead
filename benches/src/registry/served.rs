//! What clients of a running router notice of its registry: CPU time per request among few and many
//! routes, and how long requests take while a storm is followed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use config::route::{HostMatch, UpstreamProtocol};
use config::router::EtcdStore;
use nix::unistd::gettid;
use router::registry::route::{RegistryEndpoint, RegistryRoute};
use router::registry::store::Transaction;

use super::cluster::{self, Cluster};
use super::memory::Workshop;
use super::population::{self, BACKENDS, BENCH, Population, transaction};
use super::record::{Load, Micros, Requests, Scene, Served};
use super::server::{Place, Server};
use crate::load::exchange::{Connection, Version, client};
use crate::load::{self, Done, Target, hosts};
use crate::process;
use crate::registry_lookup::routes::name as host;
use crate::row::Row;
use crate::site::HOST;

/// What is left to a router after the load to close connections; idle time costs no CPU.
const SETTLE: Duration = Duration::from_millis(50);
/// From one timed request to the next.
const BEAT: Duration = Duration::from_millis(1);
/// Changes of a transaction of a storm: one registrar's worth of an application with two names.
pub(crate) const STORM_TOGETHER: usize = 2;
/// How long nothing goes on.
const QUIET: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(20);
/// Longer than any storm lasts.
const PATIENCE: Duration = Duration::from_secs(60);

/// In this order.
pub(crate) const LOADS: [Load; 3] = [Load::H1, Load::H2, Load::Any];

/// CPU time per request of routers that have few and many routes, side by side.
pub(crate) fn requests(
    workshop: &mut Workshop<'_>,
    backend: SocketAddr,
    sizes: &[u32],
    rounds: u32,
    seconds: f64,
) -> Result<Vec<Requests>> {
    let mut servers = Vec::new();
    for &routes in sizes {
        servers.push((routes, workshop.alive(routes, backend)?));
    }
    let mut measured = Vec::new();
    for load in LOADS {
        let count = requests_of(load, seconds);
        for (routes, server) in &servers {
            run(load, count / 4, *routes, &server.target)?;
        }
        for round in 0..rounds {
            eprintln!("requests, {}: round {} of {rounds}", name(load), round + 1);
            for turn in 0..servers.len() {
                let (routes, server) = &servers[(turn + round as usize) % servers.len()];
                let before = server.cpu()?;
                let done = run(load, count, *routes, &server.target)?;
                thread::sleep(SETTLE);
                let used = server.cpu()?.saturating_sub(before);
                measured.push(Requests {
                    load,
                    routes: *routes,
                    round,
                    requests: done.requests,
                    cpu_ns: nanoseconds(used),
                    wall_ns: nanoseconds(done.wall),
                });
            }
        }
    }
    Ok(measured)
}

/// What a load is called.
pub(crate) fn name(load: Load) -> &'static str {
    match load {
        Load::H1 => Row::H1.name(),
        Load::H2 => Row::H2.name(),
        Load::Any => "any host",
    }
}

fn requests_of(load: Load, seconds: f64) -> u32 {
    match load {
        Load::H1 | Load::Any => Row::H1.requests(seconds),
        Load::H2 => Row::H2.requests(seconds),
    }
}

fn run(load: Load, requests: u32, routes: u32, target: &Target) -> Result<Done> {
    match load {
        Load::H1 => load::run(Row::H1, requests, target),
        Load::H2 => load::run(Row::H2, requests, target),
        Load::Any => {
            let mut population = Population::new(routes);
            hosts::run(target, requests, || host(population.any()))
        }
    }
}

/// A router that follows routes which are changed in storms, and requests through it meanwhile.
pub(crate) struct Stormed {
    server: Server,
    followed: EtcdStore,
    elsewhere: EtcdStore,
    population: Population,
    rig: usize,
}

impl Stormed {
    /// Starts it.
    pub(crate) fn start(
        workshop: &mut Workshop<'_>,
        cluster: &Cluster,
        backend: SocketAddr,
        routes: u32,
        rig: usize,
    ) -> Result<Self> {
        let population = Population::new(routes);
        let followed = cluster.store("stormed");
        workshop.runtime.block_on(async {
            let writer = cluster::open(followed.clone()).await?;
            writer.commit_all(population.load()).await?;
            writer.commit(&served_and_leased(backend)?).await
        })?;
        let place = Place::Etcd(followed.clone());
        let server = workshop.start("stormed", &place, routes + 1)?;
        cluster.stand_back(rig)?;
        Ok(Self {
            server,
            followed,
            elsewhere: cluster.store("elsewhere"),
            population,
            rig,
        })
    }

    /// Times requests during a scene.
    pub(crate) fn play(&mut self, scene: Scene, round: u32, changes: u32) -> Result<Served> {
        let storm = match scene {
            Scene::Quiet => None,
            Scene::Elsewhere => Some(self.elsewhere.clone()),
            Scene::Followed => Some(self.followed.clone()),
        };
        let transactions = self.transactions(changes)?;
        let ended = AtomicBool::new(false);
        let (before, cpu) = (self.counts()?, self.server.cpu()?);
        let (latency, wall) = thread::scope(|scope| -> Result<_> {
            let client = scope.spawn(|| paced(&self.server.target, &ended));
            let begun = Instant::now();
            let rig = self.rig;
            let storm = storm.map(|store| scope.spawn(move || write(store, transactions, rig)));
            let watched = self.wait(|now| match (scene, &storm) {
                (_, None) => begun.elapsed() >= QUIET,
                (Scene::Followed, _) => now.changes == before.changes + u64::from(changes),
                (_, Some(storm)) => storm.is_finished(),
            });
            let wall = begun.elapsed();
            ended.store(true, Ordering::Relaxed);
            let latency = client.join().map_err(|_| anyhow!("the client panicked"))?;
            if let Some(storm) = storm {
                storm.join().map_err(|_| anyhow!("the storm panicked"))??;
            }
            watched?;
            Ok((latency?, wall))
        })?;
        let (after, used) = (self.counts()?, self.server.cpu()?);
        Ok(Served {
            scene,
            routes: self.population.size(),
            changes,
            round,
            wall_ns: nanoseconds(wall),
            cpu_ns: nanoseconds(used.saturating_sub(cpu)),
            snapshots: u32::try_from(after.batches - before.batches).context("batches")?,
            latency: Micros(latency),
        })
    }

    fn transactions(&mut self, changes: u32) -> Result<Vec<Transaction>> {
        let step = self.population.size() / changes;
        let changed = (0..changes).map(|number| self.population.change(number * step));
        let puts = changed.map(|change| change.map(|it| it.put));
        let puts = puts.collect::<Result<Vec<_>>>()?;
        let chunks = puts.chunks(STORM_TOGETHER);
        Ok(chunks.map(|some| transaction(some.to_vec())).collect())
    }

    /// Asks the router, equally often in each scene: that costs something as well.
    fn wait(&self, enough: impl Fn(&Counts) -> bool) -> Result<()> {
        let begun = Instant::now();
        while !enough(&self.counts()?) {
            ensure!(begun.elapsed() < PATIENCE, "the storm does not end");
            thread::sleep(POLL);
        }
        Ok(())
    }

    fn counts(&self) -> Result<Counts> {
        let total = |what| self.server.metric(&format!("router_registry_{what}_total"));
        Ok(Counts {
            changes: total("changes")?,
            batches: total("batches")?,
        })
    }
}

/// What the router has counted.
struct Counts {
    changes: u64,
    batches: u64,
}

/// The thread of a storm. It gives way to client and backend, which have the same core.
fn write(store: EtcdStore, transactions: Vec<Transaction>, rig: usize) -> Result<()> {
    process::stand_back_thread(&gettid().to_string(), rig)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    runtime.block_on(async {
        let writer = cluster::open(store).await?;
        writer.commit_all(transactions.into_iter().map(Ok)).await
    })
}

/// Sends a request every beat, or as soon as the one before is answered, and tells how long each took
/// from when it was due. In microseconds.
fn paced(target: &Target, ended: &AtomicBool) -> Result<Vec<u32>> {
    let config = client(Version::Tls13, &target.authority)?;
    let mut connection = Connection::exchange(target.https, &config)?;
    let mut latency = Vec::new();
    let mut due = Instant::now();
    while !ended.load(Ordering::Relaxed) {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        connection.again()?;
        let micros = due.elapsed().as_micros();
        latency.push(u32::try_from(micros).unwrap_or(u32::MAX));
        due += BEAT;
    }
    connection.close();
    Ok(latency)
}

/// The route that requests take, and its zone.
pub(crate) fn served_and_leased(backend: SocketAddr) -> Result<Transaction> {
    let zone = population::zone(BENCH, HOST, BACKENDS)?;
    Ok(transaction(vec![zone, population::put(&served(backend)?)]))
}

/// The route that requests take.
fn served(backend: SocketAddr) -> Result<RegistryRoute> {
    Ok(RegistryRoute {
        host: HostMatch::parse(HOST).map_err(|error| anyhow!("{error}"))?,
        tenant: BENCH.into(),
        shared: false,
        protocol: UpstreamProtocol::Http1,
        endpoints: vec![RegistryEndpoint {
            address: backend,
            tls: None,
        }],
        check: None,
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("no window lasts 500 years")
}
