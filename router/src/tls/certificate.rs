//! One certificate chain with its key, parsed from the bytes of its two files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{self, SHA256};
use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SigningKey};
use x509_parser::prelude::{ASN1Time, FromDer, GeneralName, X509Certificate};

use super::error::{CertificateError, CertificateProblem, Warning, WarningKind};
use crate::route::Host;

/// Every scheme a served key may sign with (RFC 8446, section 4.2.3).
const SCHEMES: [SignatureScheme; 10] = [
    SignatureScheme::ECDSA_NISTP256_SHA256,
    SignatureScheme::ECDSA_NISTP384_SHA384,
    SignatureScheme::ECDSA_NISTP521_SHA512,
    SignatureScheme::ED25519,
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// A certificate chain with its key, as loaded from one pair of files.
#[derive(Debug)]
pub struct ServedCertificate {
    pair: Box<str>,
    file: PathBuf,
    algorithm: Algorithm,
    /// Lower case and sorted.
    exact: Box<[Box<str>]>,
    /// What follows `*.`, lower case and sorted.
    wildcards: Box<[Box<str>]>,
    unusable: Box<[Box<str>]>,
    not_before: i64,
    not_after: i64,
    schemes: Box<[SignatureScheme]>,
    key: Arc<CertifiedKey>,
    digest: [u8; 32],
}

/// The kind of a certificate's key, in the order in which they are offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// Elliptic curves of NIST. First, because signing is several times cheaper than with RSA.
    Ecdsa,
    /// Edwards curves, which browsers do not accept.
    Ed25519,
    /// RSA, which everybody accepts.
    Rsa,
}

impl ServedCertificate {
    /// The file name of the pair without ending, as `certificates.default` has it.
    pub fn pair(&self) -> &str {
        &self.pair
    }

    /// The file that holds the chain.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The kind of its key.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Last moment of its validity, in seconds of Unix time.
    pub fn not_after(&self) -> i64 {
        self.not_after
    }

    /// The DNS names it is valid for, wildcards last.
    pub fn names(&self) -> impl Iterator<Item = String> {
        let exact = self.exact.iter().map(|name| name.to_string());
        exact.chain(self.wildcards.iter().map(|parent| format!("*.{parent}")))
    }

    /// Whether a client that was shown this certificate would accept it for a host: by name, or by
    /// a wildcard that stands for exactly one label (RFC 9525, section 6.3).
    pub fn covers(&self, host: &Host) -> bool {
        let holds = |names: &[Box<str>], name: &[u8]| {
            names
                .binary_search_by(|held| held.as_bytes().cmp(name))
                .is_ok()
        };
        !host.is_literal()
            && (holds(&self.exact, host.as_bytes()) || holds(&self.wildcards, host.parent()))
    }

    pub(super) fn exact(&self) -> &[Box<str>] {
        &self.exact
    }

    pub(super) fn wildcards(&self) -> &[Box<str>] {
        &self.wildcards
    }

    pub(super) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    pub(super) fn signs_with_any(&self, offered: &[SignatureScheme]) -> bool {
        self.schemes.iter().any(|scheme| offered.contains(scheme))
    }

    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// Whether a client accepts it at a moment of Unix time.
    pub(super) fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// What an operator should know about it at a moment of Unix time.
    pub(super) fn warnings(&self, now: i64) -> impl Iterator<Item = Warning> {
        let validity = if now > self.not_after {
            Some(WarningKind::Expired(date(self.not_after)))
        } else if now < self.not_before {
            Some(WarningKind::NotYetValid(date(self.not_before)))
        } else {
            None
        };
        let unusable = self
            .unusable
            .iter()
            .map(|name| WarningKind::UnusableName(name.to_string()));
        validity.into_iter().chain(unusable).map(|kind| Warning {
            file: self.file.clone(),
            kind,
        })
    }

    /// Parses a pair; `chain` and `key` are what the files hold.
    ///
    /// # Errors
    /// Everything that is wrong with either file.
    pub(super) fn parse(
        source: &PairSource<'_>,
        provider: &CryptoProvider,
    ) -> Result<Self, Vec<CertificateError>> {
        let blame = |file: &Path| {
            let file = file.to_path_buf();
            move |problem| CertificateError { file, problem }
        };
        let chain = parse_chain(source.chain).map_err(blame(source.chain_file));
        let key = parse_key(source.key, provider).map_err(blame(source.key_file));
        let (chain, (key, algorithm)) = match (chain, key) {
            (Ok(chain), Ok(key)) => (chain, key),
            (chain, key) => {
                let leaf = chain.as_ref().ok().map(|chain| Leaf::parse(&chain[0]));
                let leaf = leaf.and_then(Result::err).map(blame(source.chain_file));
                return Err([chain.err(), leaf, key.err()]
                    .into_iter()
                    .flatten()
                    .collect());
            }
        };
        let key = CertifiedKey::new(chain, key);
        // Before the leaf is looked at: an authority in its place should be told from a leaf
        // without names.
        if let Err(error) = key.keys_match() {
            return Err(vec![mismatch(source, &key, &error)]);
        }
        let leaf = Leaf::parse(&key.cert[0])
            .map_err(blame(source.chain_file))
            .map_err(|error| vec![error])?;
        let schemes = SCHEMES
            .into_iter()
            .filter(|&scheme| key.key.choose_scheme(&[scheme]).is_some());
        Ok(Self {
            pair: source.pair.into(),
            file: source.chain_file.into(),
            algorithm,
            exact: leaf.exact,
            wildcards: leaf.wildcards,
            unusable: leaf.unusable,
            not_before: leaf.not_before,
            not_after: leaf.not_after,
            schemes: schemes.collect(),
            key: Arc::new(key),
            digest: source.digest(),
        })
    }
}

/// The two files of a pair and what they hold.
pub(super) struct PairSource<'a> {
    pub(super) pair: &'a str,
    pub(super) chain_file: &'a Path,
    pub(super) chain: &'a [u8],
    pub(super) key_file: &'a Path,
    pub(super) key: &'a [u8],
}

impl PairSource<'_> {
    /// Tells whether a pair changed since it was parsed.
    pub(super) fn digest(&self) -> [u8; 32] {
        let mut context = digest::Context::new(&SHA256);
        context.update(&(self.chain.len() as u64).to_be_bytes());
        context.update(self.chain);
        context.update(self.key);
        context
            .finish()
            .as_ref()
            .try_into()
            .expect("SHA-256 gives 32 bytes")
    }
}

/// Whether a chain file starts with the certificate of an authority.
pub(super) fn is_authority(chain: &[u8]) -> Result<bool, CertificateProblem> {
    let chain = parse_chain(chain)?;
    let (_, certificate) = X509Certificate::from_der(&chain[0])
        .map_err(|error| CertificateProblem::InvalidCertificate(error.to_string()))?;
    Ok(certificate.is_ca())
}

/// What the store needs from a server's own certificate.
struct Leaf {
    exact: Box<[Box<str>]>,
    wildcards: Box<[Box<str>]>,
    unusable: Box<[Box<str>]>,
    not_before: i64,
    not_after: i64,
}

impl Leaf {
    fn parse(der: &CertificateDer<'_>) -> Result<Self, CertificateProblem> {
        let invalid = |error: &dyn std::fmt::Display| {
            CertificateProblem::InvalidCertificate(error.to_string())
        };
        let (_, certificate) = X509Certificate::from_der(der).map_err(|error| invalid(&error))?;
        let alternatives = certificate
            .subject_alternative_name()
            .map_err(|error| invalid(&error))?;
        let mut exact = Vec::new();
        let mut wildcards = Vec::new();
        let mut unusable = Vec::new();
        for name in alternatives
            .iter()
            .flat_map(|extension| &extension.value.general_names)
        {
            let GeneralName::DNSName(name) = *name else {
                continue;
            };
            let (rest, names) = match name.strip_prefix("*.") {
                Some(parent) => (parent, &mut wildcards),
                None => (name, &mut exact),
            };
            match Host::parse(rest) {
                Ok(host) if !host.is_literal() => names.push(host.as_str().into()),
                _ => unusable.push(name.into()),
            }
        }
        if exact.is_empty() && wildcards.is_empty() {
            return Err(CertificateProblem::NoNames);
        }
        let validity = certificate.validity();
        Ok(Self {
            exact: sorted(exact),
            wildcards: sorted(wildcards),
            unusable: unusable.into(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
        })
    }
}

/// Never empty.
pub(crate) fn parse_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CertificateProblem> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| CertificateProblem::InvalidPem(error.to_string()))?;
    if chain.is_empty() {
        Err(CertificateProblem::NoCertificate)
    } else {
        Ok(chain)
    }
}

pub(crate) fn parse_key(
    text: &[u8],
    provider: &CryptoProvider,
) -> Result<(Arc<dyn SigningKey>, Algorithm), CertificateProblem> {
    let der = PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound => CertificateProblem::NoPrivateKey,
        error => CertificateProblem::InvalidPem(error.to_string()),
    })?;
    let key = provider
        .key_provider
        .load_private_key(der)
        .map_err(|error| CertificateProblem::InvalidKey(error.to_string()))?;
    let algorithm = match key.algorithm() {
        rustls::SignatureAlgorithm::ECDSA => Algorithm::Ecdsa,
        rustls::SignatureAlgorithm::ED25519 => Algorithm::Ed25519,
        rustls::SignatureAlgorithm::RSA => Algorithm::Rsa,
        other => {
            let text = format!("{other:?} is none of ECDSA, Ed25519 and RSA");
            return Err(CertificateProblem::InvalidKey(text));
        }
    };
    Ok((key, algorithm))
}

/// Says why a key and a chain are no pair.
fn mismatch(
    source: &PairSource<'_>,
    key: &CertifiedKey,
    error: &rustls::Error,
) -> CertificateError {
    use rustls::InconsistentKeys::KeyMismatch;
    if *error != rustls::Error::InconsistentKeys(KeyMismatch) {
        return CertificateError {
            file: source.chain_file.into(),
            problem: CertificateProblem::InvalidCertificate(error.to_string()),
        };
    }
    let belongs_later = key.cert[1..].iter().any(|certificate| {
        CertifiedKey::new(vec![certificate.clone()], Arc::clone(&key.key))
            .keys_match()
            .is_ok()
    });
    let chain = source.chain_file.to_path_buf();
    CertificateError {
        file: source.key_file.into(),
        problem: if belongs_later {
            CertificateProblem::LeafNotFirst(chain)
        } else {
            CertificateProblem::KeyMismatch(chain)
        },
    }
}

fn sorted(mut names: Vec<Box<str>>) -> Box<[Box<str>]> {
    names.sort_unstable();
    names.dedup();
    names.into()
}

fn date(timestamp: i64) -> String {
    match ASN1Time::from_timestamp(timestamp) {
        Ok(time) => time.to_string(),
        Err(_) => format!("second {timestamp} of Unix time"),
    }
}
