//! A tenant's cluster: workers with NGINX, and a registrar beside each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::faketime::Clock;
use crate::folder;
use crate::namespace::Host;
use crate::nginx::{HTTP_PORT, Ingress, Nginx};
use crate::process::Process;
use crate::program::binary;

/// What a tenant's cluster is to be like.
#[derive(Clone, Debug)]
pub struct TenantPlan {
    /// The tenant's name.
    pub name: &'static str,
    /// The rule that its workers announce.
    pub rule: &'static str,
    /// A host that the rule takes.
    pub host: &'static str,
    /// How many workers it has.
    pub workers: usize,
    /// Whether zones of others may overlap with its zone, which is the rule itself.
    pub shared_zone: bool,
    /// What is added to the announcing worker's clock, by worker; the machine's when absent.
    pub clocks: Vec<&'static str>,
}

impl TenantPlan {
    /// A tenant with two workers whose clocks are right.
    #[must_use]
    pub fn new(name: &'static str, rule: &'static str, host: &'static str) -> Self {
        Self {
            name,
            rule,
            host,
            workers: 2,
            shared_zone: false,
            clocks: Vec::new(),
        }
    }
}

/// A tenant's running cluster.
#[derive(Debug)]
pub struct Tenant {
    /// What it is like.
    pub plan: TenantPlan,
    /// Its bearer token.
    pub token: String,
    /// Its workers.
    pub workers: Vec<Worker>,
}

/// A worker's host and what runs there.
#[derive(Debug)]
pub struct Worker {
    /// The host.
    pub host: Host,
    /// Its registrar, unless it was taken away.
    pub registrar: Option<Process>,
    /// Its ingress, unless it was killed.
    pub nginx: Option<Nginx>,
    /// The registrar's clock, if it is another than the machine's.
    pub clock: Option<Clock>,
    tenant: &'static str,
    folder: PathBuf,
}

impl Tenant {
    /// Endpoints of all workers.
    #[must_use]
    pub fn endpoints(&self) -> BTreeSet<SocketAddr> {
        self.workers.iter().map(Worker::endpoint).collect()
    }

    /// Endpoints of all workers but this one.
    #[must_use]
    pub fn without(&self, worker: usize) -> BTreeSet<SocketAddr> {
        let mut endpoints = self.endpoints();
        endpoints.remove(&self.workers[worker].endpoint());
        endpoints
    }
}

impl Worker {
    /// Starts the ingress and writes the registrar's files; does not start the registrar.
    pub(super) fn new(
        host: Host,
        plan: &TenantPlan,
        clock: Option<&str>,
        home: &Path,
        announcing: &Announcing<'_>,
    ) -> Result<Self> {
        let folder = home.join(&host.name);
        std::fs::create_dir(&folder)?;
        let clock = clock
            .map(|offset| Clock::new("registrar", offset, &folder))
            .transpose()?;
        let mut worker = Self {
            host,
            registrar: None,
            nginx: None,
            clock,
            tenant: plan.name,
            folder,
        };
        folder::write_secret(&worker.folder.join("token"), announcing.token)?;
        let text = worker.settings(plan, announcing);
        folder::write(&worker.folder.join("registrar.yaml"), text)?;
        worker.start_nginx()?;
        Ok(worker)
    }

    fn settings(&self, plan: &TenantPlan, announcing: &Announcing<'_>) -> String {
        let registries: Vec<String> = announcing
            .registries
            .iter()
            .map(|it| format!("\"https://{it}\""))
            .collect();
        let Announcing { ttl, renew, .. } = announcing;
        let endpoint = self.endpoint();
        format!(
            "tenant: {}\ninstance: {}\nregistries: [{}]\nca: ../ca.pem\n\
             credentials:\n  token: token\n\
             ttl: {ttl}s\nrenew: {renew}s\n\
             routes:\n\
             \x20 - host: \"{}\"\n\
             \x20   endpoint: \"{endpoint}\"\n\
             \x20   check:\n\
             \x20     kind: http\n\
             \x20     url: http://{endpoint}/hello\n\
             \x20     interval: 1s\n\
             \x20     timeout: 1s\n\
             \x20     failures: 2\n",
            plan.name,
            self.host.name,
            registries.join(", "),
            plan.rule,
        )
    }

    /// Where routers reach it.
    #[must_use]
    pub fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.host.v4, HTTP_PORT)
    }

    /// Starts its ingress.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start_nginx(&mut self) -> Result<()> {
        let ingress = Ingress {
            namespace: Some(&self.host.namespace),
            ..Ingress::plain(self.tenant, &self.host.name, self.endpoint())
        };
        self.nginx = Some(ingress.start(&self.folder)?);
        Ok(())
    }

    /// Kills its ingress without notice.
    pub fn crash_nginx(&mut self) {
        if let Some(mut nginx) = self.nginx.take() {
            nginx.process.crash();
        }
    }

    /// Kills everything that runs on it.
    pub fn crash(&mut self) {
        self.crash_nginx();
        if let Some(mut registrar) = self.registrar.take() {
            registrar.crash();
        }
    }

    /// Starts its registrar; does not wait until anything is announced.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_registrar(&mut self) -> Result<()> {
        let mut command = Command::new(binary("router")?);
        command
            .arg("announce")
            .arg("--config")
            .arg(self.folder.join("registrar.yaml"));
        // Renewals are told as well.
        command.env("RUST_LOG", "info,router::announce::tell=debug");
        let namespace = Some(&self.host.namespace);
        let process = match &self.clock {
            Some(clock) => clock.start("registrar", command, namespace, &self.folder)?,
            None => Process::start("registrar", command, namespace, &self.folder)?,
        };
        self.registrar = Some(process);
        Ok(())
    }

    /// Its running registrar.
    ///
    /// # Errors
    /// If it was taken away.
    pub fn registrar(&mut self) -> Result<&mut Process> {
        let name = &self.host.name;
        self.registrar
            .as_mut()
            .with_context(|| format!("the registrar of {name} does not run"))
    }
}

/// Lines of a registrar's log that tell of a renewal which the registry has accepted.
#[must_use]
pub fn renewals(log: &str) -> Vec<&str> {
    log.lines()
        .filter(|line| line.contains("\"message\":\"renewed\""))
        .collect()
}

/// What registrars have in common.
#[derive(Debug)]
pub(super) struct Announcing<'a> {
    pub(super) token: &'a str,
    pub(super) registries: &'a [SocketAddr],
    /// In seconds.
    pub(super) ttl: u64,
    /// In seconds.
    pub(super) renew: u64,
}
