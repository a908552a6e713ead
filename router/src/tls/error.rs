//! What can be wrong with a directory of certificates.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with a directory, collected in one go; never empty.
#[derive(Debug)]
pub struct CertificateErrors(pub Vec<CertificateError>);

impl fmt::Display for CertificateErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for CertificateErrors {}

/// One file and what is wrong with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: {problem}", file.display())]
pub struct CertificateError {
    /// The file, or the directory where no single file is to blame.
    pub file: PathBuf,
    /// What is wrong with it.
    pub problem: CertificateProblem,
}

/// What can be wrong with a certificate or key file.
#[derive(Debug, thiserror::Error)]
pub enum CertificateProblem {
    /// The file or directory could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(#[source] std::io::Error),
    /// A folder, a pipe or the like.
    #[error("is not a regular file")]
    NotAFile,
    /// Larger than any such file is.
    #[error("is longer than {most} bytes")]
    TooLong {
        /// How long it may be.
        most: u64,
    },
    /// A chain stands alone.
    #[error("has no private key beside it: {} is missing", .0.display())]
    NoKey(PathBuf),
    /// A key stands alone.
    #[error("has no certificate beside it: {} is missing", .0.display())]
    NoChain(PathBuf),
    /// Users other than owner and group may use the key.
    #[error(
        "is a private key that every user of this machine can read (mode {mode:04o}): chmod o= it"
    )]
    KeyOpenToOthers {
        /// The permission bits.
        mode: u32,
    },
    /// The PEM text is broken.
    #[error("is not valid PEM: {0}")]
    InvalidPem(String),
    /// No `CERTIFICATE` section.
    #[error("holds no certificate")]
    NoCertificate,
    /// No section with a private key.
    #[error("holds no private key (PKCS #8, SEC 1 or PKCS #1, not encrypted)")]
    NoPrivateKey,
    /// The leaf is not a certificate.
    #[error("starts with a certificate that cannot be parsed: {0}")]
    InvalidCertificate(String),
    /// The key is of no kind that TLS can use.
    #[error("holds a private key that cannot be used: {0}")]
    InvalidKey(String),
    /// The key belongs to another certificate.
    #[error("does not match the first certificate of {}", .0.display())]
    KeyMismatch(PathBuf),
    /// The key belongs to the chain, yet not to its first certificate.
    #[error("matches a later certificate of {}: the server's own must come first", .0.display())]
    LeafNotFirst(PathBuf),
    /// Nothing a client could ask for.
    #[error(
        "names no host: the first certificate has no DNS name among its subject alternative names"
    )]
    NoNames,
    /// The pair that `certificates.default` names is not there.
    #[error("has no pair {0}.crt and {0}.key, which is the default certificate")]
    NoDefault(String),
    /// The system hands out no random numbers, or the like.
    #[error("cannot be served: {0}")]
    Crypto(#[source] rustls::Error),
}

/// Something that is served all the same, but that somebody should look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}", file.display())]
pub struct Warning {
    /// The file.
    pub file: PathBuf,
    /// What to look at.
    pub kind: WarningKind,
}

/// What is worth a warning.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WarningKind {
    /// Clients will refuse it.
    #[error("expired on {0}")]
    Expired(String),
    /// Clients will refuse it for now.
    #[error("is not valid before {0}")]
    NotYetValid(String),
    /// A subject alternative name that no server name can match.
    #[error("names {0:?}, which no client can ask for: ignored")]
    UnusableName(String),
    /// Another pair with the same kind of key serves this name, because it expires later.
    #[error("is not served for {name}: {} has the same kind of key and expires later", winner.display())]
    Superseded {
        /// The name both certificates hold.
        name: String,
        /// The file that is served.
        winner: PathBuf,
    },
    /// A certificate authority beside the pairs, as cert-manager writes it.
    #[error("is a certificate authority without a key: ignored")]
    AuthorityIgnored,
}
