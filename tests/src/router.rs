//! The router: found, started, asked, told to reload.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::client::{Connection, Response};
use crate::namespace::Namespace;
use crate::process::Process;
use crate::program::binary;
use crate::tool::Tool;
use crate::wait;

/// A running router.
#[derive(Debug)]
pub struct Router {
    /// Its process.
    pub process: Process,
    namespace: Option<Namespace>,
    admin: SocketAddr,
}

/// A command of the router that ends by itself, such as `check`.
///
/// # Errors
/// If it has not been built.
pub fn tool(arguments: &[&str]) -> Result<Tool> {
    Ok(Tool::new(&binary("router")?.to_string_lossy()).args(arguments))
}

impl Router {
    /// Starts it and waits until it listens on all of `addresses` and on `admin`.
    ///
    /// # Errors
    /// If it ends instead, with its log.
    pub fn start(
        configuration: &Path,
        folder: &Path,
        namespace: Option<&Namespace>,
        addresses: &[SocketAddr],
        admin: SocketAddr,
    ) -> Result<Self> {
        let command = Self::command(configuration)?;
        let process = Process::start("router", command, namespace, folder)?;
        Self::of(process, namespace, addresses, admin)
    }

    /// `router run`, for whoever starts it in a way of his own.
    ///
    /// # Errors
    /// If it has not been built.
    pub fn command(configuration: &Path) -> Result<Command> {
        let mut command = Command::new(binary("router")?);
        command.arg("run").arg("--config").arg(configuration);
        Ok(command)
    }

    /// A router that was started as this process; waits until it listens.
    ///
    /// # Errors
    /// If it ends instead, with its log.
    pub fn of(
        process: Process,
        namespace: Option<&Namespace>,
        addresses: &[SocketAddr],
        admin: SocketAddr,
    ) -> Result<Self> {
        let mut router = Self {
            process,
            namespace: namespace.cloned(),
            admin,
        };
        for address in addresses {
            router.wait_until(&format!("listen on {address}"), |it| {
                it.connect(*address).is_ok()
            })?;
        }
        // Who answers here heeds signals already; who merely listens may still be killed by one.
        router.wait_until("say that it is healthy", |it| it.admin("/healthz").is_ok())?;
        Ok(router)
    }

    fn wait_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<()> {
        let waited = wait::until(&format!("the router to {what}"), wait::PATIENCE, || {
            (self.process.ended().is_some() || done(self)).then_some(())
        });
        if let Some(status) = self.process.ended() {
            bail!(
                "the router ended at once ({status}):\n{}",
                self.process.log()
            );
        }
        waited.with_context(|| format!("the router's log:\n{}", self.process.log()))
    }

    /// A plain connection to it, made where it runs.
    ///
    /// # Errors
    /// If it does not listen there.
    pub fn connect(&self, address: SocketAddr) -> Result<Connection> {
        let connect = || Connection::plain(address);
        self.namespace
            .as_ref()
            .map_or_else(connect, |it| it.run(connect))
    }

    /// A page of the admin listener, whatever its status.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn page(&self, path: &str) -> Result<Response> {
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            self.admin
        );
        self.connect(self.admin)?.exchange(request)
    }

    /// A page of the admin listener.
    ///
    /// # Errors
    /// If it does not answer, or not with 200.
    pub fn admin(&self, path: &str) -> Result<String> {
        let response = self.page(path)?;
        if response.status != 200 {
            bail!(
                "admin answers {path} with {}: {}",
                response.status,
                response.text()
            );
        }
        Ok(response.text())
    }

    /// Endpoints that it forwards a rule's requests to; none if it has no such rule.
    ///
    /// # Errors
    /// If its page of routes cannot be read.
    pub fn endpoints(&self, rule: &str) -> Result<BTreeSet<SocketAddr>> {
        let page: Value = serde_json::from_str(&self.admin("/routes")?)?;
        let routes = page["routes"].as_array().context("a list of routes")?;
        let route = routes.iter().find(|it| it["host"] == rule);
        route
            .and_then(|it| it["endpoints"].as_array())
            .into_iter()
            .flatten()
            .map(|it| {
                let text = it.as_str().context("an endpoint is a text")?;
                text.parse().context("an endpoint is an address")
            })
            .collect()
    }

    /// Tells it to read its files again.
    pub fn reload(&mut self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// Tells it to drain and end.
    pub fn terminate(&mut self) {
        self.process.signal(Signal::SIGTERM);
    }

    /// Everything it logged so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// Waits until its log holds all of `needles` in one line; gives the line.
    ///
    /// # Errors
    /// With the log, if it does not.
    pub fn wait_for_log(&self, needles: &[&str]) -> Result<String> {
        wait::until(
            &format!("a log line with {needles:?}"),
            wait::PATIENCE,
            || {
                let log = self.log();
                log.lines()
                    .find(|line| needles.iter().all(|needle| line.contains(needle)))
                    .map(str::to_owned)
            },
        )
        .with_context(|| format!("the log was:\n{}", self.log()))
    }
}
