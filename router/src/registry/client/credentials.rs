//! What a client brings along: whom it trusts, and what proves who it is.
//!
//! Named by its files, it is read for every connection, so that a certificate or token that is
//! replaced takes effect by itself. Whoever watches the files reads them once, and a file that is
//! spoiled later on harms nobody.

use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest;
use http::HeaderValue;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::ClientError;
use crate::registry::auth::BearerToken;
use crate::tls::{authorities, read_chain, read_key, system_authorities};

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

/// What the files hold.
#[derive(Clone)]
pub struct LoadedCredentials {
    pub(super) tls: Arc<ClientConfig>,
    /// The value of the Authorization field.
    pub(super) bearer: Option<HeaderValue>,
    /// Of what was read; authorities of the system are not part of it.
    content: [u8; digest::SHA256_OUTPUT_LEN],
}

/// Where a client has its credentials from.
#[derive(Clone, Debug)]
pub enum Source {
    /// Files that are read for each connection.
    Files(Credentials),
    /// What was read before.
    Loaded(LoadedCredentials),
}

impl Credentials {
    /// Reads the files. Blocks for as long as their file system does.
    ///
    /// # Errors
    /// If a file cannot be read, makes no sense, or holds a secret that others can read.
    pub fn load(&self) -> Result<LoadedCredentials, ClientError> {
        let mut content = digest::Context::new(&digest::SHA256);
        let mut took = |bytes: &[u8]| {
            content.update(&(bytes.len() as u64).to_be_bytes());
            content.update(bytes);
        };
        let roots = match &self.ca {
            Some(file) => {
                let pem = read_chain(file).map_err(|problem| wrong(file, problem))?;
                took(&pem);
                authorities(&pem).map_err(|reason| wrong(file, reason))?
            }
            None => system_authorities().map_err(Arc::new)?,
        };
        let (tls, bearer) = match &self.proof {
            Proof::Certificate { certificate, key } => {
                (with_certificate(roots, certificate, key, took)?, None)
            }
            Proof::Token(file) => {
                let bearer = bearer(file)?;
                took(bearer.as_bytes());
                (anonymous(roots), Some(bearer))
            }
            Proof::None => (anonymous(roots), None),
        };
        let digest = content.finish();
        let content = digest.as_ref();
        Ok(LoadedCredentials {
            tls: Arc::new(tls),
            bearer,
            content: content.try_into().expect("SHA-256 has 32 bytes"),
        })
    }
}

impl Source {
    /// What a connection is made with. Blocks for as long as the files' file system does.
    pub(super) fn load(self) -> Result<LoadedCredentials, ClientError> {
        match self {
            Self::Files(credentials) => credentials.load(),
            Self::Loaded(loaded) => Ok(loaded),
        }
    }
}

impl From<Credentials> for Source {
    fn from(credentials: Credentials) -> Self {
        Self::Files(credentials)
    }
}

impl From<LoadedCredentials> for Source {
    fn from(loaded: LoadedCredentials) -> Self {
        Self::Loaded(loaded)
    }
}

/// The same if the same was read.
impl PartialEq for LoadedCredentials {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

impl Eq for LoadedCredentials {}

/// Shows nothing of them.
impl fmt::Debug for LoadedCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoadedCredentials").finish_non_exhaustive()
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
    mut took: impl FnMut(&[u8]),
) -> Result<ClientConfig, ClientError> {
    let pem = read_chain(chain_file).map_err(|problem| wrong(chain_file, problem))?;
    took(&pem);
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(chain_file, format!("invalid PEM: {error}")))?;
    if chain.is_empty() {
        return Err(wrong(chain_file, "holds no certificate"));
    }
    let pem = read_key(key_file).map_err(|problem| wrong(key_file, problem))?;
    took(&pem);
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
    let attempt = || -> std::io::Result<Option<(String, u32)>> {
        // Asked before opening, since opening a pipe would wait for a writer.
        if !fs::metadata(file)?.is_file() {
            return Ok(None);
        }
        let open = File::open(file)?;
        let mode = open.metadata()?.mode();
        let mut text = String::new();
        open.take(MAX_TOKEN).read_to_string(&mut text)?;
        Ok(Some((text, mode & 0o7777)))
    };
    let (text, mode) = attempt()
        .map_err(|error| wrong(file, format!("cannot be read: {error}")))?
        .ok_or_else(|| wrong(file, "is not a regular file"))?;
    if mode & 0o077 != 0 {
        return Err(wrong(
            file,
            format!("holds a token and can be read by others (mode {mode:04o}): chmod go= it"),
        ));
    }
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
