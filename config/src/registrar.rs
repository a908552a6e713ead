//! `registrar.yaml`: what an instance announces to the route registries, and when.

mod fields;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::ConfigErrors;
use crate::reader;
use crate::route::{HostMatch, UpstreamProtocol, UpstreamTls};

/// Everything in `registrar.yaml`. Relative paths are resolved against the file's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistrarConfig {
    /// The tenant whose names are announced; the credential must be this tenant's.
    pub tenant: String,
    /// This instance's name among the tenant's; the registrar takes the host's name when absent.
    pub instance: Option<String>,
    /// `https://` addresses of every registry; all are tried.
    pub registries: Vec<String>,
    /// PEM file of the authorities that sign the registries' certificates; the system's when
    /// absent.
    pub ca: Option<PathBuf>,
    /// What proves the tenant to the registries.
    pub credentials: Credentials,
    /// How long an announcement holds without renewal, 5 s to 1 h. 60 s.
    pub ttl: Duration,
    /// How often it is renewed; at most half of `ttl`. 20 s.
    pub renew: Duration,
    /// Address of the page with metrics and health; loopback only. None when absent.
    pub admin: Option<SocketAddr>,
    /// What is announced: 1 to 32. Announcements of one host agree on everything but endpoint and
    /// check.
    pub routes: Vec<Announcement>,
}

/// What proves the tenant to the registries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// A client certificate.
    Certificate {
        /// PEM file of the chain.
        certificate: PathBuf,
        /// PEM file of the private key.
        key: PathBuf,
    },
    /// A file that holds a bearer token. Tokens never stand in the configuration itself.
    Token(PathBuf),
}

/// One route with the endpoint that this instance adds to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Which hosts the route takes.
    pub host: HostMatch,
    /// This instance's endpoint, as routers reach it.
    pub endpoint: SocketAddr,
    /// What is spoken towards the endpoint.
    pub protocol: UpstreamProtocol,
    /// TLS towards the endpoint; `None` is plain text.
    pub tls: Option<UpstreamTls>,
    /// Whether other tenants may hold narrower names beneath a suffix. Off.
    pub shared: bool,
    /// When the endpoint counts as healthy.
    pub check: Check,
}

/// A repeated check; the route is announced from its first success on, until it has failed
/// `failures` times in a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is tried.
    pub probe: Probe,
    /// From the start of one check to the start of the next. 5 s.
    pub interval: Duration,
    /// How long one check may take; at most `interval`. 2 s.
    pub timeout: Duration,
    /// Failures in a row until the route is withdrawn. 2.
    pub failures: u32,
    /// Successes in a row until a route that was not healthy is announced again. 1.
    pub successes: u32,
}

/// What a check tries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// A connection to an address; the endpoint when absent.
    Tcp {
        /// Where to.
        address: Option<SocketAddr>,
    },
    /// A GET that must be answered with 200 to 399.
    Http {
        /// The whole URL.
        url: String,
    },
    /// A program that must end with status 0.
    Script {
        /// The program and its arguments; no shell.
        command: Vec<String>,
    },
}

impl RegistrarConfig {
    /// Reads `registrar.yaml`. Pure: `file` only names the text in errors and gives the folder
    /// that relative paths are resolved against.
    ///
    /// # Errors
    /// Everything that is wrong with the file, at once.
    pub fn parse(text: &str, file: &Path) -> Result<Self, ConfigErrors> {
        reader::read(text, file)
    }
}
