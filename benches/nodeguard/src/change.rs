//! How long a change of the policy takes until the kernel enforces it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use config::net::IpRange;
use config::roles::Role;
use harness::folder::Folder;
use harness::guard::Guard;
use harness::interrupt;
use harness::namespace::Namespace;
use nix::net::if_::if_nametoindex;
use nodeguard::bpf::{self, Device, Mode, Plane, Tables};
use nodeguard::compile::compile;
use nodeguard::devices::Devices;
use nodeguard::nft::{Done, Nft};
use nodeguard::policy::{Node, Policy};
use nodeguard::ruleset::Ruleset;
use serde::{Deserialize, Serialize};

use crate::cell::{Family, Group};
use crate::contender::{self, feed, firewall, ipset, ipset_lines, ipset_sets, list, peers};
use crate::frames::{NODE4, NODE6};
use crate::measure::cpu;
use crate::window::claim;

/// Other nodes before the change.
pub(crate) const SIZES: [u16; 3] = [10, 1_000, 10_000];
/// The first of those who are there after everybody was replaced.
const OTHERS: u16 = 20_001;
/// Whose ports are isolated.
const GROUP: Group = Group::Worker8;

/// By whom a change is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    /// nodeguard's own code, from a policy to nftables.
    Nftables,
    /// The same, to nftables and the maps of BPF.
    BothPlanes,
    /// The daemon, from the peer file: reading, safeguards, both planes, the copy for the next boot.
    Daemon,
    /// `nft -f`.
    NftFile,
    /// `ipset restore`.
    IpsetRestore,
}

/// What is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Operation {
    AddOne,
    ReplaceAll,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Change {
    pub(crate) method: Method,
    pub(crate) operation: Operation,
    pub(crate) size: u16,
    pub(crate) round: u32,
    pub(crate) wall_ns: u64,
}

impl Method {
    pub(crate) const ALL: [Self; 5] = [
        Self::Nftables,
        Self::BothPlanes,
        Self::Daemon,
        Self::NftFile,
        Self::IpsetRestore,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Nftables => "nodeguard's code, to nftables",
            Self::BothPlanes => "nodeguard's code, to nftables and BPF",
            Self::Daemon => "nodeguard's daemon, from the peer file",
            Self::NftFile => "nft -f",
            Self::IpsetRestore => "ipset restore",
        }
    }
}

impl Operation {
    pub(crate) const ALL: [Self; 2] = [Self::AddOne, Self::ReplaceAll];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::AddOne => "one peer more",
            Self::ReplaceAll => "all peers replaced",
        }
    }

    /// First peer and number of peers afterwards.
    fn after(self, size: u16) -> (u16, u16) {
        match self {
            Self::AddOne => (1, size + 1),
            Self::ReplaceAll => (OTHERS, size),
        }
    }
}

/// Measures all of it, on core `core`.
pub(crate) fn measure(rounds: u32, core: usize, core_name: &'static str) -> Result<Vec<Change>> {
    let mut changes = Vec::new();
    for size in SIZES {
        let mut subjects = Method::ALL
            .into_iter()
            .map(|method| Subject::new(method, size, core_name))
            .collect::<Result<Vec<_>>>()?;
        let count = u32::try_from(subjects.len()).expect("a handful");
        for round in 0..rounds {
            for operation in Operation::ALL {
                for turn in 0..count {
                    interrupt::check()?;
                    let subject = &mut subjects[((turn + round) % count) as usize];
                    let wall = subject
                        .change(operation, core)
                        .with_context(|| format!("{}, {size}", subject.method.name()))?;
                    changes.push(Change {
                        method: subject.method,
                        operation,
                        size,
                        round,
                        wall_ns: u64::try_from(wall.as_nanos())?,
                    });
                }
            }
        }
        for subject in subjects {
            subject.end()?;
        }
    }
    Ok(changes)
}

/// One method at one size, with the peers from 1 on in force.
struct Subject {
    method: Method,
    size: u16,
    namespace: Namespace,
    way: Way,
}

enum Way {
    Code(Box<Code>),
    Daemon(Box<Guard>),
    Program(Files),
}

struct Code {
    nft: Nft,
    plane: Option<(Plane, PathBuf)>,
    own: Devices,
    policy: Policy,
    ruleset: Ruleset,
    _folder: Folder,
}

/// Files for a program that takes them, and the folder they are in.
struct Files {
    program: &'static str,
    arguments: &'static [&'static str],
    folder: Folder,
}

impl Subject {
    fn new(method: Method, size: u16, core: &'static str) -> Result<Self> {
        let namespace = Namespace::new()?;
        let device = |arguments: &[&str]| {
            let ip = harness::tool::Tool::new("ip").args(arguments);
            ip.namespace(Some(&namespace)).succeed().map(drop)
        };
        device(&["link", "add", "eth0", "type", "veth", "peer", "name", "far"])?;
        device(&["address", "add", &format!("{NODE4}/24"), "dev", "eth0"])?;
        device(&[
            "address",
            "add",
            &format!("{NODE6}/64"),
            "dev",
            "eth0",
            "nodad",
        ])?;
        device(&["link", "set", "eth0", "up"])?;
        device(&["link", "set", "far", "up"])?;
        let way = match method {
            Method::Nftables => Way::Code(Box::new(Code::new(&namespace, size, false)?)),
            Method::BothPlanes => Way::Code(Box::new(Code::new(&namespace, size, true)?)),
            Method::Daemon => {
                let mut guard = contender::guard(GROUP, &namespace, "tcx", core)?;
                guard.files.peers.truncate(1);
                guard.files.peers.extend(peers(1, size));
                guard.write()?;
                guard.start()?;
                Way::Daemon(Box::new(guard))
            }
            Method::NftFile => {
                feed(&namespace, "nft", &["-f", "-"], &firewall(GROUP, size))?;
                Way::Program(Files::nft(size)?)
            }
            Method::IpsetRestore => {
                feed(&namespace, "ipset", &["restore"], &ipset(size))?;
                Way::Program(Files::ipset(size)?)
            }
        };
        Ok(Self {
            method,
            size,
            namespace,
            way,
        })
    }

    /// Makes the change, and takes it back; how long the change took.
    fn change(&mut self, operation: Operation, core: usize) -> Result<Duration> {
        let (size, namespace) = (self.size, &self.namespace);
        let (first, count) = operation.after(size);
        match &mut self.way {
            Way::Code(code) => namespace.run(|| {
                claim(core)?;
                let took = code.follow(policy(first, count))?;
                code.follow(policy(1, size))?;
                Ok(took)
            }),
            Way::Daemon(guard) => {
                let took = reload(guard, first, count)?;
                reload(guard, 1, size)?;
                Ok(took)
            }
            Way::Program(files) => namespace.run(|| {
                claim(core)?;
                let (there, back) = match operation {
                    Operation::AddOne => ("add", "delete"),
                    Operation::ReplaceAll => ("others", "back"),
                };
                let took = files.run(there)?;
                files.run(back)?;
                Ok(took)
            }),
        }
    }

    fn end(self) -> Result<()> {
        match self.way {
            Way::Code(mut code) => match code.plane.take() {
                Some((plane, pins)) => {
                    drop(plane);
                    Ok(self.namespace.run(|| bpf::teardown(&pins))?)
                }
                None => Ok(()),
            },
            Way::Daemon(mut guard) => guard.teardown(),
            Way::Program(_) => Ok(()),
        }
    }
}

impl Code {
    fn new(namespace: &Namespace, size: u16, with_bpf: bool) -> Result<Self> {
        let folder = Folder::new("change")?;
        let policy = policy(1, size);
        let ruleset = compile(&policy);
        let pins = folder.path().join("bpf");
        namespace.run(|| {
            let mut nft = Nft::open()?;
            nft.replace(&ruleset)?;
            let own = Devices::list()?;
            let mut plane = None;
            if with_bpf {
                let mut loaded = Plane::load(&pins)?;
                loaded.tighten(&Tables::of(&policy, &own.addresses))?;
                loaded.attach(&[Device {
                    index: if_nametoindex("eth0")?,
                    name: "eth0".to_owned(),
                    mode: Mode::Tcx,
                }])?;
                plane = Some((loaded, pins));
            }
            Ok(Self {
                nft,
                plane,
                own,
                policy,
                ruleset,
                _folder: folder,
            })
        })
    }

    /// As the daemon does it.
    fn follow(&mut self, policy: Policy) -> Result<Duration> {
        let began = Instant::now();
        let ruleset = compile(&policy);
        let done = match &mut self.plane {
            None => self.nft.update(&self.ruleset, &ruleset)?,
            Some((plane, _)) => {
                let tables = Tables::of(&policy, &self.own.addresses);
                plane.loosen(&tables)?;
                let done = self.nft.update(&self.ruleset, &ruleset)?;
                plane.tighten(&tables)?;
                done
            }
        };
        let took = began.elapsed();
        // Many elements at once become a new table; none at all would be no change.
        if done == Done::Nothing {
            bail!("the change came down to nothing");
        }
        self.policy = policy;
        self.ruleset = ruleset;
        Ok(took)
    }
}

impl Files {
    fn nft(size: u16) -> Result<Self> {
        let elements = |verb: &str, first, count| {
            let lines = [("peers4", Family::V4), ("peers6", Family::V6)];
            let lines = lines.map(|(set, family)| {
                let list = list(family, first, count);
                format!("{verb} element inet firewall {set} {{ {list} }}\n")
            });
            lines.concat()
        };
        let replacement = |first| {
            let flush = "flush set inet firewall peers4\nflush set inet firewall peers6\n";
            flush.to_owned() + &elements("add", first, size)
        };
        Self::write(
            "nft",
            &["-f"],
            [
                ("add", elements("add", size + 1, 1)),
                ("delete", elements("delete", size + 1, 1)),
                ("others", replacement(OTHERS)),
                ("back", replacement(1)),
            ],
        )
    }

    fn ipset(size: u16) -> Result<Self> {
        let one = ipset_lines("", size + 1, 1);
        let replacement = |first| {
            let mut text = ipset_sets("new") + &ipset_lines("new", first, size);
            for set in ["peers4", "peers6"] {
                text.push_str(&format!("swap {set} {set}new\ndestroy {set}new\n"));
            }
            text
        };
        Self::write(
            "ipset",
            &["restore", "-file"],
            [
                ("add", one.clone()),
                ("delete", one.replace("add ", "del ")),
                ("others", replacement(OTHERS)),
                ("back", replacement(1)),
            ],
        )
    }

    fn write(
        program: &'static str,
        arguments: &'static [&'static str],
        files: [(&str, String); 4],
    ) -> Result<Self> {
        let folder = Folder::new("change")?;
        for (name, text) in files {
            harness::folder::write(&folder.path().join(name), text)?;
        }
        Ok(Self {
            program,
            arguments,
            folder,
        })
    }

    /// Runs the program in the namespace of this thread and on its core, to its end.
    fn run(&self, name: &str) -> Result<Duration> {
        let mut command = Command::new(self.program);
        command
            .args(self.arguments)
            .arg(self.folder.path().join(name));
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let began = Instant::now();
        let status = command.status().context(self.program)?;
        let took = began.elapsed();
        if !status.success() {
            bail!("{} {name}: {status}", self.program);
        }
        Ok(took)
    }
}

/// From the file in its place to the answer that it is in force.
fn reload(guard: &mut Guard, first: u16, count: u16) -> Result<Duration> {
    guard.files.peers.truncate(1);
    guard.files.peers.extend(peers(first, count));
    guard.write_peers()?;
    let began = Instant::now();
    let answer = guard.reload(true)?;
    let took = began.elapsed();
    answer.map_err(|reasons| anyhow!("refused: {}", reasons.join("; ")))?;
    settle(guard.process().pid())?;
    Ok(took)
}

/// Waits until the daemon has also read the files on its own account, as it has been told of the
/// change by the kernel as well.
fn settle(pid: u32) -> Result<()> {
    let mut last = cpu(&[pid])?;
    let mut since = Instant::now();
    while since.elapsed() < Duration::from_millis(400) {
        interrupt::check()?;
        thread::sleep(Duration::from_millis(20));
        let now = cpu(&[pid])?;
        // What it does each second is less than this.
        if now - last > Duration::from_millis(1) {
            since = Instant::now();
        }
        last = now;
    }
    Ok(())
}

fn policy(first: u16, count: u16) -> Policy {
    let mut policy = Policy::shut("acme", "node", Some(Role::Worker));
    policy.pods = vec![IpRange::parse("10.244.0.0/16").expect("a range")];
    let own: Vec<IpAddr> = vec![NODE4.into(), NODE6.into()];
    policy.nodes.insert(
        "node".to_owned(),
        Node {
            role: Role::Worker,
            addresses: own,
        },
    );
    for peer in peers(first, count) {
        let role = if peer.role == "master" {
            Role::Master
        } else {
            Role::Worker
        };
        let addresses = peer.addresses;
        policy.nodes.insert(peer.name, Node { role, addresses });
    }
    policy
}
