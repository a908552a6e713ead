//! Follows the keys under a prefix.
//!
//! etcd takes a watch from a revision that is yet to come, and is silent until then. So a cluster that
//! was restored from a backup, or made anew, would be followed in vain: every watch is checked against
//! what the cluster is when it begins.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::proto::PbResponseHeader as ResponseHeader;
use etcd_client::{
    Error, EventType, WatchOptions, WatchRequestSender, WatchResponse, WatchResponseStream,
};
use tokio::time::{Instant, timeout_at};

use super::super::super::keys::STORE_ID;
use super::super::{Batch, Event, Revision, StoreError};
use super::failure::Failure;
use super::members::{Link, Members, Place};
use super::{Prefix, entry_of};

/// How long a watch may be silent before the member is asked whether it is still there.
const SILENCE: Duration = Duration::from_millis(1_500);
/// How long it may take to answer that.
const ANSWER: Duration = Duration::from_millis(2_500);

/// Follows an etcd cluster, at one of its members.
#[derive(Debug)]
pub struct Watch {
    members: Arc<Members>,
    place: Place,
    prefix: Prefix,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    assembly: Assembly,
    heard: Instant,
    asked: Option<Instant>,
    /// The answer that it began with, which may be the last.
    first: Option<WatchResponse>,
    ended: Option<StoreError>,
    store_id: Option<String>,
}

/// A stream of a watch that the member has confirmed.
pub(super) struct Opened {
    place: Place,
    requests: WatchRequestSender,
    responses: WatchResponseStream,
    first: WatchResponse,
    /// The cluster at that moment, or later.
    pub(super) header: ResponseHeader,
    store_id: Option<String>,
}

/// Asks a member for everything after a revision.
pub(super) async fn open(
    mut link: Link,
    prefix: &Prefix,
    after: Revision,
) -> Result<Opened, Error> {
    let options = WatchOptions::new()
        .with_range(prefix.end())
        .with_start_revision(after.0 + 1)
        .with_progress_notify()
        .with_fragment();
    let stream = link.watch.watch(prefix.start(), Some(options)).await?;
    let (requests, mut responses) = stream.split();
    // So that a member which does not answer is not waited for later on.
    match responses.message().await? {
        Some(first) => {
            // After it, and on the same connection: whatever comes in the place of this cluster
            // later on cannot be mistaken for it, for the watch ends with the connection.
            let answer = link.kv.get(prefix.of(STORE_ID), None).await?.0;
            let missing = || Error::WatchError("an answer without a header".into());
            let entry = answer.kvs.into_iter().next();
            Ok(Opened {
                place: link.place,
                requests,
                responses,
                first,
                header: answer.header.ok_or_else(missing)?,
                store_id: entry.and_then(|it| String::from_utf8(it.value).ok()),
            })
        }
        None => Err(Error::WatchError("it ended before it began".into())),
    }
}

impl Watch {
    pub(super) fn new(
        members: Arc<Members>,
        prefix: Prefix,
        after: Revision,
        opened: Opened,
        ended: Option<StoreError>,
    ) -> Self {
        Self {
            members,
            place: opened.place,
            prefix,
            requests: opened.requests,
            responses: opened.responses,
            assembly: Assembly::new(after),
            heard: Instant::now(),
            asked: None,
            first: Some(opened.first),
            ended,
            store_id: opened.store_id,
        }
    }

    /// The name of the store when the watch began.
    pub(in super::super) fn store_id(&self) -> Option<&str> {
        self.store_id.as_deref()
    }

    /// See [`Watch::next`](super::super::Watch::next).
    pub(in super::super) async fn next(&mut self) -> Result<Batch, StoreError> {
        if let Some(error) = &self.ended {
            return Err(error.clone());
        }
        let ended = loop {
            let patience = match self.asked {
                Some(asked) => asked + ANSWER,
                None => self.heard + SILENCE,
            };
            let response = match self.first.take() {
                Some(first) => Ok(Ok(Some(first))),
                None => timeout_at(patience, self.responses.message()).await,
            };
            match response {
                Ok(Ok(Some(response))) => {
                    self.heard = Instant::now();
                    self.asked = None;
                    match self.take(response) {
                        Ok(Some(batch)) => return Ok(batch),
                        Ok(None) => {}
                        Err(ended) => break ended,
                    }
                }
                Ok(Ok(None)) => break self.unavailable("the watch was ended"),
                Ok(Err(error)) => match Failure::from(error) {
                    Failure::Answer(answer) => break answer,
                    Failure::Member { reason, .. } => break self.unavailable(&reason),
                },
                Err(_) if self.asked.is_some() => break self.unavailable("it has fallen silent"),
                // A ping of HTTP/2 would tell no more, and etcd allows too few of them.
                Err(_) => match self.requests.request_progress().await {
                    Ok(()) => self.asked = Some(Instant::now()),
                    Err(_) => break self.unavailable("the watch was ended"),
                },
            }
        };
        if let StoreError::Unavailable(_) = ended {
            self.members.suspect(self.place).await;
        }
        self.ended = Some(ended.clone());
        Err(ended)
    }

    fn take(&mut self, response: WatchResponse) -> Result<Option<Batch>, StoreError> {
        if response.compact_revision() > 0 {
            return Err(StoreError::Compacted);
        }
        if response.canceled() {
            return Err(self.unavailable(response.cancel_reason()));
        }
        if response.created() {
            return Ok(None);
        }
        let response = response.0;
        if response.events.is_empty() && !response.fragment {
            // Asked for, it is for no watch in particular, and etcd before 3.4.25 and 3.5.8 sends
            // it ahead of events that come before it (etcd issue 15220): a sign of life, no more.
            let revision = response.header.filter(|_| response.watch_id >= 0);
            let revision = revision.map_or(0, |header| header.revision);
            return Ok(self.assembly.progress(revision));
        }
        let last = response.events.last();
        let last = last.and_then(|event| Some(event.kv.as_ref()?.mod_revision));
        let events = response.events.into_iter().filter_map(|event| {
            let deleted = event.r#type == EventType::Delete as i32;
            let revision = event.kv.as_ref()?.mod_revision;
            let entry = entry_of(&self.prefix, event.kv?)?;
            let event = match deleted {
                true => Event::Delete(entry.key),
                false => Event::Put(entry),
            };
            Some((revision, event))
        });
        let batch = self.assembly.add(events.collect(), response.fragment);
        Ok(match (batch, last) {
            // Of keys that are the store's own affair. The revision is reached all the same, and etcd
            // does not tell of it again: who watches would be behind for as long as nothing happens.
            (None, Some(last)) if !response.fragment => self.assembly.progress(last),
            (batch, _) => batch,
        })
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable(format!("{}: {reason}", self.members.address(self.place)))
    }
}

/// Makes batches of whole revisions from what comes in pieces.
#[derive(Debug)]
struct Assembly {
    /// Everything up to here was handed on.
    done: i64,
    /// Events of one revision, of which there are more to come.
    held: Vec<Event>,
    held_at: i64,
}

impl Assembly {
    fn new(after: Revision) -> Self {
        Self {
            done: after.0,
            held: Vec::new(),
            held_at: 0,
        }
    }

    /// Adds events in order. While there are `more` of the same answer, its last revision is held
    /// back, and that alone: an answer can be as long as the watch was away.
    fn add(&mut self, events: Vec<(i64, Event)>, more: bool) -> Option<Batch> {
        let last = events
            .last()
            .map_or(self.held_at, |(revision, _)| *revision);
        let mut ready = Vec::new();
        if !more || last != self.held_at {
            ready.append(&mut self.held);
        }
        let mut revision = self.held_at;
        for (at, event) in events {
            // A member that was behind may tell what another told before.
            if at <= self.done {
                continue;
            }
            if more && at == last {
                self.held.push(event);
            } else {
                revision = at;
                ready.push(event);
            }
        }
        self.held_at = if self.held.is_empty() { 0 } else { last };
        if ready.is_empty() {
            return None;
        }
        self.done = revision;
        Some(Batch {
            revision: Revision(revision),
            events: ready,
        })
    }

    /// Nothing happened to our keys up to this revision.
    fn progress(&mut self, revision: i64) -> Option<Batch> {
        if revision <= self.done || !self.held.is_empty() {
            return None;
        }
        self.done = revision;
        Some(Batch {
            revision: Revision(revision),
            events: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(name: &str) -> Event {
        Event::Delete(name.into())
    }

    fn batch(revision: i64, names: &[&str]) -> Option<Batch> {
        Some(Batch {
            revision: Revision(revision),
            events: names.iter().map(|name| event(name)).collect(),
        })
    }

    #[test]
    fn a_revision_in_pieces_is_handed_on_whole() {
        let mut assembly = Assembly::new(Revision(4));
        let pieces = vec![(5, event("a")), (6, event("b")), (7, event("c"))];
        assert_eq!(assembly.add(pieces, true), batch(6, &["a", "b"]));
        assert_eq!(assembly.add(vec![(7, event("d"))], true), None);
        assert_eq!(assembly.progress(9), None, "7 is not done");
        let pieces = vec![(7, event("e")), (8, event("f"))];
        assert_eq!(assembly.add(pieces, true), batch(7, &["c", "d", "e"]));
        assert_eq!(
            assembly.add(vec![(8, event("g"))], false),
            batch(8, &["f", "g"])
        );
        assert_eq!(assembly.progress(8), None);
        assert_eq!(assembly.progress(9), batch(9, &[]));
        // What a member that is behind tells again.
        let pieces = vec![(8, event("f")), (9, event("x")), (10, event("h"))];
        assert_eq!(assembly.add(pieces, false), batch(10, &["h"]));
        assert_eq!(assembly.add(vec![(10, event("h"))], false), None);
        assert_eq!(assembly.progress(3), None);
    }

    proptest! {
        #[test]
        fn pieces_lose_nothing_and_no_batch_ends_within_a_revision(
            // Of each answer, the events of each of its revisions.
            answers in prop::collection::vec(prop::collection::vec(1..5_usize, 1..5), 1..8),
            // After which events an answer is cut.
            cuts in prop::collection::vec(any::<bool>(), 140),
        ) {
            let mut assembly = Assembly::new(Revision(0));
            let (mut revision, mut cuts) = (0, cuts.into_iter());
            let (mut sent, mut got) = (Vec::new(), Vec::new());
            for answer in answers {
                let mut piece = Vec::new();
                let last = revision + answer.len() as i64;
                for count in answer {
                    revision += 1;
                    for index in 1..=count {
                        let entry = (revision, event(&format!("{revision}.{index}")));
                        sent.push(entry.clone());
                        piece.push(entry);
                        let ends = revision == last && index == count;
                        if !ends && cuts.next() != Some(true) {
                            continue;
                        }
                        let batch = assembly.add(std::mem::take(&mut piece), !ends);
                        let Some(batch) = batch else { continue };
                        let until = got.len() + batch.events.len();
                        got.extend(batch.events);
                        // All that was sent of it, and it ends there.
                        prop_assert_eq!(sent[until - 1].0, batch.revision.0);
                        prop_assert!(until == sent.len() || sent[until].0 > batch.revision.0);
                        prop_assert!(ends || batch.revision.0 < revision);
                    }
                }
            }
            let all: Vec<Event> = sent.into_iter().map(|(_, event)| event).collect();
            prop_assert_eq!(got, all);
        }
    }
}
