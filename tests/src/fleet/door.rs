//! One of a fleet's routers, and its host.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::ca::{Ca, KeyKind};
use crate::etcd::Cluster;
use crate::faketime::Clock;
use crate::folder;
use crate::namespace::Host;
use crate::process::Process;
use crate::router::Router;

/// Where the registry's API listens.
pub const API_PORT: u16 = 8444;

/// A router and its host.
#[derive(Debug)]
pub struct Door {
    /// The host.
    pub host: Host,
    /// The router, unless it was killed.
    pub router: Option<Router>,
    /// Its clock, if it is another than the machine's.
    pub clock: Option<Clock>,
    folder: PathBuf,
}

impl Door {
    /// Writes the files of a router of this fleet. `home` holds `certs`, `ca.pem` and what etcd's
    /// clients need.
    pub(super) fn new(
        host: Host,
        clock: Option<&str>,
        home: &Path,
        ca: &Ca,
        etcd: Option<&Cluster>,
    ) -> Result<Self> {
        let folder = home.join(&host.name);
        std::fs::create_dir(&folder)?;
        ca.issue(&[&host.v4.to_string()], KeyKind::Ecdsa)?
            .write(&folder, "registry")?;
        let clock = clock
            .map(|offset| Clock::new("router", offset, &folder))
            .transpose()?;
        let door = Self {
            host,
            router: None,
            clock,
            folder,
        };
        folder::write(&door.configuration(), door.settings(etcd))?;
        Ok(door)
    }

    fn configuration(&self) -> PathBuf {
        self.folder.join("router.yaml")
    }

    fn settings(&self, etcd: Option<&Cluster>) -> String {
        let ip = self.host.v4;
        let mut text = format!(
            "http:\n  addresses: [\"{ip}:80\"]\n\
             https:\n  addresses: [\"{ip}:443\"]\n\
             certificates:\n  directory: ../certs\n\
             routes: []\n\
             admin: \"{ADMIN}\"\n\
             workers: 1\n\
             timeouts:\n  drain: 3s\n\
             registry:\n\
             \x20 api:\n\
             \x20   addresses: [\"{ip}:{API_PORT}\"]\n\
             \x20   certificate: registry.crt\n\
             \x20   key: registry.key\n\
             \x20   client_ca: ../ca.pem\n\
             \x20   audit_log: audit.jsonl\n\
             \x20 state: state\n"
        );
        let Some(etcd) = etcd else {
            text.push_str("  store: embedded\n");
            return text;
        };
        text.push_str("  store:\n    etcd:\n      endpoints:\n");
        for endpoint in etcd.endpoints() {
            let _ = writeln!(text, "        - {endpoint}");
        }
        for (field, path) in [
            ("ca", etcd.ca()),
            ("certificate", etcd.certificate()),
            ("key", etcd.key()),
        ] {
            let _ = writeln!(text, "      {field}: {}", path.display());
        }
        text
    }

    /// Starts the router, on whatever its state folder holds, and waits until it serves.
    ///
    /// # Errors
    /// If it does not.
    pub fn start(&mut self) -> Result<()> {
        let namespace = Some(&self.host.namespace);
        let command = Router::command(&self.configuration())?;
        let process = match &self.clock {
            Some(clock) => clock.start("router", command, namespace, &self.folder)?,
            None => Process::start("router", command, namespace, &self.folder)?,
        };
        let listens: Vec<SocketAddr> = [80, 443]
            .map(|port| SocketAddr::new(self.host.v4, port))
            .into();
        let admin = ADMIN.parse().expect("a constant that is an address");
        self.router = Some(Router::of(process, namespace, &listens, admin)?);
        Ok(())
    }

    /// Kills it without notice.
    pub fn crash(&mut self) {
        if let Some(mut router) = self.router.take() {
            router.process.crash();
        }
    }

    /// The file of the routes that it knew last.
    #[must_use]
    pub fn last_known(&self) -> PathBuf {
        self.folder.join("state/last-known-routes.jsonl")
    }

    /// Takes away what it kept of the registry for its next start.
    ///
    /// # Errors
    /// If there is nothing.
    pub fn lose_state(&self) -> Result<()> {
        std::fs::remove_dir_all(self.folder.join("state")).context("the state folder")
    }

    /// What it tells who asks whether it is ready: status and text.
    ///
    /// # Errors
    /// If it does not run.
    pub fn readiness(&self) -> Result<(u16, String)> {
        let page = self.running()?.page("/readyz")?;
        Ok((page.status, page.text()))
    }

    /// Where clients connect to.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        SocketAddr::new(self.host.v4, 443)
    }

    /// Where its registry listens.
    #[must_use]
    pub fn api(&self) -> SocketAddr {
        SocketAddr::new(self.host.v4, API_PORT)
    }

    /// Endpoints that it forwards a rule's requests to; none if it has no such rule.
    ///
    /// # Errors
    /// If it does not run, or its page of routes cannot be read.
    pub fn endpoints(&self, rule: &str) -> Result<BTreeSet<SocketAddr>> {
        Ok(self.table()?.remove(rule).unwrap_or_default())
    }

    /// Every rule and its endpoints.
    ///
    /// # Errors
    /// As [`Door::endpoints`].
    pub fn table(&self) -> Result<BTreeMap<String, BTreeSet<SocketAddr>>> {
        let rules = self.rules()?;
        let endpoints = |rule: &Value| {
            let all = rule["endpoints"].as_array().into_iter().flatten();
            all.map(|it| {
                let text = it.as_str().context("an endpoint is a text")?;
                text.parse().context("an endpoint is an address")
            })
            .collect::<Result<_>>()
        };
        rules
            .iter()
            .map(|rule| {
                let host = rule["host"].as_str().context("a rule has a host")?;
                Ok((host.to_owned(), endpoints(rule)?))
            })
            .collect()
    }

    /// The rules in force, as its page lists them.
    ///
    /// # Errors
    /// As [`Door::endpoints`].
    pub fn rules(&self) -> Result<Vec<Value>> {
        let mut page: Value = serde_json::from_str(&self.running()?.admin("/routes")?)?;
        match page["routes"].take() {
            Value::Array(rules) => Ok(rules),
            other => bail!("no list of routes: {other}"),
        }
    }

    /// A number of its metrics page.
    ///
    /// # Errors
    /// If it does not run, or has no such metric.
    pub fn metric(&self, name: &str) -> Result<f64> {
        let page = self.running()?.admin("/metrics")?;
        page.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
            .with_context(|| format!("there is no metric {name}"))
    }

    /// How many calls its registry has answered with this status.
    ///
    /// # Errors
    /// As [`Door::metric`].
    pub fn answers(&self, status: u16) -> Result<u64> {
        let line = format!("router_registry_requests_total{{code=\"{status}\"}} ");
        let page = self.running()?.admin("/metrics")?;
        // A status that never was has no line.
        let count = page.lines().find_map(|it| it.strip_prefix(&line));
        count.map_or(Ok(0), |it| it.parse().context("a count"))
    }

    /// The lines of its audit log.
    ///
    /// # Errors
    /// If there is none, or a line is no JSON.
    pub fn audit(&self) -> Result<Vec<Value>> {
        let text = std::fs::read_to_string(self.folder.join("audit.jsonl"))?;
        text.lines()
            .map(|line| serde_json::from_str(line).context("a line of the audit log"))
            .collect()
    }

    /// Whether it says that it follows the registry.
    ///
    /// # Errors
    /// As [`Door::metric`].
    pub fn is_connected(&self) -> Result<bool> {
        Ok(self.metric("router_registry_connected")? > 0.0)
    }

    fn running(&self) -> Result<&Router> {
        self.router
            .as_ref()
            .with_context(|| format!("the router of {} does not run", self.host.name))
    }
}

/// Loopback, so it is each host's own.
const ADMIN: &str = "127.0.0.1:9180";
