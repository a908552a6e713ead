//! The API's own listener: TLS, connections, their limits and deadlines.
//!
//! It has a thread and a runtime of its own, so that a flood of calls stops neither the workers nor
//! control. What a request passes on its way to a handler is in [`guard`].

mod activity;
mod body;
mod connection;
mod places;
mod stream;
#[cfg(test)]
mod tests;
mod tls;

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use config::ConfigErrors;
use config::router::RegistryApi;
use daemon::watch::{WatchOptions, Watcher};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::auth::audit::AuditLog;
use super::auth::guard::{Guard, guard};
use super::auth::limits::{Limits, Source};
use super::auth::operators::OperatorsFile;
use super::auth::refusals::Refusals;
use super::auth::tokens::{TokenSource, Tokens};
use crate::listen;
use crate::observe::metrics::Registry;
use crate::worker::{Drain, Order};
use places::Places;
use tls::ApiTls;
pub use tls::ApiTlsError;

/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Limits and deadlines of the API's listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiOptions {
    /// Connections in all. 1,024.
    pub connections: usize,
    /// Connections from one address, or from one /64 of IPv6. 64.
    pub connections_per_source: usize,
    /// How long a TLS handshake may take. 10 s.
    pub handshake: Duration,
    /// How long a request may take up to the head of its answer. 10 s.
    pub deadline: Duration,
    /// How long a connection may be without a request, and a request's head may take: longer than
    /// a registrar rests between two renewals. 30 s.
    pub idle: Duration,
    /// How long a client may not take an answer. 30 s.
    pub stall: Duration,
    /// How often HTTP/2 clients are asked whether they are there, and how long they may take to
    /// say so. 20 s.
    pub ping: Duration,
    /// How long a watch lasts at most; then the client resumes it. 1 h.
    pub watch: Duration,
    /// How often a watch's credential is looked at again: a revoked one listens no longer than
    /// this. 2 s.
    pub standing: Duration,
    /// How quickly changed files are noticed.
    pub files: WatchOptions,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            connections: 1024,
            connections_per_source: 64,
            handshake: Duration::from_secs(10),
            deadline: Duration::from_secs(10),
            idle: Duration::from_secs(30),
            stall: Duration::from_secs(30),
            ping: Duration::from_secs(20),
            watch: Duration::from_secs(3600),
            standing: Duration::from_secs(2),
            files: WatchOptions::default(),
        }
    }
}

/// Why the API cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ApiStartError {
    /// An address cannot be listened on.
    #[error("registry.api: cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// Its certificate, its key or the authorities of its clients.
    #[error("registry.api: {0}")]
    Tls(#[from] ApiTlsError),
    /// The operators' file.
    #[error("registry.api.operators: {0}")]
    Operators(ConfigErrors),
    /// The file of the audit log.
    #[error("registry.api.audit_log: {file}: {error}")]
    Audit {
        /// The file.
        file: String,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The system gave no thread or no runtime.
    #[error("registry.api: cannot start: {0}")]
    Thread(io::Error),
}

/// The API being served.
pub struct ApiServer {
    addresses: Vec<SocketAddr>,
    thread: JoinHandle<()>,
}

/// What all connections need.
struct Shared {
    app: Router,
    tls: ApiTls,
    guard: Arc<Guard>,
    options: ApiOptions,
    places: Arc<Places>,
    metrics: Arc<Registry>,
    orders: watch::Receiver<Order>,
}

/// Reads the files that `registry.api` names, as [`start`] does, and changes nothing.
///
/// # Errors
/// A file is of no use.
pub fn check(config: &RegistryApi) -> Result<(), ApiStartError> {
    read(config).map(drop)
}

fn read(config: &RegistryApi) -> Result<(ApiTls, Option<OperatorsFile>), ApiStartError> {
    let tls = ApiTls::load(config)?;
    let operators = config.operators.as_deref().map(OperatorsFile::open);
    let operators = operators.transpose().map_err(ApiStartError::Operators)?;
    Ok((tls, operators))
}

/// Binds, reads every file, and serves `api` behind a [`guard`] on a thread of its own until
/// `drain` says otherwise. Either all of it works or nothing is left open.
///
/// # Errors
/// An address is taken, a file is of no use, or the system is out of threads.
pub fn start(
    config: &RegistryApi,
    api: Router,
    tokens: Arc<dyn TokenSource>,
    metrics: &Arc<Registry>,
    drain: &Drain,
    options: ApiOptions,
) -> Result<ApiServer, ApiStartError> {
    let (tls, operators) = read(config)?;
    let audit_log = config.audit_log.as_deref();
    let audit = AuditLog::open(audit_log, Arc::clone(metrics)).map_err(|error| {
        let file = audit_log.map(|file| file.display().to_string());
        let file = file.unwrap_or_default();
        ApiStartError::Audit { file, error }
    })?;
    let listeners: Vec<StdListener> = config
        .addresses
        .iter()
        .map(|&address| {
            listen::bind(address).map_err(|error| ApiStartError::Listen { address, error })
        })
        .collect::<Result<_, _>>()?;
    let addresses = listeners.iter().map(StdListener::local_addr);
    let addresses: Vec<SocketAddr> = addresses
        .collect::<Result<_, _>>()
        .map_err(ApiStartError::Thread)?;
    let checks = Arc::new(Guard {
        tokens: Tokens::new(tokens, operators),
        limits: Limits::new(config.requests_per_second),
        audit,
        refusals: Refusals::default(),
        metrics: Arc::clone(metrics),
        deadline: options.deadline,
    });
    let shared = Shared {
        app: guard(api, Arc::clone(&checks)),
        tls,
        guard: checks,
        options,
        places: Arc::new(Places::new(
            options.connections,
            options.connections_per_source,
        )),
        metrics: Arc::clone(metrics),
        orders: drain.orders(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(ApiStartError::Thread)?;
    let thread = std::thread::Builder::new()
        .name("registry".to_owned())
        .spawn(move || run(&runtime, listeners, shared))
        .map_err(ApiStartError::Thread)?;
    tracing::info!(?addresses, "the registry's API is served");
    Ok(ApiServer { addresses, thread })
}

impl ApiServer {
    /// Where it listens.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Waits until it has ended after a drain. The process may well end without that.
    ///
    /// # Errors
    /// Its thread has panicked.
    pub fn join(self) -> io::Result<()> {
        let joined = self.thread.join();
        joined.map_err(|_| io::Error::other("the registry's thread panicked"))
    }
}

fn run(runtime: &Runtime, listeners: Vec<StdListener>, shared: Shared) {
    let shared = Arc::new(shared);
    runtime.block_on(async {
        match signal(SignalKind::hangup()) {
            Ok(hangup) => {
                let sources = reload(&shared);
                let watcher = Watcher::new(hangup, shared.options.files, sources);
                let shared = Arc::clone(&shared);
                tokio::spawn(watcher.reload_with(move || reload(&shared)));
            }
            Err(error) => tracing::error!(%error, "registry: files are not read again"),
        }
        let accepting: Vec<_> = listeners
            .into_iter()
            .filter_map(|listener| match TcpListener::from_std(listener) {
                Ok(listener) => Some(tokio::spawn(accept(listener, Arc::clone(&shared)))),
                Err(error) => {
                    tracing::error!(%error, "registry: a listener does not work");
                    None
                }
            })
            .collect();
        let deadline = ordered_to_end(&mut shared.orders.clone()).await;
        for task in accepting {
            task.abort();
        }
        wind_down(&shared, deadline).await;
    });
}

/// Reads every file again; what it read.
fn reload(shared: &Shared) -> Vec<std::path::PathBuf> {
    shared.tls.reload();
    let mut sources = shared.tls.paths();
    if let Some(operators) = shared.guard.tokens.operators() {
        operators.reload();
        sources.push(operators.path().to_owned());
    }
    sources
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (tcp, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "registry: cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        // Closed at once: whoever waits in line would wait for others to leave.
        let Some(place) = shared.places.take(Source::of(peer)) else {
            shared.metrics.api.connection_over_limit();
            tracing::debug!(%peer, "registry: too many connections");
            continue;
        };
        if tcp.set_nodelay(true).is_err() {
            continue;
        }
        shared.metrics.api.connection();
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            // Counted down whatever happens to the connection.
            let open = Open(Arc::clone(&shared.metrics));
            connection::serve(tcp, peer, shared).await;
            drop((open, place));
        });
    }
}

/// Counts an open connection.
struct Open(Arc<Registry>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.api.connection_closed();
    }
}

/// Waits for the order to drain; by when it is to be done.
async fn ordered_to_end(orders: &mut watch::Receiver<Order>) -> Instant {
    match orders
        .wait_for(|order| *order != Order::Serve)
        .await
        .as_deref()
    {
        Ok(Order::Drain(patience)) => Instant::now() + *patience,
        // Nobody is left who could say.
        _ => Instant::now(),
    }
}

/// Waits until connections and changes have ended, or until the deadline; a second order may bring
/// it forward.
async fn wind_down(shared: &Shared, deadline: Instant) {
    let mut orders = shared.orders.clone();
    orders.mark_unchanged();
    let mut deadline = deadline;
    let mut look = tokio::time::interval(Duration::from_millis(20));
    loop {
        let open = shared.places.taken();
        if open == 0 && shared.guard.limits.open() == 0 {
            return;
        }
        if Instant::now() >= deadline {
            tracing::warn!(
                connections = open,
                "registry: drain deadline passed: cut off"
            );
            return;
        }
        tokio::select! {
            _ = look.tick() => {}
            Ok(()) = orders.changed() => {
                if let Order::Drain(patience) = *orders.borrow_and_update() {
                    deadline = deadline.min(Instant::now() + patience);
                }
            }
        }
    }
}
