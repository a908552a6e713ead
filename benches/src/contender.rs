//! Who takes part.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::contenders::{haproxy, nginx, pingora, router};

/// A proxy that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Contender {
    /// Gatehouse's router.
    Router,
    /// Debian's NGINX.
    Nginx,
    /// Debian's HAProxy.
    Haproxy,
    /// `src/bin/rival.rs`, on pingora-proxy.
    Pingora,
}

/// Where a contender lives and what it is to serve; the same for all of them.
pub(crate) struct Place {
    /// A folder of its own for configuration and logs.
    pub(crate) home: PathBuf,
    /// Plain listener: redirects.
    pub(crate) http: SocketAddr,
    /// TLS listener: forwards to the backend.
    pub(crate) https: SocketAddr,
    /// The backend.
    pub(crate) backend: SocketAddr,
    /// PEM certificate.
    pub(crate) certificate: PathBuf,
    /// PEM private key.
    pub(crate) key: PathBuf,
}

/// Binaries that are not installed but built here.
pub(crate) struct Built {
    pub(crate) router: PathBuf,
    pub(crate) rival: PathBuf,
}

impl Contender {
    /// Everybody.
    pub(crate) const ALL: [Contender; 4] = [
        Contender::Router,
        Contender::Nginx,
        Contender::Haproxy,
        Contender::Pingora,
    ];

    /// The name in tables and raw results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Contender::Router => "router",
            Contender::Nginx => "nginx",
            Contender::Haproxy => "haproxy",
            Contender::Pingora => "pingora",
        }
    }

    /// Writes the configuration and gives the command that runs it in the foreground.
    pub(crate) fn command(self, place: &Place, built: &Built) -> Result<Launch> {
        match self {
            Contender::Router => router::launch(place, &built.router),
            Contender::Nginx => nginx::launch(place),
            Contender::Haproxy => haproxy::launch(place),
            Contender::Pingora => Ok(pingora::launch(place, &built.rival)),
        }
    }

    /// What the binary says about itself.
    pub(crate) fn version(self, built: &Built) -> String {
        match self {
            Contender::Router => router::version(&built.router),
            Contender::Nginx => nginx::version(),
            Contender::Haproxy => haproxy::version(),
            Contender::Pingora => pingora::version(),
        }
    }
}

/// A contender ready to start.
pub(crate) struct Launch {
    pub(crate) command: Command,
    /// The configuration as written, for the report.
    pub(crate) configuration: String,
}

/// First line that a command prints on either stream, or why there is none.
pub(crate) fn first_line(program: impl AsRef<Path>, arguments: &[&str]) -> String {
    let output = crate::process::command(program.as_ref())
        .args(arguments)
        .output();
    match output {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            String::from_utf8_lossy(&text)
                .lines()
                .next()
                .unwrap_or("prints nothing")
                .to_owned()
        }
        Err(error) => format!("unknown ({error})"),
    }
}
