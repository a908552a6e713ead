//! What one server name is answered with.

use std::fmt;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::ServedCertificate;
use crate::route::Host;

/// The certificates that serve a name, at most one per kind of key, and the configuration that
/// shows them.
pub struct CertEntry {
    config: Arc<ServerConfig>,
    certificates: Arc<[Arc<ServedCertificate>]>,
}

impl CertEntry {
    /// `certificates` is not empty and in the order of preference.
    pub(super) fn new(template: &ServerConfig, certificates: Vec<Arc<ServedCertificate>>) -> Self {
        let certificates: Arc<[_]> = certificates.into();
        let mut config = template.clone();
        config.cert_resolver = Arc::new(ByClientSchemes(Arc::clone(&certificates)));
        Self {
            config: Arc::new(config),
            certificates,
        }
    }

    /// The configuration for a handshake under this name.
    pub fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    /// The certificates a client may be shown, preferred first.
    pub fn certificates(&self) -> &[Arc<ServedCertificate>] {
        &self.certificates
    }

    /// Whether a connection that was opened with this entry may carry requests for a host; if not,
    /// the answer is 421 (RFC 9110, section 15.5.20).
    ///
    /// Where an ECDSA and an RSA certificate stand side by side, both must cover the host: which of
    /// them the client saw is not recorded, and a 421 in doubt costs it one more connection.
    pub fn covers(&self, host: &Host) -> bool {
        self.certificates
            .iter()
            .all(|certificate| certificate.covers(host))
    }
}

impl fmt::Debug for CertEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pairs = self
            .certificates
            .iter()
            .map(|certificate| certificate.pair());
        f.debug_list().entries(pairs).finish()
    }
}

/// Shows the first certificate whose key can sign what the client accepts.
#[derive(Debug)]
struct ByClientSchemes(Arc<[Arc<ServedCertificate>]>);

impl ResolvesServerCert for ByClientSchemes {
    fn resolve(&self, client: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let offered = client.signature_schemes();
        self.0
            .iter()
            .find(|certificate| certificate.signs_with_any(offered))
            // With nothing in common the handshake has to fail; handing out a certificate leaves it
            // to rustls to say so with the alert that stands in the RFC.
            .or(self.0.first())
            .map(|certificate| Arc::clone(certificate.key()))
    }
}
