//! Guards in force: the policy of every node, put into its namespace by the product's own code.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use config::guard::{GuardConfig, PeerFile};
use nodeguard::bpf::{self, Plane as Bpf, State, Tables};
use nodeguard::compile::compile;
use nodeguard::devices::{Devices, Nature};
use nodeguard::load::Loaded;
use nodeguard::nft::{Nft, Ownership};
use nodeguard::policy::Policy;
use nodeguard::ruleset::{Family, Ruleset};
use nodeguard::verdict::Reason;

use super::guard::{Counted, Counter, Mode, Plane};
use super::place::Place;
use super::topology::Topology;
use crate::folder::Folder;

/// The policy of a node, read from files such as a provisioner writes.
///
/// # Errors
/// If the product refuses them.
pub fn policy(node: Place, pod_ports: &[u16]) -> Result<Policy> {
    let role = node.role().context("a guarded node")?;
    let (cluster, nodes) = if node == Place::Solo {
        ("solo", &[Place::Solo][..])
    } else {
        ("acme", &Place::ACME[..])
    };
    let config = format!(
        "cluster: {cluster}\nnode: {node}\nrole: {role}\naddresses: [{}, \"{}\"]\n\
         routers:\n  - {{name: edge2, addresses: [10.77.8.0/28, \"fd77::8:0/124\"]}}\n\
         pods: {{ranges: [10.244.0.0/16, \"fd44::/48\"], ports: {pod_ports:?}}}\n",
        node.v4(),
        node.v6()
    );
    let mut peers = format!("cluster: {cluster}\nnodes:\n");
    for it in nodes {
        let role = it.role().context("nodes have roles")?;
        peers += &format!(
            "  - {{name: {it}, role: {role}, addresses: [{}, \"{}\"]}}\n",
            it.v4(),
            it.v6()
        );
    }
    let edge = Place::Edge;
    peers += &format!(
        "routers:\n  - {{name: edge, addresses: [{}, \"{}\"]}}\n",
        edge.v4(),
        edge.v6()
    );
    let file = PathBuf::from("cluster.yaml");
    let loaded = Loaded {
        config: GuardConfig::parse(&config, Path::new("nodeguard.yaml"))
            .map_err(|errors| anyhow!("{errors}\n{config}"))?,
        peers: vec![(
            file.clone(),
            PeerFile::parse(&peers, &file).map_err(|errors| anyhow!("{errors}\n{peers}"))?,
        )],
    };
    Ok(loaded.policy())
}

/// The guards of all nodes.
pub struct Guards {
    guards: BTreeMap<Place, Guard>,
    /// Pins of the BPF planes are mounted below it.
    _folder: Folder,
}

#[derive(Default)]
struct Guard {
    nft: Option<(Nft, Ruleset)>,
    bpf: Option<(Bpf, Tables)>,
    pins: PathBuf,
}

impl Guards {
    /// Puts them in force.
    ///
    /// # Errors
    /// If a plane cannot be set up as the mode demands.
    pub fn install(topology: &Topology, mode: Mode, pod_ports: &[u16]) -> Result<Self> {
        let folder = Folder::new("guards")?;
        let mut guards = Self {
            guards: BTreeMap::new(),
            _folder: folder,
        };
        for node in Place::GUARDED {
            let policy = policy(node, pod_ports)?;
            let guard = guards.guards.entry(node).or_default();
            guard.pins = guards._folder.path().join(node.name());
            topology
                .at(node)
                .run(|| guard.install(mode, &policy))
                .with_context(|| format!("the guard of {node}"))?;
        }
        Ok(guards)
    }

    /// The rulesets in force.
    pub fn rulesets(&self) -> impl Iterator<Item = &Ruleset> {
        let nft = self.guards.values().filter_map(|guard| guard.nft.as_ref());
        nft.map(|(_, ruleset)| ruleset)
    }

    /// Puts other rulesets into force, for what is `None` the right one.
    ///
    /// # Errors
    /// If the kernel does not take one.
    pub fn mutate(&mut self, mutant: &dyn Fn(&Ruleset) -> Option<Ruleset>) -> Result<()> {
        for guard in self.guards.values_mut() {
            if let Some((nft, ruleset)) = &mut guard.nft {
                nft.replace(mutant(ruleset).as_ref().unwrap_or(ruleset))?;
            }
        }
        Ok(())
    }

    /// The tables of BPF in force.
    pub fn tables(&self) -> impl Iterator<Item = &Tables> {
        let bpf = self.guards.values().filter_map(|guard| guard.bpf.as_ref());
        bpf.map(|(_, tables)| tables)
    }

    /// Puts other tables into force.
    ///
    /// # Errors
    /// If a plane does not take one.
    pub fn mutate_tables(&mut self, mutant: &dyn Fn(&Tables) -> Tables) -> Result<()> {
        for guard in self.guards.values_mut() {
            if let Some((bpf, tables)) = &mut guard.bpf {
                let mutant = mutant(tables);
                bpf.loosen(&mutant)?;
                bpf.tighten(&mutant)?;
            }
        }
        Ok(())
    }

    /// What all counters read.
    ///
    /// # Errors
    /// If one cannot be read.
    pub fn counters(&mut self) -> Result<Counted> {
        let mut counted = Counted::new();
        for (node, guard) in &mut self.guards {
            if let Some((nft, ruleset)) = &mut guard.nft {
                count_nft(*node, nft, ruleset, &mut counted)?;
            }
            if let Some((bpf, _)) = &guard.bpf {
                count_bpf(*node, bpf, &mut counted)?;
            }
        }
        Ok(counted)
    }
}

impl Guard {
    fn install(&mut self, mode: Mode, policy: &Policy) -> Result<()> {
        let devices = Devices::list()?;
        let has_bpf = matches!(mode, Mode::Tcx | Mode::Xdp | Mode::Both);
        let tables = Tables::of(policy, &devices.addresses);
        if has_bpf {
            let mut bpf = Bpf::load(&self.pins)?;
            bpf.loosen(&tables)?;
            self.bpf = Some((bpf, tables));
        }
        if matches!(mode, Mode::Nft | Mode::Both) {
            let ruleset = compile(policy);
            // Nobody is here to protect it from; it goes with the namespace.
            let mut nft = Nft::open_with(Ownership::Never)?;
            nft.replace(&ruleset)?;
            self.nft = Some((nft, ruleset));
        }
        if let Some((bpf, tables)) = &mut self.bpf {
            bpf.tighten(tables)?;
            attach(bpf, mode, &devices)?;
        }
        Ok(())
    }
}

fn attach(bpf: &mut Bpf, mode: Mode, devices: &Devices) -> Result<()> {
    // In the driver where packets come in from the switch; VXLAN has no driver.
    let at = |name: &str| match mode {
        Mode::Xdp if name == "eth0" => bpf::Mode::Xdp,
        _ => bpf::Mode::Tcx,
    };
    let wanted: Vec<bpf::Device> = devices
        .links
        .iter()
        .filter(|(_, link)| link.nature == Nature::Ethernet)
        .map(|(index, link)| bpf::Device {
            index: *index,
            name: link.name.clone(),
            mode: at(&link.name),
        })
        .collect();
    for attachment in bpf.attach(&wanted)? {
        match attachment.state {
            State::Attached(mode) if mode == at(&attachment.name) => {}
            other => bail!("{}: {other:?}", attachment.name),
        }
    }
    Ok(())
}

fn count_nft(node: Place, nft: &mut Nft, ruleset: &Ruleset, counted: &mut Counted) -> Result<()> {
    let counts = nft.counts(ruleset)?;
    for reason in Reason::ALL {
        let mut add = |of, count: &nodeguard::nft::Count| {
            let counter = Counter {
                node,
                plane: Plane::Nft,
                reason,
                of,
            };
            counted.insert(counter, count.packets);
        };
        if let Some(count) = counts.named.get(reason.as_str()) {
            add(None, count);
        }
        for (key, count) in counts.sets.get(reason.as_str()).into_iter().flatten() {
            add(Some((key.family, key.protocol, key.port)), count);
        }
    }
    Ok(())
}

fn count_bpf(node: Place, bpf: &Bpf, counted: &mut Counted) -> Result<()> {
    use ebpf_common::table;
    for drops in bpf.counters()?.drops {
        let family = match drops.family {
            table::Family::V4 => Family::V4,
            table::Family::V6 => Family::V6,
        };
        let reason = match drops.reason {
            table::Reason::Stranger => Reason::Stranger,
            table::Reason::Pod => Reason::Pod,
            table::Reason::Spoofed => Reason::Spoofed,
            table::Reason::Loopback => Reason::Loopback,
        };
        let counter = Counter {
            node,
            plane: Plane::Bpf,
            reason,
            of: drops.port.map(|(protocol, port)| (family, protocol, port)),
        };
        *counted.entry(counter).or_default() += drops.packets;
    }
    Ok(())
}

impl std::ops::Drop for Guards {
    fn drop(&mut self) {
        for guard in self.guards.values_mut() {
            if let Some((nft, _)) = &mut guard.nft {
                // A failure leaves it to the namespace, which goes too.
                let _ = nft.remove();
            }
            drop(guard.bpf.take());
            // What fails here is found by whoever looks for mounts and folders that are left.
            let _ = bpf::teardown(&guard.pins);
        }
    }
}
