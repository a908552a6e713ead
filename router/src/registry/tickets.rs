//! The secrets of session tickets, and how routers replace them without talking to one another.
//!
//! ```text
//! epoch   1     2     3     4     5        one column for each commit
//! start   seal  -
//!         open  seal  -                    seal: encrypts; open: decrypts only
//!               open  seal  -              -: nobody uses it yet, everybody has it
//!                     open  seal  -
//! ```
//!
//! While `ticket/fresh` is there, the secrets are young. It hangs on a lease that nobody renews;
//! when it is gone, whichever router is first appends an epoch, drops the oldest and puts
//! `ticket/fresh` back, all in one transaction. So the lease is the only clock, and no two machines
//! need agree about the time. It may run late (a store that restarts gives leases their full time
//! anew), which makes keys live longer, and never early, unless somebody deletes `ticket/fresh`.
//!
//! What follows: a router that was within reach at some time during the last rotation has the key
//! that encrypts now. A ticket is opened for at least one rotation, and for two at most.

mod keeper;
#[cfg(test)]
mod tests;

use std::time::Duration;

use bytes::Bytes;
pub use keeper::{Rotated, Rotation, RotationError, TicketFeed, keep, rotate};

use super::hex::{from_hex, to_hex};
use super::keys::{TICKET_FRESH, TICKET_SECRETS};
use super::record::{TicketEpoch, TicketSecrets};
use super::store::{LeaseId, Put, Range, Revision, Transaction};

/// Previous, current and next.
const MOST_EPOCHS: usize = 3;
const SECRET: usize = 32;
/// How much longer than a rotation the lease lasts: it runs from before the commit, and a rotation
/// from after it. More than the deadlines of both calls to the store together.
const SLACK: Duration = Duration::from_secs(10);

/// Why something is not a set of secrets. Never says what the secrets are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TicketSecretsError {
    /// There are none, or too many.
    #[error("{0} epochs of ticket secrets instead of 1 to 3")]
    Count(usize),
    /// Epochs do not count up.
    #[error("epoch {0} of ticket secrets does not follow the one before")]
    Order(u64),
    /// A secret is not 32 bytes in hexadecimal.
    #[error("the ticket secret of epoch {0} is not 64 hexadecimal digits")]
    Secret(u64),
    /// The cryptographic library did not do it.
    #[error("no keys could be derived from the ticket secrets")]
    Derivation,
}

impl TicketSecrets {
    /// Whether these are secrets that keys can be derived from.
    ///
    /// # Errors
    /// If they are not; says what is wrong.
    pub fn check(&self) -> Result<(), TicketSecretsError> {
        if self.epochs.is_empty() || self.epochs.len() > MOST_EPOCHS {
            return Err(TicketSecretsError::Count(self.epochs.len()));
        }
        for (index, epoch) in self.epochs.iter().enumerate() {
            if self.epochs[..index]
                .last()
                .is_some_and(|before| before.epoch >= epoch.epoch)
            {
                return Err(TicketSecretsError::Order(epoch.epoch));
            }
            if epoch.bytes().is_none() {
                return Err(TicketSecretsError::Secret(epoch.epoch));
            }
        }
        Ok(())
    }

    /// The one that encrypts: the last but one, which has been everywhere for a rotation, or else
    /// the only one.
    #[must_use]
    pub fn current(&self) -> Option<&TicketEpoch> {
        match &self.epochs[..] {
            [.., current, _] => Some(current),
            only => only.first(),
        }
    }
}

impl TicketEpoch {
    /// An epoch with a secret, which should be random.
    #[must_use]
    pub fn new(epoch: u64, secret: &[u8; SECRET]) -> Self {
        Self {
            epoch,
            secret: to_hex(secret),
        }
    }

    /// The secret; `None` if the record does not hold one.
    #[must_use]
    pub fn bytes(&self) -> Option<[u8; SECRET]> {
        from_hex(&self.secret)
    }
}

/// What the store said about tickets at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TicketState {
    /// `ticket/secrets`.
    pub secrets: Option<TicketSecrets>,
    /// Whether `ticket/fresh` is there.
    pub fresh: bool,
    /// When that was.
    pub revision: Revision,
}

impl TicketState {
    /// Whether it is too early for other secrets.
    #[must_use]
    pub fn is_young(&self) -> bool {
        self.fresh && self.secrets.is_some()
    }
}

/// The next secrets, and what commits them: `None` while the present ones are young. `lease` lasts
/// for one rotation.
///
/// A conflict means that another router was first, and that there is nothing left to do.
#[must_use]
pub fn plan(
    state: &TicketState,
    lease: LeaseId,
    random: [[u8; SECRET]; 2],
) -> Option<(TicketSecrets, Transaction)> {
    if state.is_young() {
        return None;
    }
    let secrets = next(state.secrets.as_ref(), random);
    let value = serde_json::to_vec(&secrets).expect("numbers and text always become JSON");
    let transaction = Transaction {
        unchanged: vec![Range::key(TICKET_SECRETS), Range::key(TICKET_FRESH)],
        since: state.revision,
        // Were they deleted since, this would be a first start.
        present: state
            .secrets
            .iter()
            .map(|_| TICKET_SECRETS.to_owned())
            .collect(),
        puts: vec![
            Put {
                key: TICKET_SECRETS.to_owned(),
                value: value.into(),
                lease: None,
            },
            Put {
                key: TICKET_FRESH.to_owned(),
                value: Bytes::new(),
                lease: Some(lease),
            },
        ],
        deletes: Vec::new(),
    };
    Some((secrets, transaction))
}

/// One epoch more. The first start makes two at once: one to use, and one to have in time.
fn next(current: Option<&TicketSecrets>, random: [[u8; SECRET]; 2]) -> TicketSecrets {
    let mut epochs = current.map_or_else(Vec::new, |current| current.epochs.clone());
    for secret in &random {
        let last = epochs.last().map_or(0, |last| last.epoch);
        epochs.push(TicketEpoch::new(last.saturating_add(1), secret));
        if epochs.len() > 1 {
            break;
        }
    }
    let surplus = epochs.len().saturating_sub(MOST_EPOCHS);
    epochs.drain(..surplus);
    TicketSecrets { epochs }
}
