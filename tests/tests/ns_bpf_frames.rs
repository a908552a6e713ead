//! The loaded programs judge frames as the same code does on the host (`BPF_PROG_TEST_RUN`). Needs
//! root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

#[path = "../../nodeguard/tests/frames/mod.rs"]
#[allow(dead_code, reason = "not every test needs all of it")]
mod frames;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use ebpf_common::decide::{Action, decide};
use ebpf_common::packet::{Flow, parse};
use ebpf_common::table::{MOST_HOSTS, Reason};
use harness::folder::Folder;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nodeguard::bpf::{BpfError, Flags, Mode, Plane, Tables, teardown};

use frames::*;

/// A plane that holds a policy and is attached to nothing.
struct Bench {
    plane: Plane,
    tables: Tables,
    folder: Folder,
}

impl Bench {
    fn new(label: &str) -> Self {
        let folder = Folder::new(label).unwrap();
        let mut plane = Plane::load(&folder.path().join("bpf")).unwrap();
        let tables = policy();
        plane.loosen(&tables).unwrap();
        plane.tighten(&tables).unwrap();
        Self {
            plane,
            tables,
            folder,
        }
    }

    fn expected(&self, frame: &[u8]) -> bool {
        let mut flow = Flow::EMPTY;
        parse(&frame, None, &mut flow).is_ok() && decide(&flow, &self.tables) != Action::Pass
    }

    /// Whether the frame is dropped: both programs and the host must say the same.
    fn drops(&self, frame: &[u8]) -> bool {
        let expected = self.expected(frame);
        for mode in [Mode::Tcx, Mode::Xdp] {
            if mode == Mode::Tcx && !testable(frame) {
                continue;
            }
            let dropped = match self.plane.drops(mode, frame) {
                Ok(dropped) => dropped,
                Err(error) => panic!("{mode:?}: {error:?}: {frame:02x?}"),
            };
            assert_eq!(dropped, expected, "{mode:?}: {frame:02x?}");
        }
        expected
    }
}

/// The kernel runs programs for tcx on what `ip_rcv` could begin with; behind a tag it does not look.
fn testable(frame: &[u8]) -> bool {
    let least = match frame[12..14] {
        [0x08, 0x00] => 34,
        [0x86, 0xdd] => 54,
        _ => 15,
    };
    frame.len() >= least
}

impl Drop for Bench {
    fn drop(&mut self) {
        let removed = teardown(&self.folder.path().join("bpf"));
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

/// Variations of a packet with all that may stand between Ethernet and the ports.
fn variations(packet: &Packet) -> Vec<Packet> {
    let mut all = Vec::new();
    for count in 0..=5 {
        all.push(packet.clone().tags(&vec![PRIORITY_TAG; count]));
    }
    for tags in [
        &[SERVICE_TAG, PRIORITY_TAG][..],
        &[VLAN_TAG],
        &[PRIORITY_TAG, VLAN_TAG],
        &[SERVICE_TAG, VLAN_TAG],
    ] {
        all.push(packet.clone().tags(tags));
    }
    let fragments = [(0, true), (0, false), (1, true), (185, false)];
    if packet.source.is_ipv4() {
        all.extend((0..=10).map(|words| packet.clone().option_words(words)));
        for (offset, more) in fragments {
            all.push(packet.clone().fragment(offset, more));
        }
        return all;
    }
    for count in 0..=12 {
        for kind in [HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION] {
            all.push(packet.clone().headers(&vec![kind; count]));
        }
    }
    for (offset, more) in fragments {
        let headers = [HOP_BY_HOP, DESTINATION_OPTIONS, FRAGMENT];
        all.push(packet.clone().headers(&headers).fragment(offset, more));
        let headers = [FRAGMENT, DESTINATION_OPTIONS];
        all.push(packet.clone().headers(&headers).fragment(offset, more));
    }
    all
}

fn packets() -> Vec<Packet> {
    let mut all = Vec::new();
    for cast in casts() {
        for source in [
            cast.own,
            cast.peer,
            cast.ranged_peer,
            cast.pod,
            cast.stranger,
        ] {
            for destination in [cast.own, cast.worker, cast.guest] {
                for (protocol, port) in [
                    (TCP, KUBELET),
                    (TCP, ETCD),
                    (TCP, OPEN),
                    (UDP, VXLAN),
                    (UDP, KUBELET),
                    (SCTP, SCTP_PORT),
                    (1, 0),
                ] {
                    all.push(Packet::new(source, destination, protocol, port));
                }
            }
        }
    }
    let [v4, _] = casts();
    let loopback = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1));
    all.push(Packet::new(v4.peer, loopback, TCP, OPEN));
    all
}

#[test]
fn every_kind_of_packet_is_judged_as_on_the_host() {
    let bench = Bench::new("bpf-kinds");
    let mut dropped = 0;
    let mut passed = 0;
    for packet in packets() {
        for packet in variations(&packet) {
            match bench.drops(&packet.frame()) {
                true => dropped += 1,
                false => passed += 1,
            }
        }
    }
    assert!(dropped > 500 && passed > 2000, "{dropped} and {passed}");
}

#[test]
fn a_frame_cut_off_anywhere_is_judged_as_on_the_host() {
    let bench = Bench::new("bpf-cut");
    for cast in casts() {
        for (protocol, port) in [(TCP, KUBELET), (UDP, VXLAN), (SCTP, SCTP_PORT)] {
            let bare = Packet::new(cast.stranger, cast.own, protocol, port);
            let laden = bare
                .clone()
                .tags(&[SERVICE_TAG, PRIORITY_TAG])
                .option_words(10)
                .headers(&[HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, FRAGMENT]);
            for packet in [bare, laden] {
                let frame = packet.frame();
                // The kernel takes nothing shorter than an Ethernet header.
                for length in 0..14 {
                    assert!(!bench.expected(&frame[..length]));
                }
                for length in 14..frame.len() {
                    bench.drops(&frame[..length]);
                }
                assert!(bench.drops(&frame));
            }
        }
    }
}

/// xorshift64: the same frames in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[test]
fn random_and_damaged_frames_are_judged_as_on_the_host() {
    const FRAMES: usize = 30_000;
    let bench = Bench::new("bpf-random");
    let sound = packets();
    let sound = sound.iter().flat_map(variations).map(|it| it.frame());
    let (dropped, passed): (Vec<_>, Vec<_>) = sound.partition(|it| bench.expected(it));
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut drops = 0;
    for number in 0..FRAMES {
        let mut frame = match number % 8 {
            0 => {
                let length = 14 + random.below(200);
                (0..length).map(|_| random.next() as u8).collect()
            }
            1..4 => passed[random.below(passed.len())].clone(),
            _ => dropped[random.below(dropped.len())].clone(),
        };
        for _ in 0..random.below(4) {
            // The address of the device stays, so that the frame is for it.
            let at = 12 + random.below(frame.len() - 12);
            frame[at] = match random.below(3) {
                0 => random.next() as u8,
                1 => frame[at] ^ 1 << random.below(8),
                _ => frame[at].wrapping_add(1),
            };
        }
        if random.below(10) == 0 {
            frame.truncate(14 + random.below(frame.len() - 13));
        }
        frame[..6].fill(0);
        drops += usize::from(bench.drops(&frame));
    }
    assert!(drops > FRAMES / 5, "only {drops} dropped: a weak test");
}

#[test]
fn frames_to_other_machines_are_left_alone_at_tcx() {
    let bench = Bench::new("bpf-others");
    let [cast, _] = casts();
    let mut frame = Packet::new(cast.stranger, cast.own, TCP, KUBELET).frame();
    assert!(bench.drops(&frame));
    frame[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    assert!(!bench.plane.drops(Mode::Tcx, &frame).unwrap());
}

#[test]
fn drops_and_what_is_not_understood_are_counted() {
    let bench = Bench::new("bpf-counters");
    for cast in casts() {
        let packet = Packet::new(cast.stranger, cast.own, TCP, KUBELET);
        for _ in 0..3 {
            bench.drops(&packet.frame());
        }
        bench.drops(&packet.clone().tags(&[VLAN_TAG]).frame());
        bench.drops(&packet.clone().tags(&[PRIORITY_TAG; 4]).frame());
        bench.drops(&packet.clone().tags(&[PRIORITY_TAG]).frame()[..24]);
        bench.drops(&Packet::new(cast.own, cast.own, TCP, ETCD).frame());
        bench.drops(&Packet::new(cast.pod, cast.own, TCP, ETCD).frame());
    }
    let counters = bench.plane.counters().unwrap();
    let sum = |reason, port| -> Vec<u64> {
        let of = counters.drops.iter();
        of.filter(|it| it.reason == reason && it.port.is_some_and(|it| it.1 == port))
            .map(|it| it.packets)
            .collect()
    };
    // Of each family, by both programs.
    assert_eq!(sum(Reason::Stranger, KUBELET), [6, 6]);
    assert_eq!(sum(Reason::Spoofed, ETCD), [2, 2]);
    assert_eq!(sum(Reason::Pod, ETCD), [2, 2]);
    assert_eq!(sum(Reason::Stranger, ETCD), [0, 0]);
    let unparsed: Vec<u64> = counters.unparsed.iter().map(|it| it.1).collect();
    assert_eq!(unparsed, [4, 4, 0, 4, 0]);
}

#[test]
fn events_tell_of_drops_within_a_budget() {
    let mut bench = Bench::new("bpf-events");
    let [_, cast] = casts();
    let frame = Packet::new(cast.stranger, cast.own, TCP, KUBELET)
        .tags(&[PRIORITY_TAG])
        .frame();
    for _ in 0..1000 {
        bench.drops(&frame);
    }
    let mut events = Vec::new();
    let readable = bench.plane.events().unwrap();
    let mut polled = [PollFd::new(readable.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut polled, PollTimeout::from(1000_u16)).unwrap(), 1);
    bench.plane.drain(|event| events.push(event));
    let event = events[0];
    assert_eq!(event.source(), cast.stranger);
    assert_eq!(event.destination(), cast.own);
    assert_eq!(
        (event.source_port, event.destination_port),
        (40_000, KUBELET)
    );
    assert_eq!((event.reason, event.tags), (Reason::Stranger, 1));
    let lost = bench.plane.counters().unwrap().lost_events;
    assert!(events.len() < 1000, "{} events", events.len());
    assert_eq!(events.len() as u64 + lost, 2000);
}

#[test]
fn an_update_is_the_difference_and_takes_effect() {
    let mut bench = Bench::new("bpf-update");
    let [cast, _] = casts();
    let from_peer = Packet::new(cast.peer, cast.own, TCP, ETCD).frame();
    let from_stranger = Packet::new(cast.stranger, cast.own, TCP, ETCD).frame();
    assert!(!bench.drops(&from_peer) && bench.drops(&from_stranger));

    // The stranger takes the peer's place.
    bench.tables.hosts.remove(&cast.peer);
    bench.tables.hosts.insert(cast.stranger, Flags::PEER);
    let changes = bench.plane.loosen(&bench.tables).unwrap();
    assert_eq!((changes.hosts, changes.ports), (1, 0));
    for mode in [Mode::Tcx, Mode::Xdp] {
        assert!(!bench.plane.drops(mode, &from_peer).unwrap());
        assert!(!bench.plane.drops(mode, &from_stranger).unwrap());
    }
    let changes = bench.plane.tighten(&bench.tables).unwrap();
    assert_eq!((changes.hosts, changes.ports), (1, 0));
    assert!(bench.drops(&from_peer) && !bench.drops(&from_stranger));

    let nothing = bench.plane.tighten(&bench.tables).unwrap();
    assert_eq!(nothing, nodeguard::bpf::Changes::default());
}

#[test]
fn a_ports_counts_follow_it_to_another_number() {
    let mut bench = Bench::new("bpf-slots");
    let [cast, _] = casts();
    let frame = Packet::new(cast.stranger, cast.own, TCP, KUBELET).frame();
    bench.drops(&frame);
    let mut swapped = bench.tables.clone();
    for port in swapped.ports.values_mut() {
        port.slot = match port.slot {
            1 => 2,
            2 => 1,
            other => other,
        };
    }
    bench.plane.loosen(&swapped).unwrap();
    bench.plane.tighten(&swapped).unwrap();
    bench.drops(&frame);
    let counters = bench.plane.counters().unwrap();
    let counted: Vec<_> = counters.drops.iter().filter(|it| it.packets != 0).collect();
    assert_eq!(counted.len(), 1, "{counted:?}");
    assert_eq!(counted[0].port.unwrap().1, KUBELET);
    assert_eq!((counted[0].slot, counted[0].packets), (2, 4));
}

#[test]
fn a_policy_that_does_not_fit_leaves_all_to_nftables() {
    let mut bench = Bench::new("bpf-full");
    let [cast, _] = casts();
    let frame = Packet::new(cast.stranger, cast.own, TCP, KUBELET).frame();
    let mut huge = bench.tables.clone();
    for number in 0..=MOST_HOSTS {
        let address = Ipv4Addr::from_bits(0x0b00_0000 + number);
        huge.hosts.insert(address.into(), Flags::PEER);
    }
    let refused = bench.plane.loosen(&huge);
    assert!(
        matches!(refused, Err(BpfError::TooMany { .. })),
        "{refused:?}"
    );
    for mode in [Mode::Tcx, Mode::Xdp] {
        assert!(!bench.plane.drops(mode, &frame).unwrap());
    }
    // As many as there is room for, in the place of as many others.
    for first in [0x0b00_0000, 0x0c00_0000] {
        let mut full = bench.tables.clone();
        full.hosts.clear();
        for number in 0..MOST_HOSTS {
            let address = Ipv4Addr::from_bits(first + number);
            full.hosts.insert(address.into(), Flags::PEER);
        }
        // Both do not fit together; the second half of the update always converges.
        let _ = bench.plane.loosen(&full);
        bench.plane.tighten(&full).unwrap();
        bench.tables = full;
        assert!(bench.drops(&frame));
    }
}

#[test]
fn the_programs_are_small() {
    let bench = Bench::new("bpf-size");
    for size in bench.plane.sizes().unwrap() {
        println!("{size:?}");
        assert!(
            size.instructions > 0 && size.instructions < 4096,
            "{size:?}"
        );
    }
}
