//! Follows the store: every change comes into the view, and from there to whoever publishes routes.
//!
//! ```text
//!            .--> out of reach: what is known stays, tried again and again <--.
//!            |                                                                |
//! start --> list --> watch --> a change: published at once, those that follow within the window
//!            ^                 together at its end
//!            |                                                                |
//!            `---------------------- too far behind: list anew <--------------'
//! ```
//!
//! Nothing that happens to the store takes a route away but its own deletion: a store that is gone,
//! slow, or another one than before ([`super::origin`]) changes nothing. One that was restored from a
//! backup is listed anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use config::route::HostMatch;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::jitter::{Pauses, fraction};
use super::keys::STORE_ID;
use super::memory::{Keeper, Memory};
use super::origin::{self, Foreign};
use super::record::TicketSecrets;
use super::route::{RegistryRoute, RouteChange};
use super::shared::RouteRegistry;
use super::store::{Batch, Committed, Listing, Range, Revision, StoreError};
use super::view::{Changes, HostKey, View};
use crate::control::RegistryUpdate;

/// Between attempts to reach the store.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(2));
/// Between looks at a store that is another one. Short, since what was announced to the right one
/// ends there soon after it is back.
const FOREIGN_PAUSES: Pauses = Pauses::new(Duration::from_millis(500), Duration::from_secs(1));
/// How long a watch that is silent has to live until it counts as one that works.
const SETTLED: Duration = Duration::from_secs(1);
/// Routes that are looked up at once: the view is locked meanwhile.
const AT_ONCE: usize = 256;
/// Batches that wait to be taken in.
const BATCHES: usize = 256;

/// Where the follower's findings go.
pub trait Publish: Send + 'static {
    /// Routes have changed.
    fn routes(&mut self, update: RegistryUpdate);
    /// The secrets of session tickets have changed, or are no longer young.
    fn tickets(&mut self, secrets: Option<&TicketSecrets>, fresh: bool);
    /// The store can be reached or not.
    fn reachable(&mut self, reachable: bool);
    /// Everything up to this revision was taken in.
    fn followed(&mut self, revision: Revision);
    /// What answers is another store than the known routes came from, or is not any more.
    fn foreign(&mut self, _: bool) {}
}

/// Why the store is not followed.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Foreign(#[from] Foreign),
}

/// Follows the store until the runtime ends.
pub struct Follower<P> {
    registry: Arc<RouteRegistry>,
    publish: P,
    window: Duration,
    /// Writes down the last known routes; the embedded store needs nobody to.
    keeper: Option<Arc<Keeper>>,
    pending: BTreeSet<HostKey>,
    published_at: Option<Instant>,
    /// Whether routes were published at all; the first time it is all of them.
    begun: bool,
    /// Whether it was told that the store is another one.
    foreign: bool,
    pauses: Pauses,
    foreign_pauses: Pauses,
}

impl<P: Publish> Follower<P> {
    /// Changes within `window` after one was published are published together.
    pub fn new(
        registry: Arc<RouteRegistry>,
        publish: P,
        window: Duration,
        memory: Option<Memory>,
    ) -> Self {
        Self {
            registry,
            publish,
            window,
            keeper: memory.map(|memory| Arc::new(Keeper::new(memory))),
            pending: BTreeSet::new(),
            published_at: None,
            begun: false,
            foreign: false,
            pauses: PAUSES,
            foreign_pauses: FOREIGN_PAUSES,
        }
    }

    /// Publishes what was known when the router ended last, so that it serves before the store can be
    /// reached, or even if it cannot.
    pub fn recall(&mut self) {
        let Some(listing) = self.keeper.as_ref().and_then(|it| it.load()) else {
            return;
        };
        let changes = {
            let mut view = self.registry.view();
            let changes = view.reset(listing);
            tracing::info!(
                routes = view.len(),
                "serving the routes that were known last until the registry's store answers"
            );
            changes
        };
        self.take(changes);
        self.flush();
    }

    /// Follows; never ends.
    pub async fn run(mut self) {
        let (keeper, registry) = (self.keeper.clone(), Arc::clone(&self.registry));
        let keeping = async {
            if let Some(keeper) = keeper {
                keeper.run(&registry).await;
            }
        };
        tokio::join!(keeping, self.follow());
    }

    async fn follow(&mut self) {
        let mut anew = true;
        loop {
            let listed = match anew {
                true => self.list().await,
                false => Ok(()),
            };
            let trouble = match listed {
                Ok(()) => {
                    anew = false;
                    self.watch().await.into()
                }
                Err(trouble) => trouble,
            };
            let pause = match &trouble {
                Trouble::Store(StoreError::Compacted) => {
                    tracing::info!(
                        "the registry is listed anew: too much changed while it was not followed, or the store \
                         was restored from a backup"
                    );
                    anew = true;
                    self.pauses.next(fraction())
                }
                Trouble::Store(_) => {
                    self.lost(&trouble);
                    self.pauses.next(fraction())
                }
                Trouble::Foreign(_) => {
                    self.lost(&trouble);
                    self.foreign_pauses.next(fraction())
                }
            };
            if let Some(keeper) = &self.keeper {
                keeper.hurry();
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Asks a store that was another one for its name, which costs less than a listing.
    async fn look(&self) -> Result<(), Trouble> {
        let Some(known) = self.registry.view().store_id().map(str::to_owned) else {
            return Ok(());
        };
        let name = [Range::key(STORE_ID)];
        let found = self.registry.store.read(&name).await?;
        let found = found.entries.first();
        match found.and_then(|entry| origin::parse(&entry.value)) {
            Some(name) if name == known => Ok(()),
            _ => Err(Foreign::Other.into()),
        }
    }

    /// Takes in everything, if it is of the store that it should be of.
    async fn list(&mut self) -> Result<(), Trouble> {
        if self.foreign {
            self.look().await?;
        }
        let listing = self.registry.store.list().await?;
        let revision = listing.revision;
        let registry = Arc::clone(&self.registry);
        // Takes seconds for a million routes, and this thread has connections to look after.
        let relisted = tokio::task::spawn_blocking(move || relist(&registry, listing));
        let panicked = |error| StoreError::Failed(format!("a listing was not taken in: {error}"));
        let changes = relisted.await.map_err(panicked)??;
        self.familiar();
        self.registry.set_listed();
        self.take(changes);
        self.tell_unreadable();
        self.progress(revision);
        self.flush();
        self.reached();
        self.name(revision).await;
        Ok(())
    }

    /// Gives the store a name if it has none.
    async fn name(&self, since: Revision) {
        if self.registry.view().store_id().is_some() {
            return;
        }
        let mut random = [0; 16];
        let random_numbers = aws_lc_rs::rand::fill(&mut random);
        let named = match random_numbers {
            Ok(()) => {
                self.registry
                    .store
                    .commit(&origin::naming(random, since))
                    .await
            }
            Err(_) => Err(StoreError::Failed("no random numbers".to_owned())),
        };
        match named {
            Ok(Committed::Done(_)) => tracing::info!("the registry's store has a name from now on"),
            Ok(Committed::Conflict) => {}
            // With the next listing, perhaps. All else works.
            Err(error) => tracing::warn!(%error, "the registry's store has no name yet"),
        }
    }

    /// Watches from where the view is; gives why that ended.
    async fn watch(&mut self) -> StoreError {
        let (revision, id) = {
            let view = self.registry.view();
            (view.revision(), view.store_id().map(str::to_owned))
        };
        let mut watch = match self.registry.store.watch(revision).await {
            Ok(watch) => watch,
            Err(error) => return error,
        };
        if !watch.is_of(id.as_deref()) {
            return StoreError::Compacted;
        }
        // Read by a task of its own, so that nothing is lost while something else is waited for.
        let (sender, batches) = mpsc::channel(BATCHES);
        let reader = tokio::spawn(async move {
            loop {
                let batch = watch.next().await;
                let ended = batch.is_err();
                if sender.send(batch).await.is_err() || ended {
                    return;
                }
            }
        });
        let error = self.take_in(batches).await;
        reader.abort();
        error
    }

    async fn take_in(
        &mut self,
        mut batches: mpsc::Receiver<Result<Batch, StoreError>>,
    ) -> StoreError {
        let settled_at = Instant::now() + SETTLED;
        let mut settled = false;
        loop {
            let due = self.due();
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(Ok(batch)) => {
                        if !std::mem::replace(&mut settled, true) {
                            self.settled();
                        }
                        self.batch(batch);
                    }
                    Some(Err(error)) => return error,
                    None => return StoreError::Unavailable("the watch ended".to_owned()),
                },
                () = tokio::time::sleep_until(due), if !self.pending.is_empty() => {}
                () = tokio::time::sleep_until(settled_at), if !settled => {
                    settled = true;
                    self.settled();
                }
            }
            // What is there already belongs together.
            while let Ok(batch) = batches.try_recv() {
                match batch {
                    Ok(batch) => self.batch(batch),
                    Err(error) => return error,
                }
            }
            if Instant::now() >= self.due() {
                self.flush();
            }
        }
    }

    fn batch(&mut self, batch: Batch) {
        let revision = batch.revision;
        let changes = self.registry.view().apply(batch);
        self.take(changes);
        self.progress(revision);
    }

    fn progress(&mut self, revision: Revision) {
        self.registry.announce_progress(revision);
        self.publish.followed(revision);
    }

    fn take(&mut self, changes: Changes) {
        if changes.tickets {
            let view = self.registry.view();
            let (secrets, fresh) = view.tickets();
            let secrets = secrets.cloned();
            drop(view);
            self.publish.tickets(secrets.as_ref(), fresh);
        }
        if (changes.tickets || changes.store_id || !changes.hosts.is_empty())
            && let Some(keeper) = &self.keeper
        {
            keeper.changed();
        }
        self.pending.extend(changes.hosts);
    }

    /// When what is pending may be published.
    fn due(&self) -> Instant {
        match self.published_at {
            Some(at) => at + self.window,
            None => Instant::now(),
        }
    }

    fn flush(&mut self) {
        if !self.begun {
            self.begun = true;
            self.pending.clear();
            self.publish
                .routes(RegistryUpdate::Reset(self.all_routes()));
        } else if !self.pending.is_empty() {
            let pending: Vec<HostKey> = std::mem::take(&mut self.pending).into_iter().collect();
            let mut changes: Vec<RouteChange> = Vec::with_capacity(pending.len());
            for some in pending.chunks(AT_ONCE) {
                let view = self.registry.view();
                changes.extend(some.iter().map(|HostKey(host)| view.change(host)));
            }
            self.publish.routes(RegistryUpdate::Changes(changes));
        } else {
            return;
        }
        self.published_at = Some(Instant::now());
        self.registry.set_published();
    }

    /// Nobody but this follower changes the view.
    fn all_routes(&self) -> Vec<Arc<RegistryRoute>> {
        let mut all = Vec::new();
        let mut after: Option<HostMatch> = None;
        loop {
            let view = self.registry.view();
            let some: Vec<&HostMatch> = view
                .hosts_after(None, after.as_ref())
                .take(AT_ONCE)
                .collect();
            let Some(last) = some.last() else {
                return all;
            };
            let last = HostMatch::clone(last);
            all.extend(
                some.iter()
                    .filter_map(|host| view.route(host))
                    .map(Arc::new),
            );
            after = Some(last);
        }
    }

    /// A watch works.
    fn settled(&mut self) {
        self.pauses.reset();
        self.foreign_pauses.reset();
        self.reached();
    }

    /// The store that answers is the right one.
    fn familiar(&mut self) {
        if std::mem::take(&mut self.foreign) {
            tracing::info!("the store that the known routes came from answers again");
            self.publish.foreign(false);
        }
    }

    fn reached(&mut self) {
        if self.registry.set_reachable(true) {
            tracing::info!("following the route registry");
            self.publish.reachable(true);
        }
    }

    fn lost(&mut self, error: &Trouble) {
        // What is pending came from the store and holds whatever became of it since.
        if self.begun {
            self.flush();
        }
        let was_reachable = self.registry.set_reachable(false);
        if was_reachable {
            self.publish.reachable(false);
        }
        if let Trouble::Foreign(_) = error {
            if !std::mem::replace(&mut self.foreign, true) {
                self.publish.foreign(true);
                let file = self.keeper.as_ref().map(|it| it.file());
                let file = file.unwrap_or_default();
                tracing::error!(
                    %error,
                    file = %file.display(),
                    "the store is not followed, and the routes that are known stay in force: if its \
                     endpoints and prefix are right and it is to be followed from now on, stop the \
                     router, remove the file and start it again"
                );
            }
        } else if was_reachable {
            tracing::warn!(%error, "the route registry is out of reach: the routes that are known stay in force");
        } else {
            tracing::debug!(%error, "the route registry is still out of reach");
        }
    }

    fn tell_unreadable(&self) {
        let view = self.registry.view();
        let unreadable = view.unreadable();
        let count = unreadable.len();
        if let Some((key, reason)) = view.unreadable().next() {
            tracing::warn!(
                count,
                key,
                reason,
                "records of the registry are left out: perhaps a newer version wrote them"
            );
        }
    }
}

/// What a listing changes in the view, unless it is of another store than the view.
fn relist(registry: &RouteRegistry, listing: Listing) -> Result<Changes, Foreign> {
    let fresh = View::of(listing);
    origin::check(&registry.view(), &fresh)?;
    Ok(registry.relist(fresh))
}

#[cfg(test)]
mod tests;
