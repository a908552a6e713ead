//! What keeps etcd from filling up.
//!
//! etcd keeps every former value of every key until somebody compacts it, and takes no writes at
//! all once its database has reached its quota (2 GiB unless it is told otherwise). By default
//! nobody compacts it. So the routers do, as Kubernetes' apiservers do
//! (`staging/src/k8s.io/apiserver/pkg/storage/etcd3/compact.go`): every so often each tries to
//! write one key on the condition that nobody else has written it since the last time, and whoever
//! succeeds compacts up to the revision that it saw then. No clocks are compared, and a router that
//! ends is replaced by the next that tries.

use etcd_client::{Compare, CompareOp, GetOptions, Txn, TxnOp, TxnOpResponse};

use super::super::{Revision, StoreError};
use super::members::Repeat;
use super::{Etcd, revision_of};

/// The key that is written, under our prefix. The store's own: nobody else gets to see it.
pub(super) const COMPACTION: &str = "compaction";

/// What a router knows of etcd's past from the last time it tried to compact it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// How often the key was written.
    version: i64,
    /// The revision then; the default before the first time.
    revision: Revision,
}

/// How one attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compacted {
    /// This router did it: what was overwritten or deleted before this revision is gone.
    Here(Revision),
    /// There was nothing to do: it is the first time, or another router does it.
    Nothing,
}

/// How much room a member has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Bytes of its database file, which its quota is compared with.
    pub size_bytes: u64,
    /// Of these, bytes that hold something; compacting makes them fewer, and defragmenting the file.
    pub used_bytes: u64,
    /// Whether the cluster takes no writes because a member has reached its quota.
    pub is_full: bool,
}

impl Etcd {
    /// Compacts up to the revision of the last time, unless another router has done it since.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Failed`]; `history` is as it was then.
    pub async fn compact(&self, history: &mut History) -> Result<Compacted, StoreError> {
        let before = *history;
        let turn = match self.take_turn(before).await {
            // The key cannot be written, and it is high time: should several routers do it, that
            // is no harm.
            Err(StoreError::Full) => Turn {
                is_ours: true,
                history: History {
                    revision: self.now().await?,
                    ..before
                },
            },
            turn => turn?,
        };
        let compacted = if turn.is_ours && before.revision > Revision::default() {
            self.forget_before(before.revision).await?
        } else {
            Compacted::Nothing
        };
        *history = turn.history;
        Ok(compacted)
    }

    async fn take_turn(&self, before: History) -> Result<Turn, StoreError> {
        let key = self.prefix.of(COMPACTION);
        let nobody_else = Compare::version(key.clone(), CompareOp::Equal, before.version);
        // Nobody reads the value.
        let write = TxnOp::put(key.clone(), before.revision.0.to_string(), None);
        let look = TxnOp::get(key, Some(GetOptions::new()));
        let txn = Txn::new()
            .when([nobody_else])
            .and_then([write])
            .or_else([look]);
        let answer = self.members.call(Repeat::IfUndone, |mut link| {
            let txn = txn.clone();
            async move { link.kv.txn(txn).await }
        });
        let answer = answer.await?;
        let is_ours = answer.succeeded();
        let version = match answer.op_responses().first() {
            Some(TxnOpResponse::Get(seen)) => seen.kvs().first().map_or(0, |it| it.version()),
            _ => before.version + 1,
        };
        let revision = revision_of(answer.header().map(|it| it.revision()))?;
        Ok(Turn {
            is_ours,
            history: History { version, revision },
        })
    }

    async fn forget_before(&self, revision: Revision) -> Result<Compacted, StoreError> {
        let done = self.members.call(Repeat::Always, |mut link| async move {
            link.kv.compact(revision.0, None).await
        });
        match done.await {
            Ok(_) => Ok(Compacted::Here(revision)),
            // By somebody else, and further.
            Err(StoreError::Compacted) => Ok(Compacted::Nothing),
            Err(error) => Err(error),
        }
    }

    /// How much room the member has that is asked first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] or [`StoreError::Failed`].
    pub async fn room(&self) -> Result<Room, StoreError> {
        let status = self.members.call(Repeat::Always, |mut link| async move {
            link.maintenance.status().await
        });
        let status = status.await?;
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        Ok(Room {
            size_bytes: bytes(status.db_size()),
            used_bytes: bytes(status.raft_used_db_size()),
            // Alarms stand among the errors (`server/etcdserver/api/v3rpc/maintenance.go`).
            is_full: status.errors().iter().any(|it| it.contains("NOSPACE")),
        })
    }
}

struct Turn {
    is_ours: bool,
    history: History,
}
