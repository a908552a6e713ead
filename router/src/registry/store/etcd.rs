//! The store of several routers: an etcd cluster, over mutual TLS.
//!
//! Every call has a deadline, and goes to another member if the first does not answer. A listing
//! comes in pages, so that it may take as long as it needs. A watch stays at one member, and ends
//! when that one falls silent or has lost the others.

mod failure;
mod identity;
mod members;
mod pages;
mod upkeep;
mod watch;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::router::EtcdStore;
use etcd_client::proto::{PbKeyValue, PbRangeResponse, PbResponseHeader, PbTxnOpResponse};
use etcd_client::{Compare, CompareOp, GetOptions, PutOptions, Txn, TxnOp};
use tracing::{debug, warn};

use super::{Committed, KeyValue, LeaseId, Listing, Range, Revision, StoreError, Transaction};
use members::{Members, Patience, Repeat};
use pages::PageSize;
pub use upkeep::{Compacted, History, Room};
pub use watch::Watch;

/// How often a listing begins anew because its revision was compacted meanwhile.
const LISTINGS: usize = 3;

/// A store in an etcd cluster.
#[derive(Debug)]
pub struct Etcd {
    members: Arc<Members>,
    prefix: Prefix,
    /// As of the last listing, and whatever was heard since.
    cluster: Mutex<Option<ClusterTerm>>,
}

/// Tells a cluster from one that was put in its place. Its number comes from the addresses of its
/// members and `--initial-cluster-token`; its term never falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ClusterTerm {
    id: u64,
    term: u64,
}

impl Etcd {
    /// Reads the certificates, and connects when it is asked for something.
    ///
    /// # Errors
    /// [`StoreError::Failed`] with the file that cannot be used, or with the address or prefix that
    /// is none.
    pub fn open(store: &EtcdStore) -> Result<Self, StoreError> {
        Ok(Self {
            prefix: Prefix::new(&store.prefix)?,
            members: Arc::new(Members::new(store)?),
            cluster: Mutex::new(None),
        })
    }

    /// See [`Store::read`](super::Store::read). Ranges are in order and do not overlap.
    pub(super) async fn read(&self, ranges: &[Range]) -> Result<Listing, StoreError> {
        let gets: Vec<TxnOp> = match ranges {
            // For the revision.
            [] => vec![self.look()],
            ranges => {
                let gets = ranges.iter().map(|range| {
                    let options = GetOptions::new().with_range(self.prefix.of(&range.end));
                    TxnOp::get(self.prefix.of(&range.start), Some(options))
                });
                gets.collect()
            }
        };
        let answer = self
            .members
            .call(Repeat::Always, |mut link| {
                let txn = Txn::new().and_then(gets.clone());
                async move { link.kv.txn(txn).await }
            })
            .await?
            .0;
        let mut entries = Vec::new();
        for part in answer.responses {
            if let Some(PbTxnOpResponse::ResponseRange(part)) = part.response {
                entries.extend(self.entries(part.kvs));
            }
        }
        Ok(Listing {
            revision: revision_of(answer.header.map(|it| it.revision))?,
            entries,
        })
    }

    /// See [`Store::list`](super::Store::list).
    pub(super) async fn list(&self) -> Result<Listing, StoreError> {
        for _ in 0..LISTINGS {
            match self.list_once().await {
                Err(StoreError::Compacted) => {}
                listing => return listing,
            }
        }
        let reason = "etcd is compacted faster than it can be listed";
        Err(StoreError::Unavailable(reason.into()))
    }

    async fn list_once(&self) -> Result<Listing, StoreError> {
        let mut listing = Listing {
            revision: self.now().await?,
            entries: Vec::new(),
        };
        let mut start = self.prefix.start();
        let mut size = PageSize::default();
        let mut cluster: Option<ClusterTerm> = None;
        loop {
            let page = match self.page(&start, size, listing.revision).await {
                Err(StoreError::Unavailable(reason)) => {
                    // Either the cluster is out of reach, or the page is too much for it.
                    self.now().await?;
                    let smaller = size
                        .halved()
                        .ok_or(StoreError::Unavailable(reason.clone()))?;
                    debug!(reason, keys = size.keys(), "a smaller page is asked for");
                    size = smaller;
                    continue;
                }
                page => page?,
            };
            let bytes = page.kvs.iter().map(|it| it.key.len() + it.value.len());
            size = size.after(page.kvs.len(), bytes.sum());
            let now = page.header.as_ref().map(ClusterTerm::of);
            if let (Some(before), Some(now)) = (cluster, now)
                && !now.continues(before)
            {
                // The pages before this one were another's.
                return Err(StoreError::Compacted);
            }
            cluster = now.or(cluster);
            let last = page.kvs.last().map(|last| last.key.clone());
            listing.entries.extend(self.entries(page.kvs));
            match last {
                Some(mut last) if page.more => {
                    last.push(0);
                    start = last;
                }
                _ => {
                    *self.cluster() = cluster;
                    return Ok(listing);
                }
            }
        }
    }

    /// The cluster's revision, which costs next to nothing to ask for.
    async fn now(&self) -> Result<Revision, StoreError> {
        self.read(&[]).await.map(|seen| seen.revision)
    }

    async fn page(
        &self,
        start: &[u8],
        size: PageSize,
        revision: Revision,
    ) -> Result<PbRangeResponse, StoreError> {
        let options = GetOptions::new()
            .with_range(self.prefix.end())
            .with_limit(size.keys())
            .with_revision(revision.0);
        let page = self
            .members
            .call_within(Patience::PAGE, Repeat::Always, |mut link| {
                let (start, options) = (start.to_owned(), options.clone());
                async move { link.kv.get(start, Some(options)).await }
            });
        Ok(page.await?.0)
    }

    /// See [`Store::watch`](super::Store::watch).
    pub(super) async fn watch(&self, after: Revision) -> Result<Watch, StoreError> {
        let opened = self
            .members
            .call(Repeat::Always, |link| {
                watch::open(link, &self.prefix, after)
            })
            .await?;
        let members = Arc::clone(&self.members);
        let now = ClusterTerm::of(&opened.header);
        let same = {
            let mut cluster = self.cluster();
            let same = cluster.is_none_or(|before| now.continues(before));
            if same && cluster.is_some() {
                *cluster = Some(now);
            }
            same
        };
        let is_behind = opened.header.revision < after.0;
        let ended = (is_behind || !same).then_some(StoreError::Compacted);
        let prefix = self.prefix.clone();
        Ok(Watch::new(members, prefix, after, opened, ended))
    }

    fn cluster(&self) -> MutexGuard<'_, Option<ClusterTerm>> {
        // It is whole at every moment.
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Store::commit`](super::Store::commit).
    pub(super) async fn commit(&self, transaction: &Transaction) -> Result<Committed, StoreError> {
        let txn = self.txn(transaction);
        let answer = self
            .members
            .call(Repeat::IfUndone, |mut link| {
                let txn = txn.clone();
                async move { link.kv.txn(txn).await }
            })
            .await?
            .0;
        if !answer.succeeded {
            return Ok(Committed::Conflict);
        }
        let revision = revision_of(answer.header.map(|it| it.revision))?;
        Ok(Committed::Done(revision))
    }

    /// A condition on a range holds if it holds for each key in it, and so if there is none
    /// (`applyCompare` in etcd's `apply.go`: what is not there has revision 0).
    fn txn(&self, transaction: &Transaction) -> Txn {
        let next = transaction.since.0.saturating_add(1);
        let ranges = transaction.unchanged.iter();
        let unchanged = ranges.filter(|it| it.start < it.end).map(|range| {
            Compare::mod_revision(self.prefix.of(&range.start), CompareOp::Less, next)
                .with_range(self.prefix.of(&range.end))
        });
        let present = transaction
            .present
            .iter()
            .map(|key| Compare::create_revision(self.prefix.of(key), CompareOp::Greater, 0));
        let puts = transaction.puts.iter().map(|put| {
            let lease = put.lease.map_or(0, |lease| lease.0);
            let options = PutOptions::new().with_lease(lease);
            TxnOp::put(self.prefix.of(&put.key), &*put.value, Some(options))
        });
        let deletes = transaction.deletes.iter();
        let deletes = deletes.map(|key| TxnOp::delete(self.prefix.of(key), None));
        let mut changes: Vec<TxnOp> = puts.chain(deletes).collect();
        if changes.is_empty() {
            // Else etcd judges the conditions by what one member happens to know.
            changes.push(self.look());
        }
        let conditions: Vec<Compare> = unchanged.chain(present).collect();
        Txn::new().when(conditions).and_then(changes)
    }

    /// See [`Store::grant`](super::Store::grant).
    pub(super) async fn grant(&self, ttl: Duration) -> Result<LeaseId, StoreError> {
        let seconds = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
        let seconds = i64::try_from(seconds.max(1)).unwrap_or(i64::MAX);
        let answer = self
            .members
            // One that nobody hears of ends by itself.
            .call(Repeat::Always, |mut link| async move {
                link.lease.grant(seconds, None).await
            })
            .await?;
        Ok(LeaseId(answer.id()))
    }

    /// See [`Store::renew`](super::Store::renew).
    pub(super) async fn renew(&self, lease: LeaseId) -> Result<(), StoreError> {
        self.members
            .call(Repeat::Always, |mut link| async move {
                link.lease.keep_alive(lease.0).await.map(drop)
            })
            .await
    }

    /// See [`Store::revoke`](super::Store::revoke).
    pub(super) async fn revoke(&self, lease: LeaseId) -> Result<(), StoreError> {
        let revoked = self
            .members
            .call(Repeat::Always, |mut link| async move {
                link.lease.revoke(lease.0).await.map(drop)
            })
            .await;
        match revoked {
            Err(StoreError::LeaseGone) => Ok(()),
            other => other,
        }
    }

    /// Reads next to nothing, but as of now.
    fn look(&self) -> TxnOp {
        TxnOp::get(self.prefix.start(), Some(GetOptions::new().with_limit(1)))
    }

    fn entries(&self, found: Vec<PbKeyValue>) -> impl Iterator<Item = KeyValue> {
        let entries = found.into_iter();
        entries.filter_map(|entry| entry_of(&self.prefix, entry))
    }
}

impl ClusterTerm {
    fn of(header: &PbResponseHeader) -> Self {
        Self {
            id: header.cluster_id,
            term: header.raft_term,
        }
    }

    /// Whether this can be what became of the other.
    fn continues(self, before: Self) -> bool {
        self.id == before.id && self.term >= before.term
    }
}

/// What all our keys begin with. Ends in `/`, so that no other's begin with it.
#[derive(Clone, Debug)]
struct Prefix(Arc<str>);

impl Prefix {
    fn new(prefix: &str) -> Result<Self, StoreError> {
        match prefix.ends_with('/') {
            true => Ok(Self(prefix.into())),
            false => {
                let text = format!("etcd's prefix {prefix:?} does not end in a slash");
                Err(StoreError::Failed(text))
            }
        }
    }

    fn of(&self, key: &str) -> Vec<u8> {
        [self.0.as_bytes(), key.as_bytes()].concat()
    }

    fn start(&self) -> Vec<u8> {
        self.of("")
    }

    fn end(&self) -> Vec<u8> {
        Range::prefix(&self.0).end.into_bytes()
    }
}

fn entry_of(prefix: &Prefix, entry: PbKeyValue) -> Option<KeyValue> {
    let text = String::from_utf8(entry.key).ok();
    let key = text.as_deref().and_then(|key| key.strip_prefix(&*prefix.0));
    if key == Some(upkeep::COMPACTION) {
        return None;
    }
    let Some(key) = key else {
        warn!(
            prefix = &*prefix.0,
            "etcd has a key there that is none of ours"
        );
        return None;
    };
    Some(KeyValue {
        key: key.to_owned(),
        value: Bytes::from(entry.value),
        created: Revision(entry.create_revision),
        modified: Revision(entry.mod_revision),
        lease: (entry.lease != 0).then_some(LeaseId(entry.lease)),
    })
}

fn revision_of(header: Option<i64>) -> Result<Revision, StoreError> {
    let missing = || StoreError::Failed("etcd: an answer without a header".into());
    header.map(Revision).ok_or_else(missing)
}
