//! What `router check` looks at beyond the configuration: files and folders that the registry opens
//! when a router starts.

use std::io;
use std::path::{Path, PathBuf};

use config::router::{RegistryConfig, RegistryStore};
use nix::unistd::{AccessFlags, access};

use super::server::{self, ApiStartError};
use super::store::StoreError;
use super::store::etcd::Etcd;

/// What of the registry a router could not start with.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A file of the API.
    #[error(transparent)]
    Api(#[from] ApiStartError),
    /// A file for the connection to etcd.
    #[error("registry.store: {0}")]
    Store(StoreError),
    /// Something that is written to.
    #[error("{field}: {path}: {error}")]
    Writing {
        /// The field that names it.
        field: &'static str,
        /// The file or folder, or the nearest folder above that exists.
        path: PathBuf,
        /// What whoever asks would meet.
        error: io::Error,
    },
}

/// Reads and asks for what a start needs, as the user who asks; makes and changes nothing.
///
/// # Errors
/// The first thing that is of no use.
pub fn check(config: &RegistryConfig) -> Result<(), Unusable> {
    if let Some(api) = &config.api {
        server::check(api)?;
        if let Some(file) = &api.audit_log {
            let made = if file.exists() {
                Some(file.as_path())
            } else {
                file.parent()
            };
            may_write("registry.api.audit_log", made.unwrap_or(Path::new(".")))?;
        }
    }
    if let RegistryStore::Etcd(store) = &config.store {
        // It connects when it is asked for something.
        Etcd::open(store).map_err(Unusable::Store)?;
    }
    // The folder is made where it is missing, with those above.
    let above = config.state.ancestors().find(|folder| folder.exists());
    may_write("registry.state", above.unwrap_or(Path::new(".")))
}

fn may_write(field: &'static str, path: &Path) -> Result<(), Unusable> {
    access(path, AccessFlags::W_OK).map_err(|error| Unusable::Writing {
        field,
        path: path.to_owned(),
        error: error.into(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use config::router::EtcdStore;

    use super::*;

    fn config(state: &Path, store: RegistryStore) -> RegistryConfig {
        RegistryConfig {
            api: None,
            store,
            state: state.to_owned(),
            batch: Duration::ZERO,
            ticket_rotation: Duration::from_secs(60),
        }
    }

    #[test]
    fn nothing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("gatehouse/router");
        check(&config(&state, RegistryStore::Embedded)).unwrap();
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
    }

    #[test]
    fn what_cannot_be_written_to_is_named() {
        // Nobody may write there, not even root.
        let state = Path::new("/proc/1/gatehouse");
        let error = check(&config(state, RegistryStore::Embedded)).unwrap_err();
        assert!(
            error.to_string().starts_with("registry.state: /proc/1: "),
            "{error}"
        );
    }

    #[test]
    fn etcds_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("ca.crt");
        let etcd = EtcdStore {
            endpoints: vec!["https://10.0.0.21:2379".to_owned()],
            ca: missing.clone(),
            certificate: missing.clone(),
            key: missing,
            prefix: "/gatehouse/".to_owned(),
            compaction: Duration::ZERO,
        };
        let error = check(&config(folder.path(), RegistryStore::Etcd(etcd))).unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
    }
}
