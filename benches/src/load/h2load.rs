//! nghttp2's h2load as the client of keep-alive rows.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::load::Done;
use crate::process;
use crate::site::HOST;

/// The only cipher and group that the client offers, so that no server can choose a cheaper one.
const CIPHER: &str = "TLS_AES_128_GCM_SHA256";
const GROUP: &str = "X25519";

/// What h2load is to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    pub(crate) scheme: Scheme,
    pub(crate) address: SocketAddr,
    pub(crate) path: &'static str,
    pub(crate) connections: u32,
    /// Requests that wait for their answers on one connection at a time.
    pub(crate) streams: u32,
    pub(crate) requests: u32,
}

/// Which protocol is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// HTTP/1.1 in plain text, to be answered with a redirect.
    Plain,
    /// HTTP/1.1 over TLS.
    TlsH1,
    /// HTTP/2 over TLS.
    TlsH2,
}

/// Runs h2load once.
///
/// # Errors
///
/// A request failed or got another answer than expected; TLS was not what [`CIPHER`] and
/// [`GROUP`] say; a minute passed.
pub(crate) fn run(plan: &Plan) -> Result<Done> {
    let start = Instant::now();
    let output = command(plan)
        .output()
        .context("h2load (package nghttp2-client)")?;
    let wall = start.elapsed();
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success(), "h2load: {}\n{text}", output.status);
    let summary =
        Summary::parse(&text).with_context(|| format!("unread h2load output:\n{text}"))?;
    if let Err(reason) = summary.check(plan) {
        bail!("{reason}\n{text}");
    }
    Ok(Done {
        requests: plan.requests,
        wall: summary.wall.unwrap_or(wall),
    })
}

fn command(plan: &Plan) -> std::process::Command {
    let mut command = process::command("timeout");
    command.args(["--kill-after=5", "60", "h2load", "--threads=1"]);
    command.arg(format!("--requests={}", plan.requests));
    command.arg(format!("--clients={}", plan.connections));
    command.arg(format!("--max-concurrent-streams={}", plan.streams));
    command.arg(format!("--connect-to={}", plan.address));
    let scheme = if plan.scheme == Scheme::Plain {
        "http"
    } else {
        "https"
    };
    if plan.scheme != Scheme::TlsH2 {
        command.arg("--h1");
    }
    command
        .arg(format!("--tls13-ciphers={CIPHER}"))
        .arg(format!("--groups={GROUP}"));
    command.arg(format!(
        "{scheme}://{HOST}:{}{}",
        plan.address.port(),
        plan.path
    ));
    command
}

/// What h2load reports.
#[derive(Debug, PartialEq)]
struct Summary<'a> {
    succeeded: u32,
    failed: u32,
    /// Answers with 2xx, 3xx.
    fine: [u32; 2],
    wall: Option<Duration>,
    /// Version, cipher, group, protocol.
    tls: Option<[&'a str; 4]>,
}

impl<'a> Summary<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let line = |start: &str| text.lines().find_map(|line| line.strip_prefix(start));
        let requests = line("requests: ")?;
        let codes = line("status codes: ")?;
        let tls = || {
            let group = line("Server Temp Key: ")?.split(' ').next()?;
            let protocol = line("Application protocol: ")?;
            Some([line("TLS Protocol: ")?, line("Cipher: ")?, group, protocol])
        };
        Some(Summary {
            succeeded: count(requests, "succeeded")?,
            failed: count(requests, "failed")?
                + count(requests, "errored")?
                + count(requests, "timeout")?,
            fine: [count(codes, "2xx")?, count(codes, "3xx")?],
            wall: line("finished in ").and_then(|rest| duration(rest.split(',').next()?)),
            tls: tls(),
        })
    }

    fn check(&self, plan: &Plan) -> Result<()> {
        let wanted = plan.requests;
        let fine = self.fine[usize::from(plan.scheme == Scheme::Plain)];
        ensure!(
            self.failed == 0,
            "{} of {wanted} requests failed",
            self.failed
        );
        ensure!(
            self.succeeded == wanted,
            "{} of {wanted} succeeded",
            self.succeeded
        );
        ensure!(
            fine == wanted,
            "{fine} of {wanted} answers have the expected status"
        );
        if plan.scheme == Scheme::Plain {
            return Ok(());
        }
        let protocol = if plan.scheme == Scheme::TlsH2 {
            "h2"
        } else {
            "http/1.1"
        };
        let expected = ["TLSv1.3", CIPHER, GROUP, protocol];
        ensure!(
            self.tls == Some(expected),
            "TLS is {:?}, not {expected:?}",
            self.tls
        );
        Ok(())
    }
}

fn count(line: &str, what: &str) -> Option<u32> {
    let part = line
        .split(',')
        .find_map(|part| part.trim().strip_suffix(what))?;
    part.trim().parse().ok()
}

fn duration(text: &str) -> Option<Duration> {
    // "us" and "ms" before "s", which ends them too.
    let (number, unit) = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)]
        .into_iter()
        .find_map(|(suffix, unit)| Some((text.trim().strip_suffix(suffix)?, unit)))?;
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
starting benchmark...
TLS Protocol: TLSv1.3
Cipher: TLS_AES_128_GCM_SHA256
Server Temp Key: X25519 253 bits
Application protocol: h2
progress: 100% done

finished in 512.10ms, 19527.44 req/s, 20.61MB/s
requests: 10000 total, 10000 started, 10000 done, 10000 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 10000 2xx, 0 3xx, 0 4xx, 0 5xx
";

    fn plan(scheme: Scheme, requests: u32) -> Plan {
        let address = SocketAddr::from(([127, 0, 0, 1], 1));
        Plan {
            scheme,
            address,
            path: "/",
            connections: 1,
            streams: 1,
            requests,
        }
    }

    #[test]
    fn a_clean_run_passes() {
        let summary = Summary::parse(OUTPUT).unwrap();
        assert_eq!(summary.wall, Some(Duration::from_micros(512_100)));
        summary.check(&plan(Scheme::TlsH2, 10_000)).unwrap();
    }

    #[test]
    fn one_failure_fails_the_run() {
        let text = OUTPUT.replace("10000 succeeded, 0 failed", "9999 succeeded, 1 failed");
        assert!(
            Summary::parse(&text)
                .unwrap()
                .check(&plan(Scheme::TlsH2, 10_000))
                .is_err()
        );
    }

    #[test]
    fn another_status_fails_the_run() {
        let text = OUTPUT.replace("10000 2xx, 0 3xx, 0 4xx", "9999 2xx, 0 3xx, 1 4xx");
        assert!(
            Summary::parse(&text)
                .unwrap()
                .check(&plan(Scheme::TlsH2, 10_000))
                .is_err()
        );
    }

    #[test]
    fn a_redirect_is_expected_on_the_plain_port_only() {
        let text = OUTPUT.replace("10000 2xx, 0 3xx", "0 2xx, 10000 3xx");
        let summary = Summary::parse(&text).unwrap();
        summary.check(&plan(Scheme::Plain, 10_000)).unwrap();
        assert!(summary.check(&plan(Scheme::TlsH2, 10_000)).is_err());
    }

    #[test]
    fn another_cipher_group_or_protocol_fails_the_run() {
        for (ours, other) in [
            ("AES_128", "AES_256"),
            ("X25519", "ECDH"),
            (": h2", ": http/1.1"),
        ] {
            let text = OUTPUT.replace(ours, other);
            assert!(
                Summary::parse(&text)
                    .unwrap()
                    .check(&plan(Scheme::TlsH2, 10_000))
                    .is_err()
            );
        }
    }

    #[test]
    fn all_units_of_time_are_read() {
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("20us"), Some(Duration::from_micros(20)));
        assert_eq!(duration("later"), None);
    }
}
