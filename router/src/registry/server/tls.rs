//! TLS of the API: its own certificate, the authorities that sign its clients', and the certificates
//! among those that are revoked.
//!
//! A list that is past its time still revokes what stands in it, and an authority without a list
//! revokes nothing: a forgotten list must not take every registrar off the air.
//!
//! No session is resumed, neither by ticket nor from memory: a resumed session would bring back a
//! client certificate that nobody has looked at since. TLS 1.3 only, which also keeps clients'
//! certificates from being read on the way; every client of the API is younger than it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{self, SHA256};
use config::router::RegistryApi;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{
    NoClientAuth, NoServerSessionStorage, ResolvesServerCert, ServerConfig, WebPkiClientVerifier,
};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use tokio::sync::watch;

use crate::tls::{
    CertificateError, CertificateProblem, MAX_FILE, authorities, parse_chain, parse_key,
    read_chain, read_key, read_up_to,
};

/// Bytes of revocation lists: one of a busy authority has several hundred thousand entries.
const MOST_REVOKED: u64 = 32 << 20;

/// Why the API's files are of no use.
#[derive(Debug, thiserror::Error)]
pub enum ApiTlsError {
    /// Its own certificate or key.
    #[error("{0}")]
    Certificate(#[from] CertificateError),
    /// The authorities of its clients.
    #[error("{0}")]
    Authorities(String),
    /// The revocation lists of its clients.
    #[error("{0}")]
    Revocation(String),
}

/// The newest usable configuration.
pub(super) struct ApiTls {
    files: Files,
    provider: Arc<CryptoProvider>,
    current: ArcSwap<Current>,
    /// Counts up when other authorities sign clients' certificates than before, or revoke others.
    authorities: watch::Sender<u64>,
}

struct Files {
    certificate: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    client_crl: Option<PathBuf>,
}

/// What the files held.
struct Contents {
    chain: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
    client_crl: Option<Vec<u8>>,
}

struct Current {
    config: Arc<ServerConfig>,
    /// Digests of what it was made of: of everything, and of the authorities and their lists.
    all: Vec<u8>,
    client_ca: Vec<u8>,
}

impl ApiTls {
    /// # Errors
    /// A file cannot be read, or is not what it should be.
    pub(super) fn load(api: &RegistryApi) -> Result<Self, ApiTlsError> {
        let files = Files {
            certificate: api.certificate.clone(),
            key: api.key.clone(),
            client_ca: api.client_ca.clone(),
            client_crl: api.client_crl.clone(),
        };
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let current = files.build(&files.read()?, &provider)?;
        Ok(Self {
            files,
            provider,
            current: ArcSwap::from_pointee(current),
            authorities: watch::Sender::new(0),
        })
    }

    /// Reads the files again. Connections that are open keep what they have; files that are of no
    /// use change nothing but the log.
    pub(super) fn reload(&self) {
        let before = self.current.load();
        let attempt = || -> Result<Option<Current>, ApiTlsError> {
            let contents = self.files.read()?;
            let changed = contents.digest() != before.all;
            let build = || self.files.build(&contents, &self.provider);
            changed.then(build).transpose()
        };
        match attempt() {
            Ok(None) => {}
            Ok(Some(new)) => {
                tracing::info!(file = %self.files.certificate.display(), "registry: TLS files read");
                let other_authorities = new.client_ca != before.client_ca;
                self.current.store(Arc::new(new));
                if other_authorities {
                    self.authorities.send_modify(|count| *count += 1);
                }
            }
            Err(error) => tracing::error!(%error, "registry: TLS stays as it was"),
        }
    }

    /// For a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.load().config)
    }

    /// Changes when other authorities sign clients' certificates than before, or revoke others.
    pub(super) fn authorities(&self) -> watch::Receiver<u64> {
        self.authorities.subscribe()
    }

    /// What it reads.
    pub(super) fn paths(&self) -> Vec<PathBuf> {
        let own = [&self.files.certificate, &self.files.key];
        own.into_iter()
            .chain(&self.files.client_ca)
            .chain(&self.files.client_crl)
            .cloned()
            .collect()
    }
}

impl Files {
    fn read(&self) -> Result<Contents, CertificateError> {
        let read = |file: &Option<PathBuf>, most| {
            let file = file.as_deref();
            file.map(|file| read_up_to(file, most).map_err(blame(file)))
                .transpose()
        };
        Ok(Contents {
            chain: read_chain(&self.certificate).map_err(blame(&self.certificate))?,
            key: read_key(&self.key).map_err(blame(&self.key))?,
            client_ca: read(&self.client_ca, MAX_FILE)?,
            client_crl: read(&self.client_crl, MOST_REVOKED)?,
        })
    }

    fn build(
        &self,
        contents: &Contents,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Current, ApiTlsError> {
        let chain = parse_chain(&contents.chain).map_err(blame(&self.certificate))?;
        let (key, _) = parse_key(&contents.key, provider).map_err(blame(&self.key))?;
        let key = CertifiedKey::new(chain, key);
        key.keys_match().map_err(|_| {
            let problem = CertificateProblem::KeyMismatch(self.certificate.clone());
            blame(&self.key)(problem)
        })?;
        let verifier: Arc<dyn ClientCertVerifier> = match (&self.client_ca, &contents.client_ca) {
            (Some(file), Some(pem)) => {
                let wrong = |error: &dyn std::fmt::Display| {
                    ApiTlsError::Authorities(format!("{}: {error}", file.display()))
                };
                let roots = authorities(pem).map_err(|error| wrong(&error))?;
                let builder =
                    WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(provider))
                        // Others have a token.
                        .allow_unauthenticated();
                match (&self.client_crl, &contents.client_crl) {
                    (Some(file), Some(pem)) => builder
                        .with_crls(lists(pem).map_err(|error| revocation(file, &error))?)
                        .allow_unknown_revocation_status()
                        .build()
                        .map_err(|error| revocation(file, &error))?,
                    _ => builder.build().map_err(|error| wrong(&error))?,
                }
            }
            _ => Arc::new(NoClientAuth),
        };
        let certificate: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(key));
        let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
            .with_protocol_versions(&[&TLS13])
            .expect("the default provider has cipher suites for TLS 1.3")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificate);
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        config.alpn_protocols = vec![b"h2".into(), b"http/1.1".into()];
        Ok(Current {
            config: Arc::new(config),
            all: contents.digest(),
            client_ca: contents.authorities_digest(),
        })
    }
}

impl Contents {
    fn digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&SHA256);
        for part in [&self.chain, &self.key] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.update(&self.authorities_digest());
        context.finish().as_ref().to_vec()
    }

    fn authorities_digest(&self) -> Vec<u8> {
        let mut context = digest::Context::new(&SHA256);
        for part in [&self.client_ca, &self.client_crl] {
            let part = part.as_deref().unwrap_or_default();
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.finish().as_ref().to_vec()
    }
}

/// The revocation lists of a PEM file, at least one.
fn lists(pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, String> {
    let lists = CertificateRevocationListDer::pem_slice_iter(pem);
    let lists = lists.collect::<Result<Vec<_>, _>>();
    let lists = lists.map_err(|error| format!("cannot be read: {error}"))?;
    if lists.is_empty() {
        return Err("holds no revocation list".to_owned());
    }
    Ok(lists)
}

fn revocation(file: &Path, error: &dyn std::fmt::Display) -> ApiTlsError {
    ApiTlsError::Revocation(format!("{}: {error}", file.display()))
}

fn blame(file: &Path) -> impl Fn(CertificateProblem) -> CertificateError {
    let file = file.to_path_buf();
    move |problem| CertificateError {
        file: file.clone(),
        problem,
    }
}
