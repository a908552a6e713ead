//! What others send to a guarded host, all the time: packets to every isolated port, and clients
//! that try to connect.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, sendto,
    socket,
};
use serde_json::Value;

use super::{OPEN_PORT, isolated, isolated_ports, isolated_udp_ports, reach};
use crate::namespace::{Host, Namespace};
use crate::tool::Tool;

/// Rest between two volleys, so that the machine is not busy with nothing else: 30,000 packets a
/// second.
const REST: Duration = Duration::from_millis(1);

/// How long a client tries before it tries anew: short, or it would miss the first moments of a
/// network.
const KNOCK: Duration = Duration::from_millis(50);

const TCP: u8 = 6;
const UDP: u8 = 17;

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

/// One packet to each port; the source ports change from volley to volley.
struct Volley {
    v4: (Ipv4Addr, Ipv4Addr),
    v6: (Ipv6Addr, Ipv6Addr),
    socket4: OwnedFd,
    socket6: OwnedFd,
}

impl Volley {
    fn new(from: &Host, target: &Host) -> Result<Self> {
        let (IpAddr::V4(source4), IpAddr::V4(target4)) = (from.v4, target.v4) else {
            anyhow::bail!("an IPv4 address is none");
        };
        let (IpAddr::V6(source6), IpAddr::V6(target6)) = (from.v6, target.v6) else {
            anyhow::bail!("an IPv6 address is none");
        };
        Ok(Self {
            v4: (source4, target4),
            v6: (source6, target6),
            socket4: raw(&from.namespace, AddressFamily::Inet)?,
            socket6: raw(&from.namespace, AddressFamily::Inet6)?,
        })
    }

    fn fire(&self, stop: &AtomicBool, sent: &AtomicU64) -> Result<()> {
        let tcp = isolated_ports().map(|port| (TCP, port));
        let udp = isolated_udp_ports().map(|port| (UDP, port));
        let all: Vec<(u8, u16)> = tcp.chain(udp).chain([(TCP, OPEN_PORT)]).collect();
        let mut round = 0_u16;
        while !stop.load(Ordering::Relaxed) {
            // Below those that clients take by themselves.
            let source_port = 1024 + round % 30_000;
            round = round.wrapping_add(1);
            for (protocol, port) in &all {
                let left = self.send(*protocol, source_port, *port)?;
                sent.fetch_add(left, Ordering::Relaxed);
            }
            std::thread::sleep(REST);
        }
        Ok(())
    }

    /// By IPv4 and by IPv6; how many of the two have left.
    fn send(&self, protocol: u8, source_port: u16, port: u16) -> Result<u64> {
        let (source, target) = self.v4;
        let addresses = [source.octets(), target.octets()].concat();
        let segment = segment(protocol, source_port, port, &addresses);
        let length = u16::try_from(20 + segment.len()).expect("it is short");
        let mut packet = vec![0x45, 0];
        packet.extend(length.to_be_bytes());
        // The kernel fills in the checksum (raw(7)).
        packet.extend([0, 0, 0x40, 0, 64, protocol, 0, 0]);
        packet.extend(addresses);
        packet.extend(segment);
        let address = SockaddrIn::from(std::net::SocketAddrV4::new(target, 0));
        let mut left = count(sendto(
            self.socket4.as_raw_fd(),
            &packet,
            &address,
            MsgFlags::empty(),
        ))?;

        let (source, target) = self.v6;
        let addresses = [source.octets(), target.octets()].concat();
        let segment = self::segment(protocol, source_port, port, &addresses);
        let length = u16::try_from(segment.len()).expect("it is short");
        let mut packet = vec![0x60, 0, 0, 0];
        packet.extend(length.to_be_bytes());
        packet.extend([protocol, 64]);
        packet.extend(addresses);
        packet.extend(segment);
        let address = SockaddrIn6::from(std::net::SocketAddrV6::new(target, 0, 0, 0));
        left += count(sendto(
            self.socket6.as_raw_fd(),
            &packet,
            &address,
            MsgFlags::empty(),
        ))?;
        Ok(left)
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

/// A SYN, or a datagram, with the checksum that makes it a true one: what gets through is answered.
fn segment(protocol: u8, source_port: u16, port: u16, addresses: &[u8]) -> Vec<u8> {
    let mut segment = Vec::from(source_port.to_be_bytes());
    segment.extend(port.to_be_bytes());
    let checksum_at = if protocol == TCP {
        // Sequence, no acknowledgement, five words, SYN, window, checksum, no urgent data.
        segment.extend([1, 2, 3, 4, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
        16
    } else {
        // Length, checksum, and a word.
        segment.extend([0, 12, 0, 0, b'h', b'e', b'r', b'e']);
        6
    };
    let length = u16::try_from(segment.len()).expect("it is short");
    let pseudo = [0, protocol];
    let all = [addresses, &pseudo, &length.to_be_bytes(), &segment].concat();
    let mut sum: u32 = all
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).copied().map_or(0, u32::from))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !u16::try_from(sum).expect("it was folded");
    segment[checksum_at..checksum_at + 2].copy_from_slice(&checksum.to_be_bytes());
    segment
}
