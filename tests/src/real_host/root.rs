//! The Debian that all real hosts share, read-only: `tests/host/root.sh` makes it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

/// The file that tells a host's root from every other, the machine's own first of all.
pub(crate) const MARKER: &str = "gatehouse-host-root";

/// What it holds: the script that made the root, so that one of another recipe is not taken for it.
pub(crate) const RECIPE: &str = include_str!("../../host/root.sh");

/// A root made by debootstrap; clones share it. While one lives, `./x host-root` replaces nothing.
#[derive(Clone, Debug)]
pub struct Root {
    folder: PathBuf,
    _lock: Arc<File>,
}

impl Root {
    /// The one below the folder that cargo builds in.
    ///
    /// # Errors
    /// If `./x host-root` has not been run, or not since `tests/host/root.sh` was changed.
    pub fn get() -> Result<Self> {
        let own = std::env::current_exe()?;
        // target/debug/deps/TEST or target/release/demo
        let hosts = own
            .ancestors()
            .skip(2)
            .take(2)
            .map(|it| it.join("hosts"))
            .find(|it| it.join("lock").is_file())
            .with_context(|| {
                let own = own.display();
                format!("no root of real hosts is made near {own}: run `./x host-root`")
            })?;
        let lock = File::open(hosts.join("lock"))?;
        lock.lock_shared()
            .context("wait for the root of real hosts")?;
        let folder = hosts.join("root");
        if !bears_marker(&folder) {
            bail!(
                "{} is missing, or of another recipe than tests/host/root.sh: run `./x host-root`",
                folder.display()
            );
        }
        Ok(Self {
            folder,
            _lock: Arc::new(lock),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Whether this folder is a root for hosts.
pub(crate) fn bears_marker(folder: &Path) -> bool {
    fs::read_to_string(folder.join(MARKER)).is_ok_and(|it| it == RECIPE)
}
