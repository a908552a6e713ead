//! Starting the workers, and waiting for them.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use config::router::RouterConfig;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::runtime::LocalRuntime;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::context::Worker;
use super::drain::{Drain, Order};
use super::timers::TICK;
use crate::listen;
use crate::observe::access_log::LogSender;
use crate::observe::metrics::{Listener, Registry};
use crate::snapshot::Snapshot;

/// The running workers.
pub struct Workers {
    drain: Drain,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

/// Why the workers could not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address of the configuration cannot be listened on.
    #[error("cannot listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        error: io::Error,
    },
    /// The system gave no thread.
    #[error("cannot start a worker: {0}")]
    Thread(io::Error),
}

/// Binds every listener and starts the workers. Either all of it works or nothing is left open.
pub fn start(
    published: &Arc<ArcSwap<Snapshot>>,
    config: &RouterConfig,
    registry: &Registry,
    log: &LogSender,
) -> Result<Workers, StartError> {
    let count = config
        .workers
        .or_else(|| std::thread::available_parallelism().ok())
        .map_or(1, NonZeroUsize::get);
    let bind_all = |addresses: &[SocketAddr]| -> Result<Vec<StdListener>, StartError> {
        addresses
            .iter()
            .map(|&address| {
                listen::bind(address).map_err(|error| StartError::Listen { address, error })
            })
            .collect()
    };
    let mut sockets = Vec::with_capacity(count);
    for _ in 0..count {
        sockets.push((
            bind_all(&config.http.addresses)?,
            bind_all(&config.https.addresses)?,
        ));
    }
    let (drain, orders) = Drain::new();
    let mut threads = Vec::with_capacity(count);
    for (index, (http, https)) in sockets.into_iter().enumerate() {
        let published = Arc::clone(published);
        let shard = registry.add_shard();
        let log = log.clone();
        let orders = orders.clone();
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build_local(Default::default())?;
                let logger = log.logger(Arc::clone(&shard));
                // Any odd start will do, as long as workers do not choose alike.
                let seed = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let worker = Rc::new(Worker::new(published, shard, logger, seed));
                run(&runtime, worker, http, https, orders)
            })
            .map_err(StartError::Thread)?;
        threads.push(thread);
    }
    Ok(Workers { drain, threads })
}

impl Workers {
    /// A handle that tells the workers to drain.
    pub fn drain(&self) -> Drain {
        self.drain.clone()
    }

    /// Waits until every worker has ended: after a drain, or because it failed.
    pub fn join(self) -> io::Result<()> {
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread
                .join()
                .unwrap_or_else(|_| Err(io::Error::other("a worker panicked")));
            result = result.and(ended);
        }
        result
    }
}

/// One worker's life.
fn run(
    runtime: &LocalRuntime,
    worker: Rc<Worker>,
    http: Vec<StdListener>,
    https: Vec<StdListener>,
    mut orders: watch::Receiver<Order>,
) -> io::Result<()> {
    runtime.block_on(async move {
        let mut accepting = Vec::new();
        for listener in http {
            let listener = TcpListener::from_std(listener)?;
            accepting.push(tokio::task::spawn_local(listen::serve(
                listener,
                Listener::Http,
                Rc::clone(&worker),
                listen::serve_redirect,
            )));
        }
        for listener in https {
            let listener = TcpListener::from_std(listener)?;
            accepting.push(tokio::task::spawn_local(listen::serve(
                listener,
                Listener::Https,
                Rc::clone(&worker),
                listen::serve_https,
            )));
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut deadline: Option<Instant> = None;
        let mut count = 0u64;
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    count += 1;
                    worker.tick(count);
                }
                Ok(()) = orders.changed() => {
                    if let Order::Drain(patience) = *orders.borrow_and_update() {
                        deadline = Some(Instant::now() + patience);
                        // Dropping a listener resets what waits in its backlog, so what is there
                        // is accepted first.
                        tokio::task::yield_now().await;
                        for task in accepting.drain(..) {
                            task.abort();
                        }
                        worker.begin_drain();
                    }
                }
            }
            if let Some(deadline) = deadline {
                let open = worker.open_connections();
                if open == 0 || Instant::now() >= deadline {
                    if open > 0 {
                        tracing::warn!(connections = open, "drain deadline passed: cut off");
                    }
                    worker.tick(0);
                    return Ok(());
                }
            }
        }
    })
}
