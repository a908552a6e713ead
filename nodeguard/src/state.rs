//! The last good policy on disk: what the boot unit loads before there is a network.

use std::fs::{self, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use daemon::files::Replacement;
use serde::{Deserialize, Serialize};

use crate::policy::Policy;

/// The file in the state folder.
const FILE: &str = "policy.json";

/// Counts up when what is stored changes its meaning. A newer one than ours is not understood.
const FORMAT: u32 = 1;

/// No file of this kind is longer; what is longer is not read into memory.
const MAX_BYTES: u64 = 64 << 20;

/// Where the last good policy is kept.
#[derive(Clone, Debug)]
pub struct Store {
    folder: PathBuf,
}

/// A stored policy cannot be had, or a policy cannot be stored.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The file system refuses.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is there, and is not what this program writes.
    #[error("{}: is no policy of this program: {reason}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    policy: Policy,
}

impl Store {
    /// A store in this folder, which need not exist yet.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The last good policy; `None` if none was ever stored.
    ///
    /// # Errors
    /// If there is one and it cannot be read.
    pub fn load(&self) -> Result<Option<Policy>, StateError> {
        let path = self.folder.join(FILE);
        let io = |source| StateError::Io {
            path: path.clone(),
            source,
        };
        let damaged = |reason: String| StateError::Damaged {
            path: path.clone(),
            reason,
        };
        let size = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        if size > MAX_BYTES {
            return Err(damaged(format!("it has {size} bytes")));
        }
        let bytes = fs::read(&path).map_err(io)?;
        let stored: Stored =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if stored.format != FORMAT {
            return Err(damaged(format!(
                "it has format {}, expected {FORMAT}",
                stored.format
            )));
        }
        Ok(Some(stored.policy))
    }

    /// Stores a policy so that a power cut leaves either the old one or the new one.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn save(&self, policy: &Policy) -> Result<(), StateError> {
        let path = self.folder.join(FILE);
        let stored = Stored {
            format: FORMAT,
            policy: policy.clone(),
        };
        let save = || -> io::Result<()> {
            if !self.folder.is_dir() {
                fs::create_dir_all(&self.folder)?;
                // Peers and ports are no secret, but nobody else's business either.
                fs::set_permissions(&self.folder, Permissions::from_mode(0o700))?;
            }
            let mut file = Replacement::begin(&path, 0o600)?;
            file.write_all(&serde_json::to_vec_pretty(&stored)?)?;
            file.finish()
        };
        save().map_err(|source| StateError::Io {
            path: path.clone(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stored_comes_back_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::new(&folder.path().join("state"));
        assert_eq!(store.load().unwrap(), None, "never stored");
        let policy = Policy::shut("acme", "w1", None);
        store.save(&policy).unwrap();
        assert_eq!(store.load().unwrap(), Some(policy));

        let file = folder.path().join("state").join(FILE);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        for (damage, says) in [
            (text.replace("\"format\": 1", "\"format\": 2"), "format 2"),
            (text[..text.len() / 2].to_owned(), "EOF"),
            (String::new(), "EOF"),
        ] {
            fs::write(&file, damage).unwrap();
            let error = store.load().unwrap_err().to_string();
            assert!(
                error.contains(says) && error.contains("policy.json"),
                "{error}"
            );
        }
    }
}
