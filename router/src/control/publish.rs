//! The configuration in force, and how it is replaced.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use config::ConfigErrors;
use config::route::HostMatch;
use config::router::RouterConfig;
use tokio::sync::mpsc::UnboundedSender;

use super::build::{self, Merged, Previous, Read};
use super::change::needs_restart;
use super::files::{FileConflict, FileRules};
use super::intern::Interner;
use super::load::load;
use super::log;
use super::registry::{Edit, EditOutcome, LeftOut, RegistryRules, RegistryUpdate};
use super::superseded::Superseded;
use crate::observe::metrics::{Registry, RegistrySize};
use crate::snapshot::Snapshot;
use crate::tls::SharedTickets;
use crate::upstream::health::HealthUpdate;

/// Holds the configuration in force and replaces it when asked.
pub struct Control {
    file: PathBuf,
    published: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Registry>,
    /// What sockets and threads were made from.
    started: RouterConfig,
    /// Held while files are loaded, so that loads follow one another.
    loads: Mutex<Loads>,
    /// Held while the table changes, and never while anybody waits for a disk.
    state: Mutex<State>,
    /// The rules of `state`, for whoever must not wait for it.
    files: ArcSwap<FileRules>,
    superseded: Mutex<Superseded>,
    published_at: ArcSwap<SystemTime>,
    last_load: ArcSwap<LastLoad>,
    draining: AtomicBool,
    /// Who checks endpoints, if anybody does.
    health: OnceLock<UnboundedSender<HealthUpdate>>,
}

/// What the next load is compared with.
struct Loads {
    router: RouterConfig,
    sources: Vec<PathBuf>,
}

/// What is in force, and what it is made of.
struct State {
    snapshot: Arc<Snapshot>,
    files: Arc<FileRules>,
    registry: RegistryRules,
    interner: Interner,
}

struct LastLoad {
    at: SystemTime,
    outcome: Outcome,
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

/// What is in force of the registry, and what is not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryStatus {
    /// Routes in force.
    pub routes: usize,
    /// Routes that are announced and left out.
    pub left_out: usize,
    /// What is left out, by name, as much of it as was asked for.
    pub shown: Vec<LeftOut>,
}

impl Control {
    /// Loads the configuration for the first time. There are no routes of the registry yet.
    ///
    /// # Errors
    /// Everything that is wrong with any file.
    pub fn start(file: &Path, metrics: Arc<Registry>) -> Result<Self, ConfigErrors> {
        let (begun, now) = (Instant::now(), SystemTime::now());
        let loaded = load(file);
        let sources = loaded.sources();
        let built = build::first(build::read(loaded, None, now)?)?;
        let report = ReloadReport {
            generation: built.snapshot.generation,
            changed: true,
            needs_restart: Vec::new(),
            warnings: built.warnings.clone(),
            took: begun.elapsed(),
        };
        log::report(&report, &built.size());
        metrics.control.reload_succeeded(now, built.size());
        let files = Arc::new(built.files);
        Ok(Self {
            file: file.to_owned(),
            published: Arc::new(ArcSwap::new(Arc::clone(&built.snapshot))),
            metrics,
            started: built.router.clone(),
            loads: Mutex::new(Loads {
                router: built.router,
                sources,
            }),
            files: ArcSwap::new(Arc::clone(&files)),
            state: Mutex::new(State {
                snapshot: built.snapshot,
                files,
                registry: RegistryRules::default(),
                interner: built.interner,
            }),
            superseded: Mutex::default(),
            published_at: ArcSwap::from_pointee(now),
            last_load: ArcSwap::from_pointee(LastLoad {
                at: now,
                outcome: Outcome::Loaded(report),
            }),
            draining: AtomicBool::new(false),
            health: OnceLock::new(),
        })
    }

    /// Loads the files again and publishes what they say, if it is different and without a fault.
    /// Logs the outcome. Blocks while it reads and parses: not for an async thread.
    ///
    /// # Errors
    /// Everything that is wrong with any file, and names in files that the registry has in force.
    /// What was in force stays in force.
    pub fn reload(&self) -> Result<ReloadReport, ConfigErrors> {
        let mut loads = lock(&self.loads);
        let (begun, now) = (Instant::now(), SystemTime::now());
        let loaded = load(&self.file);
        let sources = loaded.sources();
        let before = self.published.load_full();
        let previous = Previous {
            router: &loads.router,
            snapshot: &before,
        };
        let read = build::read(loaded, Some(previous), now);
        match read.and_then(|read| self.put_in_force(read, &loads.router)) {
            Ok((read, changed)) => {
                let report = ReloadReport {
                    generation: self.published.load().generation,
                    changed,
                    needs_restart: needs_restart(&self.started, &read.router),
                    warnings: read.warnings,
                    took: begun.elapsed(),
                };
                let size = lock(&self.state).size();
                log::report(&report, &size);
                self.metrics.control.reload_succeeded(now, size);
                self.note(now, Outcome::Loaded(report.clone()));
                loads.router = read.router;
                loads.sources = sources;
                Ok(report)
            }
            Err(errors) => {
                log::refusal(&errors, before.generation);
                self.metrics.control.reload_failed();
                self.note(now, Outcome::Refused(errors.clone()));
                // A file that is refused may have been mended by a file it names, and the other way
                // round: both are watched.
                loads.sources.extend(sources);
                loads.sources.sort();
                loads.sources.dedup();
                Err(errors)
            }
        }
    }

    /// Takes what the registry says and publishes a snapshot that shares all else with the one
    /// before; none if nothing changes. Routes that do not go with the files are left out, which is
    /// logged once each. Waits for no disk and touches no connection.
    ///
    /// Costs some microseconds per change; a reset as much for each of its routes, so with many of
    /// them it is not for an async thread.
    pub fn apply_registry(&self, update: RegistryUpdate) {
        let begun = Instant::now();
        let mut state = lock(&self.state);
        let State {
            snapshot,
            files,
            registry,
            interner,
        } = &mut *state;
        let mut edit = Edit {
            table: snapshot.routes.clone(),
            files,
            interner,
            outcome: EditOutcome::default(),
        };
        registry.apply(&update, &mut edit);
        let Edit {
            table, mut outcome, ..
        } = edit;
        if outcome.changed {
            let snapshot = Snapshot {
                generation: snapshot.generation + 1,
                routes: table,
                certificates: Arc::clone(&snapshot.certificates),
                settings: Arc::clone(&snapshot.settings),
            };
            self.publish(&mut state, snapshot);
        }
        state.release(&outcome.released);
        let size = state.registry_size();
        // After the publication and under the lock, so that numbers do not overtake one another,
        // nor orders.
        self.metrics.control.registry_applied(outcome.changes, size);
        if let Some(health) = self.health.get() {
            for order in outcome.health.drain(..) {
                // Nobody checks any more while the process ends.
                let _ = health.send(order);
            }
        }
        drop(state);
        log::registry(&outcome, &size, begun.elapsed());
    }

    /// From now on, whoever receives this checks the endpoints of routes that ask for it (see
    /// [`health::checks`](crate::upstream::health::checks)). To be called once, and before routes of
    /// the registry are applied.
    pub fn report_checks_to(&self, health: UnboundedSender<HealthUpdate>) {
        let first = self.health.set(health).is_ok();
        debug_assert!(first, "endpoints are checked once");
    }

    /// Why a tenant's route, which may be `shared`, would be left out of force beside the files;
    /// `None` if it would not. Waits for nobody.
    pub fn file_conflict(
        &self,
        host: &HostMatch,
        tenant: &str,
        shared: bool,
    ) -> Option<FileConflict> {
        let snapshot = self.published.load();
        let files = self.files.load();
        files.conflict(&snapshot.routes, host, tenant, shared)
    }

    /// What is in force of the registry, and at most `most` of what is left out.
    pub fn registry_status(&self, most: usize) -> RegistryStatus {
        let state = lock(&self.state);
        RegistryStatus {
            routes: state.registry.in_force(),
            left_out: state.registry.left_out(),
            shown: state.registry.told(most),
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
    pub fn status(&self) -> Status {
        let last = self.last_load.load();
        Status {
            generation: self.published.load().generation,
            published_at: **self.published_at.load(),
            loaded_at: last.at,
            outcome: last.outcome.clone(),
        }
    }

    /// Every path whose change may call for a reload. Waits for a load that is under way.
    pub fn sources(&self) -> Vec<PathBuf> {
        lock(&self.loads).sources.clone()
    }

    /// From now on health checks are told to send requests elsewhere.
    pub fn begin_drain(&self) {
        self.draining.store(true, Relaxed);
    }

    /// Whether [`Control::begin_drain`] was called.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Relaxed)
    }

    /// Drops snapshots that are no longer in force and that no worker looks at any more.
    pub(super) fn drop_superseded(&self) {
        lock(&self.superseded).look_at_all();
    }

    /// How many snapshots are kept that are no longer in force.
    #[cfg(test)]
    pub(super) fn superseded(&self) -> usize {
        lock(&self.superseded).len()
    }

    /// How many objects there are: upstreams, endpoints, TLS configurations.
    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 3] {
        lock(&self.state).interner.sizes()
    }

    /// Publishes what was read, if it is other than what is in force. True: it was.
    fn put_in_force(
        &self,
        read: Read,
        router: &RouterConfig,
    ) -> Result<(Read, bool), ConfigErrors> {
        let mut state = lock(&self.state);
        let State {
            snapshot,
            files,
            registry,
            interner,
        } = &mut *state;
        let merged = build::merge(&read, snapshot.routes.clone(), files, interner)?;
        let Merged {
            table,
            files: new_files,
            certificates,
            fresh,
            changed,
        } = merged;
        let mut edit = Edit {
            table,
            files: &new_files,
            interner,
            outcome: EditOutcome::default(),
        };
        if changed {
            registry.files_changed(&fresh, &mut edit);
        }
        let Edit { table, outcome, .. } = edit;
        let same_router = read.router == *router;
        let same_certificates = Arc::ptr_eq(&certificates, &snapshot.certificates);
        let changed = changed || !same_router || !same_certificates;
        let old_files = std::mem::replace(files, Arc::new(new_files));
        if changed {
            let settings = match same_router {
                true => Arc::clone(&snapshot.settings),
                false => Arc::new(build::settings(&read.router)),
            };
            let snapshot = Snapshot {
                generation: snapshot.generation + 1,
                routes: table,
                certificates,
                settings,
            };
            self.publish(&mut state, snapshot);
        }
        self.files.store(Arc::clone(&state.files));
        state.release(&outcome.released);
        state.release(&old_files.upstreams);
        let size = state.registry_size();
        self.metrics.control.registry_size(size);
        log::left_out(&outcome);
        Ok((read, changed))
    }

    fn publish(&self, state: &mut State, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let before = std::mem::replace(&mut state.snapshot, Arc::clone(&snapshot));
        // Held from before anybody can be the last one to let go of it.
        lock(&self.superseded).push(before);
        self.published.store(snapshot);
        self.published_at.store(Arc::new(SystemTime::now()));
    }

    fn note(&self, at: SystemTime, outcome: Outcome) {
        self.last_load.store(Arc::new(LastLoad { at, outcome }));
    }
}

impl State {
    /// Gives uses back, after what no longer has them was replaced.
    fn release(&mut self, upstreams: &[Arc<crate::upstream::Upstream>]) {
        for upstream in upstreams {
            self.interner.release(upstream);
        }
    }

    fn size(&self) -> crate::observe::metrics::SnapshotSize {
        build::size(&self.snapshot, &self.files, &self.interner)
    }

    fn registry_size(&self) -> RegistrySize {
        RegistrySize {
            generation: self.snapshot.generation,
            routes: self.snapshot.routes.len() as u64,
            upstreams: build::upstreams(&self.files, &self.interner) as u64,
            registry_routes: self.registry.in_force() as u64,
            left_out: self.registry.left_out() as u64,
        }
    }
}

/// Tables are changed in copies that replace what is in force at the end, so a panic in between
/// leaves that as it was; at worst an object is kept that nobody uses.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
