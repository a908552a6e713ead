//! Where the registry keeps its records: a small ordered map with revisions, leases and
//! transactions, as etcd has them.
//!
//! Keys are text without the prefix that a store may put before them. Two kinds exist: one file for
//! a single router ([`embedded`]), and an etcd cluster for several ([`etcd`]). Replication is
//! etcd's. Both keep to the same rules, and one suite of tests runs on both.

pub mod embedded;
pub mod etcd;
#[cfg(test)]
pub mod faults;
mod limits;

use std::time::Duration;

use bytes::Bytes;
use config::announcement::TTL_SECONDS;
use config::router::{RegistryConfig, RegistryStore};

pub use embedded::Embedded;
use etcd::Etcd;
pub use limits::{LARGEST_TRANSACTION_BYTES, MOST_CHANGES, MOST_CONDITIONS, TooLarge};

/// A store of either kind.
#[derive(Debug)]
pub enum Store {
    /// In a file, for a single router.
    Embedded(Embedded),
    /// In an etcd cluster.
    Etcd(Etcd),
}

/// Changes as they happen, each once and in order. Nothing more comes after an error: open another.
#[derive(Debug)]
pub struct Watch(Source);

#[derive(Debug)]
enum Source {
    Embedded(embedded::Watch),
    Etcd(Box<etcd::Watch>),
}

/// Counts up with every change of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// Something that keys hang on: if it is not renewed in time, they go with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub i64);

/// A key and what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Without the store's prefix.
    pub key: String,
    /// JSON, see [`record`](super::record).
    pub value: Bytes,
    /// When the key came into being.
    pub created: Revision,
    /// When it was written last.
    pub modified: Revision,
    /// What it hangs on.
    pub lease: Option<LeaseId>,
}

/// Keys from `start` up to and without `end`, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Range {
    /// The first key.
    pub start: String,
    /// What follows the last key.
    pub end: String,
}

/// Changes that are made together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transaction {
    /// Ranges in which nothing may have been written after `since`. Deletions do not count: they
    /// only make room.
    pub unchanged: Vec<Range>,
    /// See `unchanged`.
    pub since: Revision,
    /// Keys that must (still) exist, for what must not have been deleted since it was read.
    pub present: Vec<String>,
    /// What is written.
    pub puts: Vec<Put>,
    /// What is deleted. A key stands once among puts and deletes.
    pub deletes: Vec<String>,
}

/// A key that is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// The key.
    pub key: String,
    /// Its new value.
    pub value: Bytes,
    /// What it hangs on from now on.
    pub lease: Option<LeaseId>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Committed {
    /// Everything was made, at this revision.
    Done(Revision),
    /// Nothing was: a condition did not hold.
    Conflict,
}

/// Everything as of one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The revision.
    pub revision: Revision,
    /// In the order of keys.
    pub entries: Vec<KeyValue>,
}

/// All that changed at one or several revisions, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The last revision that it covers; a watch resumes after it.
    pub revision: Revision,
    /// What changed.
    pub events: Vec<Event>,
}

/// What happened to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was written.
    Put(KeyValue),
    /// It was deleted, or its lease ended.
    Delete(String),
}

/// Why the store did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, or has no quorum: try again later.
    #[error("the store is out of reach: {0}")]
    Unavailable(String),
    /// It has no room left, and takes nothing until somebody makes some.
    #[error("the store is full")]
    Full,
    /// The lease has ended.
    #[error("the lease has ended")]
    LeaseGone,
    /// Changes after the revision are no longer kept: list anew.
    #[error("changes since then are no longer kept")]
    Compacted,
    /// It refused or failed for good.
    #[error("{0}")]
    Failed(String),
}

impl Store {
    /// Opens the store that the configuration names. An etcd cluster need not be reachable: a
    /// router has to start without it, too.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with the file or address: the embedded store's file is damaged, in use
    /// by another process, or of another version; a certificate for etcd cannot be read.
    pub async fn open(config: &RegistryConfig) -> Result<Self, StoreError> {
        match &config.store {
            RegistryStore::Embedded => Embedded::open(&config.state).await.map(Self::Embedded),
            RegistryStore::Etcd(etcd) => Etcd::open(etcd).map(Self::Etcd),
        }
    }

    /// Everything in these ranges, as it is now: whatever was committed before the call is seen.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], or [`StoreError::Failed`] if there are more than
    /// [`MOST_CONDITIONS`] ranges that do not overlap.
    pub async fn read(&self, ranges: &[Range]) -> Result<Listing, StoreError> {
        self.read_partly(ranges, &[]).await
    }

    /// As [`Store::read`]; of what is only in `keys`, values are left out.
    ///
    /// # Errors
    /// As [`Store::read`], where ranges of both kinds count.
    pub async fn read_partly(
        &self,
        ranges: &[Range],
        keys: &[Range],
    ) -> Result<Listing, StoreError> {
        let (ranges, keys) = (limits::ranges(ranges), limits::ranges(keys));
        limits::check_ranges(ranges.len() + keys.len())?;
        let mut listing = match self {
            Self::Embedded(store) => store.read(ranges.clone(), keys.clone()).await?,
            Self::Etcd(store) => store.read(&ranges, &keys).await?,
        };
        if !keys.is_empty() {
            // Stable: of what was read twice, the entry with its value comes first.
            listing.entries.sort_by(|a, b| a.key.cmp(&b.key));
            listing.entries.dedup_by(|a, b| a.key == b.key);
        }
        Ok(listing)
    }

    /// Everything, as of one revision.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Failed`].
    pub async fn list(&self) -> Result<Listing, StoreError> {
        match self {
            Self::Embedded(store) => store.list().await,
            Self::Etcd(store) => store.list().await,
        }
    }

    /// Changes after a revision, usually a listing's. If the store is behind that, it is not what it
    /// was then (restored from a backup, perhaps), which counts as changes that are no longer kept.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`]. That changes are no longer kept is told by [`Watch::next`].
    pub async fn watch(&self, after: Revision) -> Result<Watch, StoreError> {
        match self {
            Self::Embedded(store) => Ok(Watch(Source::Embedded(store.watch(after)))),
            Self::Etcd(store) => {
                let watch = store.watch(after).await?;
                Ok(Watch(Source::Etcd(Box::new(watch))))
            }
        }
    }

    /// Makes all changes of a transaction if its conditions hold.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] if a key was to hang on a lease that has ended,
    /// [`StoreError::Full`], and [`StoreError::Failed`] if the transaction is too large or names a
    /// key twice: nothing was made then. After [`StoreError::Unavailable`] it may have been made or not; whoever must know
    /// reads.
    pub async fn commit(&self, transaction: &Transaction) -> Result<Committed, StoreError> {
        limits::check(transaction)?;
        #[cfg(test)]
        let fault = faults::of_this_commit();
        #[cfg(test)]
        match &fault {
            Some(faults::Fault::Unreachable) => return Err(faults::unavailable()),
            Some(faults::Fault::ComesSecond(other)) => drop(self.make(other).await?),
            _ => {}
        }
        let committed = self.make(transaction).await;
        #[cfg(test)]
        if fault == Some(faults::Fault::AnswerLost) {
            return Err(faults::unavailable());
        }
        committed
    }

    async fn make(&self, transaction: &Transaction) -> Result<Committed, StoreError> {
        match self {
            Self::Embedded(store) => store.commit(transaction.clone()).await,
            Self::Etcd(store) => store.commit(transaction).await,
        }
    }

    /// A new lease, which ends `ttl` after it was granted or renewed last. etcd counts in whole
    /// seconds, and rounds up.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Full`] or [`StoreError::Failed`].
    pub async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        match self {
            Self::Embedded(store) => store.grant(ttl).await,
            Self::Etcd(store) => store.grant(ttl).await,
        }
    }

    /// Gives a lease its full time again.
    ///
    /// # Errors
    /// [`StoreError::LeaseGone`] if it has ended, else as [`Store::grant`].
    pub async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.renew(lease).await,
            Self::Etcd(store) => store.renew(lease).await,
        }
    }

    /// Ends a lease, and deletes every key that hangs on it. One that is gone already is fine.
    ///
    /// # Errors
    /// As [`Store::grant`].
    pub async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        match self {
            Self::Embedded(store) => store.revoke(lease).await,
            Self::Etcd(store) => store.revoke(lease).await,
        }
    }
}

impl Watch {
    /// Whether it follows the store of this name, as far as is known. The embedded store's file is
    /// open, and nobody puts another in its place.
    #[must_use]
    pub fn is_of(&self, id: Option<&str>) -> bool {
        match &self.0 {
            Source::Embedded(_) => true,
            Source::Etcd(watch) => id.is_none() || watch.store_id() == id,
        }
    }

    /// The next changes. Dropping the future loses none.
    ///
    /// # Errors
    /// [`StoreError::Compacted`] if changes were missed that are no longer kept: list anew.
    /// [`StoreError::Unavailable`] if the store was closed, cannot be reached or has no quorum.
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        match &mut self.0 {
            Source::Embedded(watch) => watch.next().await,
            Source::Etcd(watch) => watch.next().await,
        }
    }
}

impl Range {
    /// A single key.
    #[must_use]
    pub fn key(key: &str) -> Self {
        Self {
            start: key.to_owned(),
            end: format!("{key}\0"),
        }
    }

    /// Every key that begins with `prefix`, which is not empty and ends in ASCII below `~`.
    #[must_use]
    pub fn prefix(prefix: &str) -> Self {
        let mut end = prefix.to_owned();
        let last = end.pop().map_or('\0', |last| char::from(last as u8 + 1));
        end.push(last);
        Self {
            start: prefix.to_owned(),
            end,
        }
    }

    /// Whether it holds `key`.
    #[must_use]
    pub fn contains(&self, key: &str) -> bool {
        *self.start <= *key && *key < *self.end
    }
}

/// The shortest time to live that every store keeps to.
pub const SHORTEST_TTL: Duration = Duration::from_secs(*TTL_SECONDS.start() as u64);

#[cfg(test)]
mod tests {
    use super::Range;

    #[test]
    fn ranges_hold_what_they_say() {
        let key = Range::key("zone/a");
        assert!(key.contains("zone/a") && !key.contains("zone/a/") && !key.contains("zone/"));
        let prefix = Range::prefix("zone/a/");
        assert!(prefix.contains("zone/a/") && prefix.contains("zone/a/x"));
        assert!(!prefix.contains("zone/a") && !prefix.contains("zone/b/x"));
    }
}
