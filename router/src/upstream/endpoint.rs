//! Upstreams and their endpoints as the control plane publishes them: immutable and shared.

use std::net::SocketAddr;
use std::sync::Arc;

use config::route::UpstreamProtocol;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

/// A group of interchangeable endpoints.
///
/// The control plane hands out the same `Arc` again after a reload that did not change it, so that
/// workers keep what they know by `id`.
#[derive(Debug)]
pub struct Upstream {
    /// Unique for the life of the process; never used again.
    pub id: u64,
    /// Who owns it.
    pub tenant: Arc<str>,
    /// Its name in the tenant's route file.
    pub name: Arc<str>,
    /// What is spoken towards the endpoints.
    pub protocol: UpstreamProtocol,
    /// At least one.
    pub endpoints: Vec<Arc<Endpoint>>,
}

impl Upstream {
    /// Whether its endpoints are reached by TLS.
    pub fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.tls.is_some())
    }
}

/// One address of an upstream.
///
/// Kept across reloads like [`Upstream`], and never shared between tenants, so that one tenant's
/// requests cannot ride on another's connection.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique for the life of the process; pools are keyed by it.
    pub id: u64,
    /// Where to connect.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// TLS towards it; `None` is plain text.
    pub tls: Option<UpstreamTls>,
}

/// TLS towards an endpoint.
#[derive(Clone, Debug)]
pub struct UpstreamTls {
    /// Client configuration that offers `http/1.1` only.
    pub http1: Arc<ClientConfig>,
    /// Client configuration that offers `h2` only.
    pub http2: Arc<ClientConfig>,
    /// Name sent as SNI and checked.
    pub server_name: ServerName<'static>,
}
