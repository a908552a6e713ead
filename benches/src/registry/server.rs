//! A router, as it is built for release, that follows a registry.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use config::router::EtcdStore;

use crate::load::Target;
use crate::measure;
use crate::process::Process;
use crate::site::Site;

/// How long a router may take until its routes are in force.
const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(20);
/// After which superseded snapshots are gone (looked for every second) and the allocator has given
/// back what it was going to.
const SETTLE: Duration = Duration::from_millis(2_500);

/// Where the router's routes are.
pub(crate) enum Place {
    Etcd(EtcdStore),
    /// A folder with an embedded store that nobody else has open.
    Embedded(PathBuf),
}

/// A running router; ended when dropped.
pub(crate) struct Server {
    process: Process,
    admin: SocketAddr,
    pub(crate) target: Target,
    pub(crate) ready: Duration,
}

impl Server {
    /// Starts a router on a core and waits until so many routes are in force.
    pub(crate) fn start(
        binary: &Path,
        name: &str,
        place: &Place,
        routes: u32,
        core: usize,
        site: &mut Site,
    ) -> Result<Self> {
        let home = site.home(name)?;
        let certificates = home.join("certificates");
        fs::create_dir_all(&certificates).context("certificate folder")?;
        fs::copy(&site.certificate, certificates.join("bench.crt")).context("certificate")?;
        let key = certificates.join("bench.key");
        fs::copy(&site.key, &key).context("key")?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).context("key")?;
        let (http, https, admin) = (site.address()?, site.address()?, site.address()?);
        let file = home.join("router.yaml");
        let settings = format!(
            "\
http: {{addresses: [\"{http}\"], redirect: 308}}
https: {{addresses: [\"{https}\"]}}
certificates: {{directory: certificates, default: bench}}
routes: []
admin: \"{admin}\"
workers: 1
access_log: false
timeouts: {{client_idle: 600s}}
limits: {{idle_per_endpoint: 256}}
{}",
            registry(place, &home)
        );
        fs::write(&file, settings).context("router.yaml")?;
        let mut command = Command::new(binary);
        command.arg("run").arg("--config").arg(&file);
        let begun = Instant::now();
        let mut process = Process::start(name, &command, core, &home)?;
        process.wait_for(https)?;
        let mut server = Self {
            process,
            admin,
            target: Target {
                http,
                https,
                authority: site.authority.clone(),
            },
            ready: Duration::ZERO,
        };
        server.wait("router_registry_routes", u64::from(routes))?;
        server.ready = begun.elapsed();
        Ok(server)
    }

    /// Waits until a metric has a value.
    pub(crate) fn wait(&mut self, metric: &str, value: u64) -> Result<()> {
        let begun = Instant::now();
        loop {
            let now = self.metric(metric)?;
            if now == value {
                return Ok(());
            }
            self.process.check()?;
            if begun.elapsed() > PATIENCE {
                bail!("{metric} is {now} and not {value} after {PATIENCE:?}");
            }
            thread::sleep(POLL);
        }
    }

    /// The value of a metric without labels.
    pub(crate) fn metric(&self, name: &str) -> Result<u64> {
        let mut stream = TcpStream::connect(self.admin).context("admin page")?;
        let timeout = Some(Duration::from_secs(10));
        stream.set_read_timeout(timeout).context("admin page")?;
        let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request.as_bytes()).context("admin page")?;
        let mut page = String::new();
        stream.read_to_string(&mut page).context("admin page")?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let value = line.with_context(|| format!("no metric {name}"))?;
        value
            .trim()
            .parse()
            .with_context(|| format!("{name} {value}"))
    }

    /// CPU time that it has used so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        measure::cpu(&self.process.pids()?)
    }

    /// Its proportional set size once it has come to rest, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        thread::sleep(SETTLE);
        measure::memory(&self.process.pids()?)
    }
}

fn registry(place: &Place, home: &Path) -> String {
    match place {
        Place::Embedded(state) => {
            format!(
                "registry: {{store: embedded, state: {}}}\n",
                state.display()
            )
        }
        Place::Etcd(store) => format!(
            "registry:\n  state: {}\n  store:\n    etcd:\n      endpoints: {:?}\n      ca: {}\n      \
             certificate: {}\n      key: {}\n      prefix: {}\n",
            home.join("state").display(),
            store.endpoints,
            store.ca.display(),
            store.certificate.display(),
            store.key.display(),
            store.prefix
        ),
    }
}
