//! The load of each row. A load that did not succeed to the last request is an error, and the
//! window around it does not count.

pub(crate) mod exchange;
pub(crate) mod h2load;
pub(crate) mod handshake;
pub(crate) mod hosts;
pub(crate) mod idle;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use rustls::pki_types::CertificateDer;

use crate::backend::{LARGE, SMALL};
use crate::load::exchange::Version;
use crate::load::h2load::{Plan, Scheme};
use crate::row::Row;

/// Where a load goes.
pub(crate) struct Target {
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    /// What the TLS clients in this program trust.
    pub(crate) authority: CertificateDer<'static>,
}

/// A load that succeeded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Done {
    pub(crate) requests: u32,
    pub(crate) wall: Duration,
}

/// Sends `requests` requests in the manner of `row`.
pub(crate) fn run(row: Row, requests: u32, target: &Target) -> Result<Done> {
    let h1 = Plan {
        scheme: Scheme::TlsH1,
        address: target.https,
        path: SMALL,
        connections: 32,
        streams: 1,
        requests,
    };
    match row {
        Row::Redirect => {
            let path = "/some/path?and=query";
            h2load::run(&Plan {
                scheme: Scheme::Plain,
                address: target.http,
                path,
                ..h1
            })
        }
        Row::H1 => h2load::run(&h1),
        Row::H2 => h2load::run(&Plan {
            scheme: Scheme::TlsH2,
            connections: 16,
            streams: 16,
            ..h1
        }),
        Row::BodyH1 => h2load::run(&Plan { path: LARGE, ..h1 }),
        Row::BodyH2 => {
            let scheme = Scheme::TlsH2;
            h2load::run(&Plan {
                scheme,
                path: LARGE,
                connections: 16,
                streams: 4,
                ..h1
            })
        }
        Row::Handshake => handshake::run(Version::Tls13, requests, target),
        Row::HandshakeTls12 => handshake::run(Version::Tls12, requests, target),
        Row::Idle => bail!("idle connections are held, not run"),
    }
}
