//! TCP SYNs and UDP packets by the hundred thousand, from any source address.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockProtocol, SockType, SockaddrIn,
    SockaddrIn6, SockaddrLike, sendmmsg, socket,
};

/// Packets that go out in one system call.
pub const BATCH: u32 = 64;

/// Above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A SYN.
    Tcp,
    /// A header without content.
    Udp,
}

/// A raw socket in the network namespace of the thread that makes it.
#[derive(Debug)]
pub struct Flood {
    socket: OwnedFd,
    transport: Transport,
    target: SocketAddr,
    next_hop: IpAddr,
    sources: fn(u32) -> IpAddr,
    sent: u32,
}

impl Flood {
    /// Packets to `target`; the n-th comes from the n-th source, which is of the target's family.
    ///
    /// # Errors
    /// Without root (`CAP_NET_RAW`).
    pub fn new(
        transport: Transport,
        target: SocketAddr,
        sources: fn(u32) -> IpAddr,
    ) -> Result<Self> {
        let family = match target {
            SocketAddr::V4(_) => AddressFamily::Inet,
            SocketAddr::V6(_) => AddressFamily::Inet6,
        };
        let socket = socket(
            family,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::Raw,
        )
        .context("open a raw socket; this needs root")?;
        Ok(Self {
            socket,
            transport,
            target,
            next_hop: target.ip(),
            sources,
            sent: 0,
        })
    }

    /// What it is aimed at.
    #[must_use]
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Sends them to this host of the target's family, whatever their destination says.
    #[must_use]
    pub fn by(mut self, next_hop: IpAddr) -> Self {
        self.next_hop = next_hop;
        self
    }

    /// Sends the next [`BATCH`]; how many the kernel took.
    ///
    /// # Errors
    /// If the kernel takes none, for another reason than a full queue.
    pub fn batch(&mut self) -> Result<usize> {
        self.send(BATCH)
    }

    /// Sends the next `count`, at most [`BATCH`]; how many the kernel took.
    ///
    /// # Errors
    /// As [`Flood::batch`].
    pub fn send(&mut self, count: u32) -> Result<usize> {
        let packets: Vec<Vec<u8>> = (0..count.min(BATCH))
            .map(|n| self.packet((self.sources)(self.sent.wrapping_add(n))))
            .collect();
        self.sent = self.sent.wrapping_add(count.min(BATCH));
        // A raw socket's port is a protocol, or 0 for what stands in the header (raw(7)).
        let sent = match self.next_hop {
            IpAddr::V4(to) => self.hand_over(&packets, SockaddrIn::from(SocketAddrV4::new(to, 0))),
            IpAddr::V6(to) => {
                self.hand_over(&packets, SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, 0)))
            }
        };
        match sent {
            Ok(sent) => Ok(sent),
            // Full, or the device is down: it goes on when that is over.
            Err(
                Errno::ENOBUFS
                | Errno::EAGAIN
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH,
            ) => Ok(0),
            Err(error) => Err(error).context("send a flood"),
        }
    }

    fn hand_over<A: SockaddrLike + Copy>(
        &self,
        packets: &[Vec<u8>],
        target: A,
    ) -> nix::Result<usize> {
        let slices: Vec<[IoSlice<'_>; 1]> = packets
            .iter()
            .map(|packet| [IoSlice::new(packet)])
            .collect();
        let addresses = vec![Some(target); packets.len()];
        let mut headers = MultiHeaders::preallocate(packets.len(), None);
        let none = MsgFlags::empty();
        let fd = self.socket.as_raw_fd();
        let sent = sendmmsg(fd, &mut headers, &slices, &addresses, [], none)?;
        Ok(sent.count())
    }

    /// Checksums are those that the kernel fills in (IPv4's, raw(7)); no firewall looks at others.
    fn packet(&self, source: IpAddr) -> Vec<u8> {
        let (protocol, transport) = match self.transport {
            Transport::Tcp => (6, &mut [0; 20][..]),
            Transport::Udp => (17, &mut [0; 8][..]),
        };
        let length = u8::try_from(transport.len()).expect("a header is short");
        transport[..2].copy_from_slice(&40_000_u16.to_be_bytes());
        transport[2..4].copy_from_slice(&self.target.port().to_be_bytes());
        match self.transport {
            Transport::Tcp => (transport[12], transport[13]) = (0x50, 0x02),
            Transport::Udp => transport[5] = length,
        }
        let mut packet = match (source, self.target.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x45, 0, 0, 20 + length, 0, 0, 0, 0, 64, protocol, 0, 0];
                header.extend([from.octets(), to.octets()].concat());
                header
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let mut header = vec![0x60, 0, 0, 0, 0, length, protocol, 64];
                header.extend([from.octets(), to.octets()].concat());
                header
            }
            _ => panic!("a source of the target's family"),
        };
        packet.extend_from_slice(transport);
        packet
    }
}
