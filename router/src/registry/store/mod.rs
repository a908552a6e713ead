//! Where the registry keeps its records: a small ordered map with revisions, leases and
//! transactions, as etcd has them.
//!
//! Keys are text without the prefix that a store may put before them. Two kinds exist: one file for
//! a single router (`embedded`), and an etcd cluster for several (`etcd`). Replication is etcd's.

use std::time::Duration;

use bytes::Bytes;

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
pub const SHORTEST_TTL: Duration = Duration::from_secs(5);

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
/// STUB
pub struct Store;
/// STUB
pub struct Watch;
impl Watch {
    /// STUB
    pub async fn next(&mut self) -> Result<Batch, StoreError> {
        std::future::pending().await
    }
}
#[allow(missing_docs, clippy::unused_async)]
impl Store {
    pub async fn read(&self, _: &[Range]) -> Result<Listing, StoreError> {
        Err(StoreError::LeaseGone)
    }
    pub async fn list(&self) -> Result<Listing, StoreError> {
        Err(StoreError::LeaseGone)
    }
    pub async fn watch(&self, _: Revision) -> Result<Watch, StoreError> {
        Err(StoreError::LeaseGone)
    }
    pub async fn commit(&self, _: &Transaction) -> Result<Committed, StoreError> {
        Err(StoreError::LeaseGone)
    }
    pub async fn grant(&self, _: Duration) -> Result<LeaseId, StoreError> {
        Err(StoreError::LeaseGone)
    }
    pub async fn renew(&self, _: LeaseId) -> Result<(), StoreError> {
        Err(StoreError::LeaseGone)
    }
    pub async fn revoke(&self, _: LeaseId) -> Result<(), StoreError> {
        Err(StoreError::LeaseGone)
    }
}
