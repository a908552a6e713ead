//! The registry's store on a real etcd, and what it survives: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

mod registry_suite;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::router::EtcdStore;
use harness::ca::{Ca, KeyKind};
use harness::etcd::{Cluster, Place};
use harness::folder::Folder;
use harness::namespace::{Host, Network};
use nix::mount::{MsFlags, mount, umount};
use registry_suite::{Follow, done, puts, soon};
use router::registry::store::embedded::{Embedded, FILE_NAME};
use router::registry::store::etcd::{Compacted, Etcd, History};
use router::registry::store::{
    Committed, Event, KeyValue, MOST_CHANGES, Put, Range, Revision, Store, StoreError, Transaction,
    Watch,
};

/// The longest that a call may take, and something for a busy machine.
const CALL: Duration = Duration::from_secs(4);
/// The longest until a watch notices that its member is silent.
const SILENT: Duration = Duration::from_secs(5);
/// Until a watch is ended by a member that has no leader: the member has to notice (1 s, twice that
/// at most), and etcd waits three seconds more.
const LEADERLESS: Duration = Duration::from_millis(6_500);

/// A cluster of three, and a host for a router.
struct Scene {
    cluster: Cluster,
    router: Host,
    network: Network,
    folder: Folder,
}

impl Scene {
    fn new(label: &str) -> Self {
        let folder = Folder::new(label).unwrap();
        let mut network = Network::new().unwrap();
        let places: Vec<Place> = (0..3)
            .map(|index| Place::on(&network.host(&format!("etcd{index}")).unwrap()))
            .collect();
        let router = network.host("router").unwrap();
        let progress = "--experimental-watch-progress-notify-interval=1s";
        let cluster = Cluster::start_with(folder.path(), &places, &[progress]).unwrap();
        Self {
            cluster,
            router,
            network,
            folder,
        }
    }

    /// The configuration of a router that asks this member first.
    fn config(&self, first: usize) -> EtcdStore {
        let mut endpoints = self.cluster.endpoints();
        endpoints.rotate_left(first);
        EtcdStore {
            endpoints,
            ca: self.cluster.ca(),
            certificate: self.cluster.certificate(),
            key: self.cluster.key(),
            prefix: "/gatehouse/".into(),
            compaction: Duration::ZERO,
        }
    }

    fn store(&self, first: usize) -> Arc<Store> {
        etcd(&self.config(first))
    }
}

fn etcd(config: &EtcdStore) -> Arc<Store> {
    Arc::new(Store::Etcd(Etcd::open(config).unwrap()))
}

/// Runs what a router does, on its host.
fn on(host: &Host, action: impl AsyncFnOnce() + Send) {
    host.namespace.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, action());
    });
}

/// Waits for the answer that the store is out of reach, which has to come in time.
async fn unavailable<T: std::fmt::Debug>(
    patience: Duration,
    what: impl Future<Output = Result<T, StoreError>>,
) -> String {
    let began = Instant::now();
    let result = soon(what).await;
    let took = began.elapsed();
    let Err(StoreError::Unavailable(reason)) = result else {
        panic!("{result:?}")
    };
    assert!(took < patience, "{took:?}: {reason}");
    reason
}

/// Why a watch ends.
async fn end_of(mut watch: Watch) -> Result<Infallible, StoreError> {
    loop {
        watch.next().await?;
    }
}

#[test]
fn every_rule_of_a_store_holds() {
    let scene = Scene::new("etcd-rules");
    on(&scene.router, async || {
        registry_suite::run(async |name| {
            let config = EtcdStore {
                prefix: format!("/gatehouse/{name}/"),
                ..scene.config(0)
            };
            Store::Etcd(Etcd::open(&config).unwrap())
        })
        .await;
    });
}

#[test]
fn nothing_that_was_committed_is_lost_with_the_leader() {
    let mut scene = Scene::new("etcd-leader");
    for near in [true, false] {
        let leader = scene.cluster.leader().unwrap();
        // Killed is the one that the router speaks to, or the one behind that.
        let store = scene.store(if near { leader } else { (leader + 1) % 3 });
        let cluster = &mut scene.cluster;
        on(&scene.router, async || {
            drill(&store, || cluster.kill(leader)).await;
        });
        scene.cluster.restart(leader).unwrap();
        scene.cluster.wait_healthy().unwrap();
    }
}

/// Writes and follows while something befalls the cluster.
async fn drill(store: &Arc<Store>, befall: impl FnOnce()) {
    const WRITERS: usize = 4;
    const AFTERWARDS: usize = 25;
    let start = store.list().await.unwrap();
    let followed = Rc::new(RefCell::new(of(&start.entries)));
    let follower = follow(Arc::clone(store), start.revision, Rc::clone(&followed));
    let follower = tokio::task::spawn_local(follower);
    let (reported, failed) = (
        Rc::new(RefCell::new(BTreeMap::new())),
        Rc::new(Cell::new(0)),
    );
    let stop = Rc::new(Cell::new(false));
    let mut writers = Vec::new();
    for writer in 0..WRITERS {
        let store = Arc::clone(store);
        let (reported, failed, stop) = (reported.clone(), failed.clone(), stop.clone());
        writers.push(tokio::task::spawn_local(async move {
            let mut number = 0;
            while !stop.get() {
                number += 1;
                let key = format!("{}/{writer}/{number:06}", start.revision.0);
                let began = Instant::now();
                match store.commit(&puts(&[(&key, "x"), ("last", &key)])).await {
                    Ok(Committed::Done(revision)) => {
                        reported.borrow_mut().insert(key, revision);
                    }
                    Err(StoreError::Unavailable(_)) => failed.set(failed.get() + 1),
                    other => panic!("{other:?}"),
                }
                assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        }));
    }
    let count = || reported.borrow().len();
    until("a hundred commits", || count() > 100).await;
    befall();
    let before = count();
    until("commits again", || count() > before + WRITERS * AFTERWARDS).await;
    stop.set(true);
    for writer in writers {
        writer.await.unwrap();
    }
    let listing = store.list().await.unwrap();
    let found = of(&listing.entries);
    for (key, revision) in reported.borrow().iter() {
        assert_eq!(found.get(key), Some(revision), "{key} was reported");
    }
    // Whatever was not reported is there at most as often as somebody was told that it may be.
    let fresh = found.len() - of(&start.entries).len();
    assert!(
        fresh <= count() + failed.get() + 1,
        "{fresh} {} {}",
        count(),
        failed.get()
    );
    until("the follower to have it all", || {
        *followed.borrow() == found
    })
    .await;
    follower.abort();
}

/// Keeps `known` as the store is; resumes whenever the watch ends.
async fn follow(
    store: Arc<Store>,
    mut after: Revision,
    known: Rc<RefCell<BTreeMap<String, Revision>>>,
) {
    loop {
        let mut watch = match store.watch(after).await {
            Ok(watch) => watch,
            Err(StoreError::Unavailable(_)) => continue,
            Err(other) => panic!("{other}"),
        };
        let ended = loop {
            match watch.next().await {
                Ok(batch) => {
                    assert!(batch.revision > after);
                    for event in batch.events {
                        let Event::Put(entry) = event else {
                            panic!("{event:?}")
                        };
                        assert!(entry.modified > after && entry.modified <= batch.revision);
                        let old = known.borrow_mut().insert(entry.key, entry.modified);
                        assert!(old.is_none_or(|old| old < entry.modified));
                    }
                    after = batch.revision;
                }
                Err(error) => break error,
            }
        };
        assert!(matches!(ended, StoreError::Unavailable(_)), "{ended}");
    }
}

fn of(entries: &[KeyValue]) -> BTreeMap<String, Revision> {
    let pairs = entries.iter().map(|it| (it.key.clone(), it.modified));
    pairs.collect()
}

async fn until(what: &str, mut probe: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(25);
    while !probe() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn without_a_majority_it_says_so_and_with_one_it_goes_on() {
    let mut scene = Scene::new("etcd-majority");
    let survivor = scene.cluster.leader().unwrap();
    let others = [(survivor + 1) % 3, (survivor + 2) % 3];
    let store = scene.store(survivor);
    let cluster = &mut scene.cluster;
    on(&scene.router, async || {
        let first = done(&store, &puts(&[("a", "1")])).await;
        let lease = store.grant(Duration::from_secs(100)).await.unwrap();
        // What is asked for now may yet be done, when there is a majority again.
        let other = store.grant(Duration::from_secs(100)).await.unwrap();
        let mut watch = store.watch(first).await.unwrap();
        for other in others {
            cluster.kill(other);
        }
        // While the survivor has not noticed, and afterwards.
        for _ in 0..2 {
            let change = puts(&[("a", "2")]);
            unavailable(CALL, store.commit(&change)).await;
        }
        let range = [Range::key("a")];
        tokio::join!(
            unavailable(CALL, store.read(&range)),
            unavailable(CALL, store.list()),
            unavailable(CALL, store.grant(Duration::from_secs(5))),
            unavailable(CALL, store.renew(lease)),
            unavailable(CALL, store.revoke(other)),
            unavailable(CALL, store.watch(first)),
        );
        assert!(matches!(
            soon(watch.next()).await,
            Err(StoreError::Unavailable(_))
        ));

        for other in others {
            cluster.restart(other).unwrap();
        }
        cluster.wait_healthy().unwrap();
        let second = done(&store, &puts(&[("b", "2")])).await;
        store.renew(lease).await.unwrap();
        let mut follow = Follow::after(&store, first).await;
        while follow.revision < second {
            follow.next(1).await;
        }

        // Once more, for the watch alone.
        let watch = store.watch(second).await.unwrap();
        let waiting = tokio::task::spawn_local(end_of(watch));
        for other in others {
            cluster.kill(other);
        }
        unavailable(LEADERLESS, async { waiting.await.unwrap() }).await;
        for other in others {
            cluster.restart(other).unwrap();
        }
        cluster.wait_healthy().unwrap();
    });
}

#[test]
fn a_member_that_falls_silent_is_left_for_another() {
    let mut scene = Scene::new("etcd-silent");
    let halted = (scene.cluster.leader().unwrap() + 1) % 3;
    let store = scene.store(halted);
    let (other, fresh) = (scene.store(halted), scene.store(halted));
    let cluster = &mut scene.cluster;
    on(&scene.router, async || {
        let first = done(&store, &puts(&[("a", "1")])).await;
        done(&other, &puts(&[("b", "1")])).await;
        let mut watch = store.watch(first).await.unwrap();
        soon(watch.next()).await.unwrap();
        cluster.stop(halted);
        // Sent to the halted one: whether it was made nobody knows, so it is not made again.
        let change = puts(&[("b", "2")]);
        let reason = unavailable(CALL, other.commit(&change)).await;
        assert!(reason.contains("it may have been made"), "{reason}");
        done(&other, &change).await;
        // Never sent: made at another member.
        let began = Instant::now();
        let third = done(&fresh, &puts(&[("c", "3")])).await;
        assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
        // A read is made again in any case.
        let began = Instant::now();
        let seen = fresh.read(&[Range::key("c")]).await.unwrap();
        assert_eq!(seen.entries[0].modified, third);
        assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
        unavailable(SILENT, end_of(watch)).await;
        let began = Instant::now();
        let mut follow = Follow::after(&store, first).await;
        while follow.revision < third {
            follow.next(1).await;
        }
        assert!(began.elapsed() < CALL, "{:?}", began.elapsed());
        cluster.cont(halted);
        cluster.wait_healthy().unwrap();
    });
}

#[test]
fn a_router_that_was_cut_off_resumes_or_lists_anew() {
    let scene = Scene::new("etcd-cut-off");
    let store = scene.store(0);
    let Scene {
        cluster,
        router,
        network,
        ..
    } = &scene;
    on(router, async || {
        let first = done(&store, &puts(&[("a", "1")])).await;
        let mut watch = store.watch(first).await.unwrap();
        network.unplug(router).unwrap();
        let began = Instant::now();
        let ended = soon(watch.next()).await;
        assert!(
            matches!(ended, Err(StoreError::Unavailable(_))),
            "{ended:?}"
        );
        assert!(began.elapsed() < SILENT, "{:?}", began.elapsed());
        let change = puts(&[("a", "2")]);
        tokio::join!(
            unavailable(CALL, store.commit(&change)),
            unavailable(CALL, store.read(&[])),
        );
        cluster.etcdctl(&["put", "/gatehouse/b", "2"]).unwrap();
        network.plug(router).unwrap();
        let mut follow = Follow::after(&store, first).await;
        let Event::Put(entry) = follow.next(1).await.remove(0) else {
            panic!("it was put")
        };
        assert_eq!(entry.key, "b");

        // And once more: what comes now is compacted before it is back.
        let second = follow.revision;
        network.unplug(router).unwrap();
        for value in ["3", "4", "5"] {
            cluster.etcdctl(&["put", "/gatehouse/b", value]).unwrap();
        }
        cluster.etcdctl(&["del", "/gatehouse/a"]).unwrap();
        let last = second.0 + 4;
        cluster.etcdctl(&["compact", &last.to_string()]).unwrap();
        network.plug(router).unwrap();
        let mut watch = store.watch(second).await.unwrap();
        assert_eq!(soon(watch.next()).await, Err(StoreError::Compacted));
        assert_eq!(soon(watch.next()).await, Err(StoreError::Compacted));
        let listing = store.list().await.unwrap();
        assert_eq!(listing.revision, Revision(last));
        let [entry] = &listing.entries[..] else {
            panic!("{listing:?}")
        };
        assert_eq!((&*entry.key, &*entry.value), ("b", &b"5"[..]));
        let mut follow = Follow::after(&store, listing.revision).await;
        let next = done(&store, &puts(&[("c", "6")])).await;
        follow.next(1).await;
        assert_eq!(follow.revision, next);
    });
}

#[test]
fn large_answers_come_whole_others_keys_do_not_and_quiet_watches_move_on() {
    const LARGE: i64 = 12;
    let scene = Scene::new("etcd-large");
    let store = scene.store(1);
    let cluster = &scene.cluster;
    on(&scene.router, async || {
        let start = store.list().await.unwrap().revision;
        for turn in 0..LARGE {
            let mut large = Transaction::default();
            for number in 0..MOST_CHANGES {
                large.puts.push(Put {
                    key: format!("{turn:02}/{number:03}"),
                    value: vec![b'x'; 7_900].into(),
                    lease: None,
                });
            }
            done(&store, &large).await;
        }
        // etcd sends it in pieces of 1.5 MB, none of which ends where a transaction does.
        let mut follow = Follow::after(&store, start).await;
        for turn in 0..LARGE {
            let whole = follow.next(MOST_CHANGES).await;
            for (number, event) in whole.iter().enumerate() {
                let Event::Put(entry) = event else {
                    panic!("{event:?}")
                };
                assert_eq!(entry.key, format!("{turn:02}/{number:03}"));
                assert_eq!(entry.modified, Revision(start.0 + 1 + turn));
            }
        }
        let listing = store.list().await.unwrap();
        assert_eq!(listing.entries.len(), LARGE as usize * MOST_CHANGES);

        // Neighbours of the prefix, and a key within that is no text.
        for key in ["/gatehouse", "/gatehouse0", "/gatehouse.", "/g", "other"] {
            cluster.etcdctl(&["put", key, "x"]).unwrap();
        }
        let mut watch = store.watch(listing.revision).await.unwrap();
        let quiet = soon(watch.next()).await.unwrap();
        assert_eq!(quiet.events, []);
        assert_eq!(quiet.revision, Revision(listing.revision.0 + 5));
        let again = store.list().await.unwrap();
        assert_eq!(again.entries.len(), listing.entries.len());
    });
}

/// Small records first, so that the pages have grown when the large ones come.
#[test]
fn records_of_any_size_are_listed_over_a_slow_network() {
    const SMALL: usize = 1_024;
    const LARGE: usize = 384;
    const LARGE_BYTES: usize = 66 * 1024;
    let scene = Scene::new("etcd-slow");
    let store = scene.store(0);
    let network = &scene.network;
    on(&scene.router, async || {
        for (kind, count, bytes, together) in
            [("a", SMALL, 100, 128), ("b", LARGE, LARGE_BYTES, 15)]
        {
            for start in (0..count).step_by(together) {
                let numbers = start..count.min(start + together);
                let puts = numbers.map(|number| Put {
                    key: format!("{kind}/{number:04}"),
                    value: vec![b'x'; bytes].into(),
                    lease: None,
                });
                let puts = puts.collect();
                let change = Transaction {
                    puts,
                    ..Transaction::default()
                };
                done(&store, &change).await;
            }
        }
        // All large ones are 25 MB, which takes seven seconds.
        network.slow_down(&scene.router, "30mbit").unwrap();
        let listing = store.list().await.unwrap();
        assert_eq!(listing.entries.len(), SMALL + LARGE);
        let bytes: usize = listing.entries.iter().map(|it| it.value.len()).sum();
        assert_eq!(bytes, SMALL * 100 + LARGE * LARGE_BYTES);
    });
}

/// The revision up to which etcd has forgotten its past; 0: it knows all of it.
async fn forgotten(store: &Store, last: Revision) -> i64 {
    for revision in 0..=last.0 {
        let mut watch = store.watch(Revision(revision)).await.unwrap();
        match soon(watch.next()).await {
            Err(StoreError::Compacted) => {}
            Ok(_) => return revision,
            Err(other) => panic!("{other}"),
        }
    }
    panic!("all of it is forgotten")
}

#[test]
fn one_of_several_routers_compacts_and_those_that_follow_go_on() {
    let scene = Scene::new("etcd-compaction");
    let (one, two) = (scene.store(0), scene.store(1));
    let (Store::Etcd(first), Store::Etcd(second)) = (&*one, &*two) else {
        panic!("both are etcd")
    };
    on(&scene.router, async || {
        let mut follow = Follow::after(&one, one.list().await.unwrap().revision).await;
        let (mut here, mut there) = (History::default(), History::default());
        let mut compacted = [0, 0];
        let mut before = Revision(0);
        for turn in 0..4 {
            let last = done(&one, &puts(&[("a", &turn.to_string())])).await;
            let turns = [
                first.compact(&mut here).await,
                second.compact(&mut there).await,
            ];
            for (index, turn) in turns.into_iter().enumerate() {
                if let Compacted::Here(revision) = turn.unwrap() {
                    // Up to the last time, and no further.
                    assert!(
                        revision >= before && revision < last,
                        "{revision:?} {last:?}"
                    );
                    compacted[index] += 1;
                }
            }
            before = last;
            follow.next(1).await;
            assert_eq!(follow.revision, last);
        }
        assert_eq!(
            compacted,
            [3, 0],
            "the first time there is nothing to forget"
        );
        let last = done(&one, &puts(&[("a", "last")])).await;
        let gone = forgotten(&two, last).await;
        assert!(gone > 0 && gone < before.0, "{gone} {before:?}");
        follow.next(1).await;
        let listing = two.list().await.unwrap();
        let keys: Vec<&str> = listing.entries.iter().map(|it| &*it.key).collect();
        assert_eq!(keys, ["a"], "what the routers agree with is not for others");
        // The one that did it is gone: the other takes over.
        let taken = second.compact(&mut there).await.unwrap();
        assert!(matches!(taken, Compacted::Here(_)), "{taken:?}");
        // For that it has written a key that nobody is shown. Who follows gets to its revision all the
        // same: it would be behind for as long as nothing else happens.
        let now = two.read(&[]).await.unwrap().revision;
        let mut watch = two.watch(follow.revision).await.unwrap();
        let reached = soon(watch.next()).await.unwrap();
        assert_eq!((reached.revision, reached.events), (now, Vec::new()));
    });
}

#[test]
fn an_etcd_that_is_full_says_so_and_is_compacted_all_the_same() {
    let folder = Folder::new("etcd-full").unwrap();
    let mut network = Network::new().unwrap();
    let place = Place::on(&network.host("etcd").unwrap());
    let router = network.host("router").unwrap();
    let quota = "--quota-backend-bytes=2000000";
    let cluster = Cluster::start_with(folder.path(), &[place], &[quota]).unwrap();
    let store = etcd(&EtcdStore {
        endpoints: cluster.endpoints(),
        ca: cluster.ca(),
        certificate: cluster.certificate(),
        key: cluster.key(),
        prefix: "/gatehouse/".into(),
        compaction: Duration::ZERO,
    });
    let Store::Etcd(opened) = &*store else {
        panic!("it is etcd")
    };
    on(&router, async || {
        let mut history = History::default();
        let lease = store.grant(Duration::from_secs(60)).await.unwrap();
        assert!(!opened.room().await.unwrap().is_full);
        let large = "x".repeat(100_000);
        let mut written = Vec::new();
        let error = loop {
            match store.commit(&puts(&[("a", &large)])).await {
                Ok(Committed::Done(revision)) => written.push(revision),
                Ok(Committed::Conflict) => panic!("there is no condition"),
                Err(error) => break error,
            }
            // etcd knows its size as of its last sync, up to a tenth of a second ago.
            assert!(written.len() < 2_000, "2 MB hold no more");
        };
        assert_eq!(error, StoreError::Full);
        let room = opened.room().await.unwrap();
        assert!(room.is_full, "{room:?}");
        let refused = store.grant(Duration::from_secs(60)).await;
        assert_eq!(refused, Err(StoreError::Full));
        store.renew(lease).await.unwrap();
        assert_eq!(store.list().await.unwrap().entries.len(), 1);
        // The first time it only learns where it is.
        let nothing = opened.compact(&mut history).await;
        assert_eq!(nothing, Ok(Compacted::Nothing));
        let done = opened.compact(&mut history).await.unwrap();
        assert!(matches!(done, Compacted::Here(_)), "{done:?}");
        cluster.etcdctl(&["defrag"]).unwrap();
        cluster.etcdctl(&["alarm", "disarm"]).unwrap();
        let after = opened.room().await.unwrap();
        assert!(
            !after.is_full && after.size_bytes < room.size_bytes,
            "{after:?}"
        );
        store.commit(&puts(&[("a", "1")])).await.unwrap();
    });
}

#[test]
fn certificates_are_checked_and_read_anew() {
    let scene = Scene::new("etcd-certificates");
    let stranger = Ca::new("a stranger").unwrap();
    let folder = scene.folder.path();
    let foreign = stranger.issue_mutual(&["router"], KeyKind::Ecdsa).unwrap();
    let (certificate, key) = foreign.write(folder, "rotated").unwrap();
    let unwelcome = etcd(&EtcdStore {
        certificate: certificate.clone(),
        key: key.clone(),
        ..scene.config(0)
    });
    let foreign_ca = folder.join("stranger.crt");
    fs::write(&foreign_ca, stranger.pem()).unwrap();
    let distrustful = etcd(&EtcdStore {
        ca: foreign_ca,
        ..scene.config(0)
    });
    on(&scene.router, async || {
        let reason = unavailable(CALL, distrustful.read(&[])).await;
        let address = &scene.cluster.endpoints()[0];
        assert!(reason.contains(address), "{reason}");
        assert!(reason.contains("certificate"), "{reason}");
        let reason = unavailable(CALL, unwelcome.read(&[])).await;
        assert!(reason.contains(address), "{reason}");
        unavailable(CALL, unwelcome.watch(Revision(1))).await;

        let ours = scene.cluster.authority();
        let renewed = ours.issue_mutual(&["router"], KeyKind::Ecdsa).unwrap();
        renewed.write(folder, "rotated").unwrap();
        done(&unwelcome, &puts(&[("a", "1")])).await;
        // A connection that works is kept while somebody replaces one file after the other.
        fs::write(&key, "half a k").unwrap();
        done(&unwelcome, &puts(&[("a", "2")])).await;
        // But it is not kept when they say something else.
        let foreign = stranger.issue_mutual(&["router"], KeyKind::Ecdsa).unwrap();
        foreign.write(folder, "rotated").unwrap();
        unavailable(CALL, unwelcome.read(&[])).await;
    });
}

#[test]
fn the_embedded_store_outlives_a_full_disk() {
    let folder = Folder::new("full").unwrap();
    let disk = folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let size = Some("size=2m");
    let kind = Some("tmpfs");
    mount(kind, &disk, kind, MsFlags::empty(), size).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        fs::write(disk.join("ballast"), vec![0; 700_000]).unwrap();
        let store = Store::Embedded(Embedded::open(&disk).await.unwrap());
        let lease = store.grant(Duration::from_secs(3_600)).await.unwrap();
        let large = |number: usize| Transaction {
            puts: vec![Put {
                key: format!("{number:04}"),
                value: vec![b'x'; 20_000].into(),
                lease: Some(lease),
            }],
            ..Transaction::default()
        };
        let mut written = Vec::new();
        let error = loop {
            match store.commit(&large(written.len())).await {
                Ok(Committed::Done(revision)) => written.push(revision),
                Ok(Committed::Conflict) => panic!("there is no condition"),
                Err(error) => break error,
            }
            assert!(written.len() < 200, "2 MB hold no more");
        };
        let StoreError::Unavailable(reason) = error else {
            panic!("{error}")
        };
        assert!(reason.contains(FILE_NAME), "{reason}");
        assert!(written.len() > 10, "{}", written.len());
        let mut watch = store.watch(*written.last().unwrap()).await.unwrap();
        // It may be full for as long as it likes.
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(600)).await;
            let refused = store.commit(&large(999)).await;
            assert!(
                matches!(refused, Err(StoreError::Unavailable(_))),
                "{refused:?}"
            );
        }
        fs::remove_file(disk.join("ballast")).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let last = loop {
            match store.commit(&large(1_000)).await {
                Ok(Committed::Done(revision)) => break revision,
                other => assert!(Instant::now() < deadline, "{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let listing = store.list().await.unwrap();
        assert_eq!(listing.revision, last);
        for (number, revision) in written.iter().enumerate() {
            let entry = &listing.entries[number];
            assert_eq!((&entry.modified, entry.value.len()), (revision, 20_000));
        }
        store.renew(lease).await.unwrap();
        // The follower hears of what was made since, or that it has missed something.
        match soon(watch.next()).await {
            Ok(batch) => assert_eq!(batch.revision, last),
            Err(error) => assert_eq!(error, StoreError::Compacted),
        }
        store.revoke(lease).await.unwrap();
        assert_eq!(store.list().await.unwrap().entries, []);
    });
    drop(runtime);
    umount(&disk).unwrap();
}
