//! The daemon: waits for results of checks, answers and the clock, and does what the state says.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use config::ConfigErrors;
use daemon::notify::{READY, STOPPING, notify};
use daemon::page;
use daemon::watch::{Reason, WatchOptions, Watcher};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet, spawn_blocking};
use tokio::time::{sleep_until, timeout};

use super::check::{CheckError, repeat};
use super::load::{Loaded, read};
use super::page::{label, numbers, respond};
use super::registries::Registries;
use super::state::{Action, Outcome, State};
use super::tell;
use crate::observe::metrics::RegistrarMetrics;
use crate::registry::client::ClientRuntime;
use crate::registry::jitter::fraction;

/// How long it may take to withdraw everything at the end.
const FAREWELL: Duration = Duration::from_secs(5);
/// How long the service manager waits at most until it hears that we are ready: the first checks may
/// take long, and it would start us anew.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a name that was given up keeps its routes at most while the new one's are not accepted.
const LEAVE_WITHIN: Duration = Duration::from_secs(15);
/// How long a call that is under way at the end may go on: then nothing comes after the withdrawal.
const LAST_CALL: Duration = Duration::from_millis(500);

/// Announces until SIGTERM or SIGINT, then withdraws everything.
///
/// # Errors
/// If signals cannot be listened for.
pub fn serve(file: &Path, loaded: Loaded) -> anyhow::Result<()> {
    let runtime = ClientRuntime::new().context("no runtime")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let hangup = signal(SignalKind::hangup())?;
        let stop = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let listener = match loaded.admin {
            Some(address) => {
                let bound = page::bind(address);
                Some(bound.with_context(|| format!("admin: cannot listen at {address}"))?)
            }
            None => None,
        };
        let registrar = Registrar::new(file, loaded);
        if let Some(listener) = listener {
            registrar.show(listener);
        }
        registrar.run(stop, hangup, WatchOptions::default()).await;
        Ok(())
    })
}

/// A result of a check: which configuration's, which route's.
struct Checked {
    generation: u64,
    route: usize,
    result: Result<(), CheckError>,
}

/// A name that was given up and not withdrawn yet.
struct Leaving {
    registries: Registries,
    /// The registry to ask first.
    first: usize,
    until: Instant,
}

type Flight = Pin<Box<dyn Future<Output = Outcome> + Send>>;
type Reload = JoinHandle<(Result<Loaded, ConfigErrors>, Vec<PathBuf>)>;

pub(super) struct Registrar {
    file: PathBuf,
    begun: Instant,
    loaded: Loaded,
    registries: Registries,
    state: State,
    leaving: Option<Leaving>,
    /// Withdrawals of names that were given up.
    departures: JoinSet<()>,
    flight: Option<Flight>,
    /// The registry that was called last.
    calling: usize,
    metrics: Arc<RegistrarMetrics>,
    checks: JoinSet<()>,
    /// Counts reloads, so that late results of old checks are not taken for new ones.
    generation: u64,
    report: mpsc::UnboundedSender<Checked>,
    results: mpsc::UnboundedReceiver<Checked>,
    /// Something was accepted.
    ready: bool,
    /// Why the files that are there now are not in force, if they are not.
    refused: Option<String>,
    /// What the service manager knows; `None` until it knows that we are ready.
    status: Option<String>,
}

impl Registrar {
    /// Begins to check.
    pub(super) fn new(file: &Path, loaded: Loaded) -> Self {
        let (report, results) = mpsc::unbounded_channel();
        let wanted = loaded.wanted.clone();
        let mut registrar = Self {
            file: file.to_owned(),
            begun: Instant::now(),
            registries: Registries::new(&loaded),
            state: State::new(loaded.settings, wanted, Instant::now()),
            loaded,
            leaving: None,
            departures: JoinSet::new(),
            flight: None,
            calling: 0,
            metrics: Arc::new(RegistrarMetrics::new(Instant::now())),
            checks: JoinSet::new(),
            generation: 0,
            report,
            results,
            ready: false,
            refused: None,
            status: None,
        };
        registrar.check();
        registrar
    }

    /// Shows the page, for as long as the runtime lives.
    pub(super) fn show(&self, listener: TcpListener) {
        let metrics = Arc::clone(&self.metrics);
        tokio::spawn(async move {
            let served = page::serve(listener, move |request| respond(&metrics, request)).await;
            if let Err(error) = served {
                tracing::error!(%error, "no page with metrics");
            }
        });
    }

    pub(super) async fn run(
        mut self,
        stop: impl Future<Output = ()>,
        hangup: Signal,
        options: WatchOptions,
    ) {
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            tenant = self.loaded.tenant,
            instance = self.loaded.instance,
            routes = self.loaded.wanted.len(),
            registries = self.loaded.registries.len(),
            "started"
        );
        let mut watcher = Watcher::new(hangup, options, self.loaded.sources.clone());
        let mut reload: Option<Reload> = None;
        // The watcher's first look finds a change in any case. What it is called for then works.
        let mut first = true;
        let mut stop = std::pin::pin!(stop);
        loop {
            let mut wake = self.act();
            self.tell();
            if self.status.is_none() {
                wake = earlier(wake, self.begun + READY_WITHIN);
            }
            if let Some(leaving) = &self.leaving {
                wake = earlier(wake, leaving.until);
            }
            tokio::select! {
                // A withdrawal goes before anything else.
                biased;
                () = &mut stop => break,
                Some(checked) = self.results.recv() => self.checked(checked),
                outcome = ended(&mut self.flight) => self.answered(outcome),
                result = ended(&mut reload) => {
                    reload = None;
                    let (loaded, mut sources) = result.unwrap_or_else(|error| {
                        tracing::error!(%error, "a reload panicked: what was in force stays");
                        (Ok(self.loaded.clone()), Vec::new())
                    });
                    let same = matches!(&loaded, Ok(loaded) if *loaded == self.loaded);
                    // Nor is a first call given up that a busy registry has not answered yet.
                    let nothing = first && same;
                    first = false;
                    if !nothing {
                        self.reload(loaded);
                    }
                    // Those of a configuration that was refused, too: one of them may be mended.
                    sources.extend(self.loaded.sources.iter().cloned());
                    sources.sort();
                    sources.dedup();
                    watcher.loaded(sources);
                }
                // A file system may hang: nothing else waits for it.
                reason = watcher.changed(), if reload.is_none() => {
                    first &= reason == Reason::Changed;
                    let file = self.file.clone();
                    reload = Some(spawn_blocking(move || read(&file)));
                }
                Some(ended) = self.checks.join_next() => if let Err(error) = ended
                    && error.is_panic()
                {
                    // A route that nobody checks must not stay announced.
                    std::panic::resume_unwind(error.into_panic());
                },
                () = sleep_until(wake.unwrap_or_else(Instant::now).into()), if wake.is_some() => {}
            }
        }
        self.farewell().await;
    }

    /// Does what is to be done; returns when to look again.
    fn act(&mut self) -> Option<Instant> {
        // Results that came together count together.
        while let Ok(checked) = self.results.try_recv() {
            self.checked(checked);
        }
        if self
            .leaving
            .as_ref()
            .is_some_and(|leaving| leaving.until <= Instant::now())
        {
            self.leave();
        }
        loop {
            match self.state.next(Instant::now()) {
                Action::Call(call) => {
                    self.calling = call.registry;
                    self.flight = Some(Box::pin(self.registries.clone().call(call)));
                }
                Action::Abandon => self.answered(Outcome::Failed {
                    error: "no answer yet, and something has to be withdrawn".to_owned(),
                    retry_after: None,
                    elsewhere: true,
                }),
                Action::Wait(until) => return until,
            }
        }
    }

    fn answered(&mut self, outcome: Outcome) {
        self.flight = None;
        let registry = self.registries.name(self.calling);
        self.metrics
            .called(registry, label(&outcome), Instant::now());
        if matches!(outcome, Outcome::Accepted { .. }) {
            self.ready = true;
            self.leave();
        }
        for note in self.state.answered(outcome, Instant::now(), fraction()) {
            tell::note(&note, &self.registries);
        }
    }

    fn checked(&mut self, checked: Checked) {
        let Checked {
            generation,
            route,
            result,
        } = checked;
        if generation != self.generation {
            return;
        }
        let changed = self.state.checked(route, result.is_ok());
        tell::checked(&self.state.routes()[route], &result, changed);
    }

    /// Checks every route from now on, and nothing else.
    fn check(&mut self) {
        self.checks = JoinSet::new();
        self.generation += 1;
        for (route, wanted) in self.loaded.wanted.iter().cloned().enumerate() {
            let (report, generation) = (self.report.clone(), self.generation);
            self.checks.spawn(async move {
                let send = |result| {
                    let checked = Checked {
                        generation,
                        route,
                        result,
                    };
                    // At the end nobody listens any more.
                    let _ = report.send(checked);
                };
                repeat(&wanted.check, wanted.route.endpoint, send).await;
            });
        }
    }

    fn reload(&mut self, result: Result<Loaded, ConfigErrors>) {
        let loaded = match result {
            Ok(loaded) => loaded,
            Err(errors) => {
                for error in errors.errors() {
                    tracing::error!(%error, "the configuration is refused: nothing changes");
                }
                self.refused = errors.errors().first().map(ToString::to_string);
                return;
            }
        };
        self.refused = None;
        if loaded.admin != self.loaded.admin {
            tracing::warn!("admin has changed: that takes effect after a restart");
        }
        self.flight = None;
        let (settings, wanted) = (loaded.settings, loaded.wanted.clone());
        if self.registries.is_for(&loaded) {
            self.state.reload(settings, wanted, Instant::now());
        } else {
            self.change_name(&loaded);
            self.state.rename(settings, wanted, Instant::now());
        }
        if !self.registries.do_for(&self.loaded, &loaded) {
            self.registries = self.registries.replaced(&loaded);
        }
        self.loaded = loaded;
        self.check();
        tracing::info!(routes = self.loaded.wanted.len(), "configuration loaded");
    }

    /// Nobody renews the old name any more. It is withdrawn when the new one's routes stand: they are
    /// the same ones most of the time.
    fn change_name(&mut self, loaded: &Loaded) {
        // One after the other: of a name that was given up before, too, nobody speaks any more.
        self.leave_unless(|left| left.is_for(loaded));
        self.leaving = Some(Leaving {
            registries: self.registries.clone(),
            first: self.state.registry(),
            until: Instant::now() + LEAVE_WITHIN,
        });
        // Another tenant does not get the names before they are free.
        if loaded.tenant != self.loaded.tenant {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.leave_unless(|_| false);
    }

    /// Withdraws the name that was given up, if there is one, unless it is back.
    fn leave_unless(&mut self, is_back: impl FnOnce(&Registries) -> bool) {
        if let Some(left) = self.leaving.take()
            && !is_back(&left.registries)
        {
            while self.departures.try_join_next().is_some() {}
            self.departures
                .spawn(async move { left.registries.withdraw(left.first, FAREWELL).await });
        }
    }

    /// Tells the service manager what has changed: ready after the first announcement, or when every
    /// check has ended. No registry may be there yet, and others need not wait for one.
    fn tell(&mut self) {
        let routes = numbers(&self.state, Instant::now());
        self.metrics.show(routes, self.refused.is_some());
        if self.status.is_none() {
            let late = self.begun.elapsed() >= READY_WITHIN;
            if !self.ready && !self.state.is_checked() && !late {
                return;
            }
            notify(READY);
        }
        let mut status = tell::status(&self.state, &self.registries, Instant::now());
        if let Some(error) = &self.refused {
            status.push_str("; the configuration is refused: ");
            status.push_str(&error.replace(char::is_control, " "));
        }
        if self.status.as_ref() != Some(&status) {
            notify(&format!("STATUS={status}"));
            self.status = Some(status);
        }
    }

    async fn farewell(mut self) {
        tracing::info!("withdrawing");
        notify(STOPPING);
        self.checks.abort_all();
        if let Some(flight) = self.flight.take() {
            // Then it is given up, and the connection with it.
            if let Ok(outcome) = timeout(LAST_CALL, flight).await {
                self.answered(outcome);
            }
        }
        let own = async {
            if self.state.holds_anything() {
                let first = self.state.registry();
                self.registries.withdraw(first, FAREWELL).await;
            }
        };
        let left = async {
            if let Some(left) = &self.leaving {
                left.registries.withdraw(left.first, FAREWELL).await;
            }
        };
        // Each has its own deadline, which is not later than ours.
        let departed = async { while self.departures.join_next().await.is_some() {} };
        tokio::join!(own, left, departed);
        tracing::info!("stopped");
    }
}

fn earlier(wake: Option<Instant>, at: Instant) -> Option<Instant> {
    Some(wake.map_or(at, |wake| wake.min(at)))
}

/// What becomes of something that may not be there; then, never.
async fn ended<F: Future + Unpin>(future: &mut Option<F>) -> F::Output {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
