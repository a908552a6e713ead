//! What the kernel tells about files.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// The folders that the kernel tells about.
pub(super) struct Watches {
    /// `None`: there is no inotify, or none left.
    watcher: Option<RecommendedWatcher>,
    /// With device and inode: a folder that was replaced has to be watched anew.
    folders: HashMap<PathBuf, (u64, u64)>,
    refused: bool,
}

impl Watches {
    pub(super) fn new(hint: mpsc::Sender<()>) -> Self {
        let handler = move |event: notify::Result<Event>| {
            // What the program itself reads is an event, too, and no change.
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
    pub(super) fn set(&mut self, sources: &[PathBuf]) -> Duration {
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
