//! A throw-away authority and directories of pairs it signed.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use config::router::TlsVersion;
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_RSA_SHA256, SignatureAlgorithm, date_time_ymd,
};
use tempfile::TempDir;

use crate::tls::{CertificateErrors, CertificateStore, TlsPolicy, Warning};

pub(super) const ECDSA: &SignatureAlgorithm = &PKCS_ECDSA_P256_SHA256;
pub(super) const RSA: &SignatureAlgorithm = &PKCS_RSA_SHA256;

pub(super) const BOTH_VERSIONS: TlsPolicy = TlsPolicy {
    minimum: TlsVersion::V1_2,
    http2: true,
};

/// A certificate authority.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(super) pem: String,
}

impl Authority {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Chain and key in PEM, valid from and to the first of January of two years.
    pub(super) fn sign(
        &self,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        years: (i32, i32),
    ) -> (String, String) {
        let key = KeyPair::generate_for(algorithm).expect("a key");
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.not_before = date_time_ymd(years.0, 1, 1);
        params.not_after = date_time_ymd(years.1, 1, 1);
        let chain = params.signed_by(&key, &self.issuer).expect("a certificate");
        (chain.pem(), key.serialize_pem())
    }
}

/// A directory of pairs.
pub(super) struct Directory {
    folder: TempDir,
    pub(super) authority: Authority,
}

impl Directory {
    pub(super) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().expect("a folder"),
            authority: Authority::new(),
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
        self.pair_valid(pair, names, algorithm, (2020, 2090));
    }

    pub(super) fn pair_valid(
        &self,
        pair: &str,
        names: &[&str],
        algorithm: &'static SignatureAlgorithm,
        years: (i32, i32),
    ) {
        let (chain, key) = self.authority.sign(names, algorithm, years);
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
