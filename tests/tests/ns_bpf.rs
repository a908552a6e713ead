//! The BPF plane on the devices of real hosts: it drops strangers, lives beside programs of others,
//! and outlives its process. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

#[path = "../../nodeguard/tests/frames/mod.rs"]
#[allow(dead_code, reason = "not every test needs all of it")]
mod frames;

mod bpf_scene;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use config::net::IpRange;
use ebpf_common::event::Event;
use ebpf_common::table::{Reason, Unparsed};
use harness::folder::Folder;
use harness::tool::Tool;
use harness::wait::until_true;
use nodeguard::bpf::{BpfError, Counters, Device, Flags, Mode, Plane, Refusal, State, teardown};

use bpf_scene::{Scene, foreign};
use frames::*;

fn dropped(counters: &Counters, reason: Reason, port: u16) -> u64 {
    let of = counters.drops.iter();
    of.filter(|it| it.reason == reason && it.port.is_some_and(|it| it.1 == port))
        .map(|it| it.packets)
        .sum()
}

fn pin(scene: &Scene, mode: Mode) -> PathBuf {
    let name = match mode {
        Mode::Tcx => "tcx",
        Mode::Xdp => "xdp",
    };
    scene.pins().join(format!("links/{name}-{}", scene.device))
}

fn mounted(path: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    mounts.contains(path.to_str().unwrap())
}

#[test]
fn strangers_are_dropped_counted_and_told_of() {
    for mode in [Mode::Tcx, Mode::Xdp] {
        let scene = Scene::new("bpf-guard");
        for to in [scene.node.v4, scene.node.v6] {
            assert!(scene.reaches(&scene.stranger, to, KUBELET), "unguarded");
        }
        let mut plane = scene.guard(mode);
        scene.assert_enforced();
        assert_eq!(plane.check().unwrap(), []);
        let counters = plane.counters().unwrap();
        assert!(
            dropped(&counters, Reason::Stranger, KUBELET) >= 2,
            "{counters:?}"
        );
        assert_eq!(dropped(&counters, Reason::Pod, KUBELET), 0);
        let mut events: Vec<Event> = Vec::new();
        plane.drain(|event| events.push(event));
        for (from, to) in [
            (scene.stranger.v4, scene.node.v4),
            (scene.stranger.v6, scene.node.v6),
        ] {
            let told = events.iter().find(|it| it.source() == from).unwrap();
            assert_eq!((told.destination(), told.destination_port), (to, KUBELET));
            assert_eq!((told.device, told.reason), (scene.device, Reason::Stranger));
        }
    }
}

#[test]
fn tags_that_the_kernel_takes_off_hide_nothing() {
    let scene = Scene::new("bpf-tags");
    let bare = scene.datagram();
    for mode in [Mode::Tcx, Mode::Xdp] {
        let mut plane = scene.load();
        let before = scene.received();
        scene.send(&bare.clone().tags(&[PRIORITY_TAG; 2]).frame(), 10);
        let arrived = || scene.received() >= before + 10;
        until_true("tagged datagrams get through unguarded", arrived).unwrap();

        scene.attach(&mut plane, mode);
        let before = scene.received();
        for count in 0..=3 {
            scene.send(&bare.clone().tags(&vec![PRIORITY_TAG; count]).frame(), 10);
        }
        // XDP does not see the first tag, which the sender's side keeps beside the frame.
        scene.send(&bare.clone().tags(&[PRIORITY_TAG, VLAN_TAG]).frame(), 10);
        // Five tags are left to nftables, and there is none here; so they mark the end.
        scene.send(&bare.clone().tags(&[PRIORITY_TAG; 5]).frame(), 10);
        let arrived = || scene.received() >= before + 10;
        until_true("what is left to nftables gets through", arrived).unwrap();
        until_true("all are counted", || {
            let counters = plane.counters().unwrap();
            dropped(&counters, Reason::Stranger, VXLAN) >= 40
                && counters.unparsed[0] == (Unparsed::Vlan, 10)
        })
        .unwrap();
        assert_eq!(scene.received(), before + 10);
        scene.node.namespace.run(|| plane.attach(&[])).unwrap();
        drop(plane);
        teardown(&scene.pins()).unwrap();
    }
}

#[test]
fn programs_of_others_stay_and_run_after_ours() {
    let scene = Scene::new("bpf-beside");
    let mut theirs = foreign(&scene, Mode::Tcx);
    let alone = scene.at_tcx();
    assert_eq!(alone.len(), 1);
    let mut ours = scene.guard(Mode::Tcx);
    let both = scene.at_tcx();
    assert_eq!(both.len(), 2);
    assert_eq!(both[1], alone[0], "ours is first");
    scene.assert_enforced();
    assert_eq!(theirs.check().unwrap(), []);
    assert_eq!(ours.check().unwrap(), []);
    // Ours lets packets go on: the one behind sees what it alone counts.
    scene.send(&scene.datagram().tags(&[VLAN_TAG]).frame(), 5);
    until_true("theirs has seen it too", || {
        theirs.counters().unwrap().unparsed[0].1 == 5
    })
    .unwrap();
    drop(ours);
    teardown(&scene.pins()).unwrap();
    assert_eq!(scene.at_tcx(), alone);
}

#[test]
fn a_foreign_xdp_program_stays_and_tcx_takes_over() {
    let scene = Scene::new("bpf-foreign");
    let mut theirs = foreign(&scene, Mode::Xdp);
    let mut ours = scene.load();
    let state = scene.attach(&mut ours, Mode::Xdp);
    assert!(
        matches!(state, State::Fallback(Refusal::Foreign)),
        "{state:?}"
    );
    scene.assert_enforced();
    assert_eq!(theirs.check().unwrap(), []);
    assert_eq!(ours.check().unwrap(), []);
    // When they are gone, the wish is fulfilled, and the substitute goes.
    drop(theirs);
    teardown(&scene.folder.path().join("theirs")).unwrap();
    let state = scene.attach(&mut ours, Mode::Xdp);
    assert!(matches!(state, State::Attached(Mode::Xdp)), "{state:?}");
    assert_eq!(scene.at_tcx(), []);
    scene.assert_enforced();
}

#[test]
fn what_is_detached_by_hand_is_noticed_and_mended() {
    for mode in [Mode::Tcx, Mode::Xdp] {
        let scene = Scene::new("bpf-detach");
        let mut plane = scene.guard(mode);
        let detach = Tool::new("bpftool").args(["link", "detach", "pinned"]);
        detach.args([pin(&scene, mode)]).succeed().unwrap();
        assert!(scene.reaches(&scene.stranger, scene.node.v4, KUBELET));
        let detached = plane.check().unwrap();
        assert_eq!(detached.len(), 1);
        assert_eq!((detached[0].index, detached[0].mode), (scene.device, mode));
        scene.attach(&mut plane, mode);
        assert_eq!(plane.check().unwrap(), []);
        scene.assert_enforced();

        std::fs::remove_file(pin(&scene, mode)).unwrap();
        assert_eq!(plane.check().unwrap().len(), 1);
        let state = scene.attach(&mut plane, mode);
        assert!(
            matches!(state, State::Attached(it) if it == mode),
            "{state:?}"
        );
        assert!(pin(&scene, mode).exists());
        scene.assert_enforced();
        assert!(scene.at_tcx().len() <= 1, "{:?}", scene.at_tcx());

        Tool::new("umount").args([scene.pins()]).succeed().unwrap();
        assert_eq!(plane.check().unwrap().len(), 1);
        scene.attach(&mut plane, mode);
        assert_eq!(plane.check().unwrap(), []);
        drop(plane);
        scene.assert_enforced();
    }
}

#[test]
fn the_end_of_the_process_changes_nothing() {
    for mode in [Mode::Tcx, Mode::Xdp] {
        let scene = Scene::new("bpf-end");
        drop(scene.guard(mode));
        scene.assert_enforced();
        // The next one goes on counting.
        let plane = scene.load();
        let counters = plane.counters().unwrap();
        assert!(
            dropped(&counters, Reason::Stranger, KUBELET) >= 2,
            "{counters:?}"
        );
        scene.assert_enforced();
    }
}

#[test]
fn a_change_of_generation_lets_nothing_through() {
    const FRAMES: u64 = 1_000_000;
    const GENERATIONS: u64 = 10;
    for mode in [Mode::Tcx, Mode::Xdp] {
        let scene = Scene::new("bpf-swap");
        let frame = scene.datagram().frame();
        let before = scene.received();
        scene.send(&frame, 50);
        let arrived = || scene.received() >= before + 50;
        until_true("datagrams get through unguarded", arrived).unwrap();

        let mut plane = scene.guard(mode);
        let before = scene.received();
        let (sent, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| scene.flood(&frame, &sent, |_| stop.load(Ordering::Relaxed)));
            for generation in 1..=GENERATIONS {
                let deadline = Instant::now() + Duration::from_secs(120);
                while sent.load(Ordering::Relaxed) < FRAMES / GENERATIONS * generation {
                    assert!(
                        Instant::now() < deadline,
                        "{} frames",
                        sent.load(Ordering::Relaxed)
                    );
                    std::thread::sleep(Duration::from_millis(1));
                }
                let next = scene.guard(mode);
                drop(std::mem::replace(&mut plane, next));
                assert_eq!(plane.check().unwrap(), []);
            }
            stop.store(true, Ordering::Relaxed);
        });
        let sent = sent.load(Ordering::Relaxed);
        assert!(sent >= FRAMES);
        assert_eq!(scene.received(), before, "of {sent} frames");
        let counted = || dropped(&plane.counters().unwrap(), Reason::Stranger, VXLAN);
        println!("{mode:?}: {sent} frames, {} counted", counted());
        // A queue that is full loses frames before XDP, and each change may miss what another
        // processor was just about to count.
        let least = match mode {
            Mode::Tcx => sent / 100 * 99,
            Mode::Xdp => sent / 2,
        };
        assert!(
            (least..=sent).contains(&counted()),
            "{} of {sent}",
            counted()
        );
    }
}

#[test]
fn an_update_drops_nothing_that_both_policies_let_through() {
    const FRAMES: u64 = 200_000;
    let mut scene = Scene::new("bpf-update");
    let mut plane = scene.guard(Mode::Tcx);
    // The sender is a peer by its address, and then by a range.
    let by_address = {
        let mut tables = scene.tables.clone();
        tables.hosts.insert(scene.stranger.v4, Flags::PEER);
        tables
    };
    let by_range = {
        let mut tables = scene.tables.clone();
        let range = IpRange::single(scene.stranger.v4);
        tables.ranges.insert(range, Flags::PEER);
        tables
    };
    scene.tables = by_address.clone();
    plane.loosen(&by_address).unwrap();
    plane.tighten(&by_address).unwrap();
    let frame = scene.datagram().frame();
    let before = scene.received();
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| scene.flood(&frame, &sent, |sent| sent >= FRAMES));
        while !flood.is_finished() {
            for next in [&by_range, &by_address] {
                plane.loosen(next).unwrap();
                plane.tighten(next).unwrap();
            }
        }
    });
    let arrived = || scene.received() == before + FRAMES;
    until_true("every frame arrives", arrived).unwrap();
    let counters = plane.counters().unwrap();
    assert_eq!(dropped(&counters, Reason::Stranger, VXLAN), 0);
}

#[test]
fn devices_that_cannot_be_guarded_are_named() {
    let scene = Scene::new("bpf-refuse");
    let mut plane = scene.load();
    let devices = [
        Device {
            index: 1,
            name: "lo".into(),
            mode: Mode::Tcx,
        },
        Device {
            index: scene.device,
            name: "eth1".into(),
            mode: Mode::Tcx,
        },
    ];
    let report = scene.node.namespace.run(|| plane.attach(&devices)).unwrap();
    let refusal = |number: usize| match &report[number].state {
        State::Refused(refusal) => refusal.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refusal(0), Refusal::NotEthernet);
    assert_eq!(refusal(1), Refusal::Gone);
}

#[test]
fn a_device_that_comes_back_is_guarded_anew() {
    let scene = Scene::new("bpf-back");
    let mut plane = scene.guard(Mode::Tcx);
    let ip = |arguments: &str| {
        let tool = Tool::new("ip").args(arguments.split(' '));
        tool.namespace(Some(&scene.node.namespace))
            .succeed()
            .unwrap();
    };
    let mut devices = scene.eth0(Mode::Tcx);
    devices.push(Device {
        index: 77,
        name: "extra.7".into(),
        mode: Mode::Tcx,
    });
    for _ in 0..2 {
        ip("link add name extra.7 index 77 type veth peer name extra.8");
        let report = scene.node.namespace.run(|| plane.attach(&devices)).unwrap();
        assert!(
            matches!(report[1].state, State::Attached(Mode::Tcx)),
            "{report:?}"
        );
        assert_eq!(plane.check().unwrap(), []);
        ip("link delete extra.7");
        assert_eq!(plane.check().unwrap().len(), 1);
    }
    let report = scene.node.namespace.run(|| plane.attach(&devices)).unwrap();
    assert!(
        matches!(report[1].state, State::Refused(Refusal::Gone)),
        "{report:?}"
    );
    // No longer wanted: detached and forgotten.
    scene.attach(&mut plane, Mode::Tcx);
    assert_eq!(plane.check().unwrap(), []);
    let pins = std::fs::read_dir(scene.pins().join("links")).unwrap();
    assert_eq!(pins.count(), 1);
    scene.node.namespace.run(|| plane.attach(&[])).unwrap();
    assert_eq!(scene.at_tcx(), []);
    assert!(scene.reaches(&scene.stranger, scene.node.v4, KUBELET));
}

#[test]
fn without_rights_there_is_one_clear_error() {
    const CHILD: &str = "GATEHOUSE_WITHOUT_RIGHTS";
    if std::env::var_os(CHILD).is_some() {
        let folder = Folder::new("bpf-rights").unwrap();
        let error = Plane::load(&folder.path().join("bpf")).err().unwrap();
        assert!(matches!(error, BpfError::Unavailable { .. }), "{error:?}");
        return;
    }
    // Root, but with none of root's capabilities.
    let this = std::env::current_exe().unwrap();
    Tool::new("setpriv")
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .args([
            this.to_str().unwrap(),
            "--exact",
            "without_rights_there_is_one_clear_error",
        ])
        .environment(CHILD, "1")
        .succeed()
        .unwrap();
}

#[test]
fn teardown_leaves_nothing() {
    let scene = Scene::new("bpf-teardown");
    let plane = scene.guard(Mode::Xdp);
    assert!(mounted(&scene.pins()));
    drop(plane);
    teardown(&scene.pins()).unwrap();
    assert!(!mounted(&scene.pins()));
    assert!(!scene.pins().exists());
    for to in [scene.node.v4, scene.node.v6] {
        assert!(scene.reaches(&scene.stranger, to, KUBELET));
    }
    // Where there is nothing, there is nothing to do.
    teardown(&scene.pins()).unwrap();
}
