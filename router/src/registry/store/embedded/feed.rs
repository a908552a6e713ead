//! Recent changes, for those who follow.
//!
//! There is one log for all followers, of limited length; a follower is a place in it. So a slow
//! one costs nothing: when the log has moved on past its place, it has to list anew.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::super::{Batch, Event, Revision, StoreError};

/// Most changes that are kept: some minutes of the worst storm.
const MOST_BATCHES: usize = 16_384;
/// Most bytes of keys and values that are kept.
const MOST_BYTES: usize = 32 * 1024 * 1024;

/// The log and a head to wait at. Whoever follows ends when the [`Feed`] is dropped.
pub(super) fn new(revision: Revision) -> (Feed, Arc<Log>) {
    let (head, waiting) = watch::channel(());
    let log = Arc::new(Log {
        kept: Mutex::new(Kept {
            start: revision,
            head: revision,
            batches: VecDeque::new(),
            bytes: 0,
        }),
        waiting,
    });
    let feed = Feed {
        log: Arc::clone(&log),
        head,
    };
    (feed, log)
}

/// The writer's end.
#[derive(Debug)]
pub(super) struct Feed {
    log: Arc<Log>,
    head: watch::Sender<()>,
}

/// The followers' end.
#[derive(Debug)]
pub(super) struct Log {
    kept: Mutex<Kept>,
    waiting: watch::Receiver<()>,
}

#[derive(Debug)]
struct Kept {
    /// Changes after this revision are all there.
    start: Revision,
    head: Revision,
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
}

/// Follows an embedded store.
#[derive(Debug)]
pub struct Watch {
    log: Arc<Log>,
    after: Revision,
    waiting: watch::Receiver<()>,
}

impl Feed {
    /// Adds changes, each batch of a higher revision than the one before.
    pub(super) fn publish(&self, batches: Vec<Batch>) {
        if batches.is_empty() {
            return;
        }
        self.log.with(|kept| {
            for batch in batches {
                kept.head = batch.revision;
                kept.bytes += bytes_of(&batch);
                kept.batches.push_back(Arc::new(batch));
            }
            while kept.batches.len() > MOST_BATCHES || kept.bytes > MOST_BYTES {
                let Some(oldest) = kept.batches.pop_front() else {
                    break;
                };
                kept.start = oldest.revision;
                kept.bytes -= bytes_of(&oldest);
            }
        });
        self.head.send_replace(());
    }

    /// Changes up to `revision` were made that nobody can tell of any more.
    pub(super) fn skip_to(&self, revision: Revision) {
        self.log.with(|kept| {
            if revision != kept.head {
                kept.batches.clear();
                kept.bytes = 0;
                kept.start = revision;
                kept.head = revision;
            }
        });
        self.head.send_replace(());
    }
}

impl Log {
    /// Follows from after a revision.
    pub(super) fn watch(self: &Arc<Self>, after: Revision) -> Watch {
        Watch {
            log: Arc::clone(self),
            after,
            waiting: self.waiting.clone(),
        }
    }

    /// What comes after a revision; `None`: nothing yet. A revision that is yet to come is none of
    /// this file's, whoever has it must list as well.
    fn after(&self, after: Revision) -> Result<Option<Arc<Batch>>, StoreError> {
        self.with(|kept| {
            if after < kept.start || after > kept.head {
                return Err(StoreError::Compacted);
            }
            let at = kept.batches.partition_point(|it| it.revision <= after);
            Ok(kept.batches.get(at).map(Arc::clone))
        })
    }

    fn with<T>(&self, action: impl FnOnce(&mut Kept) -> T) -> T {
        // Nothing in here panics, and a log is none the worse for a panic elsewhere.
        action(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Watch {
    /// See [`Watch::next`](super::super::Watch::next).
    pub(in super::super) async fn next(&mut self) -> Result<Batch, StoreError> {
        loop {
            // Before the look, so that what comes after it wakes us.
            self.waiting.mark_unchanged();
            if let Some(batch) = self.log.after(self.after)? {
                self.after = batch.revision;
                return Ok(Arc::unwrap_or_clone(batch));
            }
            if self.waiting.changed().await.is_err() {
                return Err(StoreError::Unavailable("the store was closed".into()));
            }
        }
    }
}

fn bytes_of(batch: &Batch) -> usize {
    let events = batch.events.iter().map(|event| match event {
        Event::Put(entry) => entry.key.len() + entry.value.len(),
        Event::Delete(key) => key.len(),
    });
    events.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(revision: i64, bytes: usize) -> Batch {
        Batch {
            revision: Revision(revision),
            events: vec![Event::Delete("x".repeat(bytes))],
        }
    }

    async fn now(watch: &mut Watch) -> Option<Result<i64, StoreError>> {
        tokio::select! {
            biased;
            next = watch.next() => Some(next.map(|it| it.revision.0)),
            () = std::future::ready(()) => None,
        }
    }

    #[tokio::test]
    async fn changes_come_in_order_and_only_those_after_the_place() {
        let (feed, log) = new(Revision(7));
        feed.publish(vec![batch(8, 1), batch(9, 1)]);
        let mut from_start = log.watch(Revision(7));
        let mut later = log.watch(Revision(8));
        assert_eq!(now(&mut from_start).await, Some(Ok(8)));
        assert_eq!(now(&mut from_start).await, Some(Ok(9)));
        assert_eq!(now(&mut later).await, Some(Ok(9)));
        assert_eq!(now(&mut later).await, None);
        feed.publish(vec![batch(10, 1)]);
        assert_eq!(now(&mut later).await, Some(Ok(10)));
        assert_eq!(now(&mut from_start).await, Some(Ok(10)));
        for wrong in [6, 11] {
            let mut watch = log.watch(Revision(wrong));
            assert_eq!(now(&mut watch).await, Some(Err(StoreError::Compacted)));
        }
    }

    #[tokio::test]
    async fn a_follower_that_waits_is_woken_by_a_change_and_by_the_end() {
        let (feed, log) = new(Revision(0));
        let mut watch = log.watch(Revision(0));
        let publish = async {
            tokio::task::yield_now().await;
            feed.publish(vec![batch(1, 1)]);
        };
        let (next, ()) = tokio::join!(watch.next(), publish);
        assert_eq!(next.unwrap().revision, Revision(1));
        let end = async {
            tokio::task::yield_now().await;
            drop(feed);
        };
        let (next, ()) = tokio::join!(watch.next(), end);
        assert!(matches!(next, Err(StoreError::Unavailable(_))), "{next:?}");
    }

    #[tokio::test]
    async fn the_log_has_limits_and_whoever_is_too_slow_lists_anew() {
        for (count, bytes) in [(MOST_BATCHES, 1), (8, MOST_BYTES / 8)] {
            let (feed, log) = new(Revision(0));
            let mut slow = log.watch(Revision(0));
            let mut quick = log.watch(Revision(1));
            let last = i64::try_from(count).unwrap() + 1;
            feed.publish((1..=last).map(|it| batch(it, bytes)).collect());
            assert_eq!(now(&mut slow).await, Some(Err(StoreError::Compacted)));
            assert_eq!(now(&mut quick).await, Some(Ok(2)));
        }
    }

    #[tokio::test]
    async fn a_gap_is_told_to_those_before_it_and_not_to_those_behind() {
        let (feed, log) = new(Revision(3));
        feed.publish(vec![batch(4, 1)]);
        let mut before = log.watch(Revision(3));
        feed.skip_to(Revision(4));
        assert_eq!(now(&mut before).await, Some(Ok(4)), "there is no gap");
        feed.skip_to(Revision(6));
        assert_eq!(now(&mut before).await, Some(Err(StoreError::Compacted)));
        let mut behind = log.watch(Revision(6));
        assert_eq!(now(&mut behind).await, None);
    }
}
