//! The last known routes on disk, for a router that starts while the store is out of reach.
//!
//! One file, `last-known-routes.jsonl`, mode 0600 (it holds the secrets of session tickets as well):
//! a line about the file, then one line per record. It is written beside and renamed, so that it is
//! always whole; one that cannot be read is as good as none, and said so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::shared::RouteRegistry;
use super::store::{KeyValue, Listing, Revision};

const NAME: &str = "last-known-routes.jsonl";
const VERSION: u32 = 1;

/// Where the last known routes are kept.
#[derive(Clone, Debug)]
pub struct Memory {
    folder: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    revision: i64,
    records: usize,
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

    /// What was saved last; `None` if nothing was, or it cannot be read.
    pub fn load(&self) -> Option<Listing> {
        let file = self.folder.join(NAME);
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

    /// Writes down what is known. What fails is told of, and tried again with the next change.
    pub async fn save(&self, registry: &RouteRegistry) {
        let (revision, records) = {
            let view = registry.view();
            (view.revision(), view.kept())
        };
        let folder = self.folder.clone();
        // The disk may be slow; what follows the store must not wait for it.
        let written = tokio::task::spawn_blocking(move || write(&folder, revision, &records)).await;
        if let Ok(Err(error)) = written {
            let folder = self.folder.display();
            tracing::error!(%folder, %error, "the last known routes cannot be written down");
        }
    }
}

fn write(folder: &Path, revision: Revision, records: &[KeyValue]) -> io::Result<()> {
    let beside = folder.join(format!("{NAME}.new"));
    let _ = fs::remove_file(&beside);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)?;
    let mut out = BufWriter::new(file);
    let head = Head {
        version: VERSION,
        revision: revision.0,
        records: records.len(),
    };
    serde_json::to_writer(&mut out, &head)?;
    for record in records {
        out.write_all(b"\n")?;
        let line = Line {
            key: record.key.as_str().into(),
            created: record.created.0,
            modified: record.modified.0,
            value: serde_json::from_slice(&record.value)?,
        };
        serde_json::to_writer(&mut out, &line)?;
    }
    out.write_all(b"\n")?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    fs::rename(&beside, folder.join(NAME))?;
    File::open(folder)?.sync_all()
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
    Ok(Listing {
        revision: Revision(head.revision),
        entries,
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn record(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: value.to_owned().into(),
            created: Revision(3),
            modified: Revision(4),
            lease: None,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::new(folder.path());
        assert_eq!(memory.load(), None);
        let records = [
            record("route/gro.x.a/acme/w1", r#"{"endpoints":["10.0.0.1:1"]}"#),
            record("ticket/secrets", r#"{"epochs":[]}"#),
        ];
        for revision in [7, 8] {
            write(folder.path(), Revision(revision), &records).unwrap();
            let expected = Listing {
                revision: Revision(revision),
                entries: records.to_vec(),
            };
            assert_eq!(memory.load(), Some(expected));
        }
        let mode = fs::metadata(folder.path().join(NAME))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_whole_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let records = [record("token/x", "{}"), record("token/y", "{}")];
        write(folder.path(), Revision(7), &records).unwrap();
        let file = folder.path().join(NAME);
        let whole = fs::read_to_string(&file).unwrap();
        for length in [0, 10, whole.len() / 2, whole.len() - 12] {
            fs::write(&file, &whole[..length]).unwrap();
            assert_eq!(Memory::new(folder.path()).load(), None, "{length}");
        }
        fs::write(&file, whole.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(Memory::new(folder.path()).load(), None);
    }
}
