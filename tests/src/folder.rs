//! Temporary folders whose names tell whose they are.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::TempDir;

/// Start of the name of every folder that this process makes.
#[must_use]
pub fn prefix() -> String {
    format!("gatehouse-{}-", std::process::id())
}

/// A folder that is removed with its value.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    /// Makes one; `label` becomes a part of its name.
    ///
    /// # Errors
    /// If the system's temporary folder cannot be written to.
    pub fn new(label: &str) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{}{label}-", prefix()))
            .tempdir()
            .context("make a temporary folder")?;
        Ok(Self(folder))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Writes a file so that a reader never sees half of it: into a neighbour, then renamed.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_with_mode(path, content.as_ref(), 0o644)
}

/// As [`write()`], readable by the owner alone.
///
/// # Errors
/// If the folder cannot be written to.
pub fn write_secret(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_with_mode(path, content.as_ref(), 0o600)
}

fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    use std::io::Write;

    let mut neighbour = PathBuf::from(path);
    neighbour.set_extension("partial");
    let attempt = || -> std::io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(mode)
            .open(&neighbour)?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content)?;
        fs::rename(&neighbour, path)
    };
    attempt().with_context(|| format!("write {}", path.display()))
}
