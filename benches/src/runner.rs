//! The run: who is loaded when, and what is written at the end.

use std::fs;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::RouterBench;
use crate::backend;
use crate::contender::{Built, Contender, Place};
use crate::load::exchange::{Choice, Connection, Version, client};
use crate::load::{self, Target, idle};
use crate::machine::Machine;
use crate::measure;
use crate::process::{Cores, Process};
use crate::publication;
use crate::record::{Discarded, Participant, Record, Settings, Window};
use crate::report;
use crate::row::Row;
use crate::site::Site;

/// Times a window is tried before the contender goes without it.
const ATTEMPTS: u32 = 3;
/// What is left to a contender after the load to close connections; idle time costs no CPU.
const SETTLE: Duration = Duration::from_millis(50);
/// Descriptors that the row `idle` needs besides its connections.
const SPARE_FILES: u64 = 200;

/// Runs the bench and writes or prints its results.
pub(crate) fn run(bench: RouterBench) -> Result<()> {
    let everything = bench.rows.is_empty() && bench.contender.is_empty();
    let rows = chosen(&bench.rows, &Row::ALL);
    let contenders = chosen(&bench.contender, &Contender::ALL);
    let built = build(&bench, &contenders)?;
    raise_file_limit(u64::from(bench.idle_connections) + SPARE_FILES)?;
    let is_published = everything && bench.out.is_none();
    let machine = publication::machine(bench.rounds, is_published, bench.anyway)?;
    let cores = Cores::claim()?;
    let settings = Settings {
        rounds: bench.rounds,
        seconds: bench.seconds,
        idle_connections: bench.idle_connections,
        rig_core: cores.rig,
        contender_core: cores.contender,
    };
    let mut rig = Rig::start(settings, machine, built, cores, &contenders)?;
    for row in rows {
        match row {
            Row::Idle => rig.hold(&contenders)?,
            row => rig.load(row)?,
        }
    }
    let record = rig.record;
    show(&report::tables(&record))?;
    let out = bench
        .out
        .or_else(|| everything.then(|| PathBuf::from("docs/results")));
    if let Some(out) = out {
        write(&record, &out)?;
    }
    ensure!(!record.windows.is_empty(), "nothing was measured");
    Ok(())
}

/// Everything that runs.
struct Rig {
    // Fields are dropped in this order: contenders, their backend, the folder they use.
    standing: Vec<Standing>,
    _backend: Process,
    site: Site,
    backend: SocketAddr,
    built: Built,
    cores: Cores,
    record: Record,
    /// Set by SIGINT and SIGTERM: what runs is ended in order and nothing is left behind.
    interrupted: Arc<AtomicBool>,
}

/// A contender that is up.
struct Standing {
    contender: Contender,
    process: Process,
    target: Target,
    configuration: String,
}

impl Rig {
    fn start(
        settings: Settings,
        machine: Machine,
        built: Built,
        cores: Cores,
        contenders: &[Contender],
    ) -> Result<Self> {
        let mut site = Site::new()?;
        let address = site.address()?;
        let process = backend::start(address, &site.home("backend")?, cores)?;
        let record = Record {
            machine,
            settings,
            contenders: Vec::new(),
            windows: Vec::new(),
            discarded: Vec::new(),
        };
        let mut rig = Rig {
            standing: Vec::new(),
            _backend: process,
            site,
            backend: address,
            built,
            cores,
            record,
            interrupted: interruption()?,
        };
        for contender in contenders {
            let standing = rig.raise(*contender, contender.name())?;
            rig.record.contenders.push(Participant {
                contender: *contender,
                version: contender.version(&rig.built),
                configuration: standing.configuration.clone(),
                forwarded: forwarded(&standing.target)
                    .with_context(|| format!("request through {}", contender.name()))?,
                tls: choices(&standing.target)
                    .with_context(|| format!("handshake with {}", contender.name()))?,
            });
            rig.standing.push(standing);
        }
        Ok(rig)
    }

    /// Starts a contender and waits for both its listeners.
    fn raise(&mut self, contender: Contender, home: &str) -> Result<Standing> {
        let place = Place {
            home: self.site.home(home)?,
            http: self.site.address()?,
            https: self.site.address()?,
            backend: self.backend,
            certificate: self.site.certificate.clone(),
            key: self.site.key.clone(),
        };
        let launch = contender.command(&place, &self.built)?;
        let (name, core) = (contender.name(), self.cores.contender);
        let mut process = Process::start(name, &launch.command, core, &place.home)?;
        process.wait_for(place.http)?;
        process.wait_for(place.https)?;
        let authority = self.site.authority.clone();
        let target = Target {
            http: place.http,
            https: place.https,
            authority,
        };
        Ok(Standing {
            contender,
            process,
            target,
            configuration: launch.configuration,
        })
    }

    /// One row of load: a warm-up each, then rounds over all contenders.
    fn load(&mut self, row: Row) -> Result<()> {
        let requests = row.requests(self.record.settings.seconds);
        for standing in &self.standing {
            // A failure here shows up again, and is recorded, in the first round.
            let _ = load::run(row, requests / 4, &standing.target);
        }
        for round in 0..self.record.settings.rounds {
            progress(row, round, self.record.settings.rounds);
            for turn in rotated(self.standing.len(), round) {
                let standing = &mut self.standing[turn];
                // A contender that dies makes no comparison; it makes a bug report.
                standing.process.check()?;
                let standing = &*standing;
                let measure = || window(row, round, requests, standing);
                check(&self.interrupted)?;
                attempt(&mut self.record, row, round, standing.contender, measure);
            }
        }
        Ok(())
    }

    /// The row `idle`: each contender afresh, so that nothing kept from other rows hides a cost.
    fn hold(&mut self, contenders: &[Contender]) -> Result<()> {
        for round in 0..self.record.settings.rounds {
            progress(Row::Idle, round, self.record.settings.rounds);
            for turn in rotated(contenders.len(), round) {
                let contender = contenders[turn];
                let home = format!("{}-idle-{round}", contender.name());
                check(&self.interrupted)?;
                let standing = self.raise(contender, &home)?;
                let count = self.record.settings.idle_connections;
                let measure = || held(round, count, &standing);
                attempt(&mut self.record, Row::Idle, round, contender, measure);
            }
        }
        Ok(())
    }
}

fn interruption() -> Result<Arc<AtomicBool>> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&flag)).context("signal handler")?;
    }
    Ok(flag)
}

fn check(interrupted: &AtomicBool) -> Result<()> {
    ensure!(
        !interrupted.load(Ordering::Relaxed),
        "interrupted; nothing is written"
    );
    Ok(())
}

/// Measures until it works, and records what did not.
fn attempt(
    record: &mut Record,
    row: Row,
    round: u32,
    contender: Contender,
    measure: impl Fn() -> Result<Window>,
) {
    for _ in 0..ATTEMPTS {
        match measure() {
            Ok(window) => {
                record.windows.push(window);
                return;
            }
            Err(error) => {
                let reason = format!("{error:#}");
                eprintln!("{}, {}: {reason}", row.name(), contender.name());
                record.discarded.push(Discarded {
                    row,
                    round,
                    contender,
                    reason,
                });
            }
        }
    }
}

fn window(row: Row, round: u32, requests: u32, standing: &Standing) -> Result<Window> {
    let pids = standing.process.pids()?;
    let before = measure::cpu(&pids)?;
    let done = load::run(row, requests, &standing.target)?;
    thread::sleep(SETTLE);
    let used = measure::cpu(&pids)?
        .checked_sub(before)
        .context("CPU time went backwards")?;
    ensure!(pids == standing.process.pids()?, "processes came or went");
    Ok(Window {
        row,
        round,
        contender: standing.contender,
        count: done.requests,
        used: nanoseconds(used),
        wall_ns: nanoseconds(done.wall),
    })
}

fn held(round: u32, count: u32, standing: &Standing) -> Result<Window> {
    // What a process sets up once, with its first connections, is not a cost of each.
    for connection in idle::open(32, &standing.target)? {
        connection.close();
    }
    thread::sleep(SETTLE);
    let pids = standing.process.pids()?;
    let before = measure::memory(&pids)?;
    let start = Instant::now();
    let connections = idle::open(count, &standing.target)?;
    let wall = start.elapsed();
    thread::sleep(SETTLE);
    let used = measure::memory(&pids)?.saturating_sub(before);
    idle::check(&connections)?;
    drop(connections);
    let row = Row::Idle;
    let contender = standing.contender;
    Ok(Window {
        row,
        round,
        contender,
        count,
        used,
        wall_ns: nanoseconds(wall),
    })
}

/// That a contender does the same header work as its peers: every field reaches the backend.
fn forwarded(target: &Target) -> Result<Vec<String>> {
    let config = client(Version::Tls13, &target.authority)?;
    let (connection, body) = Connection::fetch(target.https, &config, backend::FORWARDED)?;
    connection.close();
    let body = String::from_utf8(body).context("answer is not text")?;
    let fields: Vec<String> = body.lines().map(|line| line.trim().to_owned()).collect();
    for field in &fields {
        ensure!(!field.ends_with(':'), "{field} not set");
    }
    Ok(fields)
}

fn choices(target: &Target) -> Result<Vec<Choice>> {
    let choice = |version| {
        let config = client(version, &target.authority)?;
        let connection = Connection::exchange(target.https, &config)?;
        let choice = connection.choice();
        connection.close();
        choice
    };
    [Version::Tls13, Version::Tls12]
        .into_iter()
        .map(choice)
        .collect()
}

fn chosen<T: Copy + PartialEq>(asked: &[T], all: &[T]) -> Vec<T> {
    all.iter()
        .filter(|one| asked.is_empty() || asked.contains(one))
        .copied()
        .collect()
}

/// The order of a round: everybody once, somebody else first each time.
fn rotated(count: usize, round: u32) -> impl Iterator<Item = usize> {
    (0..count).map(move |turn| (turn + round as usize) % count)
}

/// Builds what was not handed in. Two builds, so that the rival's features do not reach the
/// router's dependencies.
fn build(bench: &RouterBench, contenders: &[Contender]) -> Result<Built> {
    let program = |given: &Option<PathBuf>, contender: Contender, package: &str, name: &str| {
        if !contenders.contains(&contender) {
            return Ok(PathBuf::new());
        }
        if let Some(path) = given {
            return fs::canonicalize(path).with_context(|| format!("{name}: {}", path.display()));
        }
        cargo_build(package, name)
    };
    let router = match contenders.contains(&Contender::Router) {
        true => router(bench.router.as_ref())?,
        false => PathBuf::new(),
    };
    Ok(Built {
        router,
        rival: program(
            &bench.rival,
            Contender::Pingora,
            "gatehouse-benches",
            "rival",
        )?,
    })
}

/// The router that is measured: the one handed in, the one that `./x bench` has built, or a new one.
pub(crate) fn router(given: Option<&PathBuf>) -> Result<PathBuf> {
    let built = std::env::var_os("GATEHOUSE_ROUTER").map(PathBuf::from);
    match given.cloned().or(built) {
        Some(path) => {
            fs::canonicalize(&path).with_context(|| format!("router: {}", path.display()))
        }
        None => cargo_build("router", "router"),
    }
}

fn cargo_build(package: &str, name: &str) -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args([
            "build",
            "--release",
            "--locked",
            "--package",
            package,
            "--bin",
            name,
        ])
        .status()
        .context("cargo")?;
    ensure!(status.success(), "cargo build of {name}: {status}");
    let own = std::env::current_exe().context("own path")?;
    let folder = own.parent().and_then(Path::parent).context("own folder")?;
    let path = folder.join("release").join(name);
    ensure!(
        path.is_file(),
        "{} was not built; run by `cargo run --release`",
        path.display()
    );
    Ok(path)
}

fn raise_file_limit(wanted: u64) -> Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("getrlimit")?;
    if hard < wanted {
        bail!("{wanted} open files are needed, {hard} are allowed: lower --idle-connections");
    }
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("setrlimit")?;
    }
    Ok(())
}

fn write(record: &Record, out: &Path) -> Result<()> {
    fs::create_dir_all(out).with_context(|| format!("folder {}", out.display()))?;
    let json = serde_json::to_string_pretty(record).context("raw results")?;
    fs::write(out.join("router.json"), json + "\n").context("router.json")?;
    fs::write(out.join("router.md"), report::document(record)).context("router.md")?;
    show(&format!("Written to {}\n", out.display()))
}

fn show(text: &str) -> Result<()> {
    io::stdout()
        .write_all(text.as_bytes())
        .context("standard output")
}

fn progress(row: Row, round: u32, rounds: u32) {
    eprintln!("{}: round {} of {rounds}", row.name(), round + 1);
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("no window lasts 500 years")
}
