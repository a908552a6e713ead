//! This node's devices and addresses, as the kernel has them now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, RawFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoKind, InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// Groups of rtnetlink(7) that tell of links and addresses (linux/rtnetlink.h).
const RTNLGRP_LINK: u32 = 1;
const RTNLGRP_IPV4_IFADDR: u32 = 5;
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// The devices of a network namespace and the addresses on them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// Every device but the loopback one, by index.
    pub links: BTreeMap<u32, Device>,
    /// Every address, loopback's among them.
    pub addresses: BTreeSet<IpAddr>,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its name, as in `ip link`.
    pub name: String,
    /// Whether BPF can judge what comes in there.
    pub nature: Nature,
}

/// What a device is to the BPF plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// Frames on it begin with an Ethernet header and are as they came.
    Ethernet,
    /// A bridge or a port of one. With `bridge-nf-call-iptables`, which Kubernetes asks for,
    /// nftables and kube-proxy's DNAT come before the bridge's own hooks: BPF there would judge a
    /// destination that nftables has already judged, or that was never sent.
    Bridged,
    /// Frames on it have no Ethernet header.
    NotEthernet,
}

impl Devices {
    /// Asks the kernel.
    ///
    /// # Errors
    /// If it does not answer, or not in its own words.
    pub fn list() -> io::Result<Self> {
        let mut devices = Self::default();
        dump(
            RouteNetlinkMessage::GetLink(LinkMessage::default()),
            |message| {
                if let RouteNetlinkMessage::NewLink(link) = message {
                    devices.add_link(link);
                }
            },
        )?;
        dump(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            |message| {
                if let RouteNetlinkMessage::NewAddress(address) = message {
                    devices.addresses.extend(address_of(&address));
                }
            },
        )?;
        Ok(devices)
    }

    fn add_link(&mut self, link: LinkMessage) {
        if link.header.link_layer_type == LinkLayerType::Loopback {
            return;
        }
        let is_bridged = link.attributes.iter().any(|it| {
            let LinkAttribute::LinkInfo(infos) = it else {
                return false;
            };
            infos.iter().any(|info| {
                matches!(
                    info,
                    LinkInfo::Kind(InfoKind::Bridge) | LinkInfo::PortKind(InfoPortKind::Bridge)
                )
            })
        });
        let name = link.attributes.into_iter().find_map(|it| match it {
            LinkAttribute::IfName(name) => Some(name),
            _ => None,
        });
        let nature = if link.header.link_layer_type != LinkLayerType::Ether {
            Nature::NotEthernet
        } else if is_bridged {
            Nature::Bridged
        } else {
            Nature::Ethernet
        };
        let device = Device {
            name: name.unwrap_or_else(|| format!("device {}", link.header.index)),
            nature,
        };
        self.links.insert(link.header.index, device);
    }
}

/// The address on this side: of a point-to-point link `Address` is the other side's.
fn address_of(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|it| match it {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|it| match it {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

/// Asks for everything of a kind.
fn dump(
    question: RouteNetlinkMessage,
    mut take: impl FnMut(RouteNetlinkMessage),
) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::InnerMessage(question),
    );
    message.header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    message.header.sequence_number = 1;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
            let length = (message.header.length as usize).next_multiple_of(4);
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(()),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(message) => take(message),
                _ => {}
            }
            rest = rest.get(length.max(16)..).unwrap_or_default();
        }
    }
}

/// Tells that devices or addresses may have changed.
#[derive(Debug)]
pub struct Monitor(Socket);

impl Monitor {
    /// Listens to the kernel's own announcements.
    ///
    /// # Errors
    /// If there are no sockets left.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
            socket.add_membership(group)?;
        }
        socket.set_non_blocking(true)?;
        Ok(Self(socket))
    }

    /// Takes what has been announced; whether there was anything. What it was does not matter:
    /// [`Devices::list`] says how things are, also after announcements were lost.
    pub fn drain(&self) -> bool {
        let mut came = false;
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            buffer.clear();
            match self.0.recv(&mut buffer, 0) {
                Ok(_) => came = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return came,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The socket's buffer ran over (ENOBUFS): something was lost, so something came.
                Err(_) => return true,
            }
        }
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_of_this_machine() {
        let devices = Devices::list().unwrap();
        assert!(devices.addresses.contains(&"127.0.0.1".parse().unwrap()));
        assert!(devices.links.values().all(|device| device.name != "lo"));
    }
}
