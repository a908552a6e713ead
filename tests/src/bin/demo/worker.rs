//! A worker of a tenant: its host, its ingress, and the registrar that announces it.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use harness::ca::Leaf;
use harness::folder;
use harness::nginx::{HTTP_PORT, HTTPS_PORT, Ingress, Nginx};
use harness::process::Process;
use harness::program::binary;
use harness::websocket::EchoServer;

use crate::stage::{Place, RENEW, TTL, Tenant};

/// A worker; order of the fields is order of the end, so that the registrar withdraws first.
pub(crate) struct Worker {
    pub(crate) tenant: Tenant,
    pub(crate) name: &'static str,
    registrar: Option<Process>,
    nginx: Option<Nginx>,
    echo: EchoServer,
    leaf: Leaf,
    /// The demo's folder.
    home: PathBuf,
    place: Place,
}

impl Worker {
    /// Starts its ingress, and writes what its registrar reads but the token.
    pub(crate) fn start(
        tenant: Tenant,
        name: &'static str,
        place: Place,
        leaf: &Leaf,
        home: &Path,
        registry: SocketAddr,
    ) -> Result<Self> {
        let echo = EchoServer::start(
            place.namespace(),
            SocketAddr::new(place.address(), ECHO_PORT),
        )?;
        let mut worker = Self {
            tenant,
            name,
            registrar: None,
            nginx: None,
            echo,
            leaf: leaf.clone(),
            home: home.to_owned(),
            place,
        };
        worker.start_nginx()?;
        std::fs::create_dir(home.join(name))?;
        let file = home.join(worker.registrar_file());
        folder::write(&file, worker.registrar_settings(registry))?;
        Ok(worker)
    }

    pub(crate) fn address(&self) -> IpAddr {
        self.place.address()
    }

    /// Where routers reach its ingress.
    pub(crate) fn endpoint(&self) -> SocketAddr {
        SocketAddr::new(self.address(), self.tenant.port())
    }

    pub(crate) fn start_nginx(&mut self) -> Result<()> {
        let at = |port| SocketAddr::new(self.address(), port);
        let nginx = Ingress {
            namespace: self.place.namespace(),
            https: Some((vec![at(HTTPS_PORT)], &self.leaf)),
            websocket: Some(self.echo.address()),
            ..Ingress::plain(self.tenant.name, self.name, at(HTTP_PORT))
        }
        .start(&self.home)
        .with_context(|| format!("worker {} of {}", self.name, self.tenant.name))?;
        self.nginx = Some(nginx);
        Ok(())
    }

    pub(crate) fn nginx(&mut self) -> Result<&mut Process> {
        let nginx = self.nginx.as_mut();
        let nginx = nginx.with_context(|| format!("worker {} has no NGINX", self.name))?;
        Ok(&mut nginx.process)
    }

    /// Starts its registrar; does not wait until anything is announced.
    pub(crate) fn start_registrar(&mut self) -> Result<()> {
        let mut command = Command::new(binary("router")?);
        command
            .arg("announce")
            .arg("--config")
            .arg(self.home.join(self.registrar_file()));
        let folder = self.home.join(self.name);
        let namespace = self.place.namespace();
        self.registrar = Some(Process::start("registrar", command, namespace, &folder)?);
        Ok(())
    }

    pub(crate) fn registrar(&mut self) -> Result<&mut Process> {
        let registrar = self.registrar.as_mut();
        registrar.with_context(|| format!("worker {} has no registrar", self.name))
    }

    /// What its registrar logged.
    pub(crate) fn registrar_log(&self) -> String {
        self.registrar
            .as_ref()
            .map(Process::log)
            .unwrap_or_default()
    }

    /// Its `registrar.yaml`, seen from the demo's folder.
    pub(crate) fn registrar_file(&self) -> String {
        format!("{}/registrar.yaml", self.name)
    }

    fn registrar_settings(&self, registry: SocketAddr) -> String {
        let Tenant {
            name: tenant, host, ..
        } = self.tenant;
        let tls = if self.tenant.tls {
            let server_name = self.tenant.ingress_name();
            format!("    tls: {{server_name: {server_name}, ca: ../ca.pem}}\n")
        } else {
            String::new()
        };
        let instance = self.name;
        let endpoint = self.endpoint();
        let checked = SocketAddr::new(self.address(), HTTP_PORT);
        format!(
            "tenant: {tenant}\n\
             instance: {instance}\n\
             registries: [\"https://{registry}\"]\n\
             ca: ../ca.pem\n\
             credentials: {{token: ../{tenant}.token}}\n\
             ttl: {}s\n\
             renew: {}s\n\
             routes:\n\
             \x20 - host: {host}\n\
             \x20   endpoint: \"{endpoint}\"\n\
             {tls}\
             \x20   check: {{kind: http, url: \"http://{checked}/hello\", interval: 1s, timeout: 1s}}\n",
            TTL.as_secs(),
            RENEW.as_secs(),
        )
    }
}

/// Where WebSockets are echoed, behind the ingress.
const ECHO_PORT: u16 = 9000;
