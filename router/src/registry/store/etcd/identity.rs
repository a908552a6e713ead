//! The files of mutual TLS towards etcd.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use config::router::EtcdStore;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use tonic::transport::{Certificate, ClientTlsConfig, Identity};

use super::super::StoreError;

/// More than any chain.
const MOST_BYTES: u64 = 1024 * 1024;

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
        let ca = read(&self.ca)?;
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.ca, &ca)? {
            let added = roots.add(certificate);
            added.map_err(|error| failed(&self.ca, &error))?;
        }
        let chain = read(&self.certificate)?;
        let certificates = certificates(&self.certificate, &chain)?;
        let key = read(&self.key)?;
        let private = PrivateKeyDer::from_pem_slice(&key)
            .map_err(|error| failed(&self.key, &format!("holds no private key: {error}")))?;
        CertifiedKey::from_der(certificates, private, &aws_lc_rs::default_provider()).map_err(
            |error| {
                let text = format!("does not fit {}: {error}", self.certificate.display());
                failed(&self.key, &text)
            },
        )?;
        Ok(ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(ca))
            .identity(Identity::from_pem(chain, key)))
    }
}

fn read(file: &Path) -> Result<Vec<u8>, StoreError> {
    daemon::files::read_bounded(file, MOST_BYTES)
        .map_err(|errors| StoreError::Failed(errors.to_string()))
}

fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, StoreError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| failed(file, &format!("invalid PEM: {error}")))?;
    if found.is_empty() {
        return Err(failed(file, &"holds no certificate"));
    }
    Ok(found)
}

fn failed(file: &Path, reason: &dyn std::fmt::Display) -> StoreError {
    StoreError::Failed(format!("{}: {reason}", file.display()))
}

#[cfg(test)]
mod tests {
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
            (["ca", "none", "key"], "none", "cannot be read"),
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
