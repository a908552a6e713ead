//! What is known of a client's connection, for all of its requests.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::observe::access_log::Tls;
use crate::tls::CertEntry;

/// A client whose TLS handshake is done.
pub(crate) struct Client {
    /// Its address, as the socket says.
    pub(crate) peer: SocketAddr,
    /// The listener's port.
    pub(crate) local_port: u16,
    /// The certificate it was served: requests for hosts beyond it are misdirected.
    pub(crate) certificate: Arc<CertEntry>,
    /// Whether its forwarding headers are kept.
    pub(crate) trusted: bool,
    /// What the access log tells of its TLS session.
    pub(crate) tls: Tls,
}
