//! What a client brings along: whom it trusts, and what proves who it is.
//!
//! Files are read for every connection, so that a certificate or token that is replaced takes
//! effect by itself.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use daemon::files::read_owners;
use http::HeaderValue;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};

use super::ClientError;
use crate::registry::auth::BearerToken;
use crate::tls::{authorities, parse_chain, read_chain, read_key, system_authorities};

/// Bytes of a token file at most; a token has 85.
const MAX_TOKEN: u64 = 4096;

/// What a client brings along.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// PEM file of the authorities that sign the registries' certificates; the system's when
    /// absent.
    pub ca: Option<PathBuf>,
    /// What proves who calls; nothing is enough for a few calls.
    pub proof: Proof,
}

/// What proves who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// A client certificate.
    Certificate {
        /// PEM file of the chain.
        certificate: PathBuf,
        /// PEM file of the private key.
        key: PathBuf,
    },
    /// A file that holds a bearer token.
    Token(PathBuf),
    /// Nothing.
    None,
}

impl From<config::registrar::Credentials> for Proof {
    fn from(credentials: config::registrar::Credentials) -> Self {
        use config::registrar::Credentials;
        match credentials {
            Credentials::Certificate { certificate, key } => Self::Certificate { certificate, key },
            Credentials::Token(file) => Self::Token(file),
        }
    }
}

/// The files' content, for one connection.
pub(super) struct Loaded {
    pub(super) tls: Arc<ClientConfig>,
    /// The value of the Authorization field.
    pub(super) bearer: Option<HeaderValue>,
}

impl Credentials {
    /// Reads the files. Blocks for as long as their file system does.
    ///
    /// # Errors
    /// If a file cannot be read, makes no sense, or holds a secret that others can read.
    pub(super) fn load(&self) -> Result<Loaded, ClientError> {
        let roots = match &self.ca {
            Some(file) => {
                let pem = read_chain(file).map_err(|problem| wrong(file, problem))?;
                authorities(&pem).map_err(|reason| wrong(file, reason))?
            }
            None => system_authorities().map_err(Arc::new)?,
        };
        let (tls, bearer) = match &self.proof {
            Proof::Certificate { certificate, key } => {
                (with_certificate(roots, certificate, key)?, None)
            }
            Proof::Token(file) => (anonymous(roots), Some(bearer(file)?)),
            Proof::None => (anonymous(roots), None),
        };
        Ok(Loaded {
            tls: Arc::new(tls),
            bearer,
        })
    }
}

type Builder = rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert>;

fn builder(roots: RootCertStore) -> Builder {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("the default provider has cipher suites for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
}

fn anonymous(roots: RootCertStore) -> ClientConfig {
    http1(builder(roots).with_no_client_auth())
}

fn with_certificate(
    roots: RootCertStore,
    chain_file: &Path,
    key_file: &Path,
) -> Result<ClientConfig, ClientError> {
    let pem = read_chain(chain_file).map_err(|problem| wrong(chain_file, problem))?;
    let chain = parse_chain(&pem).map_err(|problem| wrong(chain_file, problem))?;
    let pem = read_key(key_file).map_err(|problem| wrong(key_file, problem))?;
    let key = PrivateKeyDer::from_pem_slice(&pem)
        .map_err(|_| wrong(key_file, "holds no private key in PEM"))?;
    let config = builder(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| {
            let chain = chain_file.display();
            wrong(key_file, format!("is not the key of {chain}: {error}"))
        })?;
    Ok(http1(config))
}

fn http1(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// The Authorization field of the token in a file that is for its owner alone.
fn bearer(file: &Path) -> Result<HeaderValue, ClientError> {
    let text = read_owners(file, MAX_TOKEN).map_err(|problem| wrong(file, problem))?;
    let text = String::from_utf8_lossy(&text);
    let token = BearerToken::parse(text.trim()).map_err(|error| wrong(file, error))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.reveal()))
        .expect("letters, digits and underscores can stand in a field");
    // Keeps it out of debug output.
    value.set_sensitive(true);
    Ok(value)
}

fn wrong(file: &Path, reason: impl ToString) -> ClientError {
    ClientError::File {
        file: file.to_owned(),
        reason: reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::client::scripted::token;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    fn file(folder: &Path, text: &str, mode: u32) -> PathBuf {
        let file = folder.join("token");
        fs::write(&file, text).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_token_is_read_without_the_end_of_its_line_and_never_shown() {
        let folder = tempfile::tempdir().unwrap();
        let token = token(1);
        let value = bearer(&file(folder.path(), &format!("{token}\n"), 0o600)).unwrap();
        assert_eq!(value, format!("Bearer {token}"));
        assert_eq!(format!("{value:?}"), "Sensitive");
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o620] {
            let error = bearer(&file(folder.path(), &token(1), mode)).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
    }

    #[test]
    fn what_is_no_token_is_refused_without_being_shown() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "\n", "ghr_1_2", &format!("{0}\n{0}", token(1))] {
            let error = bearer(&file(folder.path(), text, 0o600)).unwrap_err();
            let error = error.to_string();
            assert!(error.contains("not a token of this registry: "), "{error}");
            assert!(!error.contains(&token(1)[21..]), "{error}");
        }
        let error = bearer(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("is not a regular file"), "{error}");
    }
}
