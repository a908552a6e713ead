//! What every store of the registry has to do: one function per rule, each on an empty store.
//!
//! Rules run at the same time, on etcd with a prefix each. Revisions are the whole cluster's, so
//! none of them may count on the next revision.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use router::registry::store::{
    Committed, Event, KeyValue, LARGEST_TRANSACTION_BYTES, LeaseId, Listing, MOST_CHANGES,
    MOST_CONDITIONS, Put, Range, Revision, SHORTEST_TTL, Store, StoreError, Transaction, Watch,
};

/// No answer of a healthy store takes as long.
const PATIENCE: Duration = Duration::from_secs(20);
/// For something that must not come.
const MOMENT: Duration = Duration::from_millis(300);

type Rule = fn(Arc<Store>) -> Pin<Box<dyn Future<Output = ()>>>;

/// All rules, by name.
pub(crate) const RULES: &[(&str, Rule)] = &[
    ("together", |it| Box::pin(changes_are_made_together(it))),
    ("ranges", |it| Box::pin(a_range_must_not_have_changed(it))),
    ("present", |it| Box::pin(a_key_must_be_there(it))),
    ("conflict", |it| Box::pin(a_conflict_changes_nothing(it))),
    ("nothing", |it| Box::pin(nothing_to_do_is_fine(it))),
    ("created", |it| Box::pin(a_key_knows_its_revisions(it))),
    ("largest", |it| {
        Box::pin(the_largest_transaction_is_taken(it))
    }),
    ("one-winner", |it| Box::pin(one_of_many_claims_wins(it))),
    ("read", |it| Box::pin(reads_are_sorted_and_whole(it))),
    ("list", |it| Box::pin(a_listing_has_everything(it))),
    ("watch", |it| Box::pin(a_watch_resumes_where_it_was(it))),
    ("future", |it| {
        Box::pin(a_watch_from_the_future_lists_anew(it))
    }),
    ("cancel", |it| {
        Box::pin(a_watch_that_was_interrupted_loses_nothing(it))
    }),
    ("expiry", |it| Box::pin(a_lease_ends_in_time(it))),
    ("renewal", |it| Box::pin(a_renewed_lease_lives_on(it))),
    ("revoke", |it| {
        Box::pin(a_revoked_lease_takes_its_keys_along(it))
    }),
    ("detached", |it| {
        Box::pin(only_what_hangs_on_a_lease_goes_with_it(it))
    }),
    ("lease-gone", |it| {
        Box::pin(nothing_hangs_on_a_lease_that_ended(it))
    }),
];

/// Runs every rule, all at the same time; `open` gives each a store of its own.
pub(crate) async fn run(mut open: impl AsyncFnMut(&str) -> Store) {
    let tasks = tokio::task::LocalSet::new();
    let mut running = Vec::new();
    for (name, rule) in RULES {
        let store = Arc::new(open(name).await);
        running.push((name, tasks.spawn_local(rule(store))));
    }
    tasks
        .run_until(async {
            for (name, rule) in running {
                if let Err(error) = rule.await {
                    panic!("rule {name}: {error}");
                }
            }
        })
        .await;
}

async fn changes_are_made_together(store: Arc<Store>) {
    let start = store.list().await.unwrap();
    assert_eq!(start.entries, []);
    let mut follow = Follow::after(&store, start.revision).await;
    let first = done(&store, &puts(&[("b", "1"), ("a", "2"), ("old", "3")])).await;
    assert!(first > start.revision);
    let mut second = puts(&[("c", "4"), ("a", "5")]);
    second.deletes = vec!["old".into(), "never".into()];
    let second = done(&store, &second).await;
    assert!(second > first);

    let b = entry("b", "1", first, first);
    let a = entry("a", "2", first, first);
    let old = entry("old", "3", first, first);
    let c = entry("c", "4", second, second);
    let new_a = entry("a", "5", first, second);
    assert_eq!(
        follow.next(3).await,
        [Event::Put(b.clone()), Event::Put(a), Event::Put(old)]
    );
    assert_eq!(
        follow.next(3).await,
        [
            Event::Put(c.clone()),
            Event::Put(new_a.clone()),
            Event::Delete("old".into())
        ]
    );
    assert_eq!(follow.revision, second);
    let listing = store.list().await.unwrap();
    assert_eq!(listing.entries, [new_a, b, c]);
    assert!(listing.revision >= second);
}

async fn a_range_must_not_have_changed(store: Arc<Store>) {
    let range = Range::prefix("in/");
    let on = |since, key: &str| Transaction {
        unchanged: vec![range.clone(), Range::key("other")],
        since,
        ..puts(&[(key, "x")])
    };
    // Nothing is in it: that holds, even against the beginning of time.
    let empty = done(&store, &on(Revision(0), "aside")).await;
    let first = done(&store, &on(empty, "in/a")).await;
    conflict(&store, &on(empty, "in/b")).await;
    conflict(&store, &on(Revision(first.0 - 1), "in/b")).await;
    conflict(&store, &on(Revision(0), "in/b")).await;
    // Written at that very revision is not after it.
    let second = done(&store, &on(first, "in/b")).await;
    // Beside the range: `in` and `in0` are its neighbours.
    done(&store, &puts(&[("in", "x"), ("in0", "x"), ("in.", "x")])).await;
    done(&store, &on(second, "aside")).await;
    // Whatever was deleted makes room, and so does what came and went.
    let gone = Transaction {
        deletes: vec!["in/a".into()],
        ..puts(&[("in/c", "x")])
    };
    let third = done(&store, &gone).await;
    conflict(&store, &on(second, "aside")).await;
    let gone = Transaction {
        deletes: vec!["in/c".into()],
        ..Transaction::default()
    };
    done(&store, &gone).await;
    done(&store, &on(second, "aside")).await;
    assert!(third > second);
    // Any of several ranges.
    done(&store, &puts(&[("other", "x")])).await;
    conflict(&store, &on(third, "aside")).await;
}

async fn a_key_must_be_there(store: Arc<Store>) {
    let with = |present: &[&str]| Transaction {
        present: present.iter().map(|&it| it.into()).collect(),
        ..puts(&[("put", "x")])
    };
    conflict(&store, &with(&["a"])).await;
    done(&store, &puts(&[("a", "")])).await;
    done(&store, &with(&["a"])).await;
    conflict(&store, &with(&["a", "b"])).await;
    let delete = Transaction {
        deletes: vec!["a".into()],
        ..Transaction::default()
    };
    done(&store, &delete).await;
    conflict(&store, &with(&["a"])).await;
    conflict(&store, &with(&["pu"])).await;
}

async fn a_conflict_changes_nothing(store: Arc<Store>) {
    let first = done(&store, &puts(&[("a", "1"), ("b", "1")])).await;
    let mut follow = Follow::after(&store, first).await;
    let before = store.list().await.unwrap().entries;
    let refused = Transaction {
        present: vec!["c".into()],
        deletes: vec!["b".into()],
        ..puts(&[("a", "2"), ("d", "2")])
    };
    conflict(&store, &refused).await;
    assert_eq!(store.list().await.unwrap().entries, before);
    follow.silent().await;
}

async fn nothing_to_do_is_fine(store: Arc<Store>) {
    let first = done(&store, &puts(&[("a", "1")])).await;
    let mut follow = Follow::after(&store, first).await;
    assert!(done(&store, &Transaction::default()).await >= first);
    let delete = Transaction {
        deletes: vec!["b".into()],
        ..Transaction::default()
    };
    assert!(done(&store, &delete).await >= first);
    follow.silent().await;
}

async fn a_key_knows_its_revisions(store: Arc<Store>) {
    let first = done(&store, &puts(&[("a", "1")])).await;
    // The same value again is a change as well.
    let second = done(&store, &puts(&[("a", "1")])).await;
    assert_eq!(list(&store).await, [entry("a", "1", first, second)]);
    let delete = Transaction {
        deletes: vec!["a".into()],
        ..Transaction::default()
    };
    assert!(done(&store, &delete).await > second);
    let third = done(&store, &puts(&[("a", "")])).await;
    assert_eq!(list(&store).await, [entry("a", "", third, third)]);
}

async fn the_largest_transaction_is_taken(store: Arc<Store>) {
    let start = store.list().await.unwrap().revision;
    let mut follow = Follow::after(&store, start).await;
    let size = LARGEST_TRANSACTION_BYTES / MOST_CHANGES - 100;
    let mut largest = Transaction {
        unchanged: (0..MOST_CONDITIONS)
            .map(|it| Range::prefix(&format!("r{it}/")))
            .collect(),
        ..Transaction::default()
    };
    for number in 0..MOST_CHANGES {
        largest.puts.push(Put {
            key: format!("key{number:03}"),
            value: vec![b'x'; size].into(),
            lease: None,
        });
    }
    let revision = done(&store, &largest).await;
    let seen = follow.next(MOST_CHANGES).await;
    assert_eq!(follow.revision, revision);
    let keys = seen.iter().map(|event| match event {
        Event::Put(entry) => (entry.key.as_str(), entry.value.len()),
        Event::Delete(key) => (key.as_str(), 0),
    });
    let expected = largest.puts.iter().map(|put| (put.key.as_str(), size));
    assert!(keys.eq(expected));
    assert_eq!(list(&store).await.len(), MOST_CHANGES);

    largest.deletes.push("one more".into());
    let refused = store.commit(&largest).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    let mut twice = puts(&[("twice", "1"), ("twice", "2")]);
    let refused = store.commit(&twice).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
    twice.puts.pop();
    twice.deletes.push("twice".into());
    let refused = store.commit(&twice).await;
    assert!(matches!(refused, Err(StoreError::Failed(_))), "{refused:?}");
}

async fn one_of_many_claims_wins(store: Arc<Store>) {
    const CLAIMS: usize = 40;
    let seen = store.read(&[Range::prefix("name/")]).await.unwrap();
    let mut claims = tokio::task::JoinSet::new();
    for tenant in 0..CLAIMS {
        let (store, since) = (Arc::clone(&store), seen.revision);
        claims.spawn(async move {
            let claim = Transaction {
                unchanged: vec![Range::prefix("name/")],
                since,
                ..puts(&[(&format!("name/{tenant}"), "x")])
            };
            store.commit(&claim).await.unwrap()
        });
    }
    let results = claims.join_all().await;
    let won = results.iter().filter(|it| **it != Committed::Conflict);
    assert_eq!(won.count(), 1, "{results:?}");
    assert_eq!(list(&store).await.len(), 1);
}

async fn reads_are_sorted_and_whole(store: Arc<Store>) {
    let keys = ["a/1", "a/2", "a/3", "b", "b\u{0}", "b/1", "c/ä", "c/z"];
    let all: Vec<(&str, &str)> = keys.iter().rev().map(|&key| (key, key)).collect();
    let revision = done(&store, &puts(&all)).await;
    let read = async |ranges: &[Range]| {
        let listing = store.read(ranges).await.unwrap();
        assert!(listing.revision >= revision);
        let entries = listing.entries.into_iter();
        entries.map(|it| it.key).collect::<Vec<_>>()
    };
    assert_eq!(read(&[]).await, Vec::<String>::new());
    assert_eq!(read(&[Range::prefix("d/")]).await, Vec::<String>::new());
    assert_eq!(read(&[Range::key("b")]).await, ["b"]);
    let several = [Range::prefix("c/"), Range::prefix("a/"), Range::key("b")];
    assert_eq!(
        read(&several).await,
        ["a/1", "a/2", "a/3", "b", "c/z", "c/ä"]
    );
    let overlapping = [
        Range::prefix("a/"),
        Range {
            start: "a/2".into(),
            end: "b/".into(),
        },
        Range::key("a/3"),
        Range {
            start: "z".into(),
            end: "a".into(),
        },
    ];
    assert_eq!(
        read(&overlapping).await,
        ["a/1", "a/2", "a/3", "b", "b\u{0}"]
    );
}

async fn a_listing_has_everything(store: Arc<Store>) {
    let mut expected = Vec::new();
    for turn in 0..40 {
        let mut many = Transaction::default();
        for number in 0..MOST_CHANGES {
            many.puts.push(Put {
                key: format!("key/{:05}", turn * MOST_CHANGES + number),
                value: "value".into(),
                lease: None,
            });
        }
        let revision = done(&store, &many).await;
        let entries = many.puts.iter();
        expected.extend(entries.map(|put| entry(&put.key, "value", revision, revision)));
    }
    let listing = store.list().await.unwrap();
    assert_eq!(listing.entries.len(), expected.len());
    assert!(listing.entries == expected);

    // As of one revision, while the first and the last key are written together all the time.
    let stop = Rc::new(Cell::new(false));
    let (first, last) = (
        expected[0].key.clone(),
        expected[expected.len() - 1].key.clone(),
    );
    done(&store, &puts(&[(&first, "0"), (&last, "0")])).await;
    let writer = {
        let (store, stop) = (Arc::clone(&store), Rc::clone(&stop));
        tokio::task::spawn_local(async move {
            let mut number = 0;
            while !stop.get() {
                number += 1;
                let value = number.to_string();
                done(&store, &puts(&[(&first, &value), (&last, &value)])).await;
            }
            number
        })
    };
    for _ in 0..10 {
        let listing = store.list().await.unwrap();
        let ends = [&listing.entries[0], &listing.entries[expected.len() - 1]];
        assert_eq!(ends[0].value, ends[1].value);
        assert_eq!(ends[0].modified, ends[1].modified);
        assert!(ends[0].modified <= listing.revision);
    }
    stop.set(true);
    assert!(writer.await.unwrap() > 10);
}

async fn a_watch_resumes_where_it_was(store: Arc<Store>) {
    let mut revisions = Vec::new();
    for number in 0..20 {
        revisions.push(done(&store, &puts(&[("key", &number.to_string())])).await);
    }
    let mut all = Vec::new();
    for place in [0, 7, 18, 19] {
        let mut follow = Follow::after(&store, revisions[place]).await;
        for number in place + 1..revisions.len() {
            assert_eq!(value(&follow.next(1).await[0]), number.to_string());
        }
        follow.silent().await;
        assert_eq!(follow.revision, revisions[19]);
        all.push(follow);
    }
    let live = done(&store, &puts(&[("key", "live")])).await;
    for mut follow in all {
        assert_eq!(value(&follow.next(1).await[0]), "live");
        assert_eq!(follow.revision, live);
    }
}

fn value(event: &Event) -> &str {
    match event {
        Event::Put(entry) => std::str::from_utf8(&entry.value).unwrap(),
        Event::Delete(key) => panic!("{key} was deleted"),
    }
}

/// Whoever has seen more than there is has seen another store, or one that was restored since.
async fn a_watch_from_the_future_lists_anew(store: Arc<Store>) {
    let now = done(&store, &puts(&[("key", "1")])).await;
    // Others write to the same cluster meanwhile.
    let future = Revision(now.0 + 1_000_000);
    let mut watch = store.watch(future).await.unwrap();
    assert_eq!(soon(watch.next()).await, Err(StoreError::Compacted));
}

async fn a_watch_that_was_interrupted_loses_nothing(store: Arc<Store>) {
    let start = store.list().await.unwrap().revision;
    let mut watch = store.watch(start).await.unwrap();
    let writer = {
        let store = Arc::clone(&store);
        tokio::task::spawn_local(async move {
            for number in 0..200 {
                done(&store, &puts(&[("key", &number.to_string())])).await;
            }
        })
    };
    let mut seen = 0;
    let deadline = Instant::now() + PATIENCE;
    while seen < 200 {
        assert!(Instant::now() < deadline, "{seen} of 200");
        let next = tokio::time::timeout(Duration::from_micros(300), watch.next()).await;
        let Ok(batch) = next else { continue };
        for event in batch.unwrap().events {
            assert_eq!(value(&event), seen.to_string());
            seen += 1;
        }
    }
    writer.await.unwrap();
}

async fn a_lease_ends_in_time(store: Arc<Store>) {
    let start = store.list().await.unwrap().revision;
    let mut follow = Follow::after(&store, start).await;
    let granted = Instant::now();
    let lease = store.grant(SHORTEST_TTL).await.unwrap();
    let written = done(&store, &leased(&["b", "a", "c"], lease)).await;
    done(&store, &puts(&[("stays", "x")])).await;
    assert_eq!(list(&store).await[0].lease, Some(lease));
    follow.next(3).await;
    follow.next(1).await;
    let ended = follow.next(3).await;
    let took = granted.elapsed();
    assert!(follow.revision > written);
    assert_eq!(ended, ["a", "b", "c"].map(|key| Event::Delete(key.into())));
    // etcd looks for ended leases every 0.5 s, and ours must not be later than that.
    let longest = SHORTEST_TTL + Duration::from_millis(1_500);
    assert!(took >= SHORTEST_TTL && took < longest, "{took:?}");
    assert_eq!(list(&store).await.len(), 1);
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseGone));
}

async fn a_renewed_lease_lives_on(store: Arc<Store>) {
    let start = store.list().await.unwrap().revision;
    let mut follow = Follow::after(&store, start).await;
    let lease = store.grant(SHORTEST_TTL).await.unwrap();
    done(&store, &leased(&["a"], lease)).await;
    follow.next(1).await;
    let mut renewed = Instant::now();
    for _ in 0..2 {
        tokio::time::sleep(SHORTEST_TTL * 3 / 5).await;
        renewed = Instant::now();
        store.renew(lease).await.unwrap();
    }
    assert_eq!(list(&store).await.len(), 1);
    assert_eq!(follow.next(1).await, [Event::Delete("a".into())]);
    let took = renewed.elapsed();
    assert!(took >= SHORTEST_TTL, "{took:?}");
}

async fn a_revoked_lease_takes_its_keys_along(store: Arc<Store>) {
    let start = store.list().await.unwrap().revision;
    let mut follow = Follow::after(&store, start).await;
    let lease = store.grant(SHORTEST_TTL * 100).await.unwrap();
    let other = store.grant(SHORTEST_TTL * 100).await.unwrap();
    assert_ne!(lease, other);
    done(&store, &leased(&["b", "a"], lease)).await;
    done(&store, &leased(&["c"], other)).await;
    follow.next(2).await;
    follow.next(1).await;
    store.revoke(lease).await.unwrap();
    let gone = ["a", "b"].map(|key| Event::Delete(key.into()));
    assert_eq!(follow.next(2).await, gone);
    assert_eq!(list(&store).await.len(), 1);
    store.revoke(lease).await.unwrap();
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseGone));
    store.renew(other).await.unwrap();
    follow.silent().await;
}

async fn only_what_hangs_on_a_lease_goes_with_it(store: Arc<Store>) {
    let long = SHORTEST_TTL * 100;
    let (first, second) = (
        store.grant(long).await.unwrap(),
        store.grant(long).await.unwrap(),
    );
    done(
        &store,
        &leased(&["kept", "moved", "gone", "deleted", "again"], first),
    )
    .await;
    done(&store, &puts(&[("kept", "")])).await;
    done(&store, &leased(&["moved"], second)).await;
    let delete = Transaction {
        deletes: vec!["deleted".into(), "again".into()],
        ..Transaction::default()
    };
    done(&store, &delete).await;
    let last = done(&store, &puts(&[("again", "")])).await;
    let mut follow = Follow::after(&store, last).await;
    store.revoke(first).await.unwrap();
    assert_eq!(follow.next(1).await, [Event::Delete("gone".into())]);
    store.revoke(second).await.unwrap();
    assert_eq!(follow.next(1).await, [Event::Delete("moved".into())]);
    let left: Vec<String> = list(&store).await.into_iter().map(|it| it.key).collect();
    assert_eq!(left, ["again", "kept"]);
}

async fn nothing_hangs_on_a_lease_that_ended(store: Arc<Store>) {
    let lease = store.grant(SHORTEST_TTL * 100).await.unwrap();
    store.revoke(lease).await.unwrap();
    let mut late = leased(&["b"], lease);
    late.puts.push(Put {
        key: "a".into(),
        value: "x".into(),
        lease: None,
    });
    assert_eq!(store.commit(&late).await, Err(StoreError::LeaseGone));
    assert_eq!(list(&store).await, []);
    // Conditions come first: nobody learns of a lease from what would not have been made anyway.
    late.present.push("nothing".into());
    conflict(&store, &late).await;
}

/// Commits what must succeed.
pub(crate) async fn done(store: &Store, transaction: &Transaction) -> Revision {
    match store.commit(transaction).await.unwrap() {
        Committed::Done(revision) => revision,
        Committed::Conflict => panic!("conflict: {transaction:?}"),
    }
}

async fn conflict(store: &Store, transaction: &Transaction) {
    let result = store.commit(transaction).await.unwrap();
    assert_eq!(result, Committed::Conflict, "{transaction:?}");
}

/// Follows a store, change by change: several may come in one batch.
pub(crate) struct Follow {
    watch: Watch,
    waiting: VecDeque<Event>,
    /// Of the last batch.
    pub(crate) revision: Revision,
}

impl Follow {
    pub(crate) async fn after(store: &Store, revision: Revision) -> Self {
        Self {
            watch: store.watch(revision).await.unwrap(),
            waiting: VecDeque::new(),
            revision,
        }
    }

    /// The next `count` events, which belong together: they come soon, and in one batch.
    pub(crate) async fn next(&mut self, count: usize) -> Vec<Event> {
        while self.waiting.is_empty() {
            let batch = soon(self.watch.next()).await.unwrap();
            assert!(batch.revision > self.revision, "{batch:?}");
            self.revision = batch.revision;
            self.waiting.extend(batch.events);
        }
        assert!(self.waiting.len() >= count, "{:?}", self.waiting);
        self.waiting.drain(..count).collect()
    }

    /// Nothing more comes.
    async fn silent(&mut self) {
        assert_eq!(self.waiting, []);
        let next = tokio::time::timeout(MOMENT, self.watch.next()).await;
        assert!(next.is_err(), "{next:?}");
    }
}

/// Waits for what must come soon.
pub(crate) async fn soon<T: Debug>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it comes")
}

async fn list(store: &Store) -> Vec<KeyValue> {
    let Listing { entries, .. } = store.list().await.unwrap();
    entries
}

/// A transaction that only puts.
pub(crate) fn puts(entries: &[(&str, &str)]) -> Transaction {
    let put = |&(key, value): &(&str, &str)| Put {
        key: key.to_owned(),
        value: value.to_owned().into(),
        lease: None,
    };
    Transaction {
        puts: entries.iter().map(put).collect(),
        ..Transaction::default()
    }
}

/// A transaction that puts keys which hang on a lease.
pub(crate) fn leased(keys: &[&str], lease: LeaseId) -> Transaction {
    let put = |key: &&str| Put {
        key: (*key).to_owned(),
        value: "x".into(),
        lease: Some(lease),
    };
    Transaction {
        puts: keys.iter().map(put).collect(),
        ..Transaction::default()
    }
}

fn entry(key: &str, value: &str, created: Revision, modified: Revision) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: value.to_owned().into(),
        created,
        modified,
        lease: None,
    }
}
