//! A [`Scene`] under fire: a stranger floods isolated ports of the worker while something happens to
//! the guard, a peer talks, and what gets through is counted by a chain of somebody else.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;

use super::{KUBELET, OPEN, Scene};
use crate::flood::{BATCH, Flood, Transport};
use crate::guard::{self, Peer};
use crate::namespace::Host;
use crate::nftables::script;
use crate::results::Rows;
use crate::tool::Tool;
use crate::wait;

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
pub const MOMENTARY: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 99);

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

/// A scene with counters of its own, before and behind the guard.
#[derive(Debug)]
pub struct Range {
    /// The hosts and the guard.
    pub scene: Scene,
    /// Whether the stranger also aims at [`MOMENTARY`].
    pub is_momentary_aimed_at: bool,
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
pub enum Must {
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
    /// A range without a daemon; the guard's files are not written yet. Waits until no other is there.
    ///
    /// # Errors
    /// As [`Scene::new`], and if the stranger does not reach the worker.
    ///
    /// # Panics
    /// If nft does not take what is to count.
    pub fn new(label: &str) -> Result<Self> {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let scene = Scene::new(label)?;
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
        let words: Vec<&str> = line.split(' ').collect();
        scene.stranger.namespace.ip(&words)?;
        // Asked for on behalf of a source that is not its own, a host looks for a neighbour by its
        // link-local address, and that is not ready for a second: it is to know the worker before.
        for to in [scene.worker.v4, scene.worker.v6] {
            ensure!(
                scene.reaches(&scene.stranger, to, OPEN),
                "the stranger does not reach {to}"
            );
        }
        Ok(Self {
            scene,
            is_momentary_aimed_at: false,
            _turn: turn,
        })
    }

    /// The same with a daemon, whose file says this of `bpf`. Its last peer may go.
    ///
    /// # Errors
    /// As [`Range::new`], and if the daemon does not start.
    ///
    /// # Panics
    /// As [`Range::new`].
    pub fn guarded(label: &str, bpf: &'static str) -> Result<Self> {
        let mut range = Self::new(label)?;
        range.scene.guard.files.bpf = bpf;
        // A third node, so that one may go.
        let spare = Peer {
            name: "spare".to_owned(),
            role: "worker",
            addresses: vec![Ipv4Addr::new(10, 77, 9, 9).into()],
        };
        range.scene.guard.files.peers.push(spare);
        range.scene.guard.write()?;
        range.scene.guard.start()?;
        Ok(range)
    }

    fn counts(&self) -> Counts {
        let both = |host: &Host, name: &str| -> u64 {
            let of = |family: &str| {
                let words = ["list", "counter", family, "watch", name];
                let nft = Tool::new("nft").args(words);
                let text = nft
                    .namespace(Some(&host.namespace))
                    .succeed()
                    .expect("it counts");
                let packets = text.split_once("packets ").expect("a count of packets").1;
                let number = packets.split_once(' ').expect("and of bytes").0;
                number.parse::<u64>().expect("a number")
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
        .expect("a flood ends")
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
                floods.push(stranger.namespace.run(make).expect("root"));
            }
        }
        floods
    }

    /// Floods the worker while `action` runs, and until enough is sent, whatever is longer; the peer
    /// talks all the while.
    fn under_flood<T>(&mut self, action: impl FnOnce(&mut Scene) -> T) -> Flooded<T> {
        let mut floods = self.floods();
        let peers = [self.scene.worker.v4, self.scene.worker.v6].map(|to| {
            let connect = || TcpStream::connect((to, KUBELET)).expect("the peer connects");
            self.scene.master.namespace.run(connect)
        });
        let (stop, hush) = (AtomicBool::new(false), AtomicBool::new(false));
        let (sent, aimed) = (AtomicU64::new(0), AtomicU64::new(0));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let flooder = scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    for flood in &mut floods {
                        let count = flood.batch().expect("the kernel takes packets") as u64;
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
                .expect("the flood goes on");
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

    /// Floods the worker while `action` runs, and insists on everything that must hold of it; prints
    /// and publishes a row. `action` says how many changes it made.
    ///
    /// # Panics
    /// If `action` does, if anything gets through, or if something in `must` does not hold.
    #[allow(clippy::print_stdout, reason = "the numbers are half of the test")]
    #[track_caller]
    pub fn hold(&mut self, what: &str, must: &[Must], action: impl FnOnce(&mut Scene) -> u64) {
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
            .expect("the folder of results can be written to");
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
            let counted = by_bpf.expect("a daemon") + by_nftables.expect("a daemon");
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
            let status = guard.status().expect("the daemon answers");
            ["bpf", "nftables"].map(|plane| guard::sum(&status.drops, plane))
        })
    }

    /// Everything is removed, and the counter behind the guard counts every packet of every kind.
    ///
    /// # Panics
    /// If that is not so.
    #[track_caller]
    pub fn finish(mut self) {
        self.scene.guard.teardown().expect("all enforcement ends");
        self.open();
    }

    /// Insists that nothing is enforced: that every packet of every kind is counted behind the guard.
    ///
    /// # Panics
    /// If one is not.
    #[track_caller]
    pub fn open(&self) {
        for mut flood in self.floods() {
            let before = self.counts().through;
            let sent = flood.send(BATCH / 2).expect("the kernel takes packets") as u64;
            // Where nobody has the address, nothing arrives.
            if flood.target().ip() == IpAddr::from(MOMENTARY) {
                continue;
            }
            wait::until_true("what is sent to an open node arrives", || {
                self.counts().through == before + sent
            })
            .expect("nothing is enforced");
        }
    }
}

/// Sends blocks over each connection, and over a new one now and then, and gets them back, until told
/// to hush. How many, and how long the slowest took.
fn talk(mut streams: [TcpStream; 2], hush: &AtomicBool) -> (u64, Duration) {
    let (mut echoed, mut slowest, mut state) = (0, Duration::ZERO, 1_u64);
    for stream in &streams {
        stream.set_nodelay(true).expect("a TCP socket");
        stream
            .set_read_timeout(Some(wait::PATIENCE))
            .expect("a patience that is not zero");
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
            stream.write_all(&block).expect("the peer sends");
            stream.read_exact(&mut back).expect("and gets it back");
            assert!(back == block, "what the peer sent came back otherwise");
            slowest = slowest.max(began.elapsed());
            echoed += 1;
        }
        // A peer is no flood.
        std::thread::sleep(Duration::from_millis(2));
    }
    (echoed, slowest)
}

/// The source of the n-th of its IPv4 packets: in `172.16.0.0/12`.
#[must_use]
pub fn strangers4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 | number & 0xf_ffff).into()
}

/// The same of IPv6: in `2001:db8::/32`.
fn strangers6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(number)).into()
}

/// Packets that the machine's own queues had no room for, of whatever namespace.
fn backlog_drops() -> u64 {
    let text = std::fs::read_to_string("/proc/net/softnet_stat").expect("Linux has it");
    let dropped = |line: &str| {
        let field = line.split_whitespace().nth(1)?;
        u64::from_str_radix(field, 16).ok()
    };
    text.lines().filter_map(dropped).sum()
}
