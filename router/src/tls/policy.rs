//! What the HTTPS listener negotiates, and the `ServerConfig` every certificate starts from.

use std::sync::Arc;

use ::aws_lc_rs::digest::{Context, SHA256};
use config::router::TlsVersion;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::{SupportedProtocolVersion, version};

use super::tickets::SharedTickets;

/// The part of `router.yaml` that shapes a handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsPolicy {
    /// Oldest version accepted.
    pub minimum: TlsVersion,
    /// Whether HTTP/2 is offered by ALPN, before HTTP/1.1.
    pub http2: bool,
}

impl Default for TlsPolicy {
    fn default() -> Self {
        Self {
            minimum: TlsVersion::default(),
            http2: true,
        }
    }
}

impl TlsPolicy {
    /// Protocols offered by ALPN, preferred first.
    fn protocols(self) -> &'static [&'static [u8]] {
        const BOTH: [&[u8]; 2] = [b"h2", b"http/1.1"];
        if self.http2 { &BOTH } else { &BOTH[1..] }
    }

    /// SHA-256 over everything that a policy says, the same in every process.
    pub(super) fn digest(self) -> [u8; 32] {
        let minimum: &[u8] = match self.minimum {
            TlsVersion::V1_2 => b"1.2",
            TlsVersion::V1_3 => b"1.3",
        };
        let mut context = Context::new(&SHA256);
        context.update(b"minimum ");
        context.update(minimum);
        for protocol in self.protocols() {
            context.update(b"\nalpn ");
            context.update(protocol);
        }
        let mut digest = [0; 32];
        digest.copy_from_slice(context.finish().as_ref());
        digest
    }
}

/// What lives as long as the process: algorithms and the keys that encrypt tickets.
///
/// A reload passes it on, so that a client resumes its session across reloads.
#[derive(Clone)]
pub(super) struct Foundation {
    pub(super) provider: Arc<CryptoProvider>,
    tickets: Tickets,
}

#[derive(Clone)]
enum Tickets {
    /// Keys of this process: rustls replaces them every six hours and accepts the previous ones
    /// for six more.
    Own(Arc<dyn ProducesTickets>),
    /// Keys of the whole edge, from the registry.
    Shared(SharedTickets),
}

impl Foundation {
    /// # Errors
    /// When the system hands out no random numbers.
    pub(super) fn new() -> Result<Self, rustls::Error> {
        Ok(Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: Tickets::Own(aws_lc_rs::Ticketer::new()?),
        })
    }

    /// The same with tickets that the whole edge opens.
    pub(super) fn sharing(tickets: SharedTickets) -> Self {
        Self {
            provider: Arc::new(aws_lc_rs::default_provider()),
            tickets: Tickets::Shared(tickets),
        }
    }

    /// `None` if the keys are this process's own.
    pub(super) fn shared_tickets(&self) -> Option<&SharedTickets> {
        match &self.tickets {
            Tickets::Own(_) => None,
            Tickets::Shared(tickets) => Some(tickets),
        }
    }

    /// The configuration that all certificates share but for the certificate.
    ///
    /// Cipher suites and groups are chosen in the client's order, because the client knows whether
    /// its machine is faster with AES or with ChaCha20. Early data stays off: it can be replayed.
    /// One ticketer for all names is safe because no client is authenticated here and rustls
    /// resumes a session only under the server name it was made for (RFC 6066, section 3).
    pub(super) fn template(&self, policy: TlsPolicy) -> ServerConfig {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(versions(policy.minimum))
            .expect("the default provider has cipher suites for TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(NoCertificate));
        config.ticketer = match &self.tickets {
            Tickets::Own(ticketer) => Arc::clone(ticketer),
            Tickets::Shared(tickets) => tickets.ticketer(policy),
        };
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 2;
        config.max_early_data_size = 0;
        let protocols = policy.protocols().iter();
        config.alpn_protocols = protocols.map(|protocol| protocol.to_vec()).collect();
        config
    }
}

fn versions(minimum: TlsVersion) -> &'static [&'static SupportedProtocolVersion] {
    static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];
    match minimum {
        TlsVersion::V1_2 => &BOTH,
        TlsVersion::V1_3 => &BOTH[..1],
    }
}

/// Stands in the template until a certificate takes its place.
#[derive(Debug)]
struct NoCertificate;

impl rustls::server::ResolvesServerCert for NoCertificate {
    fn resolve(
        &self,
        _: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        None
    }
}
