//! The registry's embedded store: what it does, and what it survives.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

mod registry_suite;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::folder::Folder;
use harness::process::Process;
use harness::wait;
use nix::sys::signal::Signal;
use registry_suite::{Follow, done, leased, puts, soon};
use router::registry::store::embedded::{Embedded, FILE_NAME};
use router::registry::store::{Event, Revision, Store, StoreError};

async fn open(folder: &Path) -> Store {
    Store::Embedded(Embedded::open(folder).await.unwrap())
}

/// Why it cannot be opened.
async fn refused(folder: &Path) -> String {
    let refused = Embedded::open(folder).await.expect_err("it is refused");
    let StoreError::Failed(text) = refused else {
        panic!("{refused:?}")
    };
    assert!(
        text.starts_with(&folder.join(FILE_NAME).display().to_string()),
        "{text}"
    );
    text
}

#[tokio::test]
async fn every_rule_of_a_store_holds() {
    let folder = Folder::new("store").unwrap();
    registry_suite::run(async |name| open(&folder.path().join(name)).await).await;
}

#[tokio::test]
async fn what_was_committed_is_there_after_a_restart_and_the_past_is_not() {
    let folder = Folder::new("store").unwrap();
    let store = open(folder.path()).await;
    let first = done(&store, &puts(&[("a", "1"), ("b", "1")])).await;
    let second = done(&store, &puts(&[("a", "2")])).await;
    let before = store.list().await.unwrap();
    let mut watch = store.watch(second).await.unwrap();
    drop(store);
    let ended = soon(watch.next()).await;
    assert!(
        matches!(ended, Err(StoreError::Unavailable(_))),
        "{ended:?}"
    );

    let store = open(folder.path()).await;
    assert_eq!(store.list().await.unwrap(), before);
    let mut resumed = Follow::after(&store, second).await;
    let mut too_old = store.watch(first).await.unwrap();
    assert_eq!(soon(too_old.next()).await, Err(StoreError::Compacted));
    let third = done(&store, &puts(&[("c", "3")])).await;
    assert_eq!(third, Revision(second.0 + 1));
    resumed.next(1).await;
    assert_eq!(resumed.revision, third);
}

#[tokio::test]
async fn a_lease_gets_its_full_time_again_after_a_restart() {
    const TTL: Duration = Duration::from_secs(2);
    let folder = Folder::new("store").unwrap();
    let store = open(folder.path()).await;
    let lease = store.grant(TTL).await.unwrap();
    let written = done(&store, &leased(&["a"], lease)).await;
    tokio::time::sleep(TTL * 3 / 4).await;
    drop(store);

    let reopened = Instant::now();
    let store = open(folder.path()).await;
    let mut follow = Follow::after(&store, written).await;
    assert_eq!(follow.next(1).await, [Event::Delete("a".into())]);
    let took = reopened.elapsed();
    assert!(
        took >= TTL && took < TTL + Duration::from_millis(1_500),
        "{took:?}"
    );
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseGone));
    drop(store);
    // It is gone for good, and its number is not used again.
    let store = open(folder.path()).await;
    assert_eq!(store.renew(lease).await, Err(StoreError::LeaseGone));
    assert!(store.grant(TTL).await.unwrap() > lease);
}

#[tokio::test]
async fn a_lease_ends_within_half_a_second_of_its_time() {
    let folder = Folder::new("store").unwrap();
    let store = open(folder.path()).await;
    let mut expected = BTreeMap::new();
    let start = store.list().await.unwrap().revision;
    let mut follow = Follow::after(&store, start).await;
    for number in 0..50_u64 {
        let ttl = Duration::from_millis(500 + number * 37 % 50 * 30);
        let (key, granted) = (format!("{number:02}"), Instant::now());
        let lease = store.grant(ttl).await.unwrap();
        done(&store, &leased(&[&key], lease)).await;
        follow.next(1).await;
        expected.insert(key, granted + ttl);
    }
    while !expected.is_empty() {
        for event in follow.next(1).await {
            let Event::Delete(key) = event else {
                panic!("{event:?}")
            };
            let due = expected.remove(&key).expect("it ends once");
            let late = Instant::now().checked_duration_since(due);
            let late = late.expect("none ends before its time");
            assert!(late < Duration::from_millis(500), "{key}: {late:?}");
        }
    }
}

#[tokio::test]
async fn no_lease_ends_because_the_process_was_halted() {
    let folder = Folder::new("store").unwrap();
    let mut writer = Command::new(env!("CARGO_BIN_EXE_store-writer"));
    writer.arg(folder.path().join("state")).arg("hold");
    let mut writer = Process::start("hold", writer, None, folder.path()).unwrap();
    let renewals = |writer: &Process| writer.log().matches("renewed").count();
    wait::until_true("a renewal", || renewals(&writer) > 0).unwrap();
    writer.signal(Signal::SIGSTOP);
    // Twice as long as the lease.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let before = renewals(&writer);
    writer.signal(Signal::SIGCONT);
    wait::until_true("more renewals", || {
        assert!(writer.ended().is_none(), "{}", writer.log());
        renewals(&writer) > before + 5
    })
    .unwrap();
}

#[tokio::test]
async fn the_file_is_its_owners_alone_and_in_use_once() {
    let folder = Folder::new("store").unwrap();
    let state = folder.path().join("state");
    let store = open(&state).await;
    let file = state.join(FILE_NAME);
    let mode = || fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    let text = refused(&state).await;
    assert!(text.contains("in use by another process"), "{text}");
    done(&store, &puts(&[("a", "1")])).await;
    drop(store);
    // Somebody's backup came back with other rights.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&state).await;
    assert_eq!(mode(), 0o600);
    assert_eq!(store.list().await.unwrap().entries.len(), 1);
}

#[tokio::test]
async fn a_file_of_another_kind_or_version_is_refused_and_left_alone() {
    const META: redb::TableDefinition<'_, &str, i64> = redb::TableDefinition::new("meta");
    let folder = Folder::new("store").unwrap();
    drop(open(folder.path()).await);
    let file = folder.path().join(FILE_NAME);
    let set = |version: i64| {
        let database = redb::Database::open(&file).unwrap();
        let begun = database.begin_write().unwrap();
        begun
            .open_table(META)
            .unwrap()
            .insert("format", version)
            .unwrap();
        begun.commit().unwrap();
    };
    set(2);
    let text = refused(folder.path()).await;
    assert!(
        text.contains("has format 2, and this router knows 1"),
        "{text}"
    );
    set(1);
    drop(open(folder.path()).await);

    let foreign = folder.path().join("foreign");
    fs::create_dir(&foreign).unwrap();
    let database = redb::Database::create(foreign.join(FILE_NAME)).unwrap();
    let begun = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &str>::new("theirs");
    drop(begun.open_table(table).unwrap());
    begun.commit().unwrap();
    drop(database);
    let text = refused(&foreign).await;
    assert!(text.contains("no registry store"), "{text}");

    // Nothing in it: whoever made it meant one of ours.
    let empty = folder.path().join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join(FILE_NAME), "").unwrap();
    drop(open(&empty).await);

    let text_file = folder.path().join("text");
    fs::create_dir(&text_file).unwrap();
    let content = "routes: [routes.d]\n".repeat(100);
    fs::write(text_file.join(FILE_NAME), &content).unwrap();
    let text = refused(&text_file).await;
    assert!(text.contains("no registry store, or damaged"), "{text}");
    assert_eq!(
        fs::read_to_string(text_file.join(FILE_NAME)).unwrap(),
        content
    );

    let nowhere = folder.path().join("text").join(FILE_NAME).join("state");
    let error = Embedded::open(&nowhere).await.unwrap_err().to_string();
    assert!(error.starts_with(&nowhere.display().to_string()), "{error}");
}

#[tokio::test]
async fn damage_is_found_when_the_file_is_opened() {
    let folder = Folder::new("store").unwrap();
    let store = open(folder.path()).await;
    for turn in 0..20 {
        let entries: Vec<(String, String)> = (0..100)
            .map(|it| (format!("{turn:02}/{it:03}"), "value".repeat(40)))
            .collect();
        let entries: Vec<(&str, &str)> = entries.iter().map(|(k, v)| (&**k, &**v)).collect();
        done(&store, &puts(&entries)).await;
    }
    drop(store);
    let file = folder.path().join(FILE_NAME);
    let sound = fs::read(&file).unwrap();
    let mut found = 0;
    // Somewhere in every sixteenth page; not every page is in use.
    for at in (100..sound.len()).step_by(16 * 4096) {
        fs::write(&file, &sound).unwrap();
        let damaged = fs::File::options().write(true).open(&file).unwrap();
        damaged
            .write_all_at(&[!sound[at], !sound[at + 1]], at as u64)
            .unwrap();
        match Embedded::open(folder.path()).await {
            Ok(store) => {
                let listing = Store::Embedded(store).list().await.unwrap();
                assert_eq!(listing.entries.len(), 2_000, "byte {at}");
            }
            Err(error) => {
                found += 1;
                let text = error.to_string();
                assert!(
                    text.contains(FILE_NAME) && text.contains("damaged"),
                    "{text}"
                );
            }
        }
    }
    assert!(found > 3, "{found}");
    fs::write(&file, &sound[..sound.len() / 2]).unwrap();
    let text = refused(folder.path()).await;
    assert!(text.contains("damaged"), "{text}");
    fs::write(&file, &sound).unwrap();
    let listing = open(folder.path()).await.list().await.unwrap();
    assert_eq!(listing.entries.len(), 2_000);
}

#[tokio::test]
async fn kill_9_at_any_moment_loses_nothing_that_was_reported_and_leaves_no_half() {
    const ROUNDS: u64 = 120;
    let folder = Folder::new("store").unwrap();
    let mut reported_in_all = 0;
    for round in 0..ROUNDS {
        // Half of them are killed while they make a new file, or soon after.
        let (name, longest) = match round % 2 {
            0 => (round.to_string(), 12_000),
            _ => ("long".to_owned(), 150_000),
        };
        let state = folder.path().join(name);
        let mut writer = Command::new(env!("CARGO_BIN_EXE_store-writer"));
        writer.arg(&state);
        let log = format!("round-{round}");
        let mut writer = Process::start(&log, writer, None, folder.path()).unwrap();
        tokio::time::sleep(Duration::from_micros(round * 7_919 % longest)).await;
        assert!(writer.ended().is_none(), "{}", writer.log());
        writer.crash();
        let reported = reports(&writer.log());
        reported_in_all += writer.log().lines().count();
        // The killed one may not have come as far as making the folder.
        if state.join(FILE_NAME).exists() || !reported.is_empty() {
            check(&state, &reported).await;
        }
    }
    // Else it was never killed while it wrote.
    assert!(reported_in_all > 500, "{reported_in_all}");
}

/// Number and revision of the last transaction that each writer reported.
fn reports(log: &str) -> BTreeMap<u32, (u64, i64)> {
    let mut last = BTreeMap::new();
    for line in log.lines() {
        let words: Vec<i64> = line.split(' ').map(|it| it.parse().unwrap()).collect();
        let [writer, number, revision] = words[..] else {
            panic!("{line}")
        };
        let before = last.insert(writer as u32, (number as u64, revision));
        assert!(before.is_none_or(|before| before < (number as u64, revision)));
    }
    last
}

async fn check(state: &Path, reported: &BTreeMap<u32, (u64, i64)>) {
    let store = open(state).await;
    let listing = store.list().await.unwrap();
    let mut writers: BTreeMap<u32, Vec<(String, u64, i64)>> = BTreeMap::new();
    for entry in listing.entries {
        let mut parts = entry.key.splitn(3, '/').skip(1);
        let writer = parts.next().unwrap().parse().unwrap();
        let name = parts.next().unwrap().to_owned();
        let number = std::str::from_utf8(&entry.value).unwrap().parse().unwrap();
        assert!(entry.modified <= listing.revision);
        let of_writer = writers.entry(writer).or_default();
        of_writer.push((name, number, entry.modified.0));
    }
    for (writer, (reported, revision)) in reported {
        let found = &writers.get(writer).expect("what was reported is there");
        let (_, number, at) = found.iter().find(|it| it.0 == "first").unwrap();
        // One more may have been committed and not reported yet.
        assert!(
            (*reported..=reported + 1).contains(number),
            "{reported} {found:?}"
        );
        if number == reported {
            assert_eq!(at, revision);
        }
    }
    for found in writers.values() {
        let (_, last, at) = found.iter().find(|it| it.0 == "first").unwrap().clone();
        let mut whole = vec![("first".into(), last, at), ("second".into(), last, at)];
        for number in last.saturating_sub(7).max(1)..=last {
            let name = format!("window/{number:010}");
            let at = found.iter().find(|it| it.0 == name).map_or(0, |it| it.2);
            whole.push((name, number, at));
        }
        assert_eq!(*found, whole);
        assert_eq!(whole.last().unwrap().2, at);
    }
}
