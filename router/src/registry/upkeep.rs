//! What a router does for an etcd that nobody else looks after: compacts it, and tells how full it
//! is.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::jitter::fraction;
use super::store::etcd::{Compacted, Etcd, History};
use crate::observe::metrics::Registry;

/// How often etcd is asked how full it is.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(15);

/// Does it until the runtime ends. `every`: how often etcd is compacted, zero for never.
pub(super) async fn keep(etcd: &Etcd, every: Duration, metrics: &Arc<Registry>) {
    tokio::join!(compact(etcd, every, metrics), look(etcd, metrics));
}

async fn compact(etcd: &Etcd, every: Duration, metrics: &Registry) {
    if every.is_zero() {
        return;
    }
    let mut history = History::default();
    loop {
        match etcd.compact(&mut history).await {
            Ok(Compacted::Here(revision)) => {
                metrics.etcd.compacted();
                tracing::info!(revision = revision.0, "the registry's etcd is compacted");
            }
            Ok(Compacted::Nothing) => {}
            // The follower tells of a store that is out of reach; this comes round again.
            Err(error) => tracing::warn!(%error, "the registry's etcd is not compacted"),
        }
        sleep(every).await;
    }
}

async fn look(etcd: &Etcd, metrics: &Registry) {
    let mut was_full = false;
    loop {
        if let Ok(room) = etcd.room().await {
            metrics
                .etcd
                .room(room.size_bytes, room.used_bytes, room.is_full);
            if room.is_full && !was_full {
                tracing::error!(
                    bytes = room.size_bytes,
                    "the registry's etcd is full (alarm NOSPACE) and takes no changes: compact and \
                     defragment it, then disarm the alarm"
                );
            }
            if was_full && !room.is_full {
                tracing::info!("the registry's etcd takes changes again");
            }
            was_full = room.is_full;
        }
        sleep(LOOKED_AT_EVERY.mul_f64(0.5 + fraction())).await;
    }
}
