//! The route registry: how fast a change is in force beside a bare watch, and what routes cost when
//! there are many.
//!
//! ```text
//! lookups      a control plane alone, up to a million hosts (`registry_lookup`)
//! propagation  writer --> etcd or embedded store --> follower and control plane, and a bare watch;
//!              storms  all in this process but etcd, on all cores
//! memory       the router as it is released, on a store with many routes
//! requests     the same, loaded as in `router`, and by requests for any host
//! served       the same, while storms come over etcd
//! ```

mod cluster;
mod followed;
mod memory;
mod population;
mod propagation;
mod quantile;
mod record;
mod report;
mod served;
mod server;

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tokio::runtime::{Builder, Runtime};

use self::cluster::{Cluster, WINDOW};
use self::followed::Followed;
use self::memory::Workshop;
use self::propagation::Stand;
use self::record::{Kind, Record, Scene, Settings, Shape};
use self::served::Stormed;
use crate::backend;
use crate::process::Cores;
use crate::publication;
use crate::registry_lookup;
use crate::site::Site;

/// What to run. A run of all parts that is not quick writes its results to docs/results; another is
/// only printed, unless --out says where to write it.
#[derive(Args)]
pub(crate) struct RegistryBench {
    /// Rounds; each goes over all that is compared.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Small numbers and few rounds, for a quick look.
    #[arg(long)]
    quick: bool,
    /// Parts to run, comma separated.
    #[arg(long, value_enum, value_delimiter = ',')]
    parts: Vec<Part>,
    /// The router's binary, or else the variable GATEHOUSE_ROUTER; built by cargo (release) when
    /// both are absent.
    #[arg(long)]
    router: Option<PathBuf>,
    /// Folder that registry.md and registry.json are written to.
    #[arg(long)]
    out: Option<PathBuf>,
    /// Write to docs/results although there are fewer than five rounds or the machine is busy; the
    /// page then says so.
    #[arg(long)]
    anyway: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Lookups and changes of the table, 10 to 1,000,000 hosts.
    Lookup,
    /// From a change to the snapshot, beside a bare watch.
    Propagation,
    /// Ten thousand changes at once.
    Storms,
    /// Memory per route of a running router.
    Memory,
    /// CPU time per request among few and many routes.
    Requests,
    /// Requests while a storm is followed.
    Served,
}

/// How much of everything.
struct Extent {
    rounds: u32,
    /// Routes that stand in etcd while changes are timed.
    followed: &'static [u32],
    singles: u32,
    bursts: u32,
    storm: u32,
    /// Routes of routers on an embedded store.
    embedded: &'static [u32],
    replaced: u32,
    requests: &'static [u32],
    seconds: f64,
    lookup_rounds: u32,
    lookup_most: u32,
}

const FULL: Extent = Extent {
    rounds: 5,
    followed: &[100, 10_000, 100_000],
    singles: 60,
    bursts: 6,
    storm: 10_000,
    embedded: &[0, 100, 10_000, 100_000, 1_000_000],
    replaced: 10_000,
    requests: &[10, 100_000, 1_000_000],
    seconds: 1.5,
    lookup_rounds: 15,
    lookup_most: 1_000_000,
};

const QUICK: Extent = Extent {
    rounds: 2,
    followed: &[100, 10_000],
    singles: 10,
    bursts: 2,
    storm: 2_000,
    embedded: &[0, 10_000],
    replaced: 2_000,
    requests: &[10, 10_000],
    seconds: 0.3,
    lookup_rounds: 2,
    lookup_most: 10_000,
};

/// Runs the bench and writes or prints its results.
pub(crate) fn run(bench: &RegistryBench) -> Result<()> {
    let mut extent = if bench.quick { QUICK } else { FULL };
    if !bench.quick {
        extent.rounds = bench.rounds;
    }
    let wants = |part| bench.parts.is_empty() || bench.parts.contains(&part);
    let complete = bench.parts.is_empty() && !bench.quick;
    let is_published = complete && bench.out.is_none();
    let mut record = Record {
        machine: publication::machine(extent.rounds, is_published, bench.anyway)?,
        settings: Settings {
            rounds: extent.rounds,
            quick: bench.quick,
            window_ms: WINDOW.as_millis() as u32,
            rig_core: 0,
            router_core: 0,
        },
        etcd: cluster::version(),
        delays: Vec::new(),
        storms: Vec::new(),
        memory: Vec::new(),
        replaced: None,
        requests: Vec::new(),
        served: Vec::new(),
        lookup: None,
    };
    if wants(Part::Lookup) {
        let lookup = registry_lookup::measure(extent.lookup_rounds, extent.lookup_most);
        record.lookup = Some(lookup?);
    }
    let mut site = Site::new()?;
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build()
        .context("runtime")?;
    let cluster = Cluster::start(&mut site)?;
    if wants(Part::Propagation) || wants(Part::Storms) {
        let (changes, storms) = (wants(Part::Propagation), wants(Part::Storms));
        follow(&cluster, &runtime, &extent, (changes, storms), &mut record)?;
    }
    let served = [Part::Memory, Part::Requests, Part::Served];
    if served.into_iter().any(wants) {
        let router = crate::runner::router(bench.router.as_ref())?;
        // From here on this process and what it starts keep to their cores.
        let cores = Cores::claim()?;
        record.settings.rig_core = cores.rig;
        record.settings.router_core = cores.contender;
        let address = site.address()?;
        let home = site.home("backend")?;
        let mut workshop = Workshop {
            router: &router,
            core: cores.contender,
            site: &mut site,
            runtime: &runtime,
        };
        if wants(Part::Memory) {
            memory(&cluster, &mut workshop, &extent, &mut record)?;
        }
        let _backend = backend::start(address, &home, cores)?;
        if wants(Part::Requests) {
            let (rounds, seconds) = (extent.rounds, extent.seconds);
            record.requests =
                served::requests(&mut workshop, address, extent.requests, rounds, seconds)?;
        }
        if wants(Part::Served) {
            let routes = *extent.followed.last().context("sizes")?;
            let mut stormed = Stormed::start(&mut workshop, &cluster, address, routes, cores.rig)?;
            for round in 0..extent.rounds {
                progress("storms and requests", round, extent.rounds);
                for scene in [Scene::Quiet, Scene::Elsewhere, Scene::Followed] {
                    record
                        .served
                        .push(stormed.play(scene, round, extent.storm)?);
                }
            }
        }
    }
    show(&report::tables(&record))?;
    let out = bench.out.clone();
    match out.or_else(|| complete.then(|| PathBuf::from("docs/results"))) {
        Some(out) => write(&record, &out),
        None => Ok(()),
    }
}

/// Changes and storms, while this process follows.
fn follow(
    cluster: &Cluster,
    runtime: &Runtime,
    extent: &Extent,
    (changes, storms): (bool, bool),
    record: &mut Record,
) -> Result<()> {
    let mut stands = Vec::new();
    for &routes in extent.followed {
        let followed = Followed::etcd(cluster, &format!("routes-{routes}"), runtime)?;
        stands.push(Stand::load(Kind::Etcd, followed, routes, runtime)?);
    }
    let most = *extent.followed.last().context("sizes")?;
    let embedded = Followed::embedded()?;
    stands.push(Stand::load(Kind::Embedded, embedded, most, runtime)?);
    if changes {
        for stand in &mut stands {
            stand.singles(0, extent.singles / 4, runtime)?;
        }
        for round in 0..extent.rounds {
            progress("propagation", round, extent.rounds);
            let count = stands.len();
            for turn in 0..count {
                let stand = &mut stands[(turn + round as usize) % count];
                record
                    .delays
                    .push(stand.singles(round, extent.singles, runtime)?);
                record
                    .delays
                    .push(stand.bursts(round, extent.bursts, runtime)?);
            }
        }
    }
    if storms {
        for round in 0..extent.rounds {
            progress("storms", round, extent.rounds);
            for stand in stands.iter_mut().filter(|it| it.population.size() == most) {
                for together in [1, population::TOGETHER] {
                    let storm = stand.storm(round, extent.storm, together, runtime)?;
                    record.storms.push(storm);
                }
            }
        }
    }
    Ok(())
}

fn memory(
    cluster: &Cluster,
    workshop: &mut Workshop<'_>,
    extent: &Extent,
    record: &mut Record,
) -> Result<()> {
    for &routes in extent.embedded {
        eprintln!("memory: {routes} routes, embedded");
        let measured = workshop.embedded(Shape::Put, routes)?;
        record.memory.push(measured);
    }
    for &routes in [0].iter().chain(extent.followed) {
        eprintln!("memory: {routes} routes, etcd");
        let prefix = format!("memory-{routes}");
        let measured = workshop.etcd(cluster, &prefix, Shape::Put, routes)?;
        record.memory.push(measured);
    }
    let most = *extent.followed.last().context("sizes")?;
    eprintln!("memory: {most} routes as announced");
    let measured = workshop.embedded(Shape::Announced, most)?;
    record.memory.push(measured);
    eprintln!("memory: {} routes replaced", extent.replaced);
    record.replaced = Some(workshop.replaced(cluster, extent.replaced)?);
    Ok(())
}

fn write(record: &Record, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("folder {}", out.display()))?;
    let json = serde_json::to_string_pretty(record).context("raw results")?;
    fs::write(out.join("registry.json"), json + "\n").context("registry.json")?;
    fs::write(out.join("registry.md"), report::document(record)).context("registry.md")?;
    show(&format!("Written to {}\n", out.display()))
}

fn show(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

fn progress(what: &str, round: u32, rounds: u32) {
    eprintln!("{what}: round {} of {rounds}", round + 1);
}
