//! The last known routes on disk, for a router that starts while the store is out of reach.
//!
//! One file, `last-known-routes.jsonl`, mode 0600 (it holds the secrets of session tickets as well):
//! a line about the file and which store it is of, then one line per record. It is written beside and renamed, so that it is
//! always whole; one that cannot be read is as good as none, and said so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::keys::STORE_ID;
use super::shared::RouteRegistry;
use super::store::{KeyValue, Listing, Revision};

const NAME: &str = "last-known-routes.jsonl";
const VERSION: u32 = 1;
/// More than any [`Head`] is long.
const HEAD_BYTES: usize = 256;
/// Rules of a slice. The view is held for as long as it takes to copy them, and who follows waits.
const SLICE: usize = 256;
/// How often what is known is written down, at most; it also waits for twenty times what the last
/// writing took.
const WRITTEN_EVERY: Duration = Duration::from_secs(5);

/// Where the last known routes are kept.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u32,
    revision: i64,
    records: usize,
    /// See [`STORE_ID`]; files of older versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    store: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(rename = "k")]
    key: std::borrow::Cow<'a, str>,
    #[serde(rename = "c")]
    created: i64,
    #[serde(rename = "m")]
    modified: i64,
    #[serde(rename = "v")]
    value: Box<RawValue>,
}

impl Memory {
    /// In this folder, which exists.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The file.
    pub fn file(&self) -> PathBuf {
        self.folder.join(NAME)
    }

    /// What was saved last; `None` if nothing was, or it cannot be read.
    pub fn load(&self) -> Option<Listing> {
        let file = self.file();
        match read(&file) {
            Ok(listing) => Some(listing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let file = file.display();
                tracing::error!(%file, %error, "the last known routes cannot be read: starting without");
                None
            }
        }
    }
}

/// Writes down what is known, again and again, beside whoever follows: a million routes take seconds.
#[derive(Debug)]
pub(super) struct Keeper {
    memory: Memory,
    changed: Notify,
    hurry: Notify,
    /// After a writing that failed.
    retry_after: Duration,
}

impl Keeper {
    /// What was written last, before this process began.
    pub(super) fn load(&self) -> Option<Listing> {
        self.memory.load()
    }

    pub(super) fn new(memory: Memory) -> Self {
        Self {
            memory,
            changed: Notify::new(),
            hurry: Notify::new(),
            retry_after: WRITTEN_EVERY,
        }
    }

    /// The file.
    pub(super) fn file(&self) -> PathBuf {
        self.memory.file()
    }

    /// There is something to write down.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }

    /// What there is to write down is to be written now: nobody knows what comes next.
    pub(super) fn hurry(&self) {
        self.hurry.notify_one();
    }

    /// Writes until the runtime ends. What fails is told of, and tried again after the pause.
    pub(super) async fn run(&self, registry: &Arc<RouteRegistry>) {
        loop {
            self.changed.notified().await;
            let begun = Instant::now();
            let (folder, registry) = (self.memory.folder.clone(), Arc::clone(registry));
            let written = tokio::task::spawn_blocking(move || write(&folder, &registry)).await;
            // A panic is an error like another: the routes in force are none the worse for it.
            if let Err(error) = written.unwrap_or_else(|error| Err(io::Error::other(error))) {
                let folder = self.memory.folder.display();
                tracing::error!(%folder, %error, "the last known routes cannot be written down");
                self.changed.notify_one();
                // Whoever hurries cannot make it any better.
                tokio::time::sleep(self.retry_after).await;
                continue;
            }
            let pause = WRITTEN_EVERY.max(begun.elapsed() * 20);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.hurry.notified() => {}
            }
        }
    }
}

/// Each slice of routes is as of when its turn came, none older than the revision in the head.
fn write(folder: &Path, registry: &RouteRegistry) -> io::Result<()> {
    let beside = folder.join(format!("{NAME}.new"));
    let _ = fs::remove_file(&beside);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let mut out = BufWriter::new(file);
    let mut head = {
        let view = registry.view();
        Head {
            version: VERSION,
            revision: view.revision().0,
            records: 0,
            store: view.store_id().map(str::to_owned),
        }
    };
    // How many there are is known at the end, and then written here.
    let blank = [b' '; HEAD_BYTES];
    out.write_all(&blank)?;
    let mut after = None;
    loop {
        let (records, last) = registry.view().kept_routes(after.as_ref(), SLICE);
        head.records += records.len();
        write_records(&mut out, &records)?;
        match last {
            Some(last) => after = Some(last),
            None => break,
        }
    }
    let tickets = registry.view().kept_tickets();
    head.records += usize::from(tickets.is_some());
    write_records(&mut out, tickets.as_slice())?;
    out.write_all(b"\n")?;
    out.seek(SeekFrom::Start(0))?;
    serde_json::to_writer(&mut out, &head)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(NAME))?;
    File::open(folder)?.sync_all()
}

fn write_records(out: &mut impl Write, records: &[KeyValue]) -> io::Result<()> {
    for record in records {
        out.write_all(b"\n")?;
        let line = Line {
            key: record.key.as_str().into(),
            created: record.created.0,
            modified: record.modified.0,
            value: serde_json::from_slice(&record.value)?,
        };
        serde_json::to_writer(&mut *out, &line)?;
    }
    Ok(())
}

fn read(file: &Path) -> io::Result<Listing> {
    let invalid = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut lines = BufReader::new(File::open(file)?).lines();
    let head = lines.next().ok_or_else(|| invalid("it is empty"))??;
    let head: Head = serde_json::from_str(&head)?;
    if head.version != VERSION {
        return Err(invalid("it is of another version"));
    }
    let mut entries = Vec::new();
    for line in lines {
        let line = line?;
        let line: Line<'_> = serde_json::from_str(&line)?;
        entries.push(KeyValue {
            key: line.key.into_owned(),
            value: line.value.get().to_owned().into(),
            created: Revision(line.created),
            modified: Revision(line.modified),
            lease: None,
        });
    }
    if entries.len() != head.records {
        return Err(invalid("it is not whole"));
    }
    if let Some(id) = head.store {
        entries.push(KeyValue {
            key: STORE_ID.to_owned(),
            value: id.into(),
            created: Revision::default(),
            modified: Revision::default(),
            lease: None,
        });
    }
    Ok(Listing {
        revision: Revision(head.revision),
        entries,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tempfile::TempDir;

    use crate::registry::store::{Batch, Embedded, Store};

    use super::*;

    async fn registry(revision: i64, entries: &[KeyValue]) -> (Arc<RouteRegistry>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).await.unwrap();
        let registry = RouteRegistry::new(Store::Embedded(store));
        registry.view().reset(Listing {
            revision: Revision(revision),
            entries: entries.to_vec(),
        });
        (Arc::new(registry), folder)
    }

    fn record(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: value.to_owned().into(),
            created: Revision(3),
            modified: Revision(4),
            lease: None,
        }
    }

    #[tokio::test]
    async fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        assert_eq!(memory.load(), None);
        let route = record(
            "route/gro.x.a/acme/w1",
            r#"{"endpoints":["10.0.0.1:1"],"tls":{"server_name":"a.x.org","trust":"system"}}"#,
        );
        let tickets = record("ticket/secrets", r#"{"epochs":[]}"#);
        let id = KeyValue {
            created: Revision(0),
            modified: Revision(0),
            ..record(STORE_ID, "0123456789abcdef")
        };
        for (revision, id) in [(7, None), (8, Some(id))] {
            let mut entries = vec![route.clone(), tickets.clone()];
            entries.extend(id.clone());
            let (registry, _store) = registry(revision, &entries).await;
            write(folder.path(), &registry).unwrap();
            let revision = Revision(revision);
            let tickets = KeyValue {
                created: revision,
                modified: revision,
                ..tickets.clone()
            };
            let mut entries = vec![route.clone(), tickets];
            entries.extend(id);
            assert_eq!(memory.load(), Some(Listing { revision, entries }));
        }
        let mode = fs::metadata(folder.path().join(NAME))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn many_routes_are_written_in_slices_and_none_is_left_out() {
        let count = 2 * SLICE + 1;
        let routes = (0..count).map(|number| {
            let key = format!("route/gro.x.{number:05}/acme/w1");
            record(&key, r#"{"endpoints":["10.0.0.1:1"]}"#)
        });
        let routes: Vec<KeyValue> = routes.collect();
        let (registry, folder) = registry(9, &routes).await;
        write(folder.path(), &registry).unwrap();
        let listing = Memory::new(folder.path()).load().unwrap();
        assert_eq!(listing.entries, routes);
    }

    #[tokio::test]
    async fn what_is_not_whole_is_none() {
        let records = ["a", "b"].map(|name| {
            let key = format!("route/gro.x.{name}/acme/w1");
            record(&key, r#"{"endpoints":["10.0.0.1:1"]}"#)
        });
        let (registry, folder) = registry(7, &records).await;
        write(folder.path(), &registry).unwrap();
        let file = folder.path().join(NAME);
        let whole = fs::read_to_string(&file).unwrap();
        for length in [0, 10, HEAD_BYTES, whole.len() / 2, whole.len() - 12] {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(Memory::new(folder.path()).load(), None, "{length}");
        }
        fs::write(&file, whole.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(Memory::new(folder.path()).load(), None);
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_later_without_another_change() {
        let (registry, folder) = registry(7, &[]).await;
        let state = folder.path().join("not-there-yet");
        let memory = Memory::new(&state);
        let mut keeper = Keeper::new(memory.clone());
        keeper.retry_after = Duration::from_millis(10);
        keeper.changed();
        tokio::spawn(async move { keeper.run(&registry).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        fs::create_dir(&state).unwrap();
        let written = async {
            while memory.load().is_none() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let written = tokio::time::timeout(Duration::from_secs(30), written).await;
        written.expect("it is tried again");
    }

    #[tokio::test]
    async fn changes_are_written_down_and_at_once_when_there_is_hurry() {
        let (registry, folder) = registry(7, &[]).await;
        let memory = Memory::new(folder.path());
        let keeper = Arc::new(Keeper::new(memory.clone()));
        let (writer, shared) = (Arc::clone(&keeper), Arc::clone(&registry));
        tokio::spawn(async move { writer.run(&shared).await });
        let begun = Instant::now();
        for revision in [8, 9, 10] {
            registry.view().apply(Batch {
                revision: Revision(revision),
                events: Vec::new(),
            });
            keeper.changed();
            keeper.hurry();
            while memory
                .load()
                .is_none_or(|it| it.revision != Revision(revision))
            {
                assert!(begun.elapsed() < WRITTEN_EVERY, "{revision} is not written");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
    }
}
