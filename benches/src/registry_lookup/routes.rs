//! The routes that are measured, and a control plane that has them in force.
//!
//! Clusters of the published shape: each has a name for its API server and a suffix for its apps,
//! which lead to the same three workers, and each is a tenant of its own.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, anyhow};
use config::route::{HostMatch, UpstreamProtocol};
use hashbrown::HashMap;
use router::control::{Control, RegistryUpdate};
use router::observe::metrics::Registry;
use router::registry::route::{RegistryEndpoint, RegistryRoute, RouteChange};
use router::route::{Host, RouteTarget};
use tempfile::TempDir;

/// Changes per batch while a table is filled.
const BATCH: u32 = 1_000;

/// Endpoints of a cluster.
const WORKERS: u32 = 3;

/// A plain hash map, to show what the memory of the machine does to any table.
pub(crate) type PlainMap = HashMap<Box<str>, Arc<RouteTarget>, foldhash::fast::RandomState>;

/// A control plane with so many routes.
pub(crate) struct Tables {
    pub(crate) size: u32,
    pub(crate) control: Control,
    pub(crate) plain: PlainMap,
    pub(crate) random: Random,
    _folder: TempDir,
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) struct Random(u64);

impl Tables {
    pub(crate) fn fill(size: u32) -> Result<Self> {
        let (control, folder) = empty_control()?;
        announce(&control, size)?;
        let snapshot = control.published().load_full();
        let mut plain = PlainMap::default();
        for at in 0..size {
            let name = name(at);
            let host = Host::parse(&name).map_err(|error| anyhow!("{name}: {error}"))?;
            let target = snapshot
                .routes
                .lookup(&host)
                .context("a route is missing")?;
            plain.insert(name.into(), Arc::clone(target));
        }
        Ok(Self {
            size,
            control,
            plain,
            random: Random(u64::from(size)),
            _folder: folder,
        })
    }

    /// One of the routes, at random.
    pub(crate) fn any(&mut self) -> u32 {
        // The remainder favours low numbers by less than a millionth.
        (self.random.next() % u64::from(self.size)) as u32
    }
}

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// A control plane without any route.
pub(crate) fn empty_control() -> Result<(Control, TempDir)> {
    let folder = tempfile::tempdir().context("temporary folder")?;
    for name in ["certs", "routes.d"] {
        fs::create_dir(folder.path().join(name)).context("temporary folder")?;
    }
    let file = folder.path().join("router.yaml");
    let text = "certificates:\n  directory: certs\nroutes: [routes.d]\n";
    fs::write(&file, text).context("router.yaml")?;
    let metrics = Arc::new(Registry::new(SystemTime::now()));
    let control = Control::start(&file, metrics).map_err(|errors| anyhow!("{errors}"))?;
    Ok((control, folder))
}

/// Announces so many routes, as a router comes to know of them that follows the store.
pub(crate) fn announce(control: &Control, size: u32) -> Result<()> {
    let mut at = 0;
    while at < size {
        let end = size.min(at + BATCH);
        let changes = (at..end)
            .map(|at| route(at, 0).map(|route| RouteChange::Set(Arc::new(route))))
            .collect::<Result<_>>()?;
        control.apply_registry(RegistryUpdate::Changes(changes));
        at = end;
    }
    Ok(())
}

/// Route number `at`; with another `version` its last endpoint is elsewhere.
pub(crate) fn route(at: u32, version: u16) -> Result<RegistryRoute> {
    let cluster = at / 2;
    let endpoint = |worker: u32| RegistryEndpoint {
        address: SocketAddr::new(
            Ipv4Addr::from_bits(0x0a00_0000 + cluster * WORKERS + worker).into(),
            31_390 + if worker + 1 == WORKERS { version } else { 0 },
        ),
        tls: None,
    };
    Ok(RegistryRoute {
        host: rule(at)?,
        tenant: format!("tenant-{cluster}").into(),
        shared: false,
        protocol: UpstreamProtocol::Http1,
        endpoints: (0..WORKERS).map(endpoint).collect(),
        check: None,
    })
}

/// Rule number `at`: a suffix if it is odd.
pub(crate) fn rule(at: u32) -> Result<HostMatch> {
    let cluster = at / 2;
    let text = match at % 2 {
        0 => format!("api-{cluster}.k8s.example.org"),
        _ => format!("*-apps-{cluster}.k8s.example.org"),
    };
    HostMatch::parse(&text).map_err(|error| anyhow!("{error}"))
}

/// A host that rule number `at` takes.
pub(crate) fn name(at: u32) -> String {
    let cluster = at / 2;
    match at % 2 {
        0 => format!("api-{cluster}.k8s.example.org"),
        _ => format!("shop-apps-{cluster}.k8s.example.org"),
    }
}
