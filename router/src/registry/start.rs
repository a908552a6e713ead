//! The registry's parts in a running router: which thread does what, and what ends when.
//!
//! ```text
//! thread "registry"   the store's connections, the follower, the rotation of ticket secrets,
//!                     etcd's upkeep
//! thread "api"        the API's listener and handlers (see `server`)
//! ```

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, SystemTime};

use config::router::{RegistryConfig, RegistryStore};

use super::api::{Api, app};
use super::follow::{Follower, Publish};
use super::memory::Memory;
use super::record::TicketSecrets;
use super::server::{self, ApiOptions, ApiServer, ApiStartError};
use super::shared::RouteRegistry;
use super::store::{Revision, Store, StoreError};
use super::tickets::{TicketFeed, keep};
use super::upkeep;
use crate::control::{Control, RegistryUpdate};
use crate::observe::metrics::Registry;
use crate::worker::Drain;

/// How long a start waits for the first routes. With etcd out of reach and none known from before,
/// the router serves what files say and is not ready.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why the registry cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// The folder for its state.
    #[error("registry.state: {folder}: {error}")]
    State {
        /// The folder.
        folder: String,
        /// What is wrong with it.
        error: io::Error,
    },
    /// The store.
    #[error("registry.store: {0}")]
    Store(StoreError),
    /// The system gave no thread or no runtime.
    #[error("registry: cannot start: {0}")]
    Thread(io::Error),
}

/// Begins to follow the registry, and returns when routes are published: from the store, or those
/// known last; or after a while, if there are none to be had.
///
/// # Errors
/// If the store is of no use. An etcd that is out of reach is none of these.
pub fn follow(
    config: &RegistryConfig,
    control: &Arc<Control>,
    metrics: &Arc<Registry>,
) -> Result<Arc<RouteRegistry>, FollowError> {
    make_state(&config.state)?;
    metrics.follow.begin(SystemTime::now());
    // Two messages: the registry, and that there are routes.
    let (ready, started) = mpsc::sync_channel(2);
    let (config, control) = (config.clone(), Arc::clone(control));
    let metrics = Arc::clone(metrics);
    std::thread::Builder::new()
        .name("registry".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            match runtime {
                Err(error) => drop(ready.send(Err(FollowError::Thread(error)))),
                Ok(runtime) => runtime.block_on(run(&config, control, metrics, &ready)),
            }
        })
        .map_err(FollowError::Thread)?;
    let ended = || FollowError::Thread(io::Error::other("its thread ended"));
    let registry = started.recv().map_err(|_| ended())??;
    // The second message: there are routes, or it takes too long.
    let _ = started.recv_timeout(PATIENCE + Duration::from_secs(1));
    Ok(registry)
}

/// Serves the API, if the configuration has one.
///
/// # Errors
/// If an address is taken or a file is of no use.
pub fn serve(
    config: &RegistryConfig,
    registry: &Arc<RouteRegistry>,
    control: &Arc<Control>,
    metrics: &Arc<Registry>,
    drain: &Drain,
) -> Result<Option<ApiServer>, ApiStartError> {
    let Some(api) = &config.api else {
        return Ok(None);
    };
    let app = app(Arc::new(Api {
        registry: Arc::clone(registry),
        files: Arc::clone(control) as _,
        routes_per_tenant: api.routes_per_tenant as usize,
    }));
    let tokens = Arc::clone(registry) as _;
    server::start(api, app, tokens, metrics, drain, ApiOptions::default()).map(Some)
}

type Started = Result<Arc<RouteRegistry>, FollowError>;

/// The thread's life. What ends with the process needs no end of its own: the store keeps its file
/// whole, and leases end by themselves.
async fn run(
    config: &RegistryConfig,
    control: Arc<Control>,
    metrics: Arc<Registry>,
    ready: &mpsc::SyncSender<Started>,
) {
    let store = match Store::open(config).await {
        Ok(store) => store,
        Err(error) => return drop(ready.send(Err(FollowError::Store(error)))),
    };
    let registry = Arc::new(RouteRegistry::new(store));
    let mut rotation = None;
    let feed = control.shared_tickets().map(|tickets| {
        let (feed, keeper) = keep(tickets, config.ticket_rotation, Arc::clone(&metrics));
        rotation = Some(keeper);
        feed
    });
    let memory = match config.store {
        RegistryStore::Embedded => None,
        RegistryStore::Etcd(_) => Some(Memory::new(&config.state)),
    };
    let upkept = Arc::clone(&metrics);
    let publish = IntoControl {
        control,
        feed,
        metrics,
    };
    let mut follower = Follower::new(Arc::clone(&registry), publish, config.batch, memory);
    follower.recall();
    let _ = ready.send(Ok(Arc::clone(&registry)));
    let told = async {
        registry.has_published(PATIENCE).await;
        let _ = ready.try_send(Ok(Arc::clone(&registry)));
    };
    let rotating = async {
        if let Some(rotation) = rotation {
            rotation.run(&registry).await;
        }
    };
    let upkeep = async {
        if let (Store::Etcd(etcd), RegistryStore::Etcd(etcd_config)) =
            (&registry.store, &config.store)
        {
            upkeep::keep(etcd, etcd_config.compaction, &upkept).await;
        }
    };
    tokio::join!(told, rotating, upkeep, follower.run());
}

/// Hands what the follower finds to whoever serves it.
struct IntoControl {
    control: Arc<Control>,
    feed: Option<TicketFeed>,
    metrics: Arc<Registry>,
}

impl Publish for IntoControl {
    fn routes(&mut self, update: RegistryUpdate) {
        self.control.apply_registry(update);
    }

    fn tickets(&mut self, secrets: Option<&TicketSecrets>, fresh: bool) {
        if let Some(feed) = &self.feed {
            feed.tickets(secrets, fresh);
        }
    }

    fn reachable(&mut self, reachable: bool) {
        self.metrics.follow.reachable(reachable, SystemTime::now());
    }

    fn followed(&mut self, revision: Revision) {
        self.metrics.follow.followed(revision.0);
    }

    fn foreign(&mut self, foreign: bool) {
        self.metrics.follow.foreign(foreign);
    }
}

/// For nobody else's eyes: it holds the secrets of session tickets.
fn make_state(folder: &Path) -> Result<(), FollowError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| FollowError::State {
        folder: folder.display().to_string(),
        error,
    })
}
