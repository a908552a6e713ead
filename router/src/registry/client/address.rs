//! Where a registry is.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use rustls::pki_types::ServerName;

/// The address of one registry: `https://edge-1.example.org:8444`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// Without brackets.
    host: Box<str>,
    port: u16,
    name: ServerName<'static>,
}

/// Why a text is no address of a registry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address of a registry ({reason}); write for example https://edge-1.example.org:8444"
)]
pub struct InvalidAddress {
    text: String,
    reason: &'static str,
}

impl Address {
    /// The host: a name, or an address without brackets.
    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// What the registry's certificate has to be valid for.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        self.name.clone()
    }

    /// The value of the Host field.
    pub(super) fn authority(&self) -> String {
        match &*self.host {
            literal if literal.contains(':') => format!("[{literal}]:{}", self.port),
            host => format!("{host}:{}", self.port),
        }
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let wrong = |reason| InvalidAddress {
            text: text.chars().take(200).collect(),
            reason,
        };
        if !text.starts_with("https://") {
            return Err(wrong("it does not begin with https://"));
        }
        let uri: Uri = text.parse().map_err(|_| wrong("it is no URL"))?;
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
            return Err(wrong("it has a path"));
        }
        let authority = uri.authority().ok_or_else(|| wrong("it has no host"))?;
        if authority.as_str().contains('@') {
            return Err(wrong("it has a user: credentials stand in files"));
        }
        let host = authority.host();
        let port = match authority.as_str().strip_prefix(host) {
            Some("") => 443,
            _ => match authority.port_u16() {
                Some(port) if port != 0 => port,
                _ => return Err(wrong("its port is invalid")),
            },
        };
        let host = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host)
            .to_ascii_lowercase();
        let name = ServerName::try_from(host.clone())
            .map_err(|_| wrong("its host is neither a name nor an address"))?;
        Ok(Self {
            host: host.into(),
            port,
            name,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_with_and_without_a_port() {
        for (text, shown, host) in [
            (
                "https://Edge-1.example.org:8444",
                "https://edge-1.example.org:8444",
                "edge-1.example.org",
            ),
            ("https://10.0.0.1/", "https://10.0.0.1:443", "10.0.0.1"),
            (
                "https://[fd00::1]:8444",
                "https://[fd00::1]:8444",
                "fd00::1",
            ),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.to_string().as_str(), address.host()),
                (shown, host)
            );
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, reason) in [
            ("http://a.example", "https://"),
            ("edge-1.example.org:8444", "https://"),
            ("https://", "no URL"),
            ("https://a.example/v1", "a path"),
            ("https://a.example/?x", "a path"),
            ("https://a.example#x", "a path"),
            ("https://me@a.example", "a user"),
            ("https://a.example:0", "port"),
            ("https://a.example:", "port"),
            ("https://a.example:99999", "port"),
            ("https://a_b!c", "host"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }
}
