//! Puts the secrets that the follower finds in force, and commits new ones when it is time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use super::{SLACK, TicketState, plan};
use crate::observe::metrics;
use crate::registry::jitter::{Pauses, fraction};
use crate::registry::keys::{TICKET_FRESH, TICKET_SECRETS};
use crate::registry::record::TicketSecrets;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Committed, Listing, Range, Store, StoreError};
use crate::tls::SharedTickets;

/// After a rotation that failed.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(500), Duration::from_secs(30));
/// Routers see the lease end at the same moment. Each waits for a random part of this, so that most
/// find the work done.
const MANNERS: Duration = Duration::from_secs(1);

/// Takes what the follower finds.
pub struct TicketFeed {
    tickets: SharedTickets,
    metrics: Arc<metrics::Registry>,
    due: Arc<Notify>,
}

/// Rotates the secrets when the feed says that they are no longer young.
pub struct Rotation {
    due: Arc<Notify>,
    period: Duration,
}

/// How one attempt at a rotation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// There was nothing to do.
    Young,
    /// This router did it; this epoch encrypts now.
    Here(u64),
    /// Another router was first.
    Elsewhere,
}

/// Why secrets were not rotated.
#[derive(Debug, thiserror::Error)]
pub enum RotationError {
    /// The store did not do it, or not for certain.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is there was not written by this version, and is not to be replaced by it.
    #[error("the ticket secrets in the store cannot be read: {0}")]
    Unreadable(String),
    /// The system hands out no random numbers.
    #[error("no random numbers")]
    Random,
}

/// Two ends of the same work: the follower feeds one, the other runs as a task. `period` is how
/// long each secret encrypts.
#[must_use]
pub fn keep(
    tickets: SharedTickets,
    period: Duration,
    metrics: Arc<metrics::Registry>,
) -> (TicketFeed, Rotation) {
    let due = Arc::new(Notify::new());
    let feed = TicketFeed {
        tickets,
        metrics,
        due: Arc::clone(&due),
    };
    (feed, Rotation { due, period })
}

impl TicketFeed {
    /// What stands in the store now. Without secrets, those in force stay.
    pub fn tickets(&self, secrets: Option<&TicketSecrets>, fresh: bool) {
        if !fresh {
            self.due.notify_one();
        }
        let Some(secrets) = secrets else {
            return;
        };
        let before = self.tickets.epoch();
        if let Err(error) = self.tickets.install(secrets) {
            tracing::error!(%error, "secrets of session tickets are not taken; those before stay in force");
            return;
        }
        let Some(epoch) = self.tickets.epoch().filter(|epoch| before != Some(*epoch)) else {
            return;
        };
        self.metrics.control.ticket_epoch(epoch);
        tracing::info!(
            epoch,
            "session tickets are encrypted by the key of this epoch"
        );
    }
}

impl Rotation {
    /// Looks once at the start, and then whenever the feed says so, until the runtime ends. Nothing
    /// is written while the store is not followed: it may be another one than it should be.
    pub async fn run(self, registry: &RouteRegistry) {
        loop {
            registry.wait_until_reachable().await;
            self.rotate_until_done(registry).await;
            self.due.notified().await;
            tokio::time::sleep(MANNERS.mul_f64(fraction())).await;
        }
    }

    async fn rotate_until_done(&self, registry: &RouteRegistry) {
        let mut pauses = PAUSES;
        loop {
            match rotate(&registry.store, self.period).await {
                Ok(Rotated::Here(epoch)) => {
                    return tracing::info!(epoch, "secrets of session tickets rotated");
                }
                Ok(Rotated::Young | Rotated::Elsewhere) => return,
                Err(error) => {
                    // The follower tells of a store that is out of reach.
                    match &error {
                        RotationError::Store(StoreError::Unavailable(_)) => {
                            tracing::debug!(%error, "secrets of session tickets are not rotated");
                        }
                        _ => tracing::error!(%error, "secrets of session tickets are not rotated"),
                    }
                    tokio::time::sleep(pauses.next(fraction())).await;
                    registry.wait_until_reachable().await;
                }
            }
        }
    }
}

/// Replaces the secrets if they are no longer young.
///
/// # Errors
/// If the store does not answer in time, among others. Whether the commit was made is then unknown,
/// so its lease is left to end by itself: without it new secrets would not count as young.
pub async fn rotate(store: &Store, period: Duration) -> Result<Rotated, RotationError> {
    let keys = [Range::key(TICKET_FRESH), Range::key(TICKET_SECRETS)];
    let state = TicketState::read(&store.read(&keys).await?)?;
    if state.is_young() {
        return Ok(Rotated::Young);
    }
    let mut random = [[0; 32]; 2];
    for secret in &mut random {
        aws_lc_rs::rand::fill(secret).map_err(|_| RotationError::Random)?;
    }
    let lease = store.grant(period + SLACK).await?;
    let Some((secrets, commit)) = plan(&state, lease, random) else {
        return Ok(Rotated::Young);
    };
    match store.commit(&commit).await? {
        Committed::Done(_) => {
            let current = secrets.current().map_or(0, |current| current.epoch);
            Ok(Rotated::Here(current))
        }
        Committed::Conflict => {
            // It ends by itself as well.
            let _ = store.revoke(lease).await;
            Ok(Rotated::Elsewhere)
        }
    }
}

impl TicketState {
    /// What a listing says about tickets.
    fn read(listing: &Listing) -> Result<Self, RotationError> {
        let entry = |key| listing.entries.iter().find(|entry| entry.key == key);
        let secrets = match entry(TICKET_SECRETS) {
            None => None,
            Some(entry) => {
                let unreadable = RotationError::Unreadable;
                let secrets: TicketSecrets = serde_json::from_slice(&entry.value)
                    // The error of the JSON would quote a secret.
                    .map_err(|error| unreadable(format!("{:?} error in JSON", error.classify())))?;
                secrets
                    .check()
                    .map_err(|error| unreadable(error.to_string()))?;
                Some(secrets)
            }
        };
        Ok(Self {
            secrets,
            fresh: entry(TICKET_FRESH).is_some(),
            revision: listing.revision,
        })
    }
}
