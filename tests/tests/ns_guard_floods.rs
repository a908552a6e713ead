//! Nothing gets through while a guard changes, ends, begins or is tampered with, under a flood; and a
//! peer loses nothing. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use harness::flood::{BATCH, Flood, Transport};
use harness::guard::Peer;
use harness::guarded::{KUBELET, OPEN, Scene};
use harness::namespace::Host;
use harness::nftables::script;
use harness::results::Rows;
use harness::tool::Tool;
use harness::wait;
use nix::net::if_::if_nametoindex;
use nodeguard::bpf::{Device, Mode, Plane, State, Tables, teardown};
use nodeguard::devices::Devices;
use nodeguard::load::load;
use serde_json::json;

/// Frames that each change is to stand.
const FRAMES: u64 = 1_000_000;
/// However slow the machine: a flood ends.
const MOST: Duration = Duration::from_secs(60);
/// What the stranger aims at: isolated ports of a worker.
const AIMS: [(Transport, u16); 4] = [
    (Transport::Tcp, KUBELET),
    (Transport::Udp, KUBELET),
    (Transport::Tcp, 31390),
    (Transport::Udp, 8472),
];
/// An address that the worker has for moments; the stranger knows where it will be.
const MOMENTARY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);

/// One flood at a time: two would share the two cores, and each would take twice as long.
static TURN: Mutex<()> = Mutex::new(());
/// What was measured so far.
static RESULTS: Mutex<Rows> = Mutex::new(Rows::new(
    "nodeguard-floods",
    &[
        "what",
        "changes",
        "frames sent",
        "dropped by BPF",
        "dropped by nftables",
        "through",
        "peer's packets sent",
        "delivered",
        "seconds",
    ],
));

fn strangers4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 | number & 0xf_ffff).into()
}

fn strangers6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)).into()
}

/// A scene with counters of its own, before and behind the guard.
struct Range {
    scene: Scene,
    /// Whether the stranger also aims at [`MOMENTARY`].
    is_momentary_aimed_at: bool,
    _turn: MutexGuard<'static, ()>,
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Counts {
    /// Strangers' packets at isolated ports that came as far as the sockets.
    through: u64,
    /// The peer's packets: sent by its kernel, before nftables, at the sockets.
    peer: [u64; 3],
}

/// What must hold of a flood, besides that nothing gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Must {
    /// No packet of the peer's is dropped.
    SparePeer,
    /// Every packet that is dropped is counted.
    CountAll,
}

/// What a flood came to.
struct Flooded<T> {
    result: T,
    sent: u64,
    /// Those of them to an address that the worker has all the time.
    aimed: u64,
    took: Duration,
    /// Blocks that the peer sent and got back.
    echoed: u64,
    slowest: Duration,
}

impl Range {
    fn new(label: &str) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scene = Scene::new(label).unwrap();
        // Not of family inet: some of what is done here flushes that.
        for (family, address, peer) in [
            ("ip", scene.worker.v4, scene.master.v4),
            ("ip6", scene.worker.v6, scene.master.v6),
        ] {
            let ports = format!("{{ {KUBELET}, 31390, 8472 }}");
            let isolated = format!("meta l4proto {{ tcp, udp }} th dport {ports}");
            script(
                &scene.worker.namespace,
                &format!(
                    "table {family} watch {{
                       counter through {{ }}
                       counter arrived {{ }}
                       counter delivered {{ }}
                       chain before {{ type filter hook prerouting priority -460;
                         {family} saddr {peer} {isolated} counter name arrived; }}
                       chain behind {{ type filter hook input priority 0;
                         {family} saddr {peer} {isolated} counter name delivered accept;
                         {isolated} counter name through; }}; }}"
                ),
            );
            script(
                &scene.master.namespace,
                &format!(
                    "table {family} watch {{
                       counter sent {{ }}
                       chain out {{ type filter hook output priority 0;
                         {family} daddr {address} {isolated} counter name sent; }}; }}"
                ),
            );
        }
        let mac = &scene.worker.mac;
        let line = format!("neigh replace {MOMENTARY} lladdr {mac} dev eth0 nud permanent");
        ip(&scene.stranger, &line);
        // Asked for on behalf of a source that is not its own, a host looks for a neighbour by its
        // link-local address, and that is not ready for a second: it is to know the worker before.
        for to in [scene.worker.v4, scene.worker.v6] {
            assert!(scene.reaches(&scene.stranger, to, OPEN), "{to}");
        }
        Self {
            scene,
            is_momentary_aimed_at: false,
            _turn: turn,
        }
    }

    fn guarded(label: &str, bpf: &'static str) -> Self {
        let mut range = Self::new(label);
        range.scene.guard.files.bpf = bpf;
        // A third node, so that one may go.
        let spare = Peer {
            name: "spare".to_owned(),
            role: "worker",
            addresses: vec![Ipv4Addr::new(10, 77, 9, 9).into()],
        };
        range.scene.guard.files.peers.push(spare);
        range.scene.guard.write().unwrap();
        range.scene.guard.start().unwrap();
        range
    }

    fn counts(&self) -> Counts {
        let both = |host: &Host, name: &str| -> u64 {
            let of = |family: &str| {
                let words = ["list", "counter", family, "watch", name];
                let nft = Tool::new("nft").args(words);
                let text = nft.namespace(Some(&host.namespace)).succeed().unwrap();
                let packets = text.split_once("packets ").unwrap().1;
                packets.split_once(' ').unwrap().0.parse::<u64>().unwrap()
            };
            of("ip") + of("ip6")
        };
        let Scene { worker, master, .. } = &self.scene;
        Counts {
            through: both(worker, "through"),
            peer: [
                both(master, "sent"),
                both(worker, "arrived"),
                both(worker, "delivered"),
            ],
        }
    }

    /// Counts once nothing moves any more.
    fn settled(&self) -> Counts {
        let mut last = self.counts();
        wait::until("the last packet to arrive", wait::PATIENCE, || {
            let now = self.counts();
            let is_still = now == last;
            last = now;
            is_still.then_some(now)
        })
        .unwrap()
    }

    /// A flood of every kind from the stranger.
    fn floods(&self) -> Vec<Flood> {
        let Scene {
            worker, stranger, ..
        } = &self.scene;
        let mut targets = vec![worker.v4, worker.v6];
        targets.extend(
            self.is_momentary_aimed_at
                .then_some(IpAddr::from(MOMENTARY)),
        );
        let mut floods = Vec::new();
        for (transport, port) in AIMS {
            for &to in &targets {
                let sources = if to.is_ipv4() { strangers4 } else { strangers6 };
                let make = || Flood::new(transport, SocketAddr::new(to, port), sources);
                floods.push(stranger.namespace.run(make).unwrap());
            }
        }
        floods
    }

    /// Floods the worker while `action` runs, and until enough is sent, whatever is longer; the peer
    /// talks all the while.
    fn under_flood<T>(&mut self, action: impl FnOnce(&mut Scene) -> T) -> Flooded<T> {
        let mut floods = self.floods();
        let peers = [self.scene.worker.v4, self.scene.worker.v6].map(|to| {
            let connect = || TcpStream::connect((to, KUBELET)).unwrap();
            self.scene.master.namespace.run(connect)
        });
        let (stop, hush) = (AtomicBool::new(false), AtomicBool::new(false));
        let (sent, aimed) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let flooder = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for flood in &mut floods {
                        let count = flood.batch().unwrap() as u64;
                        sent.fetch_add(count, Ordering::Relaxed);
                        if flood.target().ip() != IpAddr::from(MOMENTARY) {
                            aimed.fetch_add(count, Ordering::Relaxed);
                        }
                    }
                }
            });
            let peer = scope.spawn(|| talk(peers, &hush));
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                let result = action(&mut self.scene);
                wait::until("enough frames", MOST, || {
                    (sent.load(Ordering::Relaxed) >= FRAMES).then_some(())
                })
                .unwrap();
                result
            }));
            let took = began.elapsed();
            hush.store(true, Ordering::Relaxed);
            let talked = peer.join();
            stop.store(true, Ordering::Relaxed);
            flooder.join().expect("whoever floods does not panic");
            let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            let (echoed, slowest) = talked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Flooded {
                result,
                sent: sent.load(Ordering::Relaxed),
                aimed: aimed.load(Ordering::Relaxed),
                took,
                echoed,
                slowest,
            }
        })
    }

    /// The same, with everything that must hold of it; prints and publishes a row. `action` says how
    /// many changes it made.
    #[allow(clippy::print_stdout, reason = "the numbers are half of the test")]
    fn hold(&mut self, what: &str, must: &[Must], action: impl FnOnce(&mut Scene) -> u64) {
        let before = self.settled();
        let (drops, lost) = (self.drops(), backlog_drops());
        let flooded = self.under_flood(action);
        let after = self.settled();
        let lost = backlog_drops() - lost;
        let through = after.through - before.through;
        let peer: Vec<u64> = std::iter::zip(after.peer, before.peer)
            .map(|(after, before)| after - before)
            .collect();
        let [by_bpf, by_nftables] = [0, 1].map(|plane| match (drops, self.drops()) {
            (Some(before), Some(after)) => Some(after[plane].saturating_sub(before[plane])),
            _ => None,
        });
        let row = json!({
            "what": what,
            "changes": flooded.result,
            "frames sent": flooded.sent,
            "of them to the node's own addresses": flooded.aimed,
            "dropped by BPF": by_bpf,
            "dropped by nftables": by_nftables,
            "through": through,
            "seconds": (flooded.took.as_secs_f64() * 10.0).round() / 10.0,
            "peer's packets sent": peer[0],
            "before nftables": peer[1],
            "delivered": peer[2],
            "blocks echoed": flooded.echoed,
            "slowest echo in seconds": flooded.slowest.as_secs_f64(),
            "lost by the machine's queues": lost,
        });
        let number = |count: Option<u64>| count.map_or("-".to_owned(), |it| it.to_string());
        println!(
            "{what}: {} changes, {} sent ({} to the node's own addresses), {} dropped by BPF, \
             {} by nftables, {through} through, {:.1} s; peer: {peer:?} packets sent, before nftables, delivered; {} blocks echoed, the \
             slowest in {:?}; {lost} lost by the machine",
            flooded.result,
            flooded.sent,
            flooded.aimed,
            number(by_bpf),
            number(by_nftables),
            flooded.took.as_secs_f64(),
            flooded.echoed,
            flooded.slowest,
        );
        RESULTS
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .add(row)
            .unwrap();
        assert_eq!(through, 0, "{what}: strangers got through");
        assert!(flooded.sent >= FRAMES, "{what}: {} sent", flooded.sent);
        assert!(flooded.echoed > 10, "{what}: the peer talked");
        if must.contains(&Must::SparePeer) {
            assert_eq!(
                peer[1], peer[2],
                "{what}: nftables dropped a peer's packets"
            );
            assert!(
                peer[0] - peer[1] <= lost,
                "{what}: BPF dropped a peer's packets: {peer:?}"
            );
        }
        if must.contains(&Must::CountAll) {
            let counted = by_bpf.unwrap() + by_nftables.unwrap();
            assert!(
                (flooded.aimed - lost.min(flooded.aimed)..=flooded.aimed).contains(&counted),
                "{what}: {counted} of {} counted",
                flooded.aimed
            );
        }
    }

    fn drops(&self) -> Option<[u64; 2]> {
        let guard = &self.scene.guard;
        guard.has_socket().then(|| {
            let status = guard.status().unwrap();
            ["bpf", "nftables"].map(|plane| harness::guard::sum(&status.drops, plane))
        })
    }

    /// Everything is removed, and the counter behind the guard counts every packet of every kind.
    fn finish(mut self) {
        self.scene.guard.teardown().unwrap();
        self.open();
    }

    fn open(&self) {
        for mut flood in self.floods() {
            let before = self.counts().through;
            let sent = flood.send(BATCH / 2).unwrap() as u64;
            // Where nobody has the address, nothing arrives.
            if flood.target().ip() == IpAddr::from(MOMENTARY) {
                continue;
            }
            wait::until_true("what is sent to an open node arrives", || {
                self.counts().through == before + sent
            })
            .unwrap();
        }
    }
}

/// Sends blocks over each connection, and over a new one now and then, and gets them back, until told
/// to hush. How many, and how long the slowest took.
fn talk(mut streams: [TcpStream; 2], hush: &AtomicBool) -> (u64, Duration) {
    let (mut echoed, mut slowest, mut state) = (0, Duration::ZERO, 1_u64);
    for stream in &streams {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    }
    while !hush.load(Ordering::Relaxed) {
        for stream in &mut streams {
            // Less than a segment, and never the same.
            let block: Vec<u8> = std::iter::repeat_with(|| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 56) as u8
            })
            .take(1200)
            .collect();
            let mut back = vec![0; block.len()];
            let began = Instant::now();
            stream.write_all(&block).unwrap();
            stream.read_exact(&mut back).unwrap();
            assert!(back == block, "what the peer sent came back otherwise");
            slowest = slowest.max(began.elapsed());
            echoed += 1;
        }
        // A peer is no flood.
        std::thread::sleep(Duration::from_millis(2));
    }
    (echoed, slowest)
}

// ---- the floods ----

#[test]
fn nothing_passes_while_policies_are_replaced() {
    for bpf in ["off", "tcx"] {
        let mut range = Range::guarded("flood-replace", bpf);
        let what = format!("100 policies, bpf: {bpf}");
        range.hold(&what, &[Must::SparePeer], |scene| {
            let guard = &mut scene.guard;
            let spare = guard.files.peers.last().unwrap().clone();
            let mut replaced = 0;
            for number in 1..=50 {
                // Other rules replace the table, other ports and peers change its sets.
                guard.files.extra_ports = vec![9000 + number];
                guard.files.more = format!("reverse_path: {}\n", number % 2 == 0);
                guard.write_configuration().unwrap();
                guard.reload(false).unwrap().unwrap();
                if number % 2 == 0 {
                    guard.files.peers.push(spare.clone());
                } else {
                    guard.files.peers.pop();
                }
                guard.write_peers().unwrap();
                guard.reload(false).unwrap().unwrap();
                replaced += 2;
            }
            let log = guard.log();
            for done in ["\"Replaced\"", "\"Elements"] {
                assert!(log.matches(done).count() >= 50, "{done}: {log}");
            }
            replaced
        });
        range.finish();
    }
}

#[test]
fn nothing_passes_while_the_daemon_restarts_or_is_upgraded() {
    let mut range = Range::guarded("flood-restart", "tcx");
    for (what, is_killed) in [
        ("20 restarts, SIGTERM", false),
        ("20 restarts, SIGKILL", true),
    ] {
        range.hold(what, &[Must::SparePeer, Must::CountAll], |scene| {
            for _ in 0..20 {
                if is_killed {
                    scene.guard.kill();
                } else {
                    scene.guard.terminate().unwrap();
                }
                scene.guard.start().unwrap();
            }
            20
        });
    }
    // Another build, with another BPF object, if there is one; else the same program under another name.
    let ours = range.scene.guard.program.clone();
    let next = range.scene.guard.folder().join("nodeguard-next");
    let other = std::env::var_os("GATEHOUSE_NODEGUARD_NEXT").map(PathBuf::from);
    fs::copy(other.as_ref().unwrap_or(&ours), &next).unwrap();
    let must = [Must::SparePeer, Must::CountAll];
    let builds = if other.is_some() {
        "two builds"
    } else {
        "one build"
    };
    range.hold(
        &format!("10 upgrades there and back, {builds}"),
        &must,
        |scene| {
            for number in 0..10 {
                let program = if number % 2 == 0 { &next } else { &ours };
                scene.guard.program.clone_from(program);
                scene.guard.terminate().unwrap();
                scene.guard.start().unwrap();
            }
            10
        },
    );
    range.finish();
}

#[test]
fn nothing_passes_while_bpf_programs_are_swapped_without_nftables_behind_them() {
    for mode in [Mode::Tcx, Mode::Xdp] {
        let mut range = Range::new("flood-swap");
        range.scene.guard.write().unwrap();
        let pins = range.scene.guard.pins();
        let policy = load(&range.scene.guard.configuration()).unwrap().policy();
        let worker = range.scene.worker.namespace.clone();
        let tables = worker.run(|| Tables::of(&policy, &Devices::list().unwrap().addresses));
        let index = worker.run(|| if_nametoindex("eth0").unwrap());
        let device = [Device {
            index,
            name: "eth0".to_owned(),
            mode,
        }];
        let swap = || {
            let mut plane = Plane::load(&pins).unwrap();
            plane.loosen(&tables).unwrap();
            plane.tighten(&tables).unwrap();
            let attached = worker.run(|| plane.attach(&device)).unwrap();
            assert!(matches!(attached[0].state, State::Attached(it) if it == mode));
            plane.check().unwrap();
        };
        swap();
        let what = format!("20 swaps of BPF programs, {mode:?}");
        range.hold(&what, &[Must::SparePeer], |_| {
            for _ in 0..20 {
                swap();
            }
            20
        });
        teardown(&pins).unwrap();
        range.open();
    }
}

#[test]
fn nothing_passes_whatever_befalls_the_guard() {
    let mut range = Range::guarded("flood-mishaps", "tcx");
    range.is_momentary_aimed_at = true;
    range.hold("mishaps", &[Must::SparePeer], |scene| {
        let mut mishaps = 0;
        for round in 1..=5 {
            // While nobody owns the table, it can be flushed; BPF stands in for it.
            scene.guard.kill();
            scene.on_worker("nft flush ruleset inet");
            assert!(scene.guard.table().is_err());
            scene.guard.start().unwrap();
            // While somebody does, the kernel refuses.
            scene.on_worker("nft flush ruleset inet");
            assert!(
                !scene
                    .try_on_worker("nft delete table inet nodeguard")
                    .status
                    .success()
            );
            // nftables stands in for BPF.
            let pin = fs::read_dir(scene.guard.pins().join("links")).unwrap();
            let pin = pin.flatten().next().unwrap().path();
            scene.on_worker(&format!("bpftool link detach pinned {}", pin.display()));
            wait::until_true("BPF to be attached again", || {
                let daemon = scene.guard.status().unwrap().daemon.unwrap();
                daemon.repairs.contains_key("bpf")
            })
            .unwrap();
            // An address that is guarded from its first packet on.
            let arrived = || scene.guard.dropped("bpf").unwrap();
            scene.on_worker(&format!("ip address add {MOMENTARY}/24 dev eth0"));
            let before = arrived();
            wait::until_true("the flood to go on", || arrived() > before + 1000).unwrap();
            scene.on_worker(&format!("ip address delete {MOMENTARY}/24 dev eth0"));
            a_new_device(scene, round);
            mishaps += 6;
        }
        mishaps
    });
    // The peer's packets are lost while the link is down, and nothing that it says.
    range.hold("link down and up", &[], |scene| {
        let v6 = scene.worker.v6;
        for _ in 0..5 {
            scene.on_worker("ip link set eth0 down");
            scene.on_worker("ip link set eth0 up");
            // The kernel forgets IPv6 addresses with the link.
            scene.on_worker(&format!("ip address replace {v6}/64 dev eth0 nodad"));
            let before = scene.guard.dropped("bpf").unwrap();
            let dropped = || scene.guard.dropped("bpf").unwrap();
            wait::until_true("the flood to go on", || dropped() > before + 1000).unwrap();
        }
        5
    });
    range.finish();
}

/// A second cable between the stranger and the worker, flooded from its first moment on.
fn a_new_device(scene: &Scene, round: u8) {
    let inside = scene.worker.namespace.path();
    let cable = "link add name cable type veth peer name cable netns";
    ip(&scene.stranger, &format!("{cable} {inside}"));
    let (here, there) = (format!("10.78.{round}.1/24"), format!("10.78.{round}.2/24"));
    ip(&scene.stranger, &format!("address add {there} dev cable"));
    ip(&scene.stranger, "link set cable up");
    let target = SocketAddr::from(([10, 78, round, 1], KUBELET));
    let make = || Flood::new(Transport::Tcp, target, strangers4).unwrap();
    let mut flood = scene.stranger.namespace.run(make);
    scene.on_worker(&format!("ip address add {here} dev cable"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flood.batch().unwrap();
            }
        });
        scene.on_worker("ip link set cable up");
        let attached = || {
            let devices = scene.guard.status().unwrap().bpf.devices;
            devices
                .iter()
                .any(|it| it.name == "cable" && it.attached == "tcx")
        };
        let waited = wait::until_true("BPF on the new device", attached);
        stop.store(true, Ordering::Relaxed);
        waited.unwrap();
    });
    ip(&scene.stranger, "link delete cable");
}

// ---- helpers ----

fn ip(host: &Host, line: &str) {
    let tool = Tool::new("ip").args(line.split(' '));
    tool.namespace(Some(&host.namespace)).succeed().unwrap();
}

/// Packets that the machine's own queues had no room for, of whatever namespace.
fn backlog_drops() -> u64 {
    let text = fs::read_to_string("/proc/net/softnet_stat").unwrap();
    let dropped = |line: &str| {
        let field = line.split_whitespace().nth(1)?;
        u64::from_str_radix(field, 16).ok()
    };
    text.lines().filter_map(dropped).sum()
}
