//! Notices that files changed, and says when to reload.
//!
//! Kernel notifications (inotify) are only a hint to look: they miss what lies behind a symlink and
//! they speak of editors' temporary files. What decides is a fingerprint of everything that
//! would be read. A slow poll looks as well, so that a missed notification costs seconds.

mod fingerprint;
mod watches;

use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::Signal;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::{Instant, sleep_until};

use fingerprint::Fingerprint;
use watches::Watches;

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

/// Why it is time to reload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody sent SIGHUP.
    Asked,
    /// What would be read is not what was read last.
    Changed,
}

/// Says when to reload. The program does it and reports what it read:
///
/// ```no_run
/// # use daemon::watch::{WatchOptions, Watcher};
/// # use tokio::signal::unix::{SignalKind, signal};
/// # async fn example(reload: impl Fn() -> Vec<std::path::PathBuf>) -> std::io::Result<()> {
/// let hangup = signal(SignalKind::hangup())?;
/// let mut watcher = Watcher::new(hangup, WatchOptions::default(), reload());
/// loop {
///     tokio::select! {
///         _ = watcher.changed() => watcher.loaded(reload()),
///         // and whatever else the program waits for
///     }
/// }
/// # }
/// ```
pub struct Watcher {
    hangup: Signal,
    hints: mpsc::Receiver<()>,
    options: WatchOptions,
    watches: Watches,
    sources: Vec<PathBuf>,
    /// What was there before the last load. `None`: nothing is known to be loaded.
    loaded: Option<Fingerprint>,
    /// The look that the caller was told of; it counts when the caller has loaded.
    told: Option<Fingerprint>,
    /// Somebody has asked, and the caller was not told yet.
    asked: bool,
    /// When the next look is due.
    due: Instant,
    /// When it is due even if hints go on; `None` before the first hint.
    latest: Option<Instant>,
    /// A look that is under way on the blocking pool.
    look: Option<JoinHandle<(Fingerprint, Duration)>>,
    /// How long the last look took.
    took: Duration,
}

impl Watcher {
    /// Watches `sources`: files, and folders for their entries. `hangup` is SIGHUP. Without inotify
    /// there is polling only, and the log says so.
    ///
    /// Files may have changed since the caller read them, so the first look, after one `poll` at
    /// the latest, is a change in any case.
    #[must_use]
    pub fn new(hangup: Signal, options: WatchOptions, sources: Vec<PathBuf>) -> Self {
        // One place is enough: a hint says that there is something to look at, not what.
        let (hint, hints) = mpsc::channel(1);
        let mut watcher = Self {
            hangup,
            hints,
            options,
            watches: Watches::new(hint),
            sources,
            loaded: None,
            told: None,
            asked: false,
            due: Instant::now(),
            latest: None,
            look: None,
            took: Duration::ZERO,
        };
        watcher.took = watcher.watches.set(&watcher.sources);
        watcher.rest();
        watcher
    }

    /// Waits until it is time to reload. The caller then does so and calls [`Watcher::loaded`];
    /// without that, the next look finds the same change once more.
    ///
    /// Files are looked at on a thread of the runtime's blocking pool. Whoever stops waiting and
    /// comes back (`select!`) loses nothing.
    pub async fn changed(&mut self) -> Reason {
        loop {
            if self.look.is_none() {
                self.wait().await;
            }
            let sources = &self.sources;
            let look = self.look.get_or_insert_with(|| {
                let sources = sources.clone();
                spawn_blocking(move || {
                    let begun = Instant::now();
                    (Fingerprint::of(&sources), begun.elapsed())
                })
            });
            let looked = look.await;
            self.look = None;
            match looked {
                Ok((fingerprint, took)) => {
                    self.took = took + self.watches.set(&self.sources);
                    self.rest();
                    let asked = mem::take(&mut self.asked);
                    if asked || self.loaded != Some(fingerprint) {
                        self.told = Some(fingerprint);
                        return if asked {
                            Reason::Asked
                        } else {
                            Reason::Changed
                        };
                    }
                }
                Err(error) => {
                    self.rest();
                    tracing::error!(%error, "files cannot be looked at");
                }
            }
        }
    }

    /// The caller has reloaded, with whatever outcome; from now on these paths count.
    ///
    /// What [`Watcher::changed`] saw was there before the files were read, so that what changed
    /// meanwhile differs again. When other paths are named than before, the next look differs, too.
    pub fn loaded(&mut self, sources: Vec<PathBuf>) {
        self.loaded = self.told.take().or(self.loaded);
        self.sources = sources;
        self.took += self.watches.set(&self.sources);
        self.rest();
    }

    /// Reloads whenever it is time, on threads of the blocking pool; ends when the runtime does.
    /// `reload` returns the paths that count from then on.
    pub async fn reload_with<R>(mut self, reload: R)
    where
        R: Fn() -> Vec<PathBuf> + Send + Sync + 'static,
    {
        let reload = Arc::new(reload);
        loop {
            self.changed().await;
            let reload = Arc::clone(&reload);
            match spawn_blocking(move || reload()).await {
                Ok(sources) => self.loaded(sources),
                Err(error) => tracing::error!(%error, "a reload panicked: what was in force stays"),
            }
        }
    }

    /// Waits until a look is due. All it knows is in `self`, so that it can be waited for anew.
    async fn wait(&mut self) {
        while !self.asked {
            tokio::select! {
                Some(()) = self.hangup.recv() => {
                    tracing::info!("SIGHUP: reloading");
                    self.asked = true;
                }
                Some(()) = self.hints.recv() => {
                    let (now, debounce) = (Instant::now(), self.options.debounce);
                    let latest = *self.latest.get_or_insert(now + debounce * MOST_DEBOUNCES);
                    self.due = latest.min(now + debounce);
                }
                () = sleep_until(self.due) => return,
            }
        }
    }

    /// No look before the next poll, unless there is a hint.
    fn rest(&mut self) {
        self.latest = None;
        self.due = Instant::now() + self.options.poll.max(self.took * POLL_SHARE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::signal::{Signal as Number, raise};
    use std::fs;
    use std::path::Path;
    use tokio::signal::unix::{SignalKind, signal};
    use tokio::time::timeout;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    fn watcher(kind: SignalKind, poll: Duration, folder: &Path) -> Watcher {
        let options = WatchOptions {
            debounce: Duration::from_millis(20),
            poll,
        };
        Watcher::new(signal(kind).unwrap(), options, vec![folder.to_owned()])
    }

    #[test]
    fn a_change_is_told_until_it_is_loaded_and_then_no_more() {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let poll = Duration::from_millis(5);
            let mut watcher = watcher(SignalKind::hangup(), poll, folder.path());
            for change in [None, Some("a.yaml")] {
                if let Some(file) = change {
                    fs::write(folder.path().join(file), "").unwrap();
                }
                for _ in 0..2 {
                    let told = timeout(PATIENCE, watcher.changed()).await;
                    assert_eq!(told, Ok(Reason::Changed), "{change:?}");
                }
                watcher.loaded(vec![folder.path().to_owned()]);
                let quiet = timeout(Duration::from_millis(100), watcher.changed()).await;
                assert!(quiet.is_err(), "{change:?} is told though it is loaded");
            }
        });
    }

    #[test]
    fn whoever_stops_waiting_and_comes_back_loses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let never = Duration::from_secs(3600);
            let mut watcher = watcher(SignalKind::hangup(), never, folder.path());
            fs::write(folder.path().join("a.yaml"), "").unwrap();
            let end = Instant::now() + PATIENCE;
            // Far less than the debounce.
            while timeout(Duration::from_millis(1), watcher.changed())
                .await
                .is_err()
            {
                assert!(Instant::now() < end, "the notification is lost");
            }
        });
    }

    #[test]
    fn what_never_goes_quiet_is_looked_at_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let never = Duration::from_secs(3600);
            let mut watcher = watcher(SignalKind::hangup(), never, folder.path());
            let file = folder.path().join("a.yaml");
            let noise = tokio::spawn(async move {
                loop {
                    fs::write(&file, "").unwrap();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
            let told = timeout(PATIENCE, watcher.changed()).await;
            assert_eq!(told, Ok(Reason::Changed));
            noise.abort();
        });
    }

    #[test]
    fn who_asks_is_told_though_nothing_changed() {
        let folder = tempfile::tempdir().unwrap();
        block_on(async {
            let never = Duration::from_secs(3600);
            // Not SIGHUP: the other tests' watchers would hear it.
            let mut watcher = watcher(SignalKind::user_defined1(), never, folder.path());
            watcher.loaded = Some(Fingerprint::of(&watcher.sources));
            raise(Number::SIGUSR1).unwrap();
            let told = timeout(PATIENCE, watcher.changed()).await;
            assert_eq!(told, Ok(Reason::Asked));
        });
    }

    #[test]
    fn a_reload_that_panics_is_tried_again() {
        let folder = tempfile::tempdir().unwrap();
        let sources = vec![folder.path().to_owned()];
        block_on(async {
            let poll = Duration::from_millis(5);
            let watcher = watcher(SignalKind::hangup(), poll, folder.path());
            let (sender, mut attempts) = mpsc::channel(2);
            let reload = move || {
                let first = sender.capacity() == 2;
                sender.blocking_send(()).unwrap();
                assert!(!first, "the first attempt fails, as it should");
                sources.clone()
            };
            let task = tokio::spawn(watcher.reload_with(reload));
            let end = Instant::now() + PATIENCE;
            while attempts.len() < 2 {
                assert!(Instant::now() < end, "not tried again");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            attempts.close();
            task.abort();
        });
    }
}
