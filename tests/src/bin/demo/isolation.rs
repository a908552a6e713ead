//! Second part of the demo: a stranger before every isolated port of a guarded cluster.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use config::ports;
use config::roles::Role;
use harness::guard::{Guard, Peer};
use harness::namespace::{Host, Network};

use crate::report::{Knocks, Report};

/// How long a knock waits for an answer. Dropped, it waits for all of it.
const KNOCK: Duration = Duration::from_millis(500);

/// A node with its guard and something behind each of its isolated ports.
struct Node {
    host: Host,
    ports: Vec<u16>,
    guard: Guard,
    _doors: Doors,
}

/// A cluster of a master and a worker, a router, and somebody who belongs to nobody.
struct Scene {
    nodes: Vec<Node>,
    router: Host,
    stranger: Host,
    _network: Network,
}

/// Everything.
pub(crate) fn play(inodes: &mut Vec<u64>, report: &mut Report) -> Result<()> {
    report.heading("A tenant's cluster, its router, and a stranger on the same network");
    let mut scene = Scene::set(inodes)?;
    for node in &scene.nodes {
        let ports: Vec<String> = node.ports.iter().map(u16::to_string).collect();
        let (name, address) = (&node.host.name, node.host.v4);
        report.line(&format!("{name} {address}: servers on {}", ports.join(" ")));
    }
    let (router, stranger) = (scene.router.v4, scene.stranger.v4);
    report.line(&format!("the router is {router}, the stranger {stranger}"));
    let mut knocks = Knocks::default();
    let all = scene.count();

    knocks.column("no guard", scene.knock_by_everybody());
    ensure!(
        knocks.last() == [all, all, all],
        "without a guard not every port is open: {:?}",
        knocks.last()
    );

    for node in &mut scene.nodes {
        report.command("nodeguard run --config /etc/nodeguard/nodeguard.yaml &");
        node.guard.start()?;
        report.result(&format!("on {}: {}", node.host.name, summary(&node.guard)?));
    }
    knocks.column("guarded", scene.knock_by_everybody());
    shut_to_the_stranger(&knocks, all)?;
    counted(&scene, report)?;
    explained(&scene, report)?;

    report.heading("The daemons are killed");
    for node in &mut scene.nodes {
        let pid = node.guard.process().pid();
        report.command(&format!("kill -KILL {pid}"));
        node.guard.kill();
    }
    knocks.column("daemon killed", scene.knock_by_everybody());
    shut_to_the_stranger(&knocks, all)?;
    let status = scene.nodes[0].guard.run(&["status"])?;
    report.command("nodeguard status");
    report.result(&status.stdout.lines().take(6).collect::<Vec<_>>().join("\n"));

    for node in &mut scene.nodes {
        report.command("nodeguard teardown");
        node.guard.teardown()?;
    }
    knocks.column("torn down", scene.knock_by_everybody());
    ensure!(
        knocks.last() == [all, all, all],
        "after a teardown not every port is open: {:?}",
        knocks.last()
    );
    report.knocks(&knocks, all);
    Ok(())
}

fn shut_to_the_stranger(knocks: &Knocks, all: usize) -> Result<()> {
    ensure!(
        knocks.last() == [0, all, all],
        "expected the stranger at 0 ports, router and node at {all}: {:?}",
        knocks.last()
    );
    Ok(())
}

/// Every port at which the stranger knocked has counted it, in both families.
fn counted(scene: &Scene, report: &mut Report) -> Result<()> {
    report.heading("Counted");
    for node in &scene.nodes {
        let status = node.guard.status()?;
        report.command("nodeguard status");
        let shown = status.text();
        report.result(&shown);
        for port in &node.ports {
            for family in ["ipv4", "ipv6"] {
                let of = |it: &&nodeguard::status::DropStatus| {
                    it.port == Some(*port) && it.family == family && it.reason == "stranger"
                };
                let packets: u64 = status.drops.iter().filter(of).map(|it| it.packets).sum();
                let (name, family) = (&node.host.name, family);
                ensure!(
                    packets > 0,
                    "{name} did not count a knock at {port}, {family}"
                );
            }
        }
    }
    Ok(())
}

fn explained(scene: &Scene, report: &mut Report) -> Result<()> {
    report.heading("Explained");
    let node = &scene.nodes[0];
    for (source, expected) in [(scene.stranger.v4, "DROP"), (scene.router.v4, "PASS")] {
        let (source, own) = (source.to_string(), node.host.v4.to_string());
        report.command(&format!("nodeguard explain {source} {own} 2379"));
        let output = node.guard.run(&["explain", &source, &own, "2379"])?;
        report.result(&output.stdout);
        ensure!(output.stdout.starts_with(expected), "expected {expected}");
    }
    Ok(())
}

/// What `status` says of the policy.
fn summary(guard: &Guard) -> Result<String> {
    let text = guard.status()?.text();
    text.lines().next().map(str::to_owned).context("a status")
}

impl Scene {
    fn set(inodes: &mut Vec<u64>) -> Result<Self> {
        let mut network = Network::new()?;
        let mut host = |name| -> Result<Host> {
            let host = network.host(name)?;
            inodes.push(host.namespace.inode()?);
            Ok(host)
        };
        let (master, worker) = (host("master-1")?, host("worker-1")?);
        let (router, stranger) = (host("edge-1")?, host("stranger")?);
        let peers = vec![Peer::of(&master, "master"), Peer::of(&worker, "worker")];
        let nodes = [
            (master, Role::Master, "master"),
            (worker, Role::Worker, "worker"),
        ];
        let nodes = nodes.map(|(host, role, name)| -> Result<Node> {
            let ports: Vec<u16> = ports::of(role).map(|it| it.port).collect();
            let mut guard = Guard::new(&host, name)?;
            guard.files.role = name;
            guard.files.peers.clone_from(&peers);
            let both = format!("\"{}\", \"{}\"", router.v4, router.v6);
            guard.files.routers = vec![("edge-1", both)];
            guard.write()?;
            Ok(Node {
                _doors: Doors::open(&host, &ports)?,
                host,
                ports,
                guard,
            })
        });
        Ok(Self {
            nodes: nodes.into_iter().collect::<Result<_>>()?,
            router,
            stranger,
            _network: network,
        })
    }

    /// How many doors there are: ports of both nodes, over IPv4 and IPv6.
    fn count(&self) -> usize {
        self.nodes.iter().map(|node| node.ports.len() * 2).sum()
    }

    /// At how many doors the stranger, the router and the other node are answered.
    fn knock_by_everybody(&self) -> [usize; 3] {
        let count = |from: &dyn Fn(&Node) -> Host| {
            let of = |node: &Node| knock(&from(node), &node.host, &node.ports).len();
            self.nodes.iter().map(of).sum()
        };
        let other = |node: &Node| {
            let mut nodes = self.nodes.iter();
            let other = nodes.find(|it| it.host.name != node.host.name);
            other.expect("there are two").host.clone()
        };
        [
            count(&|_| self.stranger.clone()),
            count(&|_| self.router.clone()),
            count(&other),
        ]
    }
}

/// The doors that are answered, all asked at once.
fn knock(from: &Host, to: &Host, ports: &[u16]) -> BTreeSet<(IpAddr, u16)> {
    let doors: Vec<(IpAddr, u16)> = [to.v4, to.v6]
        .into_iter()
        .flat_map(|address| ports.iter().map(move |port| (address, *port)))
        .collect();
    std::thread::scope(|scope| {
        let knocks: Vec<_> = doors
            .iter()
            .map(|door| {
                let connect = || TcpStream::connect_timeout(&SocketAddr::from(*door), KNOCK);
                scope.spawn(move || from.namespace.run(connect).is_ok())
            })
            .collect();
        let answered = std::iter::zip(&doors, knocks);
        answered
            .filter_map(|(door, knock)| knock.join().is_ok_and(|it| it).then_some(*door))
            .collect()
    })
}

/// Something that accepts connections, until it is dropped.
struct Doors {
    ended: Arc<AtomicBool>,
    keeper: Option<JoinHandle<()>>,
}

impl Doors {
    fn open(host: &Host, ports: &[u16]) -> Result<Self> {
        let mut listeners = Vec::new();
        for address in [host.v4, host.v6] {
            for port in ports {
                let listener = host
                    .namespace
                    .run(|| TcpListener::bind((address, *port)))
                    .with_context(|| format!("listen on port {port} of {}", host.name))?;
                listener.set_nonblocking(true)?;
                listeners.push(listener);
            }
        }
        let ended = Arc::new(AtomicBool::new(false));
        let keeper = std::thread::spawn({
            let ended = Arc::clone(&ended);
            move || {
                while !ended.load(Ordering::Relaxed) {
                    for listener in &listeners {
                        // Who knocks wants to know whether there is an answer, and nothing else.
                        while !matches!(listener.accept(), Err(error) if error.kind() == ErrorKind::WouldBlock)
                        {
                        }
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        Ok(Self {
            ended,
            keeper: Some(keeper),
        })
    }
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            // It cannot panic.
            let _ = keeper.join();
        }
    }
}
