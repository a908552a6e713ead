//! What `router explain` is asked.

use std::net::{IpAddr, Ipv4Addr};

use http::Uri;

/// A request that somebody wonders about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// Whether it comes to the HTTPS listener, or to the plain one.
    pub https: bool,
    /// Port the client connects to.
    pub port: u16,
    /// Value of Host.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// The method; GET unless set.
    pub method: String,
    /// Server name the client sends in its handshake: the URL's host unless set.
    pub sni: Option<String>,
    /// Address of the peer; 192.0.2.1 (RFC 5737) unless set.
    pub client: IpAddr,
    /// Further fields, names and values.
    pub fields: Vec<(String, String)>,
}

/// A question that cannot be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidQuestion {
    /// Not a URL.
    #[error("{0:?} is not a URL such as https://www.example.org/path")]
    Url(String),
    /// A URL of something else.
    #[error("the scheme of {0:?} is neither https nor http")]
    Scheme(String),
    /// Not a field.
    #[error("{0:?} is not a field such as 'Name: value'")]
    Field(String),
}

impl Question {
    /// A GET of a URL; without a scheme it is https.
    ///
    /// # Errors
    /// When the text is no URL with a host, or its scheme is another.
    pub fn new(url: &str) -> Result<Self, InvalidQuestion> {
        let wrong = || InvalidQuestion::Url(url.to_owned());
        let full = if url.contains("://") {
            url.to_owned()
        } else {
            format!("https://{url}")
        };
        // A fragment is the client's own affair (RFC 9110, section 4.2.5).
        let full = full.split('#').next().unwrap_or_default();
        let uri: Uri = full.parse().map_err(|_| wrong())?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(InvalidQuestion::Scheme(url.to_owned())),
        };
        let authority = uri.authority().ok_or_else(wrong)?;
        let host = authority.host();
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(wrong());
        }
        let is_address = host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
        Ok(Self {
            https,
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.as_str().to_owned(),
            path: uri
                .path_and_query()
                .map_or_else(|| "/".to_owned(), ToString::to_string),
            method: "GET".to_owned(),
            // Clients send no address as a server name (RFC 6066, section 3).
            sni: (!is_address).then(|| host.to_owned()),
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            fields: Vec::new(),
        })
    }

    /// Adds a field, written `Name: value`.
    ///
    /// # Errors
    /// When there is no colon.
    pub fn field(&mut self, line: &str) -> Result<(), InvalidQuestion> {
        let (name, value) = line
            .split_once(':')
            .ok_or_else(|| InvalidQuestion::Field(line.to_owned()))?;
        self.fields.push((name.to_owned(), value.trim().to_owned()));
        Ok(())
    }

    /// The URL in full.
    pub(super) fn url(&self) -> String {
        let scheme = if self.https { "https" } else { "http" };
        format!("{scheme}://{}{}", self.authority, self.path)
    }

    /// The request as a client would send it by HTTP/1.1.
    pub(super) fn request(&self) -> Vec<u8> {
        let mut text = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\n",
            self.method, self.path, self.authority
        );
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}
