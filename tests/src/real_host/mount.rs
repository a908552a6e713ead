//! Mounts of a host, each with what failed in its error.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

const NONE: Option<&str> = None;

/// Goes into a mount namespace of our own, of which the machine learns nothing.
pub(crate) fn detach_from_machine() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace; this needs root")?;
    mount(NONE, "/", NONE, MsFlags::MS_PRIVATE | MsFlags::MS_REC, NONE)
        .context("make all mounts private")
}

/// A new file system of that kind.
pub(crate) fn fresh(kind: &str, place: &Path, flags: MsFlags, options: &str) -> Result<()> {
    mount(Some(kind), place, Some(kind), flags, Some(options))
        .with_context(|| format!("mount {kind} ({options}) on {}", place.display()))
}

/// What is at `source` is at `place`, too.
pub(crate) fn bind(source: &Path, place: &Path) -> Result<()> {
    mount(Some(source), place, NONE, MsFlags::MS_BIND, NONE)
        .with_context(|| format!("bind {} on {}", source.display(), place.display()))
}

/// Makes a bind mount read-only; the file system itself stays as it is for others.
pub(crate) fn read_only(place: &Path) -> Result<()> {
    let flags = MsFlags::MS_REMOUNT
        | MsFlags::MS_BIND
        | MsFlags::MS_RDONLY
        | MsFlags::MS_NOSUID
        | MsFlags::MS_NODEV
        | MsFlags::MS_NOEXEC;
    mount(NONE, place, NONE, flags, NONE)
        .with_context(|| format!("make {} read-only", place.display()))
}

/// From here on what is mounted is passed on to the mount namespaces that are made inside, as on
/// any machine that systemd runs; kubelet insists on it.
pub(crate) fn share_below_root() -> Result<()> {
    mount(NONE, "/", NONE, MsFlags::MS_SHARED | MsFlags::MS_REC, NONE)
        .context("make all mounts shared")
}

/// A folder, unless it is there already.
pub(crate) fn folder(place: &Path) -> Result<()> {
    fs::create_dir_all(place).with_context(|| format!("make {}", place.display()))
}
