//! The hosts of the demo and what runs on them.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use harness::address::Claim;
use harness::ca::{Ca, KeyKind};
use harness::client::{Connection, TlsClient};
use harness::folder::{self, Folder};
use harness::load::Load;
use harness::namespace::{Host, Namespace, Network};
use harness::nginx::{HTTP_PORT, HTTPS_PORT};
use harness::program::binary;
use harness::router::Router;
use harness::tool::Tool;

use crate::report::Report;
use crate::worker::Worker;

/// The tenant whose ingresses are reached in plain text.
pub(crate) const PLAIN: Tenant = Tenant {
    name: "acme",
    host: "shop.acme.example.org",
    workers: ["a1", "a2"],
    tls: false,
};

/// The tenant whose ingresses are reached over TLS.
pub(crate) const ENCRYPTED: Tenant = Tenant {
    name: "globex",
    host: "shop.globex.example.org",
    workers: ["g1", "g2"],
    tls: true,
};

/// The name that comes into being while the demo runs.
pub(crate) const NEW_HOST: &str = "new.globex.example.org";

/// How long an announcement holds.
pub(crate) const TTL: Duration = Duration::from_secs(5);

/// How often it is renewed.
pub(crate) const RENEW: Duration = Duration::from_secs(1);

/// A customer with two workers.
#[derive(Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    pub(crate) host: &'static str,
    pub(crate) workers: [&'static str; 2],
    pub(crate) tls: bool,
}

impl Tenant {
    /// The port of its ingresses.
    pub(crate) fn port(&self) -> u16 {
        if self.tls { HTTPS_PORT } else { HTTP_PORT }
    }

    /// The name in the certificate of its ingresses.
    pub(crate) fn ingress_name(&self) -> String {
        format!("ingress.{}.internal", self.name)
    }

    /// Every name that is its own, as a rule.
    pub(crate) fn names(&self) -> String {
        format!("*.{}.example.org", self.name)
    }
}

/// Everything that runs; order of the fields is order of the end, so that registrars can withdraw.
pub(crate) struct Stage {
    pub(crate) workers: Vec<Worker>,
    pub(crate) router: Router,
    tls: TlsClient,
    http: SocketAddr,
    https: SocketAddr,
    pub(crate) registry: SocketAddr,
    client: Place,
    _edge: Place,
    _network: Option<Network>,
    folder: Folder,
}

/// A host: a network namespace, or a loopback address without root.
pub(crate) enum Place {
    Host(Host),
    Loopback(Claim),
}

impl Place {
    fn new(network: &mut Option<Network>, name: &str, inodes: &mut Vec<u64>) -> Result<Self> {
        let Some(network) = network else {
            return Ok(Self::Loopback(Claim::new()?));
        };
        let host = network.host(name)?;
        inodes.push(host.namespace.inode()?);
        Ok(Self::Host(host))
    }

    pub(crate) fn address(&self) -> IpAddr {
        match self {
            Self::Host(host) => host.v4,
            Self::Loopback(claim) => claim.port(0).ip(),
        }
    }

    pub(crate) fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Host(host) => Some(&host.namespace),
            Self::Loopback(_) => None,
        }
    }
}

impl Stage {
    /// Makes the hosts and starts everything but the registrars; `inodes` are the namespaces that
    /// must be gone later.
    pub(crate) fn set(loopback: bool, inodes: &mut Vec<u64>, report: &Report) -> Result<Self> {
        report.heading("The stage");
        let folder = Folder::new("demo")?;
        let home = folder.path();
        let mut network = if loopback {
            report.line("no root: every host is an address of 127.0.0.0/8, HTTPS is on port 8443");
            None
        } else {
            report.line("every host is a network namespace, on a switch that leads nowhere else");
            Some(Network::new()?)
        };
        let ca = Ca::new("Gatehouse demo, throw-away")?;
        let edge = Place::new(&mut network, "edge", inodes)?;
        let client = Place::new(&mut network, "client", inodes)?;
        let (http_port, https_port) = if loopback { (8080, 8443) } else { (80, 443) };
        let http = SocketAddr::new(edge.address(), http_port);
        let https = SocketAddr::new(edge.address(), https_port);
        let registry = SocketAddr::new(edge.address(), 8444);
        let mut workers = Vec::new();
        for tenant in [PLAIN, ENCRYPTED] {
            let leaf = ca.issue(&[&tenant.ingress_name()], KeyKind::Ecdsa)?;
            for name in tenant.workers {
                let place = Place::new(&mut network, name, inodes)?;
                workers.push(Worker::start(tenant, name, place, &leaf, home, registry)?);
            }
            let of_tenant = workers.iter().filter(|it| it.tenant.name == tenant.name);
            let seen: Vec<String> = of_tenant
                .map(|it| format!("{} {}", it.name, it.address()))
                .collect();
            report.line(&format!(
                "tenant {:<7} NGINX on {} ({}): {}",
                tenant.name,
                tenant.port(),
                if tenant.tls { "TLS" } else { "plain" },
                seen.join(", ")
            ));
        }

        write_edge(home, &ca, http, https, registry)?;
        write_curlrc(home, &ca, http, https)?;
        // A router wants to know its operators before any can ask it.
        let operator = [
            "registry",
            "token",
            "create",
            "--operator",
            "me",
            "--file",
            "operators.tokens",
            "--output",
            "me.token",
        ];
        let operator = router_tool(home, registry, &operator)?;
        report.command(operator.line());
        report.result(&operator.succeed()?);
        let router = Router::start(
            &home.join("router.yaml"),
            home,
            edge.namespace(),
            &[http, https],
            ADMIN.parse().expect("a constant that is an address"),
        )?;
        report.line(&format!(
            "the router    on {http} and {https}, with no route at all"
        ));
        report.line(&format!("the registry  inside of it, on {registry}"));
        report.line("curl is told by a .curlrc where these names are and whom to trust");
        let tls = TlsClient::new(&ca, &["http/1.1"]);
        Ok(Self {
            workers,
            router,
            tls,
            http,
            https,
            registry,
            client,
            _edge: edge,
            _network: network,
            folder,
        })
    }

    /// A command on the client's host.
    pub(crate) fn tool(&self, program: &str, arguments: &[&str]) -> Tool {
        let home = self.folder.path().to_string_lossy().into_owned();
        Tool::new(program)
            .environment("CURL_HOME", &home)
            .args(arguments)
            .namespace(self.namespace())
    }

    /// `router` with these arguments, on the client's host: the operator's unless `arguments` name
    /// another token.
    pub(crate) fn router_tool(&self, arguments: &[&str]) -> Result<Tool> {
        let tool = router_tool(self.folder.path(), self.registry, arguments)?;
        Ok(tool.namespace(self.namespace()))
    }

    /// Clients that ask for a tenant's host again and again.
    pub(crate) fn load(&self, tenant: Tenant) -> Load {
        Load::start(4, &self.tls, self.https, &[tenant.host], self.namespace())
    }

    /// A connection from the client's host.
    pub(crate) fn connect(&self, host: &str) -> Result<Connection> {
        let connect = || self.tls.connect(self.https, host);
        self.namespace().map_or_else(connect, |it| it.run(connect))
    }

    /// The status with which a GET of this host is answered.
    pub(crate) fn status(&self, host: &str) -> Result<u16> {
        let request = format!("GET /hello HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        Ok(self.connect(host)?.exchange(request)?.status)
    }

    pub(crate) fn worker(&mut self, name: &str) -> Result<&mut Worker> {
        let mut workers = self.workers.iter_mut();
        let worker = workers.find(|it| it.name == name);
        worker.with_context(|| format!("worker {name} is not on the stage"))
    }

    pub(crate) fn workers_of(&self, tenant: Tenant) -> impl Iterator<Item = &Worker> {
        let of_tenant = move |it: &&Worker| it.tenant.name == tenant.name;
        self.workers.iter().filter(of_tenant)
    }

    /// Where clients run.
    fn namespace(&self) -> Option<&Namespace> {
        self.client.namespace()
    }

    /// A URL's authority for this host: with a port if it is not the usual one.
    pub(crate) fn authority(&self, scheme: &str, host: &str) -> String {
        let (port, usual) = if scheme == "http" {
            (self.http.port(), 80)
        } else {
            (self.https.port(), 443)
        };
        if port == usual {
            host.to_owned()
        } else {
            format!("{host}:{port}")
        }
    }

    /// A file in the demo's folder.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let path = self.folder.path().join(name);
        std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}

/// The admin page; loopback, so it is the edge's own.
const ADMIN: &str = "127.0.0.1:9900";

/// What the environment of `router registry` says, as one would export it.
pub(crate) fn registry_environment(registry: SocketAddr) -> [(&'static str, String); 3] {
    [
        ("GATEHOUSE_REGISTRY", format!("https://{registry}")),
        ("GATEHOUSE_CA", "ca.pem".to_owned()),
        ("GATEHOUSE_TOKEN_FILE", "me.token".to_owned()),
    ]
}

fn router_tool(home: &Path, registry: SocketAddr, arguments: &[&str]) -> Result<Tool> {
    let binary = binary("router")?.canonicalize()?;
    let name = binary.file_name().context("the router is a file")?;
    let folder = binary.parent().context("a file is in a folder")?;
    // By its name, as it is typed where it is installed.
    let tool = Tool::new(&name.to_string_lossy())
        .environment("PATH", &folder.to_string_lossy())
        .folder(home);
    let variables = registry_environment(registry);
    let tool = variables
        .iter()
        .fold(tool, |tool, (name, value)| tool.environment(name, value));
    Ok(tool.args(arguments))
}

fn write_edge(
    home: &Path,
    ca: &Ca,
    http: SocketAddr,
    https: SocketAddr,
    registry: SocketAddr,
) -> Result<()> {
    let certs = home.join("certs");
    std::fs::create_dir(&certs)?;
    folder::write(&home.join("ca.pem"), ca.pem())?;
    for tenant in [PLAIN, ENCRYPTED] {
        ca.issue(&[&tenant.names()], KeyKind::Ecdsa)?
            .write(&certs, tenant.name)?;
    }
    ca.issue(&[&registry.ip().to_string()], KeyKind::Ecdsa)?
        .write(home, "registry")?;
    let https_port = https.port();
    folder::write(
        &home.join("router.yaml"),
        format!(
            "http:\n  addresses: [\"{http}\"]\n  https_port: {https_port}\n\
             https:\n  addresses: [\"{https}\"]\n\
             certificates:\n  directory: certs\n\
             routes: []\n\
             registry:\n\
             \x20 state: state\n\
             \x20 api:\n\
             \x20   addresses: [\"{registry}\"]\n\
             \x20   certificate: registry.crt\n\
             \x20   key: registry.key\n\
             \x20   operators: operators.tokens\n\
             admin: \"{ADMIN}\"\n\
             timeouts:\n  drain: 3s\n"
        ),
    )
}

/// What one would otherwise type with every command.
fn write_curlrc(home: &Path, ca: &Ca, http: SocketAddr, https: SocketAddr) -> Result<()> {
    let pem = home.join("ca.pem");
    folder::write(&pem, ca.pem())?;
    let mut text = format!(
        "silent\nshow-error\nmax-time = 20\ncacert = \"{}\"\n",
        pem.display()
    );
    for host in [PLAIN.host, ENCRYPTED.host, NEW_HOST] {
        for address in [http, https] {
            text.push_str(&format!(
                "resolve = \"{host}:{}:{}\"\n",
                address.port(),
                address.ip()
            ));
        }
    }
    folder::write(&home.join(".curlrc"), text)
}
