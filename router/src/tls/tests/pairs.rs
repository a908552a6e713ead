//! Directories of pairs that a throw-away authority signed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::router::TlsVersion;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm};
use tempfile::TempDir;

use crate::tls::pki::{Authority, Pair, VALID};
use crate::tls::{CertificateErrors, CertificateStore, TlsPolicy, Warning};

pub(super) const ECDSA: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;
pub(super) const RSA: &SignatureAlgorithm = &PKCS_RSA_SHA256;

pub(super) const BOTH_VERSIONS: TlsPolicy = TlsPolicy {
    minimum: TlsVersion::V1_2,
    http2: true,
};

/// A directory of pairs.
pub(super) struct Directory {
    folder: TempDir,
    pub(super) authority: Authority,
}

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            authority: Authority::new("throw-away"),
        }
    }

    /// A directory with one pair per name, all ECDSA.
    pub(super) fn with(names: &[&str]) -> Self {
        let directory = Self::new();
        for name in names {
            directory.pair(&name.replace('*', "wild"), &[name], ECDSA);
        }
        directory
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(super) fn pair(&self, pair: &str, names: &[&str], algorithm: &'static SignatureAlgorithm) {
        self.pair_valid(pair, names, algorithm, VALID);
    }

    pub(super) fn pair_valid(
        &self,
        pair: &str,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        years: (i32, i32),
    ) {
        let Pair { chain, key, .. } = self.authority.sign(names, algorithm, years);
        self.write(&format!("{pair}.crt"), &chain);
        self.write(&format!("{pair}.key"), &key);
    }

    /// Writes a file that only its owner can read.
    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.file(name), text).expect("a file");
        self.permit(name, 0o600);
    }

    pub(super) fn permit(&self, name: &str, mode: u32) {
        fs::set_permissions(self.file(name), fs::Permissions::from_mode(mode)).expect("a mode");
    }

    pub(super) fn load(&self) -> CertificateStore {
        let (store, warnings) = self.try_load(None).expect("valid pairs");
        assert!(warnings.is_empty(), "{warnings:?}");
        store
    }

    pub(super) fn load_with_default(&self, pair: &str) -> CertificateStore {
        self.try_load(Some(pair)).expect("valid pairs").0
    }

    pub(super) fn load_with_policy(&self, policy: TlsPolicy) -> CertificateStore {
        CertificateStore::load(self.path(), None, &policy, None)
            .expect("valid pairs")
            .0
    }

    pub(super) fn reload(&self, previous: &CertificateStore) -> CertificateStore {
        CertificateStore::load(self.path(), None, &previous.policy(), Some(previous))
            .expect("valid pairs")
            .0
    }

    pub(super) fn try_load(
        &self,
        default: Option<&str>,
    ) -> Result<(CertificateStore, Vec<Warning>), CertificateErrors> {
        CertificateStore::load(self.path(), default, &BOTH_VERSIONS, None)
    }
}

/// The pairs a name is answered with, preferred first.
pub(super) fn selected(store: &CertificateStore, sni: Option<&str>) -> Option<Vec<String>> {
    let entry = store.select(sni)?;
    let pairs = entry.certificates().iter();
    Some(
        pairs
            .map(|certificate| certificate.pair().to_owned())
            .collect(),
    )
}
