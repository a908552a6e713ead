//! One daemon per runtime folder.

use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The file in the runtime folder.
const FILE: &str = "daemon.lock";

/// Held by the running daemon; the kernel lets go of it when the process ends, however it does.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "it is held, not used")] File);

/// The runtime folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// A daemon runs. What it enforces is not to be touched.
    #[error("another daemon runs: it holds {}", path.display())]
    AnotherDaemon {
        /// What it holds.
        path: PathBuf,
    },
    /// The file system refuses.
    #[error("runtime folder: {}: {source}", path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Lock {
    /// Takes the folder, which is made if need be, for root alone.
    ///
    /// # Errors
    /// If another daemon has it, or it cannot be made.
    pub fn take(runtime: &Path) -> Result<Self, LockError> {
        let path = runtime.join(FILE);
        let io = |source| LockError::Io {
            path: path.clone(),
            source,
        };
        fs::create_dir_all(runtime).map_err(io)?;
        fs::set_permissions(runtime, Permissions::from_mode(0o700)).map_err(io)?;
        let options = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .to_owned();
        let file = options.open(&path).map_err(io)?;
        match file.try_lock() {
            Ok(()) => Ok(Self(file)),
            Err(TryLockError::WouldBlock) => Err(LockError::AnotherDaemon { path }),
            Err(TryLockError::Error(error)) => Err(io(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_daemon_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let runtime = folder.path().join("run");
        let lock = Lock::take(&runtime).unwrap();
        let mode = fs::metadata(&runtime).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
        let error = Lock::take(&runtime).unwrap_err();
        assert!(matches!(error, LockError::AnotherDaemon { .. }), "{error}");
        drop(lock);
        Lock::take(&runtime).unwrap();
    }
}
