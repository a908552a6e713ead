//! What is measured.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// One kind of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Row {
    /// Plain HTTP/1.1, answered with a redirect.
    Redirect,
    /// TLS and HTTP/1.1, 1 KiB answers.
    H1,
    /// TLS and HTTP/2, 1 KiB answers.
    H2,
    /// TLS and HTTP/1.1, 64 KiB answers.
    BodyH1,
    /// TLS and HTTP/2, 64 KiB answers.
    BodyH2,
    /// A TCP connection and a full TLS 1.3 handshake per request.
    Handshake,
    /// The same with TLS 1.2.
    #[value(name = "handshake-tls12")]
    #[serde(rename = "handshake-tls12")]
    HandshakeTls12,
    /// Memory of TLS connections that rest after one request.
    Idle,
}

/// In what a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Nanoseconds of CPU per request, shown in microseconds.
    CpuPerRequest,
    /// Bytes per connection, shown in KiB.
    BytesPerConnection,
}

impl Row {
    /// Every row, in the order of the report.
    pub(crate) const ALL: [Row; 8] = [
        Row::Redirect,
        Row::H1,
        Row::H2,
        Row::BodyH1,
        Row::BodyH2,
        Row::Handshake,
        Row::HandshakeTls12,
        Row::Idle,
    ];

    /// The name on the command line and in raw results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Row::Redirect => "redirect",
            Row::H1 => "h1",
            Row::H2 => "h2",
            Row::BodyH1 => "body-h1",
            Row::BodyH2 => "body-h2",
            Row::Handshake => "handshake",
            Row::HandshakeTls12 => "handshake-tls12",
            Row::Idle => "idle",
        }
    }

    /// The heading in the report.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Row::Redirect => "plain HTTP/1.1, answered with a redirect, 32 connections",
            Row::H1 => "TLS to a plain ingress, HTTP/1.1, 1 KiB, 32 connections",
            Row::H2 => "TLS to a plain ingress, HTTP/2, 1 KiB, 16 connections x 16 streams",
            Row::BodyH1 => "TLS to a plain ingress, HTTP/1.1, 64 KiB, 32 connections",
            Row::BodyH2 => "TLS to a plain ingress, HTTP/2, 64 KiB, 16 connections x 4 streams",
            Row::Handshake => "a connection and a full TLS 1.3 handshake per request",
            Row::HandshakeTls12 => "a connection and a full TLS 1.2 handshake per request",
            Row::Idle => "memory per idle TLS connection",
        }
    }

    /// The most that the router may use, as a multiple of the best peer. `None`: no target is set.
    pub(crate) fn target(self) -> Option<f64> {
        match self {
            Row::H1 => Some(1.0),
            Row::H2 => Some(1.25),
            Row::Handshake => Some(1.1),
            _ => None,
        }
    }

    pub(crate) fn unit(self) -> Unit {
        match self {
            Row::Idle => Unit::BytesPerConnection,
            _ => Unit::CpuPerRequest,
        }
    }

    /// Requests of a window of `seconds`: a fixed number, the same for every contender.
    pub(crate) fn requests(self, seconds: f64) -> u32 {
        let per_second = match self {
            Row::Redirect => 40_000.0,
            Row::H1 | Row::H2 => 16_000.0,
            Row::BodyH1 | Row::BodyH2 => 6_000.0,
            Row::Handshake | Row::HandshakeTls12 => 1_500.0,
            Row::Idle => return 0,
        };
        // The command line bounds seconds, so the product fits.
        (per_second * seconds) as u32
    }
}

impl Unit {
    /// The name in a table's head.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Unit::CpuPerRequest => "CPU us/request",
            Unit::BytesPerConnection => "KiB/connection",
        }
    }

    /// From what the kernel counts (nanoseconds, bytes) to what the table shows.
    pub(crate) fn scale(self) -> f64 {
        match self {
            Unit::CpuPerRequest => 1_000.0,
            Unit::BytesPerConnection => 1_024.0,
        }
    }
}
