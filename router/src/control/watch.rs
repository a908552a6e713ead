//! Notices that files changed, and reloads.
//!
//! Kernel notifications (inotify) are only a hint to look: they miss what lies behind a symlink and
//! they speak of editors' temporary files. What decides is a [`Fingerprint`] of everything that
//! would be read. A slow poll looks as well, so that a missed notification costs seconds.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::Control;

/// How quickly changes are noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// Files must have been quiet for this long: a deployment writes several of them.
    pub debounce: Duration,
    /// How often to look without a notification.
    pub poll: Duration,
}

impl Default for WatchOptions {
    fn default() -> Self {
        Self {
            debounce: Duration::from_millis(200),
            poll: Duration::from_secs(5),
        }
    }
}

/// What never goes quiet is looked at after this many times the debounce all the same.
const MOST_DEBOUNCES: u32 = 10;

/// Polling may take one part in so many of the time. Of 20,000 pairs of certificates a look costs
/// tens of milliseconds; then it happens every ten seconds or so instead of every five.
const POLL_SHARE: u32 = 200;

/// Reloads on `hangup` (SIGHUP) and when files changed; ends when the runtime does. Files are read
/// on threads of the runtime's blocking pool. Without inotify it goes on by polling, and says so.
pub async fn watch(control: Arc<Control>, mut hangup: Signal, options: WatchOptions) {
    // One place is enough: a hint says that there is something to look at, not what.
    let (hint, mut hints) = mpsc::channel(1);
    let mut watches = Watches::new(hint);
    let mut took = watches.set(&control.sources());
    // Nothing is known to be loaded yet: files may have changed since the process read them. So the
    // first look reloads, which publishes nothing if they did not.
    let mut loaded = None;
    loop {
        let asked = tokio::select! {
            Some(()) = hangup.recv() => {
                tracing::info!("SIGHUP: reloading");
                true
            }
            Some(()) = hints.recv() => {
                settle(&mut hints, options.debounce).await;
                false
            }
            () = sleep(options.poll.max(took * POLL_SHARE)) => false,
        };
        let control = Arc::clone(&control);
        let before = loaded;
        let look = spawn_blocking(move || {
            let begun = Instant::now();
            let sources = control.sources();
            // Taken before the files are read, so that what changes meanwhile differs again. When
            // a load names other files than before, the next look differs too, and loads once more.
            let fingerprint = Fingerprint::of(&sources);
            let took = begun.elapsed();
            if asked || before != Some(fingerprint) {
                // The control itself logs and shows the outcome.
                let _ = control.reload();
            }
            (fingerprint, took, control.sources())
        });
        match look.await {
            Ok((fingerprint, look_took, sources)) => {
                loaded = Some(fingerprint);
                took = look_took + watches.set(&sources);
            }
            Err(error) => tracing::error!(%error, "a reload panicked: what was in force stays"),
        }
    }
}

/// Waits until hints stop coming.
async fn settle(hints: &mut mpsc::Receiver<()>, debounce: Duration) {
    for _ in 0..MOST_DEBOUNCES {
        if timeout(debounce, hints.recv()).await.is_err() {
            return;
        }
        // Hints come by the hundred when a folder is copied; each would count as a whole wait.
        sleep(debounce / 2).await;
    }
}

/// Stands for everything that would be read: names, places, sizes and times of files.
///
/// Inode and change time are part of it, because a file can be replaced by one of the same size and
/// modification time (`cp -p`, `rsync -t`). Links are followed, so a swapped link counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint(u64);

impl Fingerprint {
    fn of(sources: &[PathBuf]) -> Self {
        let mut sum = 0_u64;
        for source in sources {
            match fs::metadata(source) {
                Ok(metadata) if metadata.is_dir() => {
                    // Not the folder's own times: they change with every temporary file in it.
                    sum = sum.wrapping_add(hash(source, &(metadata.dev(), metadata.ino())));
                    sum = sum.wrapping_add(entries(source));
                }
                found => sum = sum.wrapping_add(file(source, found)),
            }
        }
        Self(sum)
    }
}

/// The sum over the files of a folder that somebody would read, in whatever order they come.
fn entries(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return hash(folder, &"unreadable");
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let ending = path.extension().and_then(|ending| ending.to_str());
            let name = path.file_name().unwrap_or_default().as_encoded_bytes();
            matches!(ending, Some("yaml" | "crt" | "key")) && !name.starts_with(b".")
        })
        .fold(0, |sum, path| {
            sum.wrapping_add(file(&path, fs::metadata(&path)))
        })
}

fn file(path: &Path, metadata: io::Result<Metadata>) -> u64 {
    match metadata {
        Ok(it) => {
            let place = (it.dev(), it.ino(), it.size(), it.mode());
            let times = (it.mtime(), it.mtime_nsec(), it.ctime(), it.ctime_nsec());
            hash(path, &(place, times))
        }
        Err(error) => hash(path, &error.raw_os_error()),
    }
}

fn hash(path: &Path, value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    path.hash(&mut hasher);
    value.hash(&mut hasher);
    hasher.finish()
}

/// The folders that the kernel tells about.
struct Watches {
    /// `None`: there is no inotify, or none left.
    watcher: Option<RecommendedWatcher>,
    /// With device and inode: a folder that was replaced has to be watched anew.
    folders: HashMap<PathBuf, (u64, u64)>,
    refused: bool,
}

impl Watches {
    fn new(hint: mpsc::Sender<()>) -> Self {
        let handler = move |event: notify::Result<Event>| {
            // What the router itself reads is an event, too, and no change.
            let is_change = event.is_ok_and(|event| match event.kind {
                EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
                _ => true,
            });
            if is_change {
                // Full: there is a hint already.
                let _ = hint.try_send(());
            }
        };
        let watcher = notify::recommended_watcher(handler)
            .inspect_err(|error| {
                tracing::warn!(%error, "no notifications of file changes: polling only");
            })
            .ok();
        Self {
            watcher,
            folders: HashMap::new(),
            refused: false,
        }
    }

    /// Watches the folders of these paths, and no others. Says how long that took.
    fn set(&mut self, sources: &[PathBuf]) -> Duration {
        let begun = Instant::now();
        let Some(watcher) = &mut self.watcher else {
            return Duration::ZERO;
        };
        let mut wanted = HashMap::new();
        for source in sources {
            let folder = match source.parent() {
                _ if source.is_dir() => source.as_path(),
                Some(parent) if parent != Path::new("") => parent,
                _ => Path::new("."),
            };
            if let Ok(metadata) = fs::metadata(folder) {
                wanted.insert(folder.to_owned(), (metadata.dev(), metadata.ino()));
            }
        }
        self.folders.retain(|folder, place| {
            let stays = wanted.get(folder) == Some(place);
            if !stays {
                // It may be gone, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        for (folder, place) in wanted {
            if self.folders.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder, place)),
                // Said once: it is tried again at every look.
                Err(error) if !self.refused => {
                    self.refused = true;
                    let folder = folder.display();
                    tracing::warn!(%folder, %error, "cannot be watched: polling only");
                }
                Err(_) => {}
            }
        }
        begun.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_fingerprint_changes_with_what_is_read_and_with_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let sources = [folder.path().to_owned(), folder.path().join("x/ca.pem")];
        let look = || Fingerprint::of(&sources);
        let file = folder.path().join("a.yaml");
        let empty = look();
        fs::write(&file, "a").unwrap();
        let written = look();
        assert_ne!(empty, written, "a new file");
        fs::write(folder.path().join(".a.yaml.swp"), "").unwrap();
        fs::write(folder.path().join("4913"), "").unwrap();
        fs::read(&file).unwrap();
        assert_eq!(written, look(), "an editor's files, and reading");
        let new = folder.path().join("new");
        fs::write(&new, "b").unwrap();
        let times =
            fs::FileTimes::new().set_modified(fs::metadata(&file).unwrap().modified().unwrap());
        fs::File::options()
            .write(true)
            .open(&new)
            .unwrap()
            .set_times(times)
            .unwrap();
        fs::rename(&new, &file).unwrap();
        assert_ne!(written, look(), "replaced by one of the same size and time");
        let replaced = look();
        fs::create_dir(folder.path().join("x")).unwrap();
        fs::write(folder.path().join("x/ca.pem"), "").unwrap();
        assert_ne!(replaced, look(), "a file that was missing");
    }

    #[test]
    fn a_swapped_link_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("a.yaml"), "same").unwrap();
        }
        let data = folder.path().join("..data");
        symlink("v1", &data).unwrap();
        symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
        let sources = [folder.path().to_owned()];
        let before = Fingerprint::of(&sources);
        let swap = folder.path().join("..data_tmp");
        symlink("v2", &swap).unwrap();
        fs::rename(&swap, &data).unwrap();
        assert_ne!(before, Fingerprint::of(&sources));
    }
}
