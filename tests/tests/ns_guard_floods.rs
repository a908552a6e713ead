//! Nothing gets through while a guard changes, ends, begins or is tampered with, under a flood; and a
//! peer loses nothing. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use harness::flood::{Flood, Transport};
use harness::guarded::range::{MOMENTARY, Must, Range, strangers4};
use harness::guarded::{KUBELET, Scene};
use harness::namespace::Host;
use harness::tool::Tool;
use harness::wait;
use nix::net::if_::if_nametoindex;
use nodeguard::bpf::{Device, Mode, Plane, State, Tables, teardown};
use nodeguard::devices::Devices;
use nodeguard::load::load;

#[test]
fn nothing_passes_while_policies_are_replaced() {
    for bpf in ["off", "tcx"] {
        let mut range = Range::guarded("flood-replace", bpf).unwrap();
        let what = format!("100 policies, bpf: {bpf}");
        range.hold(&what, &[Must::SparePeer], |scene| {
            let guard = &mut scene.guard;
            let spare = guard.files.peers.last().unwrap().clone();
            let mut replaced = 0;
            for number in 1..=50 {
                // Other rules replace the table, other ports and peers change its sets.
                guard.files.extra_ports = vec![9000 + number];
                guard.files.more = format!("reverse_path: {}\n", number % 2 == 0);
                guard.write_configuration().unwrap();
                guard.reload(false).unwrap().unwrap();
                if number % 2 == 0 {
                    guard.files.peers.push(spare.clone());
                } else {
                    guard.files.peers.pop();
                }
                guard.write_peers().unwrap();
                guard.reload(false).unwrap().unwrap();
                replaced += 2;
            }
            let log = guard.log();
            for done in ["\"Replaced\"", "\"Elements"] {
                assert!(log.matches(done).count() >= 50, "{done}: {log}");
            }
            replaced
        });
        range.finish();
    }
}

#[test]
fn nothing_passes_while_the_daemon_restarts_or_is_upgraded() {
    let mut range = Range::guarded("flood-restart", "tcx").unwrap();
    for (what, is_killed) in [
        ("20 restarts, SIGTERM", false),
        ("20 restarts, SIGKILL", true),
    ] {
        range.hold(what, &[Must::SparePeer, Must::CountAll], |scene| {
            for _ in 0..20 {
                if is_killed {
                    scene.guard.kill();
                } else {
                    scene.guard.terminate().unwrap();
                }
                scene.guard.start().unwrap();
            }
            20
        });
    }
    // Another build, with another BPF object, if there is one; else the same program under another name.
    let ours = range.scene.guard.program.clone();
    let next = range.scene.guard.folder().join("nodeguard-next");
    let other = std::env::var_os("GATEHOUSE_NODEGUARD_NEXT").map(PathBuf::from);
    fs::copy(other.as_ref().unwrap_or(&ours), &next).unwrap();
    let must = [Must::SparePeer, Must::CountAll];
    let builds = if other.is_some() {
        "two builds"
    } else {
        "one build"
    };
    range.hold(
        &format!("10 upgrades there and back, {builds}"),
        &must,
        |scene| {
            for number in 0..10 {
                let program = if number % 2 == 0 { &next } else { &ours };
                scene.guard.program.clone_from(program);
                scene.guard.terminate().unwrap();
                scene.guard.start().unwrap();
            }
            10
        },
    );
    range.finish();
}

#[test]
fn nothing_passes_while_bpf_programs_are_swapped_without_nftables_behind_them() {
    for mode in [Mode::Tcx, Mode::Xdp] {
        let mut range = Range::new("flood-swap").unwrap();
        range.scene.guard.write().unwrap();
        let pins = range.scene.guard.pins();
        let policy = load(&range.scene.guard.configuration()).unwrap().policy();
        let worker = range.scene.worker.namespace.clone();
        let tables = worker.run(|| Tables::of(&policy, &Devices::list().unwrap().addresses));
        let index = worker.run(|| if_nametoindex("eth0").unwrap());
        let device = [Device {
            index,
            name: "eth0".to_owned(),
            mode,
        }];
        let swap = || {
            let mut plane = Plane::load(&pins).unwrap();
            plane.loosen(&tables).unwrap();
            plane.tighten(&tables).unwrap();
            let attached = worker.run(|| plane.attach(&device)).unwrap();
            assert!(matches!(attached[0].state, State::Attached(it) if it == mode));
            plane.check().unwrap();
        };
        swap();
        let what = format!("20 swaps of BPF programs, {mode:?}");
        range.hold(&what, &[Must::SparePeer], |_| {
            for _ in 0..20 {
                swap();
            }
            20
        });
        teardown(&pins).unwrap();
        range.open();
    }
}

#[test]
fn nothing_passes_whatever_befalls_the_guard() {
    let mut range = Range::guarded("flood-mishaps", "tcx").unwrap();
    range.is_momentary_aimed_at = true;
    range.hold("mishaps", &[Must::SparePeer], |scene| {
        let mut mishaps = 0;
        for round in 1..=5 {
            // While nobody owns the table, it can be flushed; BPF stands in for it.
            scene.guard.kill();
            scene.on_worker("nft flush ruleset inet");
            assert!(scene.guard.table().is_err());
            scene.guard.start().unwrap();
            // While somebody does, the kernel refuses.
            scene.on_worker("nft flush ruleset inet");
            assert!(
                !scene
                    .try_on_worker("nft delete table inet nodeguard")
                    .status
                    .success()
            );
            // nftables stands in for BPF.
            let pin = fs::read_dir(scene.guard.pins().join("links")).unwrap();
            let pin = pin.flatten().next().unwrap().path();
            scene.on_worker(&format!("bpftool link detach pinned {}", pin.display()));
            wait::until_true("BPF to be attached again", || {
                let daemon = scene.guard.status().unwrap().daemon.unwrap();
                daemon.repairs.contains_key("bpf")
            })
            .unwrap();
            // An address that is guarded from its first packet on.
            let arrived = || scene.guard.dropped("bpf").unwrap();
            scene.on_worker(&format!("ip address add {MOMENTARY}/24 dev eth0"));
            let before = arrived();
            wait::until_true("the flood to go on", || arrived() > before + 1000).unwrap();
            scene.on_worker(&format!("ip address delete {MOMENTARY}/24 dev eth0"));
            a_new_device(scene, round);
            mishaps += 6;
        }
        mishaps
    });
    // The peer's packets are lost while the link is down, and nothing that it says.
    range.hold("link down and up", &[], |scene| {
        let v6 = scene.worker.v6;
        for _ in 0..5 {
            scene.on_worker("ip link set eth0 down");
            scene.on_worker("ip link set eth0 up");
            // The kernel forgets IPv6 addresses with the link.
            scene.on_worker(&format!("ip address replace {v6}/64 dev eth0 nodad"));
            let before = scene.guard.dropped("bpf").unwrap();
            let dropped = || scene.guard.dropped("bpf").unwrap();
            wait::until_true("the flood to go on", || dropped() > before + 1000).unwrap();
        }
        5
    });
    range.finish();
}

/// A second cable between the stranger and the worker, flooded from its first moment on.
fn a_new_device(scene: &Scene, round: u8) {
    let inside = scene.worker.namespace.path();
    let cable = "link add name cable type veth peer name cable netns";
    ip(&scene.stranger, &format!("{cable} {inside}"));
    let (here, there) = (format!("10.78.{round}.1/24"), format!("10.78.{round}.2/24"));
    ip(&scene.stranger, &format!("address add {there} dev cable"));
    ip(&scene.stranger, "link set cable up");
    let target = SocketAddr::from(([10, 78, round, 1], KUBELET));
    let make = || Flood::new(Transport::Tcp, target, strangers4).unwrap();
    let mut flood = scene.stranger.namespace.run(make);
    scene.on_worker(&format!("ip address add {here} dev cable"));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                flood.batch().unwrap();
            }
        });
        scene.on_worker("ip link set cable up");
        let attached = || {
            let devices = scene.guard.status().unwrap().bpf.devices;
            devices
                .iter()
                .any(|it| it.name == "cable" && it.attached == "tcx")
        };
        let waited = wait::until_true("BPF on the new device", attached);
        stop.store(true, Ordering::Relaxed);
        waited.unwrap();
    });
    ip(&scene.stranger, "link delete cable");
}

fn ip(host: &Host, line: &str) {
    let tool = Tool::new("ip").args(line.split(' '));
    tool.namespace(Some(&host.namespace)).succeed().unwrap();
}
