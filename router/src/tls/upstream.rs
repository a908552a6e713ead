//! TLS towards the tenants' clusters: whom to trust, and under which name.

use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::upstream::UpstreamTls;

/// Sessions kept per upstream; rustls keeps them in groups of eight, one group per server name.
const SESSIONS: usize = 8;

/// Makes the TLS configurations of upstreams; holds what they all share.
pub struct ClientConfigs {
    provider: Arc<CryptoProvider>,
    /// Read when the first upstream needs it.
    system: OnceLock<Arc<WebPkiServerVerifier>>,
}

/// What proves an endpoint's identity, with all that is needed to check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Trust<'a> {
    /// A certificate that one of these authorities signed, in PEM.
    Authorities(&'a [u8]),
    /// A certificate that one of the system's authorities signed.
    System,
    /// Nothing does.
    InsecureAcceptAny,
}

/// Why an upstream cannot be spoken to by TLS.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamTlsError {
    /// Neither a DNS name nor an address.
    #[error("server name {0:?} is neither a DNS name nor an address")]
    InvalidServerName(String),
    /// The certificate authorities are of no use.
    #[error("certificate authorities: {0}")]
    InvalidAuthorities(String),
    /// The system has no certificate authorities.
    #[error("the system's certificate authorities cannot be used: {0}")]
    NoSystemAuthorities(String),
}

impl ClientConfigs {
    /// Reads nothing yet.
    pub fn new() -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            system: OnceLock::new(),
        }
    }

    /// The configurations for one upstream, with a session cache of their own: a session of one
    /// tenant is never offered to another's endpoints.
    ///
    /// # Errors
    /// When the server name is not one, or the certificate authorities are of no use.
    pub fn for_upstream(
        &self,
        server_name: &str,
        trust: Trust<'_>,
    ) -> Result<UpstreamTls, UpstreamTlsError> {
        let server_name = ServerName::try_from(server_name.to_owned())
            .map_err(|_| UpstreamTlsError::InvalidServerName(server_name.to_owned()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::Authorities(pem) => authorities(pem)
                .and_then(|roots| self.verifier(roots))
                .map_err(UpstreamTlsError::InvalidAuthorities)?,
            Trust::System => self.system_verifier()?,
            Trust::InsecureAcceptAny => Arc::new(AcceptAny(Arc::clone(&self.provider))),
        };
        Ok(UpstreamTls {
            http1: Arc::new(self.config(Arc::clone(&verifier), b"http/1.1")),
            http2: Arc::new(self.config(verifier, b"h2")),
            server_name,
        })
    }

    fn config(&self, verifier: Arc<dyn ServerCertVerifier>, protocol: &[u8]) -> ClientConfig {
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .expect("the default provider has cipher suites for TLS 1.2 and 1.3")
            // Only the verifier of `insecure-accept-any-certificate` is dangerous.
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        config.alpn_protocols = vec![protocol.into()];
        config.resumption = Resumption::in_memory_sessions(SESSIONS);
        config
    }

    fn system_verifier(&self) -> Result<Arc<WebPkiServerVerifier>, UpstreamTlsError> {
        if let Some(verifier) = self.system.get() {
            return Ok(Arc::clone(verifier));
        }
        let verifier = self
            .verifier(system_authorities()?)
            .map_err(UpstreamTlsError::NoSystemAuthorities)?;
        Ok(Arc::clone(self.system.get_or_init(|| verifier)))
    }

    fn verifier(&self, roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, String> {
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&self.provider))
            .build()
            .map_err(|error| error.to_string())
    }
}

impl Default for ClientConfigs {
    fn default() -> Self {
        Self::new()
    }
}

/// Every certificate of a PEM text, each of which has to be usable: one that is skipped in silence
/// is an outage later.
pub(crate) fn authorities(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for (at, certificate) in CertificateDer::pem_slice_iter(pem).enumerate() {
        let certificate = certificate.map_err(|error| format!("invalid PEM: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("certificate {}: {error}", at + 1))?;
    }
    if roots.is_empty() {
        Err("holds no certificate".into())
    } else {
        Ok(roots)
    }
}

/// The certificate authorities that this system trusts.
pub(crate) fn system_authorities() -> Result<RootCertStore, UpstreamTlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Some systems carry authorities that webpki cannot parse; the others still count.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let reason = match found.errors.first() {
            Some(error) => error.to_string(),
            None => "there are none (Debian: package ca-certificates)".into(),
        };
        return Err(UpstreamTlsError::NoSystemAuthorities(reason));
    }
    Ok(roots)
}

/// Accepts whatever the endpoint shows. Reachable only through [`Trust::InsecureAcceptAny`].
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // Signatures are still checked, or the endpoint would not even have to hold its own key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
