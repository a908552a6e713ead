//! The folder of pins: a BPF file system of our own.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount, umount};
use nix::sys::statfs::{BPF_FS_MAGIC, statfs};

use super::error::BpfError;

/// Paths below the folder of pins. The file system allows no dots in names.
#[derive(Clone, Debug)]
pub(super) struct Pins(PathBuf);

impl Pins {
    /// Prepares the folder. `/sys/fs/bpf` would not do: `ip netns exec` hides it.
    pub(super) fn prepare(folder: &Path) -> Result<Self, BpfError> {
        let pins = Self::at(folder);
        pins.restore()?;
        Ok(pins)
    }

    /// Makes and mounts what is not there.
    pub(super) fn restore(&self) -> Result<(), BpfError> {
        let failed = |what, source| failure(&self.0, what, source);
        fs::create_dir_all(&self.0).map_err(|error| failed("cannot be made", error))?;
        if !self.is_bpffs() {
            mount(
                Some("bpf"),
                &self.0,
                Some("bpf"),
                MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
                Some("mode=0700"),
            )
            .map_err(|error| failed("no BPF file system can be mounted there", error.into()))?;
        }
        fs::create_dir_all(self.links()).map_err(|error| failed("has no room for links", error))
    }

    /// The folder as it is.
    pub(super) fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    pub(super) fn is_bpffs(&self) -> bool {
        statfs(&self.0).is_ok_and(|found| found.filesystem_type() == BPF_FS_MAGIC)
    }

    /// Folder of pinned links.
    pub(super) fn links(&self) -> PathBuf {
        self.0.join("links")
    }

    /// Path of a pinned map.
    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Removes what was pinned here, and the file system if it was mounted for us.
    pub(super) fn remove(&self) -> Result<(), BpfError> {
        for folder in [self.links(), self.0.clone()] {
            let failed = |error| failure(&folder, "cannot be emptied", error);
            for entry in fs::read_dir(&folder).map_err(failed)? {
                let entry = entry.map_err(failed)?;
                let is_ours = !entry.file_name().as_bytes().contains(&b'.');
                // The kernel's own two files have a dot in their names and cannot be removed.
                if is_ours && entry.file_type().map_err(failed)?.is_file() {
                    fs::remove_file(entry.path()).map_err(failed)?;
                }
            }
        }
        let failed = |what, source| failure(&self.0, what, source);
        fs::remove_dir(self.links()).map_err(|error| failed("cannot be emptied", error))?;
        if self.is_mount_point() {
            umount(&self.0).map_err(|error| failed("cannot be unmounted", error.into()))?;
        }
        fs::remove_dir(&self.0).map_err(|error| failed("cannot be removed", error))
    }

    fn is_mount_point(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).map(|it| it.dev());
        match (device(&self.0), self.0.parent().map(device)) {
            (Ok(own), Some(Ok(parent))) => own != parent,
            _ => false,
        }
    }
}

pub(super) fn failure(path: &Path, what: &'static str, source: io::Error) -> BpfError {
    BpfError::Pins {
        path: path.to_owned(),
        what,
        source,
    }
}
