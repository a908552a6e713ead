//! The configuration in force, and how it is replaced.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use config::ConfigErrors;
use config::router::RouterConfig;

use super::build::{Built, build};
use super::change::needs_restart;
use super::intern::Ids;
use super::load::load;
use crate::observe::metrics::Registry;
use crate::snapshot::Snapshot;
use crate::tls::SharedTickets;

/// Errors and warnings logged per load, before the rest is only counted.
const MAX_LOGGED: usize = 50;

/// Holds the configuration in force and replaces it when asked.
pub struct Control {
    file: PathBuf,
    published: Arc<ArcSwap<Snapshot>>,
    registry: Arc<Registry>,
    /// What sockets and threads were made from.
    started: RouterConfig,
    /// Held while a load is under way, so that loads follow one another.
    state: Mutex<State>,
    status: ArcSwap<Status>,
    draining: AtomicBool,
}

struct State {
    ids: Ids,
    built: Built,
    sources: Vec<PathBuf>,
}

/// What a load has led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReloadReport {
    /// Generation in force.
    pub generation: u64,
    /// Whether this load published it; false if the files say what they said before.
    pub changed: bool,
    /// Fields that take effect at the next start only.
    pub needs_restart: Vec<&'static str>,
    /// What somebody should look at.
    pub warnings: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// The configuration in force and the last load, for the admin page.
#[derive(Clone, Debug)]
pub struct Status {
    /// Generation in force.
    pub generation: u64,
    /// When it was published.
    pub published_at: SystemTime,
    /// When files were last loaded, with whatever outcome.
    pub loaded_at: SystemTime,
    /// How that ended.
    pub outcome: Outcome,
}

/// How a load ended.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// The files are in force.
    Loaded(ReloadReport),
    /// The files were refused; what was in force before still is.
    Refused(ConfigErrors),
}

impl Control {
    /// Loads the configuration for the first time.
    ///
    /// # Errors
    /// Everything that is wrong with any file.
    pub fn start(file: &Path, registry: Arc<Registry>) -> Result<Self, ConfigErrors> {
        let (begun, now) = (Instant::now(), SystemTime::now());
        let mut ids = Ids::default();
        let loaded = load(file);
        let sources = loaded.sources();
        let built = build(loaded, None, &mut ids, now)?;
        let report = ReloadReport {
            generation: built.snapshot.generation,
            changed: true,
            needs_restart: Vec::new(),
            warnings: built.warnings.clone(),
            took: begun.elapsed(),
        };
        log_report(&report, &built);
        registry.control.reload_succeeded(now, built.size());
        Ok(Self {
            file: file.to_owned(),
            published: Arc::new(ArcSwap::new(Arc::clone(&built.snapshot))),
            registry,
            started: built.router.clone(),
            status: ArcSwap::from_pointee(Status {
                generation: report.generation,
                published_at: now,
                loaded_at: now,
                outcome: Outcome::Loaded(report),
            }),
            state: Mutex::new(State {
                ids,
                built,
                sources,
            }),
            draining: AtomicBool::new(false),
        })
    }

    /// Loads the files again and publishes what they say, if it is different and without a fault.
    /// Logs the outcome. Blocks while it reads and parses: not for an async thread.
    ///
    /// # Errors
    /// Everything that is wrong with any file; what was in force stays in force.
    pub fn reload(&self) -> Result<ReloadReport, ConfigErrors> {
        // State is replaced as a whole at the end, so a panic in between leaves it as it was.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (begun, now) = (Instant::now(), SystemTime::now());
        let loaded = load(&self.file);
        let sources = loaded.sources();
        let State {
            ids,
            built: previous,
            ..
        } = &mut *state;
        match build(loaded, Some(previous), ids, now) {
            Ok(built) => {
                let changed = !Arc::ptr_eq(&built.snapshot, &previous.snapshot);
                if changed {
                    self.published.store(Arc::clone(&built.snapshot));
                }
                let report = ReloadReport {
                    generation: built.snapshot.generation,
                    changed,
                    needs_restart: needs_restart(&self.started, &built.router),
                    warnings: built.warnings.clone(),
                    took: begun.elapsed(),
                };
                log_report(&report, &built);
                self.registry.control.reload_succeeded(now, built.size());
                self.note(now, changed, Outcome::Loaded(report.clone()));
                state.built = built;
                state.sources = sources;
                Ok(report)
            }
            Err(errors) => {
                log_refusal(&errors, previous.snapshot.generation);
                self.registry.control.reload_failed();
                self.note(now, false, Outcome::Refused(errors.clone()));
                // A file that is refused may have been mended by a file it names, and the other way
                // round: both are watched.
                state.sources.extend(sources);
                state.sources.sort();
                state.sources.dedup();
                Err(errors)
            }
        }
    }

    /// Where the snapshot in force is published.
    pub fn published(&self) -> &Arc<ArcSwap<Snapshot>> {
        &self.published
    }

    /// The keys of session tickets, if the process was started with a registry.
    pub fn shared_tickets(&self) -> Option<SharedTickets> {
        self.published.load().certificates.shared_tickets().cloned()
    }

    /// The settings the process was started with.
    pub fn started(&self) -> &RouterConfig {
        &self.started
    }

    /// The configuration in force and the last load.
    pub fn status(&self) -> Arc<Status> {
        self.status.load_full()
    }

    /// Every path whose change may call for a reload. Waits for a load that is under way.
    pub fn sources(&self) -> Vec<PathBuf> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.sources.clone()
    }

    /// From now on health checks are told to send requests elsewhere.
    pub fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether [`Control::begin_drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    fn note(&self, now: SystemTime, changed: bool, outcome: Outcome) {
        let before = self.status.load();
        let published_at = if changed { now } else { before.published_at };
        self.status.store(Arc::new(Status {
            generation: self.published.load().generation,
            published_at,
            loaded_at: now,
            outcome,
        }));
    }
}

fn log_report(report: &ReloadReport, built: &Built) {
    for warning in report.warnings.iter().take(MAX_LOGGED) {
        tracing::warn!("{warning}");
    }
    let more = report.warnings.len().saturating_sub(MAX_LOGGED);
    if more > 0 {
        tracing::warn!(more, "more warnings: see `router check`");
    }
    if !report.needs_restart.is_empty() {
        let fields = report.needs_restart.join(", ");
        tracing::warn!(fields, "these settings change at the next start only");
    }
    let size = built.size();
    tracing::info!(
        generation = report.generation,
        changed = report.changed,
        routes = size.routes,
        upstreams = size.upstreams,
        certificates = size.certificates,
        took_ms = u64::try_from(report.took.as_millis()).unwrap_or(u64::MAX),
        "configuration loaded"
    );
}

fn log_refusal(errors: &ConfigErrors, generation: u64) {
    for error in errors.errors().iter().take(MAX_LOGGED) {
        tracing::error!("{error}");
    }
    tracing::error!(
        errors = errors.errors().len(),
        generation,
        "configuration refused: what was in force stays in force"
    );
}
