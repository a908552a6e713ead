//! The hosts of the demo and what runs on them.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use harness::address::Claim;
use harness::ca::{Ca, KeyKind, Leaf};
use harness::client::TlsClient;
use harness::edge::{Upstream, route_file};
use harness::folder::{self, Folder};
use harness::namespace::{Host, Namespace, Network};
use harness::nginx::{HTTP_PORT, HTTPS_PORT, Ingress, Nginx};
use harness::router::Router;
use harness::tool::Tool;
use harness::websocket::EchoServer;

use crate::report::Report;

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

/// A customer with two workers.
#[derive(Clone, Copy)]
pub(crate) struct Tenant {
    pub(crate) name: &'static str,
    pub(crate) host: &'static str,
    pub(crate) workers: [&'static str; 2],
    pub(crate) tls: bool,
}

/// Everything that runs; order of the fields is order of the end.
pub(crate) struct Stage {
    router: Router,
    pub(crate) workers: Vec<Worker>,
    pub(crate) tls: TlsClient,
    pub(crate) http: SocketAddr,
    pub(crate) https: SocketAddr,
    client: Place,
    _edge: Place,
    _network: Option<Network>,
    folder: Folder,
}

/// A worker of a tenant, with its ingress.
pub(crate) struct Worker {
    pub(crate) tenant: &'static str,
    pub(crate) name: &'static str,
    pub(crate) nginx: Nginx,
    address: IpAddr,
    _echo: EchoServer,
    _place: Place,
}

/// A host: a network namespace, or a loopback address without root.
enum Place {
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

    fn address(&self) -> IpAddr {
        match self {
            Self::Host(host) => host.v4,
            Self::Loopback(claim) => claim.port(0).ip(),
        }
    }

    fn namespace(&self) -> Option<&Namespace> {
        match self {
            Self::Host(host) => Some(&host.namespace),
            Self::Loopback(_) => None,
        }
    }
}

impl Stage {
    /// Makes the hosts and starts everything; `inodes` are the namespaces that must be gone later.
    pub(crate) fn set(loopback: bool, inodes: &mut Vec<u64>, report: &Report) -> Result<Self> {
        report.heading("The stage");
        let folder = Folder::new("demo")?;
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
        let mut workers = Vec::new();
        for tenant in [PLAIN, ENCRYPTED] {
            let leaf = ca.issue(
                &[&format!("ingress.{}.internal", tenant.name)],
                KeyKind::Ecdsa,
            )?;
            for name in tenant.workers {
                let place = Place::new(&mut network, name, inodes)?;
                workers.push(Worker::start(tenant, name, place, &leaf, &folder)?);
            }
            let of_tenant = workers.iter().filter(|it| it.tenant == tenant.name);
            let seen: Vec<String> = of_tenant
                .map(|it| format!("{} {}", it.name, it.address))
                .collect();
            report.line(&format!(
                "tenant {:<7} NGINX on {} ({}): {}",
                tenant.name,
                if tenant.tls { HTTPS_PORT } else { HTTP_PORT },
                if tenant.tls { "TLS" } else { "plain" },
                seen.join(", ")
            ));
        }

        let (http_port, https_port) = if loopback { (8080, 8443) } else { (80, 443) };
        let http = SocketAddr::new(edge.address(), http_port);
        let https = SocketAddr::new(edge.address(), https_port);
        write_edge(&folder, &ca, &workers, http, https)?;
        write_curlrc(&folder, &ca, http, https)?;
        let router = Router::start(
            &folder.path().join("router.yaml"),
            folder.path(),
            edge.namespace(),
            &[http, https],
            ADMIN.parse().expect("a constant that is an address"),
        )?;
        report.line(&format!("the router    on {http} and {https}"));
        report.line("curl is told by a .curlrc where these names are and whom to trust");
        let tls = TlsClient::new(&ca, &["http/1.1"]);
        Ok(Self {
            router,
            workers,
            tls,
            http,
            https,
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

    /// Where clients run.
    pub(crate) fn namespace(&self) -> Option<&Namespace> {
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

    /// Writes the route file of [`NEW_HOST`].
    pub(crate) fn add_route(&self) -> Result<PathBuf> {
        let path = self.folder.path().join("routes.d/globex-new.yaml");
        folder::write(&path, routes(ENCRYPTED, NEW_HOST, &self.workers))?;
        Ok(path)
    }

    /// What the router logged.
    pub(crate) fn router_log(&self) -> String {
        self.router.log()
    }
}

/// The admin page; loopback, so it is the edge's own.
const ADMIN: &str = "127.0.0.1:9900";

impl Worker {
    fn start(
        tenant: Tenant,
        name: &'static str,
        place: Place,
        leaf: &Leaf,
        folder: &Folder,
    ) -> Result<Self> {
        let address = place.address();
        let at = |port| SocketAddr::new(address, port);
        let echo = EchoServer::start(place.namespace(), at(9000))?;
        let nginx = Ingress {
            namespace: place.namespace(),
            https: Some((vec![at(HTTPS_PORT)], leaf)),
            websocket: Some(echo.address()),
            ..Ingress::plain(tenant.name, name, at(HTTP_PORT))
        }
        .start(folder.path())
        .with_context(|| format!("worker {name} of {}", tenant.name))?;
        Ok(Self {
            tenant: tenant.name,
            name,
            nginx,
            address,
            _echo: echo,
            _place: place,
        })
    }
}

fn write_edge(
    folder: &Folder,
    ca: &Ca,
    workers: &[Worker],
    http: SocketAddr,
    https: SocketAddr,
) -> Result<()> {
    let home = folder.path();
    for name in ["certs", "routes.d"] {
        std::fs::create_dir_all(home.join(name))?;
    }
    folder::write(&home.join("ca.pem"), ca.pem())?;
    for tenant in [PLAIN, ENCRYPTED] {
        let wildcard = format!("*.{}.example.org", tenant.name);
        ca.issue(&[&wildcard], KeyKind::Ecdsa)?
            .write(&home.join("certs"), tenant.name)?;
        let file = home.join(format!("routes.d/{}.yaml", tenant.name));
        folder::write(&file, routes(tenant, tenant.host, workers))?;
    }
    let https_port = https.port();
    folder::write(
        &home.join("router.yaml"),
        format!(
            "http:\n  addresses: [\"{http}\"]\n  https_port: {https_port}\n\
             https:\n  addresses: [\"{https}\"]\n\
             certificates:\n  directory: certs\n\
             routes: [routes.d]\n\
             admin: \"{ADMIN}\"\n\
             timeouts:\n  drain: 3s\n"
        ),
    )
}

fn routes(tenant: Tenant, host: &str, workers: &[Worker]) -> String {
    let port = if tenant.tls { HTTPS_PORT } else { HTTP_PORT };
    let endpoints: Vec<SocketAddr> = workers
        .iter()
        .filter(|it| it.tenant == tenant.name)
        .map(|it| SocketAddr::new(it.address, port))
        .collect();
    let tls = tenant.tls.then(|| {
        format!(
            "{{server_name: ingress.{}.internal, ca: ../ca.pem}}",
            tenant.name
        )
    });
    let upstream = Upstream {
        tls,
        ..Upstream::plain("workers", &endpoints)
    };
    route_file(tenant.name, &[upstream], &[(host, "workers")])
}

/// What one would otherwise type with every command.
fn write_curlrc(folder: &Folder, ca: &Ca, http: SocketAddr, https: SocketAddr) -> Result<()> {
    let pem = folder.path().join("ca.pem");
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
    folder::write(&folder.path().join(".curlrc"), text)
}
