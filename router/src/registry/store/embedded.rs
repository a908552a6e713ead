//! The store of a single router: one file, written by one thread.
//!
//! ```text
//! commit, grant, renew, revoke --> writer (a thread) --> file (redb, one fsync per turn)
//!                                    |  leases            ^
//! watch <-- feed (recent changes) <--'                    |
//! read, list ---------------------------------------------'
//! ```
//!
//! Every change is durable before its caller hears of it. What waits while the disk syncs goes into
//! the next sync together, each transaction whole and with a revision of its own, so a storm of
//! announcements is not as slow as the disk.

mod feed;
mod file;
mod leases;
mod transaction;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{Committed, LeaseId, Listing, Range, Revision, StoreError, Transaction};
pub use feed::Watch;
use file::RecordFile;
use writer::{Request, Writer};

/// The name of the file in the state folder.
pub const FILE_NAME: &str = "registry.redb";

/// A store in a file. Only one process can have it open.
#[derive(Debug)]
pub struct Embedded {
    file: Arc<RecordFile>,
    log: Arc<feed::Log>,
    writer: Writer,
}

impl Embedded {
    /// Opens [`FILE_NAME`] in a folder; makes both if they are not there. Verifies the whole file.
    /// Every lease gets its full time again, since nobody could renew while the store was closed.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with the file's name: it is damaged, of another version, in use by
    /// another process, or cannot be read or written.
    pub async fn open(state: &Path) -> Result<Self, StoreError> {
        let state = state.to_owned();
        blocking(move || Self::open_blocking(&state)).await
    }

    fn open_blocking(state: &Path) -> Result<Self, StoreError> {
        let (file, contents) = RecordFile::open(state)?;
        let file = Arc::new(file);
        let (feed, log) = feed::new(contents.revision);
        let writer = Writer::start(Arc::clone(&file), feed, contents)?;
        Ok(Self { file, log, writer })
    }

    /// See [`Store::read_partly`](super::Store::read_partly). What is in `keys` comes last.
    pub(super) async fn read(
        &self,
        ranges: Vec<Range>,
        keys: Vec<Range>,
    ) -> Result<Listing, StoreError> {
        self.look(move |file| file.read(&ranges, &keys)).await
    }

    /// See [`Store::list`](super::Store::list).
    pub(super) async fn list(&self) -> Result<Listing, StoreError> {
        self.look(RecordFile::list).await
    }

    /// See [`Store::watch`](super::Store::watch).
    pub(super) fn watch(&self, after: Revision) -> Watch {
        self.log.watch(after)
    }

    /// See [`Store::commit`](super::Store::commit).
    pub(super) async fn commit(&self, transaction: Transaction) -> Result<Committed, StoreError> {
        self.ask(|reply| Request::Commit(transaction, reply)).await
    }

    /// See [`Store::grant`](super::Store::grant).
    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        self.ask(|reply| Request::Grant(ttl, reply)).await
    }

    /// See [`Store::renew`](super::Store::renew).
    pub(super) async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Request::Renew(lease, reply)).await
    }

    /// See [`Store::revoke`](super::Store::revoke).
    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.ask(|reply| Request::Revoke(lease, reply)).await
    }

    async fn look<T: Send + 'static>(
        &self,
        action: impl FnOnce(&RecordFile) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let file = Arc::clone(&self.file);
        let seen = blocking(move || action(&file)).await;
        if let Err(StoreError::Unavailable(_)) = seen {
            self.writer.send(Request::Mend);
        }
        seen
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Request,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        self.writer.send(request(reply));
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

/// Reads wait for the disk, and a runtime's only thread must not.
async fn blocking<T: Send + 'static>(
    action: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(action).await;
    done.unwrap_or_else(|error| Err(StoreError::Failed(format!("the store failed: {error}"))))
}

/// The writer panicked: a fault of ours or of redb, which is in the log.
fn ended() -> StoreError {
    StoreError::Failed("the store's writer has ended".into())
}
