//! The files of an edge: `router.yaml`, certificates, route files; and a router that reads them.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::address::Claim;
use crate::ca::{Ca, KeyKind};
use crate::client::{Connection, TlsClient};
use crate::folder::{self, Folder};
use crate::router::Router;

/// The name that [`Edge::with_backend`] routes.
pub const HOST: &str = "shop.acme.example.org";

/// An edge on loopback, before and while its router runs.
#[derive(Debug)]
pub struct Edge {
    /// Signs the certificates.
    pub ca: Ca,
    /// Where redirects are given.
    pub http: Vec<SocketAddr>,
    /// Where HTTPS is served.
    pub https: Vec<SocketAddr>,
    /// Where the admin page is.
    pub admin: SocketAddr,
    /// `http.redirect`, if it is to be written.
    pub redirect: Option<u16>,
    /// `http.https_port`.
    pub https_port: u16,
    /// `https.minimum_tls`, if it is to be written.
    pub minimum_tls: Option<&'static str>,
    /// `certificates.default`, if there is to be one.
    pub default_certificate: Option<String>,
    /// `workers`.
    pub workers: u32,
    /// More lines for the end of `router.yaml`.
    pub more: String,
    claim: Claim,
    folder: Folder,
}

/// An upstream as it is written into a route file.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its name in the file.
    pub name: &'static str,
    /// `http1` or `http2`.
    pub protocol: &'static str,
    /// Where requests go.
    pub endpoints: Vec<SocketAddr>,
    /// The content of `tls:`, in flow style, if there is to be TLS.
    pub tls: Option<String>,
}

impl Upstream {
    /// Plain HTTP/1.1.
    #[must_use]
    pub fn plain(name: &'static str, endpoints: &[SocketAddr]) -> Self {
        Self {
            name,
            protocol: "http1",
            endpoints: endpoints.to_vec(),
            tls: None,
        }
    }
}

/// The text of a route file.
#[must_use]
pub fn route_file(tenant: &str, upstreams: &[Upstream], routes: &[(&str, &str)]) -> String {
    let mut text = format!("tenant: {tenant}\nupstreams:\n");
    for Upstream {
        name,
        protocol,
        endpoints,
        tls,
    } in upstreams
    {
        let endpoints: Vec<String> = endpoints.iter().map(|it| format!("\"{it}\"")).collect();
        let endpoints = endpoints.join(", ");
        let _ = writeln!(
            text,
            "  {name}:\n    protocol: {protocol}\n    endpoints: [{endpoints}]"
        );
        if let Some(tls) = tls {
            let _ = writeln!(text, "    tls: {tls}");
        }
    }
    text.push_str("routes:\n");
    for (host, upstream) in routes {
        let _ = writeln!(text, "  - host: \"{host}\"\n    upstream: {upstream}");
    }
    text
}

impl Edge {
    /// An edge on a loopback address of its own, without certificates and routes.
    ///
    /// # Errors
    /// If its folder cannot be made.
    pub fn new(label: &str) -> Result<Self> {
        let claim = Claim::new()?;
        let folder = Folder::new(label)?;
        std::fs::create_dir_all(folder.path().join("certs"))?;
        std::fs::create_dir_all(folder.path().join("routes.d"))?;
        Ok(Self {
            ca: Ca::new(&format!("throw-away authority of {label}"))?,
            http: vec![claim.port(8080)],
            https: vec![claim.port(8443)],
            admin: claim.port(9900),
            redirect: None,
            https_port: 443,
            minimum_tls: None,
            default_certificate: None,
            workers: 1,
            more: String::new(),
            claim,
            folder,
        })
    }

    /// An edge whose [`HOST`] leads to one plain endpoint, with a certificate for
    /// `*.acme.example.org`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn with_backend(label: &str, endpoint: u16) -> Result<Self> {
        let edge = Self::new(label)?;
        edge.certificate("acme", &["*.acme.example.org"], KeyKind::Ecdsa)?;
        let endpoint = edge.port(endpoint);
        edge.routes(
            "acme",
            &route_file(
                "acme",
                &[Upstream::plain("workers", &[endpoint])],
                &[(HOST, "workers")],
            ),
        )?;
        Ok(edge)
    }

    /// An address of this edge's own, for backends.
    #[must_use]
    pub fn port(&self, port: u16) -> SocketAddr {
        self.claim.port(port)
    }

    /// Where everything is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where `router.yaml` is.
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.folder().join("router.yaml")
    }

    /// Signs a certificate and puts the pair into the certificates' folder.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn certificate(&self, file: &str, names: &[&str], kind: KeyKind) -> Result<()> {
        self.ca
            .issue(names, kind)?
            .write(&self.folder().join("certs"), file)?;
        Ok(())
    }

    /// Writes `routes.d/NAME.yaml`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn routes(&self, name: &str, text: &str) -> Result<()> {
        folder::write(&self.folder().join(format!("routes.d/{name}.yaml")), text)
    }

    /// The text of `router.yaml`.
    #[must_use]
    pub fn settings(&self) -> String {
        let list = |addresses: &[SocketAddr]| {
            let quoted: Vec<String> = addresses.iter().map(|it| format!("\"{it}\"")).collect();
            quoted.join(", ")
        };
        let mut text = format!(
            "http:\n  addresses: [{}]\n  https_port: {}\n",
            list(&self.http),
            self.https_port
        );
        if let Some(redirect) = self.redirect {
            let _ = writeln!(text, "  redirect: {redirect}");
        }
        let _ = writeln!(text, "https:\n  addresses: [{}]", list(&self.https));
        if let Some(version) = self.minimum_tls {
            let _ = writeln!(text, "  minimum_tls: \"{version}\"");
        }
        text.push_str("certificates:\n  directory: certs\n");
        if let Some(name) = &self.default_certificate {
            let _ = writeln!(text, "  default: {name}");
        }
        let _ = writeln!(text, "routes: [routes.d]\nadmin: \"{}\"", self.admin);
        let _ = writeln!(text, "workers: {}\naccess_log: true", self.workers);
        text.push_str(&self.more);
        text
    }

    /// Writes `router.yaml`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write_settings(&self) -> Result<()> {
        folder::write(&self.configuration(), self.settings())
    }

    /// Writes `router.yaml` and starts a router.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(&self) -> Result<Router> {
        self.write_settings()?;
        let addresses: Vec<SocketAddr> = self.http.iter().chain(&self.https).copied().collect();
        Router::start(
            &self.configuration(),
            self.folder(),
            None,
            &addresses,
            self.admin,
        )
    }

    /// A TLS connection for HTTP/1.1 to the HTTPS listener.
    ///
    /// # Errors
    /// If the handshake fails.
    pub fn connect(&self, name: &str) -> Result<Connection> {
        TlsClient::new(&self.ca, &["http/1.1"]).connect(self.https[0], name)
    }

    /// Arguments with which curl reaches the HTTPS listener under a host's own name and port 443.
    ///
    /// # Errors
    /// If the authority's certificate cannot be written.
    pub fn curl(&self, host: &str) -> Result<Vec<String>> {
        let ca = self.folder().join("ca.pem");
        folder::write(&ca, self.ca.pem())?;
        let https = self.https[0];
        Ok([
            "--silent",
            "--show-error",
            "--max-time",
            "60",
            "--cacert",
            &ca.to_string_lossy(),
            "--connect-to",
            &format!("{host}:443:{https}"),
        ]
        .map(str::to_owned)
        .to_vec())
    }
}
