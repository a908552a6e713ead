//! TCP SYNs by the hundred thousand, from any source address.

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn, sendmmsg,
    socket,
};

/// Packets that go out in one system call.
pub const BATCH: u32 = 64;
/// Bytes of an IPv4 and of a TCP header.
const PACKET: usize = 40;

/// A raw socket in the network namespace of the thread that makes it.
#[derive(Debug)]
pub struct Syns {
    socket: OwnedFd,
    target: SocketAddrV4,
    sources: fn(u32) -> Ipv4Addr,
    sent: u32,
}

impl Syns {
    /// SYNs to `target`; the n-th comes from the n-th source.
    ///
    /// # Errors
    /// Without root (`CAP_NET_RAW`).
    pub fn new(target: SocketAddrV4, sources: fn(u32) -> Ipv4Addr) -> Result<Self> {
        let socket = socket(
            AddressFamily::Inet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
        .context("open a raw socket; this needs root")?;
        Ok(Self {
            socket,
            target,
            sources,
            sent: 0,
        })
    }

    /// Sends the next [`BATCH`]; how many the kernel took.
    ///
    /// # Errors
    /// If the kernel takes none, for another reason than a full queue.
    pub fn batch(&mut self) -> Result<usize> {
        let packets: Vec<[u8; PACKET]> = (0..BATCH)
            .map(|n| syn((self.sources)(self.sent.wrapping_add(n)), self.target))
            .collect();
        self.sent = self.sent.wrapping_add(BATCH);
        let slices: Vec<[IoSlice<'_>; 1]> = packets
            .iter()
            .map(|packet| [IoSlice::new(packet)])
            .collect();
        let target = Some(SockaddrIn::from(self.target));
        let addresses = vec![target; packets.len()];
        let mut headers = MultiHeaders::preallocate(packets.len(), None);
        let sent = sendmmsg(
            self.socket.as_raw_fd(),
            &mut headers,
            &slices,
            &addresses,
            [],
            MsgFlags::empty(),
        );
        match sent {
            Ok(results) => Ok(results.count()),
            Err(Errno::ENOBUFS | Errno::EAGAIN) => Ok(0),
            Err(error) => Err(error).context("send SYNs"),
        }
    }
}

/// A SYN. The kernel fills in the checksum of the IPv4 header (`raw(7)`); the one of TCP is wrong,
/// which no firewall looks at.
fn syn(source: Ipv4Addr, target: SocketAddrV4) -> [u8; PACKET] {
    let mut packet = [0; PACKET];
    packet[0] = 0x45;
    packet[3] = 40;
    packet[8] = 64;
    packet[9] = 6;
    packet[12..16].copy_from_slice(&source.octets());
    packet[16..20].copy_from_slice(&target.ip().octets());
    packet[20..22].copy_from_slice(&40_000_u16.to_be_bytes());
    packet[22..24].copy_from_slice(&target.port().to_be_bytes());
    packet[32] = 0x50;
    packet[33] = 0x02;
    packet
}
