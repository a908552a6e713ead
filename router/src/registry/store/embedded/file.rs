//! The file: opening, reading, and what its tables hold.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::ops::Bound;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redb::backends::FileBackend;
use redb::{
    Builder, Database, DatabaseError, Durability, Error, ReadTransaction, ReadableDatabase,
    ReadableTable, StorageError, TableDefinition, TableError, WriteTransaction,
};

use super::super::{KeyValue, LeaseId, Listing, Range, Revision, StoreError};

/// Of every record: created, modified, lease (0: none), value.
pub(super) type Record<'a> = (i64, i64, i64, &'a [u8]);

/// The records.
pub(super) const KEYS: TableDefinition<'_, &str, Record<'_>> = TableDefinition::new("keys");
/// Leases that something hung on at some time: their time to live in milliseconds.
pub(super) const LEASES: TableDefinition<'_, i64, u64> = TableDefinition::new("leases");
/// Which keys hang on which lease.
pub(super) const LEASED: TableDefinition<'_, (i64, &str), ()> = TableDefinition::new("leased");
/// Numbers, by the names below.
pub(super) const META: TableDefinition<'_, &str, i64> = TableDefinition::new("meta");

/// The version of all of this.
const FORMAT: &str = "format";
const FORMAT_VERSION: i64 = 1;
/// The revision of the last change.
pub(super) const REVISION: &str = "revision";
/// The highest number of a stored lease.
pub(super) const LAST_LEASE: &str = "last-lease";

const IN_USE: &str = "is in use by another process, another router perhaps";

/// redb's cache; the system caches the file as well.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

/// The file, open until it is dropped.
#[derive(Debug)]
pub(super) struct RecordFile {
    path: PathBuf,
    /// Ours alone as long as this is open.
    _folder: File,
    /// `None` after the disk failed, until [`RecordFile::reopen`] succeeds.
    database: Mutex<Option<Database>>,
}

/// What the writer has to know of a file.
#[derive(Debug)]
pub(super) struct Contents {
    /// Of the last change.
    pub(super) revision: Revision,
    /// The highest number ever stored.
    pub(super) last_lease: LeaseId,
    /// All that are stored.
    pub(super) leases: Vec<(LeaseId, Duration)>,
}

impl RecordFile {
    /// Opens the file in a folder, or makes it.
    pub(super) fn open(folder: &Path) -> Result<(Self, Contents), StoreError> {
        let path = folder.join(super::FILE_NAME);
        let locked = lock_folder(folder).map_err(|error| failed(folder, &error))?;
        let Some(locked) = locked else {
            return Err(failed(&path, &IN_USE));
        };
        if fs::metadata(&path).map_or(true, |it| it.len() == 0) {
            create(&path, &locked)?;
        }
        let (database, contents) = open(&path)?;
        let file = Self {
            path,
            _folder: locked,
            database: Mutex::new(Some(database)),
        };
        Ok((file, contents))
    }

    /// Closes and opens it, which redb demands after the disk failed once.
    pub(super) fn reopen(&self) -> Result<Contents, StoreError> {
        let mut held = self.database();
        if let Some(broken) = held.take() {
            // It failed already, and whatever it still says changes nothing.
            let _ = broken.close();
        }
        let (database, contents) = open(&self.path)?;
        *held = Some(database);
        Ok(contents)
    }

    /// Everything in these ranges, and after it the keys in the others. Each in order, and none
    /// overlaps with another of its kind.
    pub(super) fn read(&self, ranges: &[Range], keys: &[Range]) -> Result<Listing, StoreError> {
        let bounds = |range: &'_ Range| {
            let (start, end) = (range.start.clone(), range.end.clone());
            (Bound::Included(start), Bound::Excluded(end))
        };
        let whole = ranges.iter().map(|range| (bounds(range), true));
        let keys = keys.iter().map(|range| (bounds(range), false));
        self.read_between(whole.chain(keys))
    }

    /// Everything.
    pub(super) fn list(&self) -> Result<Listing, StoreError> {
        self.read_between([((Bound::Unbounded, Bound::Unbounded), true)])
    }

    /// A transaction that is durable once it is committed.
    pub(super) fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let begun = self.with(|database| Ok(database.begin_write()?))?;
        let mut begun = begun;
        begun
            .set_durability(Durability::Immediate)
            .map_err(|error| self.trouble(error.into()))?;
        Ok(begun)
    }

    /// What an error of redb means to callers.
    pub(super) fn trouble(&self, error: Error) -> StoreError {
        let text = format!("{}: {error}", self.path.display());
        match error {
            // A full disk, mostly; the writer opens the file again.
            Error::Io(_) | Error::PreviousIo | Error::DatabaseClosed => {
                StoreError::Unavailable(text)
            }
            _ => StoreError::Failed(text),
        }
    }

    fn read_between(
        &self,
        bounds: impl IntoIterator<Item = (Bounds, bool)>,
    ) -> Result<Listing, StoreError> {
        let begun = self.with(|database| Ok(database.begin_read()?))?;
        listing(&begun, bounds).map_err(|error| self.trouble(error))
    }

    fn with<T>(&self, action: impl FnOnce(&Database) -> Result<T, Error>) -> Result<T, StoreError> {
        match &*self.database() {
            Some(database) => action(database).map_err(|error| self.trouble(error)),
            None => {
                let text = format!("{}: the disk failed", self.path.display());
                Err(StoreError::Unavailable(text))
            }
        }
    }

    fn database(&self) -> MutexGuard<'_, Option<Database>> {
        self.database.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Bounds = (Bound<String>, Bound<String>);

/// What is within bounds: with values or without.
fn listing(
    begun: &ReadTransaction,
    bounds: impl IntoIterator<Item = (Bounds, bool)>,
) -> Result<Listing, Error> {
    let keys = begun.open_table(KEYS)?;
    let mut entries = Vec::new();
    for ((start, end), with_values) in bounds {
        let bounds = (
            start.as_ref().map(String::as_str),
            end.as_ref().map(String::as_str),
        );
        for entry in keys.range::<&str>(bounds)? {
            let (key, record) = entry?;
            let (created, modified, lease, value) = record.value();
            let value = if with_values { value } else { &[] };
            entries.push(entry_of(key.value(), (created, modified, lease, value)));
        }
    }
    let meta = begun.open_table(META)?;
    Ok(Listing {
        revision: Revision(number(&meta, REVISION)?),
        entries,
    })
}

/// A number of the table [`META`].
pub(super) fn number(
    meta: &impl ReadableTable<&'static str, i64>,
    name: &str,
) -> Result<i64, StorageError> {
    Ok(meta.get(name)?.map_or(0, |number| number.value()))
}

fn entry_of(key: &str, (created, modified, lease, value): Record<'_>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Bytes::copy_from_slice(value),
        created: Revision(created),
        modified: Revision(modified),
        lease: (lease != 0).then_some(LeaseId(lease)),
    }
}

/// Makes a file that has either nothing or everything: redb's own beginnings, cut off by a crash,
/// are no database. Only whoever has locked the folder may do this.
fn create(path: &Path, folder: &File) -> Result<(), StoreError> {
    let partial = path.with_extension("partial");
    let attempt = || -> Result<(), Error> {
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let database = open_database(&partial)?;
        let begun = database.begin_write()?;
        begun.open_table(META)?.insert(FORMAT, FORMAT_VERSION)?;
        begun.open_table(KEYS)?;
        begun.open_table(LEASES)?;
        begun.open_table(LEASED)?;
        begun.commit()?;
        database.close()?;
        fs::rename(&partial, path)?;
        // Its name has to survive a loss of power as well.
        Ok(folder.sync_all()?)
    };
    attempt().map_err(|error| failed(&partial, &error))
}

fn open(path: &Path) -> Result<(Database, Contents), StoreError> {
    let database = open_database(path).map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => failed(path, &IN_USE),
        DatabaseError::Storage(StorageError::Io(error)) if is_damage(&error) => {
            failed(path, &"is no registry store, or damaged")
        }
        DatabaseError::Storage(StorageError::Corrupted(what)) => {
            failed(path, &format!("is damaged: {what}"))
        }
        other => failed(path, &other),
    })?;
    let contents = contents(&database).map_err(|problem| match problem {
        Problem::Version(found) => failed(
            path,
            &format!("has format {found}, and this router knows {FORMAT_VERSION}"),
        ),
        Problem::Foreign => failed(path, &"is a redb database, but no registry store"),
        Problem::Redb(error) => failed(path, &error),
    })?;
    Ok((database, contents))
}

/// Whose content is at fault, rather than the disk.
fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

enum Problem {
    Version(i64),
    Foreign,
    Redb(Error),
}

impl<E: Into<Error>> From<E> for Problem {
    fn from(error: E) -> Self {
        Self::Redb(error.into())
    }
}

fn contents(database: &Database) -> Result<Contents, Problem> {
    let begun = database.begin_read()?;
    let meta = match begun.open_table(META) {
        Ok(meta) => meta,
        Err(TableError::Storage(error)) => return Err(error.into()),
        Err(_) => return Err(Problem::Foreign),
    };
    match number(&meta, FORMAT)? {
        FORMAT_VERSION => {}
        other => return Err(Problem::Version(other)),
    }
    let leases = begun.open_table(LEASES)?;
    let leases = leases.iter()?.map(|entry| {
        let (id, ttl) = entry?;
        Ok((LeaseId(id.value()), Duration::from_millis(ttl.value())))
    });
    Ok(Contents {
        revision: Revision(number(&meta, REVISION)?),
        last_lease: LeaseId(number(&meta, LAST_LEASE)?),
        leases: leases.collect::<Result<_, StorageError>>()?,
    })
}

/// `None`: another process has it.
fn lock_folder(folder: &Path) -> io::Result<Option<File>> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let folder = File::open(folder)?;
    match folder.try_lock() {
        Ok(()) => Ok(Some(folder)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Readable by its owner alone: secrets of session tickets are in it.
fn open_database(path: &Path) -> Result<Database, DatabaseError> {
    let open = || -> io::Result<File> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(Permissions::from_mode(0o600))?;
        }
        Ok(file)
    };
    let file = open().map_err(StorageError::Io)?;
    Builder::new()
        .set_cache_size(CACHE_BYTES)
        // Else redb trusts the file, and panics when it comes across the damage.
        .set_check_integrity_on_open(true)
        .create_with_backend(FileBackend::new(file)?)
}

fn failed(path: &Path, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("{}: {reason}", path.display()))
}
