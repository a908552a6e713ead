//! What the API and the follower share: the store, and the view of it.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::ahead::Ahead;
use super::auth::TokenSource;
use super::record::Token;
use super::store::{Revision, Store};
use super::turns::Turns;
use super::view::{Changes, View, lock, relist};

/// The registry as one router knows it.
pub struct RouteRegistry {
    /// Where it is kept.
    pub store: Store,
    /// Whose change is made next.
    pub turns: Turns,
    /// What the view may not have seen yet of this router's own changes.
    pub ahead: Ahead,
    view: Mutex<View>,
    followed: watch::Sender<Revision>,
    reachable: watch::Sender<bool>,
    /// When the store was in reach last; for one that never was, when this began.
    lost_at: Mutex<Instant>,
    listed: AtomicBool,
    knows_routes: watch::Sender<bool>,
}

impl RouteRegistry {
    /// Knows nothing yet.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            turns: Turns::default(),
            ahead: Ahead::default(),
            view: Mutex::default(),
            followed: watch::channel(Revision::default()).0,
            reachable: watch::channel(false).0,
            lost_at: Mutex::new(Instant::now()),
            listed: AtomicBool::new(false),
            knows_routes: watch::channel(false).0,
        }
    }

    /// What is known of the store. Not to be held across an await, nor for long: the follower waits.
    pub fn view(&self) -> MutexGuard<'_, View> {
        lock(&self.view)
    }

    /// Puts what a listing says in the place of what is known. For the follower alone.
    pub(super) fn relist(&self, fresh: View) -> Changes {
        relist(&self.view, fresh)
    }

    /// Whether the store answered last, and is the one that it should be.
    pub fn is_reachable(&self) -> bool {
        *self.reachable.borrow()
    }

    /// Tells whether the store is reachable, again and again.
    pub fn reach(&self) -> watch::Receiver<bool> {
        self.reachable.subscribe()
    }

    /// For how long the store has been out of reach, and with it what the view may have missed.
    pub fn stale_for(&self) -> Option<Duration> {
        let lost_at = *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner);
        (!self.is_reachable()).then(|| lost_at.elapsed())
    }

    /// Waits until the store is reachable.
    pub async fn wait_until_reachable(&self) {
        // Fails only when the sender is gone, which is in here.
        let _ = self.reachable.subscribe().wait_for(|it| *it).await;
    }

    /// Tells how far the view has followed, again and again.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.followed.subscribe()
    }

    /// Whether routes were published at all, be it those that were known when the router ended last.
    pub fn knows_routes(&self) -> bool {
        *self.knows_routes.borrow()
    }

    /// Waits until routes are published for the first time; false if that took too long.
    pub async fn has_published(&self, patience: Duration) -> bool {
        let mut known = self.knows_routes.subscribe();
        let published = known.wait_for(|known| *known);
        matches!(tokio::time::timeout(patience, published).await, Ok(Ok(_)))
    }

    /// Waits until the view has come to `revision`; false if that took too long. While the store is
    /// out of reach the view may be of a time that is none of the store's any more.
    pub async fn has_followed(&self, revision: Revision, patience: Duration) -> bool {
        let mut followed = self.subscribe();
        let both = async {
            loop {
                self.wait_until_reachable().await;
                let reached = followed.wait_for(|now| *now >= revision).await.is_ok();
                if !reached || self.is_reachable() {
                    return reached;
                }
            }
        };
        tokio::time::timeout(patience, both).await.unwrap_or(false)
    }

    /// The view has changed, or caught up.
    pub(super) fn announce_progress(&self, revision: Revision) {
        self.followed.send_replace(revision);
    }

    /// What is known is published.
    pub(super) fn set_published(&self) {
        self.knows_routes.send_replace(true);
    }

    /// The view holds everything that is in the store, not only what was written down for a restart.
    pub(super) fn set_listed(&self) {
        self.listed.store(true, Relaxed);
    }

    /// Whether it was the other before.
    pub(super) fn set_reachable(&self, reachable: bool) -> bool {
        if !reachable && self.is_reachable() {
            *self.lost_at.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        self.reachable
            .send_if_modified(|before| std::mem::replace(before, reachable) != reachable)
    }
}

impl TokenSource for RouteRegistry {
    fn token(&self, id: &str) -> Option<Token> {
        self.view().token(id).cloned()
    }

    fn is_ready(&self) -> bool {
        self.listed.load(Relaxed)
    }
}
