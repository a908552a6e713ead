//! A router's follower and control plane in this process, and a bare watch of the same keys beside
//! them. Each runs on a thread and a connection of its own, and stamps what it sees.

use std::fs;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use config::route::HostMatch;
use config::router::{EtcdStore, RegistryStore};
use etcd_client::{Certificate, Client, ConnectOptions, Identity, TlsOptions, WatchOptions};
use router::control::{Control, RegistryUpdate, drop_superseded};
use router::registry::follow::{Follower, Publish};
use router::registry::memory::Memory;
use router::registry::record::TicketSecrets;
use router::registry::route::RouteChange;
use router::registry::shared::RouteRegistry;
use router::registry::store::{self, KeyValue, Revision, Store, StoreError};
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;

use super::cluster::{self, Cluster, registry_config};
use super::population::Writer;
use crate::registry_lookup::routes::empty_control;
use crate::site::memory_folder;

/// Longer than anything takes that works.
const PATIENCE: Duration = Duration::from_secs(60);

/// What keys of routes begin with.
const ROUTES: &str = "route/";

/// Follower and bare watch, until this is dropped.
pub(crate) struct Followed {
    /// What writes: to etcd on connections of its own; the embedded store is one for all.
    pub(crate) writer: Writer,
    events: Receiver<Event>,
    _threads: [Thread; 2],
    _folders: [TempDir; 2],
}

/// What one of the threads saw.
#[derive(Debug)]
pub(crate) enum Event {
    /// These routes are in the snapshot that workers read: rules, and the port of their last endpoint.
    Published {
        at: Instant,
        changes: Vec<(HostMatch, u16)>,
    },
    /// The bare watch was handed so many changes of routes, the last event being of this revision.
    Heard {
        at: Instant,
        revision: Revision,
        changes: usize,
    },
    /// The bare watch has begun.
    Watching,
    /// Something that must not be.
    Failed(String),
}

/// Hands on to the control plane what the follower finds, as in a router, and stamps it.
struct Stamping {
    control: Arc<Control>,
    sender: Sender<Event>,
}

/// A thread with a runtime of its own; ended when dropped.
struct Thread {
    end: Option<oneshot::Sender<()>>,
    handle: Option<JoinHandle<()>>,
}

impl Followed {
    /// Follows a prefix of a cluster, as a router does that has just been started.
    pub(crate) fn etcd(cluster: &Cluster, prefix: &str, runtime: &Runtime) -> Result<Self> {
        let store = cluster.store(prefix);
        let writer = runtime.block_on(cluster::open(store.clone()))?;
        let (sender, events) = channel();
        let (follower, _, folders) = follow(RegistryStore::Etcd(store.clone()), sender.clone())?;
        let watch = Thread::start("bare", move || watch_etcd(store, sender))?;
        Self::begun(writer, events, [follower, watch], folders)
    }

    /// Follows an embedded store, which begins empty.
    pub(crate) fn embedded() -> Result<Self> {
        let (sender, events) = channel();
        let (follower, registry, folders) = follow(RegistryStore::Embedded, sender.clone())?;
        let writer = Writer::of(registry);
        let watched = writer.clone();
        let watch = Thread::start("bare", move || watch_embedded(watched, sender))?;
        Self::begun(writer, events, [follower, watch], folders)
    }

    /// The next that one of the threads saw.
    pub(crate) fn next(&self) -> Result<Event> {
        match self.events.recv_timeout(PATIENCE) {
            Ok(Event::Failed(reason)) => bail!("{reason}"),
            Ok(event) => Ok(event),
            Err(_) => bail!("nothing was published or heard for {PATIENCE:?}"),
        }
    }

    fn begun(
        writer: Writer,
        events: Receiver<Event>,
        threads: [Thread; 2],
        folders: [TempDir; 2],
    ) -> Result<Self> {
        let followed = Self {
            writer,
            events,
            _threads: threads,
            _folders: folders,
        };
        let (mut publishes, mut watches) = (false, false);
        while !publishes || !watches {
            match followed.next()? {
                Event::Published { .. } => publishes = true,
                Event::Watching => watches = true,
                _ => {}
            }
        }
        Ok(followed)
    }
}

/// What the thread `registry` of a router does.
fn follow(
    store: RegistryStore,
    sender: Sender<Event>,
) -> Result<(Thread, Arc<RouteRegistry>, [TempDir; 2])> {
    let (control, folder) = empty_control()?;
    let control = Arc::new(control);
    let state = tempfile::tempdir_in(memory_folder()).context("state folder")?;
    let config = registry_config(store, state.path());
    let last_known = match config.store {
        RegistryStore::Embedded => None,
        RegistryStore::Etcd(_) => Some(Memory::new(state.path())),
    };
    let (opened, ready) = channel();
    let thread = Thread::start("registry", move || async move {
        let store = match Store::open(&config).await {
            Ok(store) => store,
            Err(error) => return drop(sender.send(Event::Failed(error.to_string()))),
        };
        let registry = Arc::new(RouteRegistry::new(store));
        let _ = opened.send(Arc::clone(&registry));
        let publish = Stamping {
            control: Arc::clone(&control),
            sender,
        };
        let follower = Follower::new(registry, publish, config.batch, last_known);
        tokio::join!(follower.run(), drop_superseded(control));
    })?;
    let registry = ready
        .recv_timeout(PATIENCE)
        .context("no store was opened")?;
    Ok((thread, registry, [folder, state]))
}

impl Publish for Stamping {
    fn routes(&mut self, update: RegistryUpdate) {
        let changes = match &update {
            // Before anything is measured.
            RegistryUpdate::Reset(_) => Vec::new(),
            RegistryUpdate::Changes(changes) => changes.iter().filter_map(seen).collect(),
        };
        self.control.apply_registry(update);
        let at = Instant::now();
        let event = match self.in_force(changes.first()) {
            true => Event::Published { at, changes },
            false => Event::Failed(format!("was published and is not there: {:?}", changes[0])),
        };
        let _ = self.sender.send(event);
    }

    fn tickets(&mut self, _: Option<&TicketSecrets>, _: bool) {}

    fn reachable(&mut self, reachable: bool) {
        if !reachable {
            let lost = "the store was out of reach".to_owned();
            let _ = self.sender.send(Event::Failed(lost));
        }
    }

    fn followed(&mut self, _: Revision) {}
}

impl Stamping {
    /// Whether the snapshot that workers read says so.
    fn in_force(&self, change: Option<&(HostMatch, u16)>) -> bool {
        let Some((host, port)) = change else {
            return true;
        };
        let snapshot = self.control.published().load();
        let target = snapshot.routes.get(host);
        let last = target.and_then(|target| target.upstream.endpoints.last());
        last.is_some_and(|last| last.address.port() == *port)
    }
}

fn seen(change: &RouteChange) -> Option<(HostMatch, u16)> {
    match change {
        RouteChange::Set(route) => {
            let last = route.endpoints.last()?;
            Some((route.host.clone(), last.address.port()))
        }
        RouteChange::Gone(_) => None,
    }
}

/// Nothing but the client: what a change costs that is read off etcd's wire and looked at no further.
async fn watch_etcd(store: EtcdStore, sender: Sender<Event>) {
    let error = match heard_from_etcd(&store, &sender).await {
        Ok(()) => "the bare watch ended".to_owned(),
        Err(error) => format!("the bare watch: {error:#}"),
    };
    let _ = sender.send(Event::Failed(error));
}

async fn heard_from_etcd(store: &EtcdStore, sender: &Sender<Event>) -> Result<()> {
    let tls = TlsOptions::new()
        .ca_certificate(Certificate::from_pem(fs::read(&store.ca)?))
        .identity(Identity::from_pem(
            fs::read(&store.certificate)?,
            fs::read(&store.key)?,
        ));
    let options = ConnectOptions::new().with_tls(tls);
    // The member that a router asks first.
    let mut client = Client::connect(&store.endpoints[..1], Some(options)).await?;
    // Zones and the store's name come by as well.
    let is_route = |event: &etcd_client::Event| {
        let key = event.kv().map(|kv| kv.key());
        let key = key.and_then(|key| key.strip_prefix(store.prefix.as_bytes()));
        key.is_some_and(|key| key.starts_with(ROUTES.as_bytes()))
    };
    let options = WatchOptions::new().with_prefix();
    let mut stream = client.watch(store.prefix.as_str(), Some(options)).await?;
    while let Some(message) = stream.message().await? {
        let at = Instant::now();
        let event = match message.events().last().and_then(|last| last.kv()) {
            Some(last) => Event::Heard {
                at,
                revision: Revision(last.mod_revision()),
                changes: message.events().iter().filter(|it| is_route(it)).count(),
            },
            None => Event::Watching,
        };
        let _ = sender.send(event);
    }
    Ok(())
}

async fn watch_embedded(writer: Writer, sender: Sender<Event>) {
    let error = match heard_from_embedded(&writer, &sender).await {
        Ok(()) => return,
        Err(error) => format!("the bare watch: {error}"),
    };
    let _ = sender.send(Event::Failed(error));
}

async fn heard_from_embedded(writer: &Writer, sender: &Sender<Event>) -> Result<(), StoreError> {
    let is_route = |event: &store::Event| {
        let (store::Event::Put(KeyValue { key, .. }) | store::Event::Delete(key)) = event;
        key.starts_with(ROUTES)
    };
    let mut watch = writer.store().watch(Revision::default()).await?;
    let _ = sender.send(Event::Watching);
    loop {
        let batch = watch.next().await?;
        let _ = sender.send(Event::Heard {
            at: Instant::now(),
            revision: batch.revision,
            changes: batch.events.iter().filter(|it| is_route(it)).count(),
        });
    }
}

impl Thread {
    fn start<F: Future<Output = ()>>(
        name: &str,
        life: impl FnOnce() -> F + Send + 'static,
    ) -> Result<Self> {
        let (end, ended) = oneshot::channel();
        let handle = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let runtime = runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .expect("a runtime was made on every other thread");
                runtime.block_on(async {
                    tokio::select! {
                        () = life() => {}
                        _ = ended => {}
                    }
                });
            })
            .context("thread")?;
        Ok(Self {
            end: Some(end),
            handle: Some(handle),
        })
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(handle) = self.handle.take() {
            // A panic there was printed, and what it owed is missing already.
            let _ = handle.join();
        }
    }
}
