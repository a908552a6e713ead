//! What others send to a guarded host, all the time: packets to every isolated port, and clients
//! that try to connect.

use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use config::guard::Protocol;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};
use serde_json::Value;

use super::{OPEN_PORT, isolated, isolated_ports, isolated_udp_ports, reach};
use crate::isolation::frames::{Request, packet};
use crate::namespace::{Host, Namespace};
use crate::tool::Tool;

/// Rest between two volleys, so that the machine is not busy with nothing else: 30,000 packets a
/// second.
const REST: Duration = Duration::from_millis(1);

/// How long a client tries before it tries anew: short, or it would miss the first moments of a
/// network.
const KNOCK: Duration = Duration::from_millis(50);

/// Packets to every isolated port of a host, TCP and UDP, IPv4 and IPv6, and to an open one, from
/// the address of another. They go on until this is dropped, whether the host is there or not.
#[derive(Debug)]
pub struct Onslaught {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Onslaught {
    /// Begins it.
    ///
    /// # Errors
    /// Without root.
    pub fn begin(from: &Host, target: &Host) -> Result<Self> {
        know(from, target)?;
        let volley = Volley::new(from, target)?;
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let thread = std::thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || volley.fire(&stop, &sent)
        });
        Ok(Self {
            stop,
            sent,
            thread: Some(thread),
        })
    }

    /// Packets that have left so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it; gives how many packets have left.
    ///
    /// # Errors
    /// If it ended by itself, with the reason.
    pub fn end(mut self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the thread does not panic")?;
        }
        Ok(self.sent())
    }
}

impl Drop for Onslaught {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it says counts where it is ended in order.
            let _ = thread.join();
        }
    }
}

/// A client that tries to connect, over and over.
#[derive(Debug)]
pub struct Knocker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Knocks>>,
}

/// What became of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Knocks {
    /// Attempts.
    pub tried: u32,
    /// Those that a listener answered.
    pub answered: u32,
    /// When the first of these was, since the first attempt.
    pub first: Option<Duration>,
}

impl Knocker {
    /// Begins it: IPv4 and IPv6 in turn.
    ///
    /// # Errors
    /// Without root.
    pub fn begin(from: &Host, target: &Host, port: u16) -> Result<Self> {
        know(from, target)?;
        let stop = Arc::new(AtomicBool::new(false));
        let addresses = [target.v4, target.v6];
        let thread = std::thread::spawn({
            let (stop, namespace) = (Arc::clone(&stop), from.namespace.clone());
            move || namespace.run(|| knock(addresses, port, &stop))
        });
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends it.
    #[must_use]
    pub fn end(mut self) -> Knocks {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("the thread does not panic")
    }
}

impl Drop for Knocker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn knock(addresses: [IpAddr; 2], port: u16, stop: &AtomicBool) -> Knocks {
    let began = Instant::now();
    let mut knocks = Knocks::default();
    while !stop.load(Ordering::Relaxed) {
        for address in addresses {
            knocks.tried += 1;
            if reach(address, port, KNOCK) {
                knocks.answered += 1;
                knocks.first.get_or_insert_with(|| began.elapsed());
            }
        }
        std::thread::sleep(REST * 10);
    }
    knocks
}

/// Has a host count what another one answers from isolated ports: what comes back is proof that
/// something got through, whoever has flushed counters over there.
///
/// # Errors
/// If nft does not take it.
pub fn watch_answers(at: &Host, of: &Host) -> Result<()> {
    let Host { v4, v6, .. } = of;
    let [tcp, udp] = isolated("sport");
    let table = format!(
        "table inet answers {{
           counter isolated {{ }}
           chain seen {{ type filter hook prerouting priority -500;
             ip saddr {v4} {tcp} counter name isolated
             ip saddr {v4} {udp} counter name isolated
             ip saddr {v4} icmp type destination-unreachable counter name isolated
             ip6 saddr {v6} {tcp} counter name isolated
             ip6 saddr {v6} {udp} counter name isolated
             ip6 saddr {v6} icmpv6 type destination-unreachable counter name isolated
           }}
         }}\n"
    );
    let nft = Tool::new("nft").args(["-f", "-"]).input(table);
    nft.namespace(Some(&at.namespace)).succeed().map(drop)
}

/// How many answers there were.
///
/// # Errors
/// If nobody watched.
pub fn answers(at: &Host) -> Result<u64> {
    let nft = Tool::new("nft").args(["-j", "list", "counters", "table", "inet", "answers"]);
    let listed = nft.namespace(Some(&at.namespace)).succeed()?;
    let listed: Value = serde_json::from_str(&listed)?;
    let objects = listed["nftables"].as_array().context("a list of objects")?;
    objects
        .iter()
        .find_map(|object| object["counter"]["packets"].as_u64())
        .context("no counter")
}

/// Tells a host the hardware address of another for good: who has to ask for it misses the first
/// moments of the other's network, and may not ask again for a second.
fn know(host: &Host, other: &Host) -> Result<()> {
    for address in [other.v4, other.v6] {
        let address = address.to_string();
        let ip = Tool::new("ip").args(["neighbor", "replace", &address, "lladdr", &other.mac]);
        ip.args(["dev", "eth0", "nud", "permanent"])
            .namespace(Some(&host.namespace))
            .succeed()?;
    }
    Ok(())
}

/// One packet to each port by IPv4 and by IPv6; the source ports change from volley to volley.
struct Volley {
    v4: (IpAddr, IpAddr),
    v6: (IpAddr, IpAddr),
    socket4: OwnedFd,
    socket6: OwnedFd,
}

impl Volley {
    fn new(from: &Host, target: &Host) -> Result<Self> {
        Ok(Self {
            v4: (from.v4, target.v4),
            v6: (from.v6, target.v6),
            socket4: raw(&from.namespace, AddressFamily::Inet)?,
            socket6: raw(&from.namespace, AddressFamily::Inet6)?,
        })
    }

    fn fire(&self, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
        let tcp = isolated_ports().map(|port| (Protocol::Tcp, port));
        let udp = isolated_udp_ports().map(|port| (Protocol::Udp, port));
        let open = [(Protocol::Tcp, OPEN_PORT)];
        let all: Vec<(Protocol, u16)> = tcp.chain(udp).chain(open).collect();
        let mut round = 0_u16;
        while !stop.load(Ordering::Relaxed) {
            // Below those that clients take by themselves.
            let source_port = 1024 + round % 30_000;
            round = round.wrapping_add(1);
            for (protocol, port) in &all {
                for (source, destination) in [self.v4, self.v6] {
                    // With the checksums of a true one: what gets through is answered.
                    let left = self.send(&Request {
                        source: SocketAddr::new(source, source_port),
                        destination: SocketAddr::new(destination, *port),
                        protocol: *protocol,
                        // Nobody recognises them: they are counted by what others see.
                        marker: 0x0102_0304,
                    })?;
                    sent.fetch_add(left, Ordering::Relaxed);
                }
            }
            std::thread::sleep(REST);
        }
        Ok(())
    }

    /// How many have left: one or none.
    fn send(&self, request: &Request) -> Result<u64> {
        let (packet, flags) = (packet(request), MsgFlags::empty());
        // A raw socket's port is a protocol, or 0 for what stands in the header (raw(7)).
        count(match request.destination.ip() {
            IpAddr::V4(to) => {
                let to = SockaddrIn::from(SocketAddrV4::new(to, 0));
                sendto(self.socket4.as_raw_fd(), &packet, &to, flags)
            }
            IpAddr::V6(to) => {
                let to = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0));
                sendto(self.socket6.as_raw_fd(), &packet, &to, flags)
            }
        })
    }
}

/// Whether it left; a full queue is nothing to complain of.
fn count(sent: nix::Result<usize>) -> Result<u64> {
    match sent {
        Ok(_) => Ok(1),
        Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(0),
        Err(error) => Err(error).context("send a packet of the onslaught"),
    }
}

fn raw(namespace: &Namespace, family: AddressFamily) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC;
    namespace
        .run(|| socket(family, SockType::Raw, flags, SockProtocol::Raw))
        .context("open a raw socket; this needs root")
}
