//! The parser and the decision, on the host. That the kernel's programs do the same is tested in
//! `tests/tests/ns_bpf_frames.rs`.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

#[allow(dead_code, reason = "not every test needs all of it")]
mod frames;

use ebpf_common::decide::{Action, decide};
use ebpf_common::packet::{Flow, parse};
use ebpf_common::table::{Family, Reason, Transport, Unparsed};
use proptest::prelude::*;

use frames::*;

fn parsed(frame: &[u8], outer: Option<u16>) -> Result<Flow, Unparsed> {
    let mut flow = Flow::EMPTY;
    parse(&frame, outer, &mut flow).map(|()| flow)
}

fn verdict(packet: &Packet) -> Result<Option<Reason>, Unparsed> {
    let flow = parsed(&packet.frame(), None)?;
    Ok(match decide(&flow, &policy()) {
        Action::Pass => None,
        Action::Drop { reason, .. } => Some(reason),
    })
}

const DROPPED: Result<Option<Reason>, Unparsed> = Ok(Some(Reason::Stranger));

#[test]
fn a_flow_has_its_addresses_and_ports() {
    for cast in casts() {
        for (protocol, transport) in [
            (TCP, Transport::Tcp),
            (UDP, Transport::Udp),
            (SCTP, Transport::Sctp),
        ] {
            let packet = Packet::new(cast.stranger, cast.own, protocol, 513);
            let flow = parsed(&packet.frame(), None).unwrap();
            assert_eq!(flow.transport, transport);
            assert_eq!((flow.source_port, flow.destination_port), (40_000, 513));
            let address = |bytes| ebpf_common::event::address(flow.family, bytes);
            assert_eq!(address(flow.source), cast.stranger);
            assert_eq!(address(flow.destination), cast.own);
        }
    }
}

#[test]
fn who_may_reach_which_port_where() {
    for cast in casts() {
        let is = |source, destination, protocol, port| {
            verdict(&Packet::new(source, destination, protocol, port)).unwrap()
        };
        let stranger = Some(Reason::Stranger);
        assert_eq!(is(cast.stranger, cast.own, TCP, OPEN), None);
        assert_eq!(is(cast.stranger, cast.own, TCP, KUBELET), stranger);
        assert_eq!(is(cast.stranger, cast.own, TCP, ETCD), stranger);
        assert_eq!(is(cast.stranger, cast.own, UDP, VXLAN), stranger);
        assert_eq!(is(cast.stranger, cast.own, SCTP, SCTP_PORT), stranger);
        // The same number of another protocol is another port.
        assert_eq!(is(cast.stranger, cast.own, UDP, KUBELET), None);
        assert_eq!(is(cast.stranger, cast.own, TCP, VXLAN), None);
        // Through this node to another one, and to one that this port is not isolated at.
        assert_eq!(is(cast.stranger, cast.worker, TCP, KUBELET), stranger);
        assert_eq!(is(cast.stranger, cast.worker, TCP, ETCD), None);
        assert_eq!(is(cast.stranger, cast.guest, TCP, KUBELET), None);
        for peer in [cast.peer, cast.ranged_peer] {
            assert_eq!(is(peer, cast.own, TCP, ETCD), None);
            assert_eq!(is(peer, cast.own, UDP, VXLAN), None);
        }
        assert_eq!(is(cast.pod, cast.own, TCP, KUBELET), None);
        assert_eq!(is(cast.pod, cast.own, TCP, ETCD), Some(Reason::Pod));
        assert_eq!(is(cast.own, cast.own, TCP, ETCD), Some(Reason::Spoofed));
        assert_eq!(is(cast.own, cast.own, TCP, OPEN), None);
    }
}

#[test]
fn nothing_from_outside_reaches_127() {
    let [cast, _] = casts();
    let loopback = Ok(Some(Reason::Loopback));
    let to = "127.4.5.6".parse().unwrap();
    for source in [cast.stranger, cast.peer] {
        for protocol in [TCP, UDP, SCTP, 1, 50] {
            assert_eq!(verdict(&Packet::new(source, to, protocol, OPEN)), loopback);
        }
        let later = Packet::new(source, to, TCP, OPEN).fragment(5, false);
        assert_eq!(verdict(&later), loopback);
    }
}

#[test]
fn tags_of_priority_alone_hide_nothing() {
    for cast in casts() {
        let packet = Packet::new(cast.stranger, cast.own, TCP, KUBELET);
        for tags in [
            &[PRIORITY_TAG][..],
            &[PRIORITY_TAG; 2],
            &[PRIORITY_TAG; 3],
            &[SERVICE_TAG, PRIORITY_TAG],
        ] {
            assert_eq!(verdict(&packet.clone().tags(tags)), DROPPED, "{tags:?}");
        }
        for count in [4, 5] {
            let tags = vec![PRIORITY_TAG; count];
            assert_eq!(verdict(&packet.clone().tags(&tags)), Err(Unparsed::Tags));
        }
        for tags in [&[VLAN_TAG][..], &[PRIORITY_TAG, VLAN_TAG]] {
            assert_eq!(verdict(&packet.clone().tags(tags)), Err(Unparsed::Vlan));
        }
    }
}

#[test]
fn a_tag_beside_the_frame_is_one_of_the_tags() {
    for cast in casts() {
        let packet = Packet::new(cast.stranger, cast.own, TCP, KUBELET);
        let with = |tags: usize, outer| {
            let frame = packet.clone().tags(&vec![PRIORITY_TAG; tags]).frame();
            parsed(&frame, outer).map(|flow| flow.tags)
        };
        assert_eq!(with(0, None), Ok(0));
        assert_eq!(with(0, Some(0xe000)), Ok(1));
        assert_eq!(with(2, Some(0)), Ok(3));
        assert_eq!(with(3, Some(0)), Err(Unparsed::Tags));
        assert_eq!(with(0, Some(7)), Err(Unparsed::Vlan));
    }
}

#[test]
fn options_and_extension_headers_hide_nothing() {
    let [v4, v6] = casts();
    let packet = Packet::new(v4.stranger, v4.own, TCP, KUBELET);
    for words in 0..=10 {
        assert_eq!(verdict(&packet.clone().option_words(words)), DROPPED);
    }
    let packet = Packet::new(v6.stranger, v6.own, TCP, KUBELET);
    for count in 0..=8 {
        let headers = vec![DESTINATION_OPTIONS; count];
        assert_eq!(verdict(&packet.clone().headers(&headers)), DROPPED);
    }
    for count in 9..=12 {
        let headers = vec![DESTINATION_OPTIONS; count];
        let verdict = verdict(&packet.clone().headers(&headers));
        assert_eq!(verdict, Err(Unparsed::Headers));
    }
    let mixed = [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, FRAGMENT];
    assert_eq!(verdict(&packet.clone().headers(&mixed)), DROPPED);
    // Not looked behind: nftables is.
    let authenticated = packet.headers(&[AUTHENTICATION]);
    assert_eq!(verdict(&authenticated), Ok(None));
}

#[test]
fn of_fragments_the_first_is_judged() {
    for cast in casts() {
        let packet = Packet::new(cast.stranger, cast.own, TCP, KUBELET).headers(&[FRAGMENT]);
        assert_eq!(verdict(&packet.clone().fragment(0, true)), DROPPED);
        assert_eq!(verdict(&packet.clone().fragment(0, false)), DROPPED);
        assert_eq!(verdict(&packet.clone().fragment(1, true)), Ok(None));
        assert_eq!(verdict(&packet.clone().fragment(0x1fff, false)), Ok(None));
    }
}

#[test]
fn what_contradicts_itself_is_left_to_nftables() {
    let [v4, v6] = casts();
    let frame = Packet::new(v4.stranger, v4.own, TCP, KUBELET).frame();
    let with = |frame: &[u8], at: usize, value: &[u8]| {
        let mut frame = frame.to_vec();
        frame[at..at + value.len()].copy_from_slice(value);
        parsed(&frame, None)
    };
    let malformed = Err(Unparsed::Malformed);
    assert_eq!(with(&frame, 14, &[0x44]), malformed); // a header of 16 bytes
    assert_eq!(with(&frame, 14, &[0x65]), malformed); // another version
    assert_eq!(with(&frame, 16, &[0, 19]), malformed); // shorter than its header
    assert_eq!(with(&frame, 16, &[0, 23]), malformed); // ends within the ports
    assert!(with(&frame, 16, &[0, 24]).is_ok());
    let frame = Packet::new(v6.stranger, v6.own, TCP, KUBELET).frame();
    assert_eq!(with(&frame, 14, &[0x40]), malformed);
    assert_eq!(with(&frame, 18, &[0, 0]), malformed); // a jumbogram, or nothing
    assert_eq!(with(&frame, 18, &[0, 3]), malformed);
    assert!(with(&frame, 18, &[0, 4]).is_ok());
    assert_eq!(with(&frame, 12, &[0x08, 0x06]), Err(Unparsed::NotIp));
}

#[test]
fn a_frame_that_ends_early_is_never_dropped() {
    for cast in casts() {
        let packet = Packet::new(cast.stranger, cast.own, TCP, KUBELET)
            .tags(&[PRIORITY_TAG])
            .option_words(3)
            .headers(&[HOP_BY_HOP, FRAGMENT]);
        let frame = packet.frame();
        // All of TCP's header but the ports is of no interest.
        let ports_end = frame.len() - 16;
        for length in 0..ports_end {
            let result = parsed(&frame[..length], None);
            assert_eq!(result, Err(Unparsed::Truncated), "{length} bytes");
        }
        assert!(parsed(&frame[..ports_end], None).is_ok());
    }
}

#[test]
fn every_input_of_the_corpus_holds() {
    let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/frame");
    let mut count = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        nodeguard::bpf::fuzz::frame(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{count} inputs in {corpus}");
}

fn ethertypes() -> impl Strategy<Value = [u8; 2]> {
    prop_oneof![
        Just([0x08, 0x00]),
        Just([0x86, 0xdd]),
        Just([0x81, 0x00]),
        Just([0x88, 0xa8]),
        any::<[u8; 2]>(),
    ]
}

proptest! {
    #[test]
    fn any_bytes_are_judged(frame in prop::collection::vec(any::<u8>(), 0..300)) {
        nodeguard::bpf::fuzz::frame(&frame);
    }

    #[test]
    fn any_bytes_behind_a_known_type_are_judged(
        kinds in prop::collection::vec(ethertypes(), 1..6),
        rest in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut frame = vec![0; 12];
        for kind in kinds {
            frame.extend(kind);
            frame.extend([0, 0]);
        }
        frame.truncate(frame.len() - 2);
        frame.extend(rest);
        nodeguard::bpf::fuzz::frame(&frame);
    }

    /// A packet that is dropped is one to an isolated port of ours, or to 127.0.0.0/8.
    #[test]
    fn nothing_else_is_dropped(
        cast in prop::sample::select(casts().to_vec()),
        flips in prop::collection::vec((0_usize..90, any::<u8>()), 0..6),
        port in prop::sample::select(vec![KUBELET, ETCD, VXLAN, SCTP_PORT, OPEN]),
        protocol in prop::sample::select(vec![TCP, UDP, SCTP, 1]),
    ) {
        let mut frame = Packet::new(cast.stranger, cast.own, protocol, port).frame();
        for (at, value) in flips {
            if let Some(byte) = frame.get_mut(at) {
                *byte = value;
            }
        }
        let tables = policy();
        if let Ok(flow) = parsed(&frame, None)
            && let Action::Drop { reason, .. } = decide(&flow, &tables)
        {
            let to = ebpf_common::event::address(flow.family, flow.destination);
            let from = ebpf_common::event::address(flow.family, flow.source);
            let loopback = flow.family == Family::V4 && flow.destination[0] == 127;
            prop_assert_eq!(loopback, reason == Reason::Loopback);
            if !loopback {
                prop_assert!(tables.destinations.contains_key(&to));
                prop_assert!(tables.ports.keys().any(|&(_, it)| it == flow.destination_port));
                prop_assert!(from != cast.peer && from != cast.ranged_peer);
            }
        }
    }
}
