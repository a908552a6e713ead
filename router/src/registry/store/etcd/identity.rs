//! The files of mutual TLS towards etcd.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::router::EtcdStore;
use rustls::InconsistentKeys;
use rustls::crypto::aws_lc_rs;
use rustls::sign::CertifiedKey;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::super::StoreError;
use crate::tls::{authorities, parse_chain, parse_key, read_chain, read_key};

/// The files, which others may replace at any time.
#[derive(Debug)]
pub(super) struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// Tells one state of the files from another, at the cost of three system calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp([Option<(SystemTime, u64, u64)>; 3]);

impl Files {
    pub(super) fn of(store: &EtcdStore) -> Self {
        Self {
            ca: store.ca.clone(),
            certificate: store.certificate.clone(),
            key: store.key.clone(),
        }
    }

    /// What they look like now.
    pub(super) fn stamp(&self) -> Stamp {
        Stamp([&self.ca, &self.certificate, &self.key].map(|file| {
            let seen = fs::metadata(file).ok()?;
            Some((seen.modified().ok()?, seen.len(), seen.ino()))
        }))
    }

    /// Reads them. Each is checked, since tonic would leave out what it cannot read.
    pub(super) fn load(&self) -> Result<ClientTlsConfig, StoreError> {
        let ca = read_chain(&self.ca).map_err(failed(&self.ca))?;
        authorities(&ca).map_err(failed(&self.ca))?;
        let chain = read_chain(&self.certificate).map_err(failed(&self.certificate))?;
        let certificates = parse_chain(&chain).map_err(failed(&self.certificate))?;
        let key = read_key(&self.key).map_err(failed(&self.key))?;
        let provider = aws_lc_rs::default_provider();
        let (private, _) = parse_key(&key, &provider).map_err(failed(&self.key))?;
        match CertifiedKey::new(certificates, private).keys_match() {
            // Not every kind of key says what its public half is.
            Ok(()) | Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => {}
            Err(error) => {
                let text = format!("does not fit {}: {error}", self.certificate.display());
                return Err(failed(&self.key)(text));
            }
        }
        Ok(ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(chain, key)))
    }
}

fn failed<T: Display>(file: &Path) -> impl FnOnce(T) -> StoreError {
    move |reason| StoreError::Failed(format!("{}: {reason}", file.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_that_is_of_no_use_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let made = rcgen::generate_simple_self_signed(vec!["router".into()]).unwrap();
        let other = rcgen::generate_simple_self_signed(vec!["router".into()]).unwrap();
        fs::write(path("ca"), made.cert.pem()).unwrap();
        fs::write(path("certificate"), made.cert.pem()).unwrap();
        fs::write(path("key"), made.signing_key.serialize_pem()).unwrap();
        fs::write(path("other-key"), other.signing_key.serialize_pem()).unwrap();
        fs::write(path("empty"), "").unwrap();
        fs::write(path("open-key"), made.signing_key.serialize_pem()).unwrap();
        fs::write(path("long"), made.cert.pem().repeat(4_000)).unwrap();
        for name in ["certificate", "key", "other-key", "empty"] {
            fs::set_permissions(path(name), fs::Permissions::from_mode(0o640)).unwrap();
        }
        fs::set_permissions(path("open-key"), fs::Permissions::from_mode(0o644)).unwrap();
        let load = |ca: &str, certificate: &str, key: &str| {
            let (ca, certificate, key) = (path(ca), path(certificate), path(key));
            Files {
                ca,
                certificate,
                key,
            }
            .load()
        };
        load("ca", "certificate", "key").unwrap();
        for (files, named, why) in [
            (["none", "certificate", "key"], "none", "cannot be read"),
            (["empty", "certificate", "key"], "empty", "no certificate"),
            (["long", "certificate", "key"], "long", "is longer than"),
            (["ca", "none", "key"], "none", "cannot be read"),
            (
                ["ca", "certificate", "open-key"],
                "open-key",
                "every user of this machine can read (mode 0644)",
            ),
            (["ca", "key", "key"], "key", "no certificate"),
            (["ca", "certificate", "empty"], "empty", "no private key"),
            (
                ["ca", "certificate", "certificate"],
                "certificate",
                "no private key",
            ),
            (
                ["ca", "certificate", "other-key"],
                "other-key",
                "does not fit",
            ),
        ] {
            let error = load(files[0], files[1], files[2]).unwrap_err().to_string();
            let named = path(named).display().to_string();
            assert!(error.starts_with(&named) && error.contains(why), "{error}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_another_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let files = Files {
            ca: path("ca"),
            certificate: path("certificate"),
            key: path("key"),
        };
        let mut seen = files.stamp();
        for name in ["ca", "certificate", "key", "key"] {
            fs::write(path("new"), name).unwrap();
            fs::rename(path("new"), path(name)).unwrap();
            let now = files.stamp();
            assert_ne!(seen, now, "{name}");
            assert_eq!(files.stamp(), now);
            seen = now;
        }
    }
}
