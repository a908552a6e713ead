//! `router.yaml`: the edge's own settings.

mod fields;
mod registry;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use registry::{EtcdStore, RegistryApi, RegistryConfig, RegistryStore};

use crate::error::ConfigErrors;
use crate::net::IpRange;
use crate::reader;

/// Everything in `router.yaml`. Relative paths are resolved against the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterConfig {
    /// The plain-HTTP listener: redirects, never forwards.
    pub http: HttpListener,
    /// The HTTPS listener.
    pub https: HttpsListener,
    /// Where certificates come from.
    pub certificates: Certificates,
    /// Route files: paths, or folders whose `*.yaml` are all read.
    pub routes: Vec<PathBuf>,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are kept and appended to. Empty by default.
    pub trusted_proxies: Vec<IpRange>,
    /// Data-plane threads; one per available core when absent.
    pub workers: Option<NonZeroUsize>,
    /// Address of the admin page (metrics, health, routes); loopback only. Absent: none.
    pub admin: Option<SocketAddr>,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How large things may be.
    pub limits: Limits,
    /// Protocols besides HTTP that a request may switch to (`Upgrade`), compared without case.
    pub upgrades: Vec<String>,
    /// Whether each request is logged.
    pub access_log: bool,
    /// The route registry; absent: routes come from files alone.
    pub registry: Option<RegistryConfig>,
}

impl RouterConfig {
    /// Reads `router.yaml`. Pure: `file` only names the text in errors and gives the folder that
    /// relative paths are resolved against.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        reader::read(text, file)
    }
}

/// `http:`, the plain-HTTP listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpListener {
    /// Addresses to listen on; may be empty.
    pub addresses: Vec<SocketAddr>,
    /// Status of the redirect.
    pub redirect: RedirectStatus,
    /// Port written into the redirect's target; 443, the default, is left out of it.
    pub https_port: u16,
}

/// Which redirect a plain-HTTP request gets (RFC 9110, sections 15.4.2 and 15.4.9).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RedirectStatus {
    /// 301: clients may turn a POST into a GET.
    MovedPermanently,
    /// 308: the method stays. The default.
    #[default]
    PermanentRedirect,
}

impl RedirectStatus {
    /// The status code.
    pub const fn code(self) -> u16 {
        match self {
            Self::MovedPermanently => 301,
            Self::PermanentRedirect => 308,
        }
    }
}

/// `https:`, the HTTPS listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsListener {
    /// Addresses to listen on; at least one.
    pub addresses: Vec<SocketAddr>,
    /// Oldest TLS version accepted.
    pub minimum_tls: TlsVersion,
    /// Whether HTTP/2 is offered by ALPN.
    pub http2: bool,
}

/// A TLS version the router can speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum TlsVersion {
    /// TLS 1.2, the default minimum.
    #[default]
    V1_2,
    /// TLS 1.3.
    V1_3,
}

/// `certificates:`, the folder of PEM pairs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificates {
    /// Folder that holds `NAME.crt` (chain) and `NAME.key` (private key) pairs. Names come from
    /// the certificates, not from the file names.
    pub directory: PathBuf,
    /// Pair (`NAME`, without ending) that is served for an unknown or absent SNI. Absent: such
    /// handshakes are refused.
    pub default: Option<String>,
}

/// `timeouts:`, how long things may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// A TLS handshake. 10 s.
    pub handshake: Duration,
    /// From the first byte of a request head to its last. 10 s.
    pub request_head: Duration,
    /// A client connection without a request. 60 s.
    pub client_idle: Duration,
    /// A body, in either direction, without progress. 60 s.
    pub body_idle: Duration,
    /// From the request's end to the answer's head. 0 is none; long polls need that. 0.
    pub response_head: Duration,
    /// An answer's body without a byte from the upstream. Long, since a watch may be silent. 1 h.
    pub response_idle: Duration,
    /// A connection attempt to an endpoint, TLS included; and how long its host may leave a request
    /// unacknowledged. 3 s.
    pub connect: Duration,
    /// An unused upstream connection; must stay below the ingress' own (75 s). 55 s.
    pub upstream_idle: Duration,
    /// An upgraded connection without a byte. 1 h.
    pub upgraded_idle: Duration,
    /// How long an endpoint that refused a connection, or whose host fell silent, is passed over.
    /// 5 s.
    pub endpoint_rest: Duration,
    /// How long the router goes on as before at the end while it says that it is not ready, so that
    /// health checks send clients elsewhere before the drain begins. Up to 5 min. 0.
    pub drain_delay: Duration,
    /// How long a drain may take. 30 s.
    pub drain: Duration,
}

/// `limits:`, how large things may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request or response head. 32 KiB.
    pub head_bytes: usize,
    /// Fields in a head. 100.
    pub head_fields: usize,
    /// Client connections per worker. 20,000.
    pub connections: usize,
    /// Unused upstream connections kept per worker and endpoint. Fewer than the usual number of
    /// requests at once would mean a new connection for each one beyond it. 256.
    pub idle_per_endpoint: usize,
    /// Streams a client may have open on one HTTP/2 connection. 128.
    pub h2_streams: u32,
}
