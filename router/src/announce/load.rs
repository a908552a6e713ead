//! From `registrar.yaml` and the files it names to what is announced, and to whom.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::ConfigErrors;
use config::announcement::MOST_PEM_BYTES;
use config::error::InvalidValue;
use config::net::kinds::check_label;
use config::registrar::{Announcement, Credentials as ConfiguredCredentials, RegistrarConfig};
use config::route::{UpstreamProtocol, UpstreamTls, UpstreamTrust};
use daemon::files;

use super::state::{Settings, Wanted};
use crate::registry::api::types::AnnouncedRoute;
use crate::registry::client::{Address, ClientError, Credentials, LoadedCredentials};
use crate::registry::record::{Protocol, Tls, Trust};
use crate::tls::authorities;

/// The host's name.
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Everything that a registrar works by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Whose routes.
    pub tenant: String,
    /// Which of the tenant's instances.
    pub instance: String,
    /// The registries, at least one.
    pub registries: Vec<Address>,
    /// What the registries are shown.
    pub credentials: LoadedCredentials,
    /// How often, how long.
    pub settings: Settings,
    /// Where metrics are shown.
    pub admin: Option<SocketAddr>,
    /// What is announced, and when.
    pub wanted: Vec<Wanted>,
    /// Everything that was read: what has to be watched.
    pub sources: Vec<PathBuf>,
}

/// Reads the configuration and every file it names.
///
/// # Errors
/// Everything that is wrong with the files.
pub fn load(file: &Path) -> Result<Loaded, ConfigErrors> {
    read(file).0
}

/// Like [`load`], and says which files were looked at, or would be, whatever came of it: whoever
/// mends one of them wants it to take effect.
pub fn read(file: &Path) -> (Result<Loaded, ConfigErrors>, Vec<PathBuf>) {
    let mut sources = vec![file.to_owned()];
    let result = read_all(file, &mut sources);
    (result, sources)
}

fn read_all(file: &Path, sources: &mut Vec<PathBuf>) -> Result<Loaded, ConfigErrors> {
    let config = files::parse(file, RegistrarConfig::parse)?;
    sources.extend(config.ca.clone());
    sources.extend(match &config.credentials {
        ConfiguredCredentials::Certificate { certificate, key } => {
            vec![certificate.clone(), key.clone()]
        }
        ConfiguredCredentials::Token(token) => vec![token.clone()],
    });
    let instance = match config.instance {
        Some(instance) => instance,
        None => instance_of_host(file)?,
    };
    let mut errors: Option<ConfigErrors> = None;
    let mut refuse = |error: ConfigErrors| {
        errors = Some(match errors.take() {
            Some(errors) => errors.and(error),
            None => error,
        });
    };
    let mut wanted = Vec::with_capacity(config.routes.len());
    for announcement in config.routes {
        if let Some(UpstreamTls {
            trust: UpstreamTrust::Ca(ca),
            ..
        }) = &announcement.tls
            && !sources.contains(ca)
        {
            sources.push(ca.clone());
        }
        match announced(announcement) {
            Ok(route) => wanted.push(route),
            Err(error) => refuse(error),
        }
    }
    let mut registries = Vec::with_capacity(config.registries.len());
    for registry in &config.registries {
        match registry.parse() {
            Ok(address) => registries.push(address),
            Err(error) => {
                let reason = InvalidValue::new(format!("registries: {error}"));
                refuse(ConfigErrors::whole_file(file, reason));
            }
        }
    }
    let credentials = Credentials {
        ca: config.ca,
        proof: config.credentials.into(),
    };
    let credentials = credentials.load().map_err(|error| unusable(file, error));
    let credentials = match (credentials, errors) {
        (Ok(credentials), None) => credentials,
        (Ok(_), Some(errors)) => return Err(errors),
        (Err(error), None) => return Err(error),
        (Err(error), Some(errors)) => return Err(errors.and(error)),
    };
    Ok(Loaded {
        tenant: config.tenant,
        instance,
        settings: Settings {
            ttl: config.ttl,
            renew: config.renew,
            registries: registries.len(),
        },
        registries,
        credentials,
        admin: config.admin,
        wanted,
        sources: sources.clone(),
    })
}

/// What is wrong with the credentials, as an error of the file that it is about.
fn unusable(config: &Path, error: ClientError) -> ConfigErrors {
    let (file, reason) = match &error {
        ClientError::File { file, reason } => (file.as_path(), reason.clone()),
        other => (config, other.to_string()),
    };
    ConfigErrors::whole_file(file, InvalidValue::new(reason))
}

fn announced(announcement: Announcement) -> Result<Wanted, ConfigErrors> {
    let tls = match announcement.tls {
        Some(UpstreamTls { server_name, trust }) => Some(Tls {
            server_name,
            trust: match trust {
                UpstreamTrust::Ca(file) => Trust::CaPem(certificates(&file)?),
                UpstreamTrust::System => Trust::System,
                UpstreamTrust::InsecureAcceptAny => Trust::InsecureAcceptAnyCertificate,
            },
        }),
        None => None,
    };
    Ok(Wanted {
        route: AnnouncedRoute {
            host: announcement.host.to_string(),
            endpoint: announcement.endpoint,
            protocol: match announcement.protocol {
                UpstreamProtocol::Http1 => Protocol::Http1,
                UpstreamProtocol::Http2 => Protocol::Http2,
            },
            tls,
            shared: announcement.shared,
        },
        check: announcement.check,
    })
}

/// The certificates of a PEM file and nothing else of it: a private key that stands beside them
/// must not be sent to anybody.
pub fn certificates(file: &Path) -> Result<String, ConfigErrors> {
    let refuse = |reason: String| ConfigErrors::whole_file(file, InvalidValue::new(reason));
    let bytes = files::read_bounded(file, MOST_PEM_BYTES as u64)?;
    authorities(&bytes).map_err(refuse)?;
    let text = String::from_utf8_lossy(&bytes);
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        inside |= line == "-----BEGIN CERTIFICATE-----";
        if inside {
            kept.push_str(line);
            kept.push('\n');
        }
        inside &= line != "-----END CERTIFICATE-----";
    }
    Ok(kept)
}

/// The host's name, with hyphens for dots: the first label alone may be another host's as well.
fn instance_of_host(file: &Path) -> Result<String, ConfigErrors> {
    let unusable = |reason: String| {
        let help = "write `instance: NAME`";
        ConfigErrors::whole_file(file, InvalidValue::new(reason).help(help))
    };
    let name = fs::read_to_string(HOSTNAME)
        .map_err(|error| unusable(format!("the host's name cannot be read: {error}")))?;
    let name = name.trim().to_ascii_lowercase().replace('.', "-");
    match check_label(&name) {
        Ok(()) => Ok(name),
        Err(_) => Err(unusable(format!(
            "the host's name {name:?} is no name of an instance"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::client::scripted;
    use std::os::unix::fs::PermissionsExt as _;

    const YAML: &str = "\
tenant: acme
registries: [\"https://127.0.0.1:8444\"]
ca: ca.pem
credentials: {token: token}
routes:
  - host: \"*-7.example.org\"
    endpoint: 10.0.7.21:8443
    protocol: http2
    tls: {server_name: kubernetes, ca: both.pem}
    check: {kind: tcp}
";

    fn write_token(file: &Path, mode: u32) {
        fs::write(file, scripted::token(1)).unwrap();
        fs::set_permissions(file, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn certificate() -> String {
        let made = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
        made.cert.pem()
    }

    #[test]
    fn what_is_announced_carries_the_authorities_and_no_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let (one, two) = (certificate(), certificate());
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        fs::write(path("both.pem"), format!("# mine\n{one}{key}junk\n{two}")).unwrap();
        fs::write(path("registrar.yaml"), YAML).unwrap();
        fs::write(path("ca.pem"), &one).unwrap();
        write_token(&path("token"), 0o600);
        let loaded = load(&path("registrar.yaml")).unwrap();
        let route = &loaded.wanted[0].route;
        assert_eq!(
            (&*route.host, route.protocol),
            ("*-7.example.org", Protocol::Http2)
        );
        let expected = format!("{one}{two}").replace("\r\n", "\n");
        let tls = route.tls.as_ref().unwrap();
        assert_eq!(tls.trust, Trust::CaPem(expected));
        let sources = ["registrar.yaml", "ca.pem", "token", "both.pem"].map(path);
        assert_eq!(loaded.sources, sources);
        let host = fs::read_to_string(HOSTNAME).unwrap().to_ascii_lowercase();
        assert_eq!(loaded.instance, host.trim().replace('.', "-"));
    }

    #[test]
    fn every_file_of_authorities_that_is_wrong_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let second = YAML.split_once("routes:\n").unwrap().1;
        let second = second.replace("-7.", "-8.").replace("both", "missing");
        fs::write(path("registrar.yaml"), format!("{YAML}{second}")).unwrap();
        fs::write(path("both.pem"), "nothing").unwrap();
        let errors = load(&path("registrar.yaml")).unwrap_err().to_string();
        assert!(
            errors.contains("both.pem:1:1: holds no certificate"),
            "{errors}"
        );
        assert!(
            errors.contains("missing.pem:1:1: cannot be read"),
            "{errors}"
        );
        assert!(errors.contains("ca.pem:1:1: cannot be read"), "{errors}");
    }

    #[test]
    fn credentials_that_are_of_no_use_are_refused_and_their_files_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("registrar.yaml"), YAML).unwrap();
        fs::write(path("both.pem"), certificate()).unwrap();
        fs::write(path("ca.pem"), certificate()).unwrap();
        let refused = |reason: &str| {
            let (result, sources) = read(&path("registrar.yaml"));
            let errors = result.unwrap_err().to_string();
            assert!(errors.contains(reason), "{errors}");
            assert!(sources.contains(&path("token")));
        };
        refused("token:1:1: cannot be read");
        write_token(&path("token"), 0o640);
        refused("token:1:1: can be used by others than its owner (mode 0640)");
        write_token(&path("token"), 0o600);
        let loaded = load(&path("registrar.yaml")).unwrap();
        assert_eq!(loaded, load(&path("registrar.yaml")).unwrap());
        fs::write(path("token"), scripted::token(2)).unwrap();
        let other = load(&path("registrar.yaml")).unwrap();
        assert_ne!(loaded.credentials, other.credentials);
        let (chain, key) = (certificate(), rcgen::KeyPair::generate().unwrap());
        fs::write(path("own.crt"), chain).unwrap();
        fs::write(path("own.key"), key.serialize_pem()).unwrap();
        fs::set_permissions(path("own.key"), fs::Permissions::from_mode(0o600)).unwrap();
        let by_certificate = YAML.replace("token: token", "certificate: own.crt, key: own.key");
        fs::write(path("registrar.yaml"), by_certificate).unwrap();
        let errors = load(&path("registrar.yaml")).unwrap_err().to_string();
        assert!(
            errors.contains("own.key:1:1: is not the key of"),
            "{errors}"
        );
    }
}
