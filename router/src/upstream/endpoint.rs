//! Upstreams and their endpoints as the control plane publishes them: shared, and but for flags
//! immutable.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use config::route::UpstreamProtocol;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;

use super::health::Unhealthy;

/// A group of interchangeable endpoints.
///
/// The control plane hands out the same `Arc` again after a change that did not touch it, so that
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
    /// What the router's checks say, once it makes any.
    pub unhealthy: OnceLock<Arc<Unhealthy>>,
    /// Whether nothing in force leads to it any more.
    pub retired: Retired,
}

impl Upstream {
    /// Whether its endpoints are reached by TLS.
    pub fn is_tls(&self) -> bool {
        self.endpoints.iter().any(|endpoint| endpoint.tls.is_some())
    }

    /// Whether the endpoint of this index fails the router's checks.
    #[inline]
    pub fn is_unhealthy(&self, index: usize) -> bool {
        self.unhealthy.get().is_some_and(|flags| flags.get(index))
    }
}

/// One address of an upstream.
///
/// Kept across changes like [`Upstream`], and never shared between tenants, so that one tenant's
/// requests cannot ride on another's connection.
#[derive(Debug)]
pub struct Endpoint {
    /// Unique for the life of the process; pools are keyed by it.
    pub id: u64,
    /// Whose it is.
    pub tenant: Arc<str>,
    /// Where to connect.
    pub address: SocketAddr,
    /// What is spoken.
    pub protocol: UpstreamProtocol,
    /// TLS towards it; `None` is plain text.
    pub tls: Option<Arc<UpstreamTls>>,
    /// Whether nothing in force leads to it any more.
    pub retired: Retired,
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

/// Set once nothing in force uses an object: workers forget it when they come across it. They need
/// not look at what is in force for that, which may be a million routes.
#[derive(Debug, Default)]
pub struct Retired(AtomicBool);

impl Retired {
    /// From now on it is. There is no way back.
    pub fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it is.
    pub fn get(&self) -> bool {
        self.0.load(Relaxed)
    }
}
