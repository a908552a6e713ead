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
//! Nothing that happens to the store takes a route away but its own deletion.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::memory::{Keeper, Memory};
use super::record::TicketSecrets;
use super::route::RouteChange;
use super::shared::RouteRegistry;
use super::store::{Batch, Revision, StoreError};
use super::view::{Changes, HostKey};
use crate::control::RegistryUpdate;

/// First and longest pause between attempts to reach the store.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
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
        let mut pause = PAUSES.0;
        loop {
            let error = match self.registry.store.list().await {
                Err(error) => error,
                Ok(listing) => {
                    self.reached();
                    pause = PAUSES.0;
                    let revision = listing.revision;
                    let changes = self.registry.view().reset(listing);
                    self.registry.set_listed();
                    self.take(changes);
                    self.tell_unreadable();
                    self.progress(revision);
                    self.flush();
                    self.watch().await
                }
            };
            match error {
                StoreError::Compacted => {
                    tracing::info!(
                        "too much changed while the registry was not followed: listing anew"
                    );
                }
                error => {
                    self.lost(&error);
                    self.wait(&mut pause).await;
                }
            }
        }
    }

    /// Watches from where the view is, across breaks, until there is nothing for it but to list anew.
    async fn watch(&mut self) -> StoreError {
        let mut pause = PAUSES.0;
        loop {
            let revision = self.registry.view().revision();
            let error = match self.registry.store.watch(revision).await {
                Err(error) => error,
                Ok(mut watch) => {
                    self.reached();
                    pause = PAUSES.0;
                    // Read by a task of its own, so that nothing is lost while something else is
                    // waited for.
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
            };
            match error {
                StoreError::Compacted => return error,
                error => {
                    self.lost(&error);
                    self.wait(&mut pause).await;
                }
            }
        }
    }

    async fn take_in(
        &mut self,
        mut batches: mpsc::Receiver<Result<Batch, StoreError>>,
    ) -> StoreError {
        loop {
            let due = self.due();
            tokio::select! {
                batch = batches.recv() => match batch {
                    Some(Ok(batch)) => self.batch(batch),
                    Some(Err(error)) => return error,
                    None => return StoreError::Unavailable("the watch ended".to_owned()),
                },
                () = tokio::time::sleep_until(due), if !self.pending.is_empty() => {}
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
        if (changes.tickets || !changes.hosts.is_empty())
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
            let all = self.registry.view().routes().map(Arc::new).collect();
            self.publish.routes(RegistryUpdate::Reset(all));
        } else if !self.pending.is_empty() {
            let pending = std::mem::take(&mut self.pending);
            let changes: Vec<RouteChange> = {
                let view = self.registry.view();
                pending
                    .iter()
                    .map(|HostKey(host)| view.change(host))
                    .collect()
            };
            self.publish.routes(RegistryUpdate::Changes(changes));
        } else {
            return;
        }
        self.published_at = Some(Instant::now());
        self.registry.set_published();
    }

    fn reached(&mut self) {
        if self.registry.set_reachable(true) {
            tracing::info!("following the route registry");
            self.publish.reachable(true);
        }
    }

    fn lost(&mut self, error: &StoreError) {
        // What is pending came from the store and holds whatever became of it since.
        if self.begun {
            self.flush();
        }
        if self.registry.set_reachable(false) {
            tracing::warn!(%error, "the route registry is out of reach: the routes that are known stay in force");
            self.publish.reachable(false);
        } else {
            tracing::debug!(%error, "the route registry is still out of reach");
        }
    }

    async fn wait(&mut self, pause: &mut Duration) {
        if let Some(keeper) = &self.keeper {
            keeper.hurry();
        }
        tokio::time::sleep(pause.mul_f64(0.5 + super::jitter::fraction() / 2.0)).await;
        *pause = (*pause * 2).min(PAUSES.1);
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

    use crate::registry::store::{Embedded, Put, Store, Transaction};

    use super::*;

    /// Tells how many changes were published at once; the first time, all there are.
    struct Told(UnboundedSender<usize>);

    impl Publish for Told {
        fn routes(&mut self, update: RegistryUpdate) {
            let count = match update {
                RegistryUpdate::Reset(routes) => routes.len(),
                RegistryUpdate::Changes(changes) => changes.len(),
            };
            let _ = self.0.send(count);
        }

        fn tickets(&mut self, _: Option<&TicketSecrets>, _: bool) {}

        fn reachable(&mut self, _: bool) {}

        fn followed(&mut self, _: Revision) {}
    }

    async fn followed(window: Duration) -> (Arc<RouteRegistry>, UnboundedReceiver<usize>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).await.unwrap();
        let registry = Arc::new(RouteRegistry::new(Store::Embedded(store)));
        let (sender, mut published) = unbounded_channel();
        let follower = Follower::new(Arc::clone(&registry), Told(sender), window, None);
        tokio::spawn(follower.run());
        assert_eq!(published.recv().await, Some(0));
        (registry, published, folder)
    }

    async fn put(registry: &RouteRegistry, names: &[&str]) {
        let puts = names.iter().map(|name| Put {
            key: format!("route/gro.x.{name}/acme/w1"),
            value: r#"{"endpoints":["10.0.0.1:1"]}"#.into(),
            lease: None,
        });
        let transaction = Transaction {
            puts: puts.collect(),
            ..Transaction::default()
        };
        registry.store.commit(&transaction).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_after_quiet_waits_for_no_window_and_those_that_follow_come_together() {
        let window = Duration::from_millis(500);
        let (registry, mut published, _folder) = followed(window).await;
        for _ in 0..2 {
            tokio::time::sleep(window + Duration::from_millis(20)).await;
            let begun = Instant::now();
            put(&registry, &["a"]).await;
            assert_eq!(published.recv().await, Some(1));
            let first = begun.elapsed();
            assert!(first < window, "{first:?}");
            for names in [&["b"][..], &["c", "d"], &["b"]] {
                put(&registry, names).await;
            }
            assert_eq!(published.recv().await, Some(3), "b, c and d");
            assert!(begun.elapsed() >= window);
        }
    }

    #[tokio::test]
    async fn without_a_window_every_change_is_published_at_once() {
        let (registry, mut published, _folder) = followed(Duration::ZERO).await;
        for names in [&["a"][..], &["b", "c"], &["a"]] {
            put(&registry, names).await;
            assert_eq!(published.recv().await, Some(names.len()));
        }
    }
}
