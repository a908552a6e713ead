//! The node guard's BPF programs. All that can be decided without the kernel stands in `common`;
//! here are its bytes, its maps and its verdicts.

#![no_std]
#![no_main]

mod events;
mod frame;
mod tables;

use aya_ebpf::bindings::{TC_ACT_SHOT, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use ebpf_common::decide::{Action, decide};
use ebpf_common::packet::{Flow, parse};
use ebpf_common::table::{Unparsed, drop_index, unparsed_index};

use crate::frame::Packet;
use crate::tables::Maps;

/// `TCX_NEXT`: whoever is attached behind us goes on; `TC_ACT_OK` would skip them.
const NEXT: i32 = -1;

/// `PACKET_HOST`: sent to this device's own address. Frames to others are bridged or thrown away,
/// and nftables does not see them either.
const FOR_US: u32 = 0;

/// At tcx ingress.
#[classifier]
pub fn guard_tcx(context: TcContext) -> i32 {
    // SAFETY: the kernel hands over a valid context, and the verifier checks every field of it.
    let (kind, tagged, control, device) = unsafe {
        let skb = &*context.skb.skb;
        (skb.pkt_type, skb.vlan_present, skb.vlan_tci, skb.ifindex)
    };
    if kind != FOR_US {
        return NEXT;
    }
    frame::pull(&context);
    let packet = Packet::new(context.data(), context.data_end());
    let outer = if tagged != 0 {
        Some(control as u16)
    } else {
        None
    };
    if refused(&packet, outer, device) {
        TC_ACT_SHOT
    } else {
        NEXT
    }
}

/// In the driver. With frags: large MTUs and merged frames come in pieces, whose first one holds
/// the headers.
#[xdp(frags)]
pub fn guard_xdp(context: XdpContext) -> u32 {
    let packet = Packet::new(context.data(), context.data_end());
    // A tag that the network card took off is unseen here. nftables on the VLAN's device refuses
    // the same packets, so that it is no drop too many.
    if refused(&packet, None, context.ingress_ifindex() as u32) {
        xdp_action::XDP_DROP
    } else {
        xdp_action::XDP_PASS
    }
}

#[inline(always)]
fn refused(packet: &Packet, outer: Option<u16>, device: u32) -> bool {
    let mut flow = Flow::EMPTY;
    if let Err(why) = parse(packet, outer, &mut flow) {
        if why as u8 != Unparsed::NotIp as u8 {
            tables::count(unparsed_index(why));
        }
        return false;
    }
    match decide(&flow, &Maps) {
        Action::Pass => false,
        Action::Drop { reason, slot } => {
            tables::count(drop_index(reason, flow.family, slot));
            events::send(&flow, reason, device);
            true
        }
    }
}

// An aya-ebpf program needs one; nothing here can panic, and the linker throws it away.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// No helper that is used here asks for the GPL.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 11] = *b"Apache-2.0\0";
