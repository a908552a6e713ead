//! Whose change is made next.
//!
//! A change is a read and a commit on the condition that nobody wrote in between. Instances of one
//! tenant announce into the same ranges, so a hundred of them that come at once would undo one
//! another's conditions again and again: the store would do the square of the work. Here they wait
//! in line instead, and only changes at other routers can come between.
//!
//! All changes together are few at a time as well: a store that is asked for a thousand things at
//! once answers none of them in time, and what is not answered in time is asked for again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Changes that are under way at a time, of all tenants.
const AT_A_TIME: usize = 64;
/// How long to wait for a turn: half of what a request may take, so that something is left to make
/// the change in.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lines that changes wait in.
#[derive(Debug)]
pub struct Turns {
    tenants: Mutex<HashMap<Arc<str>, Line>>,
    all: Arc<Semaphore>,
    patience: Duration,
}

type Line = Arc<tokio::sync::Mutex<()>>;

/// A turn; the next one's comes when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _tenant: OwnedMutexGuard<()>,
    _all: OwnedSemaphorePermit,
}

/// The line is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many other changes wait to be made")]
pub struct TooManyWait;

impl Default for Turns {
    fn default() -> Self {
        Self {
            tenants: Mutex::default(),
            all: Arc::new(Semaphore::new(AT_A_TIME)),
            patience: PATIENCE,
        }
    }
}

impl Turns {
    /// Waits until it is the turn of this change of the tenant's names: those of one tenant come one
    /// after the other, in the order of asking.
    ///
    /// # Errors
    /// It would take too long. Nothing was done then.
    pub async fn take(&self, tenant: &str) -> Result<Turn, TooManyWait> {
        let line = self.line(tenant);
        let turn = timeout(self.patience, async {
            // In this order, so that a tenant's crowd holds one of the places only.
            let own = line.lock_owned().await;
            let all = Arc::clone(&self.all).acquire_owned().await;
            all.map(|all| Turn {
                _tenant: own,
                _all: all,
            })
        });
        // The semaphore is never closed.
        turn.await.ok().and_then(Result::ok).ok_or(TooManyWait)
    }

    fn line(&self, tenant: &str) -> Line {
        let mut tenants = self.tenants();
        // Whoever waits or works has a handle of its own.
        tenants.retain(|_, line| Arc::strong_count(line) > 1);
        if let Some(line) = tenants.get(tenant) {
            return Arc::clone(line);
        }
        let line = Line::default();
        tenants.insert(tenant.into(), Arc::clone(&line));
        line
    }

    fn tenants(&self) -> MutexGuard<'_, HashMap<Arc<str>, Line>> {
        // Nothing in here panics between two changes that belong together.
        self.tenants.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impatient() -> Turns {
        Turns {
            patience: Duration::from_millis(30),
            ..Turns::default()
        }
    }

    #[tokio::test]
    async fn changes_of_one_tenant_come_one_after_the_other() {
        let turns = Turns::default();
        let first = turns.take("a").await.unwrap();
        let mut second = std::pin::pin!(turns.take("a"));
        let soon = Duration::from_millis(30);
        assert!(timeout(soon, &mut second).await.is_err(), "too early");
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn a_tenant_does_not_wait_for_another_one_unless_there_are_too_many() {
        let turns = impatient();
        let mut held = Vec::new();
        for tenant in 0..AT_A_TIME {
            held.push(turns.take(&tenant.to_string()).await.unwrap());
        }
        assert_eq!(turns.take("0").await.unwrap_err(), TooManyWait);
        assert_eq!(turns.take("one more").await.unwrap_err(), TooManyWait);
        held.pop();
        turns.take("one more").await.unwrap();
        drop(held);
        drop(turns.take("a").await);
        assert_eq!(turns.tenants().len(), 1, "tenants are forgotten");
    }
}
