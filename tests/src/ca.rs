//! A throw-away certificate authority.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;

use crate::folder;

/// Kind of a certificate's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA over P-256.
    Ecdsa,
    /// RSA with 2048 bits.
    Rsa,
}

/// A certificate authority that lives as long as its value.
#[derive(Clone)]
pub struct Ca {
    issuer: Arc<Issuer<'static, KeyPair>>,
    pem: String,
    der: CertificateDer<'static>,
}

/// A server certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub chain: String,
    /// Its private key.
    pub key: String,
}

impl Ca {
    /// Makes one; `name` is what clients see as the issuer.
    ///
    /// # Errors
    /// If the key cannot be generated.
    pub fn new(name: &str) -> Result<Self> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let certificate = params.self_signed(&key)?;
        Ok(Self {
            pem: certificate.pem(),
            der: certificate.der().clone(),
            issuer: Arc::new(Issuer::new(params, key)),
        })
    }

    /// The authority's own certificate, PEM.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The authority's own certificate, DER.
    #[must_use]
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Signs a certificate for these names; the first one is its common name too.
    ///
    /// # Errors
    /// If a name is none or the key cannot be generated.
    pub fn issue(&self, names: &[&str], kind: KeyKind) -> Result<Leaf> {
        self.issue_with(names, kind, vec![ExtendedKeyUsagePurpose::ServerAuth])
    }

    /// As [`Ca::issue`], for servers and clients alike.
    ///
    /// # Errors
    /// As [`Ca::issue`].
    pub fn issue_mutual(&self, names: &[&str], kind: KeyKind) -> Result<Leaf> {
        let usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        self.issue_with(names, kind, usages)
    }

    /// A client's certificate that says who it is by a URI, such as
    /// `spiffe://gatehouse/tenant/acme`.
    ///
    /// # Errors
    /// If it is no URI in ASCII or the key cannot be generated.
    pub fn issue_client(&self, uri: &str) -> Result<Leaf> {
        self.issue_odd_client(&[uri], false)
    }

    /// As [`Ca::issue_client`], but with any number of URIs, and perhaps expired.
    ///
    /// # Errors
    /// As [`Ca::issue_client`].
    pub fn issue_odd_client(&self, uris: &[&str], expired: bool) -> Result<Leaf> {
        let mut params = CertificateParams::new(Vec::<String>::new())?;
        for uri in uris {
            let uri = (*uri).to_owned().try_into()?;
            params.subject_alt_names.push(SanType::URI(uri));
        }
        if expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        self.sign(
            params,
            KeyKind::Ecdsa,
            vec![ExtendedKeyUsagePurpose::ClientAuth],
        )
    }

    fn issue_with(
        &self,
        names: &[&str],
        kind: KeyKind,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Leaf> {
        let mut params = CertificateParams::new(
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>(),
        )?;
        if let Some(first) = names.first() {
            params.distinguished_name.push(DnType::CommonName, *first);
        }
        self.sign(params, kind, usages)
    }

    fn sign(
        &self,
        mut params: CertificateParams,
        kind: KeyKind,
        usages: Vec<ExtendedKeyUsagePurpose>,
    ) -> Result<Leaf> {
        params.extended_key_usages = usages;
        params.use_authority_key_identifier_extension = true;
        let key = match kind {
            KeyKind::Ecdsa => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?,
            KeyKind::Rsa => KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048)?,
        };
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Leaf {
            chain: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ca").finish_non_exhaustive()
    }
}

impl Leaf {
    /// Writes `NAME.crt` and `NAME.key` (mode 0600) into a folder; key first, so that a watcher
    /// that wakes for the certificate finds both.
    ///
    /// # Errors
    /// If the folder cannot be written to.
    pub fn write(&self, folder: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let chain = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        folder::write_secret(&key, &self.key)?;
        folder::write(&chain, &self.chain)?;
        Ok((chain, key))
    }
}
