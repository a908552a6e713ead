//! TLS towards clients and towards upstreams.
//!
//! [`CertificateStore`] is what the control plane loads from a directory and publishes;
//! [`accept()`] is a client's handshake, from the ClientHello to a stream; [`ClientConfigs`] makes
//! the configurations that upstream connections use.

mod accept;
mod certificate;
mod certificates;
mod directory;
mod entry;
mod error;
#[cfg(test)]
pub(crate) mod pki;
mod policy;
#[cfg(test)]
mod tests;
mod tickets;
mod upstream;

pub use accept::{AcceptError, Accepted, accept};
pub use certificate::{Algorithm, ServedCertificate};
pub(crate) use certificate::{parse_chain, parse_key};
pub use certificates::CertificateStore;
pub(crate) use directory::{MAX_FILE, read_chain, read_key, read_up_to};
pub use entry::CertEntry;
pub use error::{CertificateError, CertificateErrors, CertificateProblem, Warning, WarningKind};
pub use policy::TlsPolicy;
pub use tickets::SharedTickets;
pub use upstream::{ClientConfigs, Trust, UpstreamTlsError};
pub(crate) use upstream::{authorities, system_authorities};
