//! The one thread that changes the file.
//!
//! A thread rather than a task: it waits for the disk most of the time, it keeps the order of
//! changes without a lock, and leases end at their time whatever a runtime is busy with.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use redb::{Error, WriteTransaction};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::super::{Batch, Committed, LeaseId, StoreError, Transaction};
use super::feed::Feed;
use super::file::{Contents, RecordFile};
use super::leases::Leases;
use super::transaction::{Applied, Tables};

/// Most requests that share one sync of the disk.
const MOST_PER_ROUND: usize = 256;
/// How long after the disk failed the file is opened again.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// Whoever wakes this much too late was halted together with the API, so that nobody could renew.
const ASLEEP: Duration = Duration::from_secs(2);
/// How long leases live on after a round that took as long as that, or after the disk failed: time
/// for the renewals that wait. No more: whoever is silent is not to be kept by a slow disk.
const GRACE: Duration = Duration::from_secs(2);

type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// What the thread is asked for.
pub(super) enum Request {
    /// See [`Store::commit`](super::super::Store::commit).
    Commit(Transaction, Reply<Committed>),
    /// See [`Store::grant`](super::super::Store::grant).
    Grant(Duration, Reply<LeaseId>),
    /// See [`Store::renew`](super::super::Store::renew).
    Renew(LeaseId, Reply<()>),
    /// See [`Store::revoke`](super::super::Store::revoke).
    Revoke(LeaseId, Reply<()>),
    /// A read found that the disk failed.
    Mend,
}

/// The thread; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct Writer {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub(super) fn start(
        file: Arc<RecordFile>,
        feed: Feed,
        contents: Contents,
    ) -> Result<Self, StoreError> {
        let (requests, received) = channel();
        let leases = Leases::new(contents.leases, contents.last_lease, Instant::now());
        let rounds = Rounds {
            file,
            feed,
            leases,
            broken_until: None,
        };
        let thread = std::thread::Builder::new()
            .name("registry-store".into())
            .spawn(move || rounds.run(&received))
            .map_err(|error| StoreError::Failed(format!("no thread for the store: {error}")))?;
        Ok(Self {
            requests: Some(requests),
            thread: Some(thread),
        })
    }

    /// Hands a request over. If the thread has ended its reply is dropped, which tells the caller.
    pub(super) fn send(&self, request: Request) {
        if let Some(requests) = &self.requests {
            let _ = requests.send(request);
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            // As long as one sync of the disk; afterwards another can open the file. A panic was
            // printed when it happened.
            let _ = thread.join();
        }
    }
}

struct Rounds {
    file: Arc<RecordFile>,
    feed: Feed,
    leases: Leases,
    /// When the file is opened again, if the disk failed.
    broken_until: Option<Instant>,
}

/// What one round does, and has not told anybody yet.
#[derive(Default)]
struct Round {
    commits: Vec<Commit>,
    revokes: Vec<Reply<()>>,
    ended: Vec<LeaseId>,
    batches: Vec<Batch>,
}

struct Commit {
    transaction: Transaction,
    reply: Reply<Committed>,
    result: Result<Committed, StoreError>,
}

impl Rounds {
    fn run(mut self, received: &Receiver<Request>) {
        loop {
            let wake = self.broken_until.or_else(|| self.leases.next_end());
            let rested = Instant::now();
            let first = match wake {
                Some(wake) => {
                    let patience = wake.saturating_duration_since(rested);
                    received.recv_timeout(patience)
                }
                None => received.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match first {
                Ok(request) => Some(request),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let now = Instant::now();
            // The last round may have taken longer than until then: that is no sleep.
            if wake.is_some_and(|wake| is_late(wake.max(rested), now)) {
                warn!("the store was halted: every lease gets its full time again");
                self.leases.restart(now);
            }
            if self.broken_until.is_some_and(|until| until <= now) {
                self.mend();
            }
            let requests = first.into_iter().chain(received.try_iter());
            let requests: Vec<Request> = requests.take(MOST_PER_ROUND).collect();
            self.round(requests, now);
            let done = Instant::now();
            if is_late(now, done) {
                self.leases.grace(done + GRACE);
            }
        }
    }

    fn round(&mut self, requests: Vec<Request>, now: Instant) {
        let mut round = Round::default();
        for request in requests {
            match request {
                Request::Commit(transaction, reply) => round.commits.push(Commit {
                    transaction,
                    reply,
                    result: Ok(Committed::Conflict),
                }),
                Request::Revoke(lease, reply) => {
                    round.ended.push(lease);
                    round.revokes.push(reply);
                }
                Request::Grant(ttl, reply) => {
                    let _ = reply.send(Ok(self.leases.grant(ttl, now)));
                }
                Request::Renew(lease, reply) => {
                    let renewed = self.leases.renew(lease, now);
                    let _ = reply.send(renewed.then_some(()).ok_or(StoreError::LeaseGone));
                }
                Request::Mend if self.broken_until.is_none() => {
                    self.broken_until = Some(now + AFTER_FAILURE);
                }
                Request::Mend => {}
            }
        }
        // After the renewals, some of which may have waited for the disk.
        round.ended.extend(self.leases.due(now));
        round.ended.retain(|&lease| self.leases.is_known(lease));
        round.ended.sort();
        round.ended.dedup();
        let result = if round.commits.is_empty() && round.ended.is_empty() {
            Ok(())
        } else {
            self.write(&mut round)
        };
        round.tell(&result);
    }

    fn write(&mut self, round: &mut Round) -> Result<(), StoreError> {
        if self.broken_until.is_some() {
            return Err(StoreError::Unavailable("the disk failed".into()));
        }
        let begun = self.file.begin();
        let written = begun.and_then(|begun| {
            self.change(&begun, round)
                .and_then(|()| Ok(begun.commit()?))
                .map_err(|error| self.file.trouble(error))
        });
        if let Err(error) = &written {
            error!(%error, "the registry's store cannot be written");
            self.broken_until = Some(Instant::now() + AFTER_FAILURE);
            return written;
        }
        for commit in &round.commits {
            if let Ok(Committed::Done(_)) = commit.result {
                let leases = commit.transaction.puts.iter().filter_map(|put| put.lease);
                leases.for_each(|lease| self.leases.set_stored(lease));
            }
        }
        for &lease in &round.ended {
            self.leases.remove(lease);
        }
        self.feed.publish(std::mem::take(&mut round.batches));
        written
    }

    fn change(&self, begun: &WriteTransaction, round: &mut Round) -> Result<(), Error> {
        let mut tables = Tables::open(begun)?;
        for &lease in &round.ended {
            round.batches.extend(tables.end(lease)?);
        }
        for commit in &mut round.commits {
            commit.result = match tables.apply(&commit.transaction, &self.leases, &round.ended)? {
                Applied::Done(revision, batch) => {
                    round.batches.extend(batch);
                    Ok(Committed::Done(revision))
                }
                Applied::Conflict => Ok(Committed::Conflict),
                Applied::LeaseGone => Err(StoreError::LeaseGone),
            };
        }
        Ok(())
    }

    /// Opens the file again after the disk failed, which redb asks for.
    fn mend(&mut self) {
        match self.file.reopen() {
            Ok(contents) => {
                info!("the registry's store can be used again");
                // What was being written may be in the file or not, and nobody was told of it.
                self.feed.skip_to(contents.revision);
                self.leases
                    .reconcile(contents.leases.iter().map(|&(lease, _)| lease));
                // Nothing could end meanwhile, and not everything could be asked for.
                self.leases.grace(Instant::now() + GRACE);
                self.broken_until = None;
            }
            Err(error) => {
                error!(%error, "the registry's store cannot be opened again");
                self.broken_until = Some(Instant::now() + AFTER_FAILURE);
            }
        }
    }
}

fn is_late(due: Instant, now: Instant) -> bool {
    now.saturating_duration_since(due) > ASLEEP
}

impl Round {
    fn tell(self, result: &Result<(), StoreError>) {
        for commit in self.commits {
            let _ = commit.reply.send(result.clone().and(commit.result));
        }
        for reply in self.revokes {
            let _ = reply.send(result.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::super::{Event, Put, Revision, Store};
    use super::super::Embedded;
    use super::*;

    #[tokio::test]
    async fn a_slow_disk_gives_no_lease_its_full_time_again() {
        const SHORT: Duration = Duration::from_secs(2);
        const LONG: Duration = Duration::from_secs(5);
        const RENEWED: Duration = Duration::from_secs(3);
        let folder = tempfile::tempdir().unwrap();
        let embedded = Embedded::open(folder.path()).await.unwrap();
        let file = Arc::clone(&embedded.file);
        let store = Store::Embedded(embedded);
        let mut revision = Revision::default();
        let mut leases = Vec::new();
        for (key, ttl) in [("short", SHORT), ("long", LONG), ("renewed", RENEWED)] {
            let lease = store.grant(ttl).await.unwrap();
            leases.push(lease);
            let put = Put {
                key: key.into(),
                value: Bytes::new(),
                lease: Some(lease),
            };
            let transaction = Transaction {
                puts: vec![put],
                ..Transaction::default()
            };
            let Committed::Done(done) = store.commit(&transaction).await.unwrap() else {
                panic!("there is no condition")
            };
            revision = done;
        }
        let mut watch = store.watch(revision).await.unwrap();
        // Nobody else gets to write while this is open; the writer waits as if for its disk.
        let disk = file.begin().unwrap();
        let late = Transaction {
            puts: vec![Put {
                key: "late".into(),
                value: Bytes::new(),
                lease: None,
            }],
            ..Transaction::default()
        };
        let (committed, renewed, ()) = tokio::join!(
            store.commit(&late),
            async {
                tokio::time::sleep(SHORT / 2).await;
                store.renew(leases[2]).await
            },
            async {
                tokio::time::sleep(SHORT + ASLEEP + SHORT / 2).await;
                disk.abort().unwrap();
            }
        );
        committed.unwrap();
        renewed.unwrap();
        let renewing = async {
            loop {
                store.renew(leases[2]).await.unwrap();
                tokio::time::sleep(SHORT / 4).await;
            }
        };
        let ending = async {
            loop {
                let batch = watch.next().await.unwrap();
                if batch.events.contains(&Event::Delete("short".into())) {
                    return store.list().await.unwrap();
                }
            }
        };
        let listing = tokio::select! {
            listing = ending => listing,
            () = renewing => unreachable!("it renews for ever"),
        };
        let keys: Vec<&str> = listing.entries.iter().map(|it| &*it.key).collect();
        // Its own time was over during the grace of the other: both ended at once.
        assert_eq!(keys, ["late", "renewed"]);
    }
}
