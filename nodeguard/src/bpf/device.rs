//! What a device is, as far as it matters for attaching to it: one question to the kernel each.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoPortKind, LinkAttribute, LinkInfo, LinkLayerType, LinkMessage,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A device as the kernel describes it.
#[derive(Debug)]
pub(super) struct Nature {
    pub(super) name: String,
    /// Whether frames begin with an Ethernet header there. `lo` says no.
    pub(super) is_ethernet: bool,
    /// Whether it hands frames to a switch, which sends some of them on without asking nftables.
    pub(super) is_switch_port: bool,
}

/// Asks for the device of that index in the network namespace of the calling thread; none if there
/// is no such device.
pub(super) fn nature(index: u32) -> io::Result<Option<Nature>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut question = LinkMessage::default();
    question.header.index = index;
    let mut message = NetlinkMessage::new(
        NetlinkHeader::default(),
        NetlinkPayload::from(RouteNetlinkMessage::GetLink(question)),
    );
    message.header.flags = NLM_F_REQUEST;
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    let (answer, _) = socket.recv_from_full()?;
    let answer: NetlinkMessage<RouteNetlinkMessage> =
        NetlinkMessage::deserialize(&answer).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => Ok(Some(read(&link))),
        NetlinkPayload::Error(error) => match error.to_io() {
            error if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            error => Err(error),
        },
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}

fn read(link: &LinkMessage) -> Nature {
    let mut nature = Nature {
        name: String::new(),
        is_ethernet: link.header.link_layer_type == LinkLayerType::Ether,
        is_switch_port: false,
    };
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(name) => nature.name.clone_from(name),
            LinkAttribute::LinkInfo(details) => {
                // Others than these are switches: a bridge, Open vSwitch and what is yet to come.
                let is_switch = |detail: &LinkInfo| match detail {
                    LinkInfo::PortKind(kind) => !matches!(
                        kind,
                        InfoPortKind::Bond | InfoPortKind::Team | InfoPortKind::Vrf
                    ),
                    _ => false,
                };
                nature.is_switch_port = details.iter().any(is_switch);
            }
            _ => {}
        }
    }
    nature
}
