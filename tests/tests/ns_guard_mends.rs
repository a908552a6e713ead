//! What the node guard survives and mends: its own end, a second daemon, changes by others to its
//! table and its programs, devices that come and go. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use harness::flood::{Flood, Transport};
use harness::folder::Folder;
use harness::guard::Guard;
use harness::guarded::{KUBELET, MENDED, Scene, pinned_link};
use harness::wait;
use nix::net::if_::if_nametoindex;
use nodeguard::bpf::{Device, Mode, Plane, State, teardown};
use nodeguard::status::Health;

// ---- the daemon ends ----

#[test]
fn the_end_of_the_daemon_opens_nothing_and_the_next_one_goes_on() {
    let mut scene = Scene::guarded("guard-ends").unwrap();
    scene.assert_enforced();
    let table = scene.guard.table().unwrap();
    for kill in [false, true] {
        let (program, before) = (bpf_program(&scene), drops(&scene.guard));
        assert!(before > 0);
        if kill {
            scene.guard.kill();
        } else {
            scene.guard.terminate().unwrap();
            assert!(!scene.guard.has_socket());
        }
        scene.assert_enforced();
        assert_eq!(bpf_program(&scene), program, "still the old one");
        let output = scene.guard.run(&["status"]).unwrap();
        assert_eq!(output.status.code(), Some(3), "{}", output.stdout);
        assert!(output.stdout.contains("no daemon answers"));

        scene.guard.start().unwrap();
        scene.guard.wait_for_log(&["ours again"]).unwrap();
        assert_ne!(bpf_program(&scene), program, "a new one in its place");
        // Two strangers' connections while there was no daemon, and before.
        assert!(drops(&scene.guard) >= before + 2);
        scene.assert_enforced();
        let status = scene.guard.status().unwrap();
        assert_eq!(status.health, Health::Ok, "{status:?}");
        assert_eq!(status.daemon.unwrap().repairs.len(), 0);
        scene.guard.assert_table(&table, "");
    }
    scene.guard.teardown().unwrap();
    assert!(scene.guard.table().is_err());
    let worker = scene.worker.v4;
    assert!(
        scene.reaches(&scene.stranger, worker, KUBELET),
        "nothing is isolated"
    );
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let pins = scene.guard.pins().to_string_lossy().into_owned();
    assert!(!mounts.contains(&pins), "{mounts}");
}

#[test]
fn a_second_daemon_for_the_same_folder_changes_nothing() {
    let scene = Scene::guarded("guard-second").unwrap();
    let state = |scene: &Scene| {
        let folder = scene.guard.pins().join("links");
        let mut links: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
        links.sort_by_key(fs::DirEntry::file_name);
        let names: Vec<_> = links.iter().map(fs::DirEntry::file_name).collect();
        (scene.guard.table().unwrap(), bpf_program(scene), names)
    };
    let before = state(&scene);
    let text = fs::read_to_string(scene.guard.configuration()).unwrap();
    // The same file, and another one that would have no BPF and no peers in the same folder.
    let other = scene.guard.folder().join("other.yaml");
    let text = text.replace("bpf: tcx", "bpf: off") + "peers: nowhere\n";
    fs::write(&other, text.replace("127.0.0.1:9901", "127.0.0.1:9902")).unwrap();
    for file in [scene.guard.configuration(), other] {
        let (status, log) = scene.guard.run_second(&file).unwrap();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains("another daemon"), "{log}");
        assert_eq!(state(&scene), before);
        let pid = scene.guard.status().unwrap().daemon.unwrap().pid;
        assert_ne!(pid, 0);
        fs::remove_file(scene.guard.folder().join("second.log")).unwrap();
    }
    scene.assert_enforced();
    scene.finish();
}

// ---- what it mends ----

#[test]
fn what_others_do_to_the_table_is_refused_by_the_kernel() {
    let scene = Scene::guarded("guard-owned").unwrap();
    let table = scene.guard.table().unwrap();
    scene.on_worker("nft flush ruleset");
    let stranger = scene.stranger.v4;
    for line in [
        "nft delete table inet nodeguard",
        "nft flush table inet nodeguard",
        "nft flush chain inet nodeguard prerouting",
        "nft delete chain inet nodeguard input",
        &format!("nft add element inet nodeguard nodes4 {{ {stranger} }}"),
        &format!(
            "nft delete element inet nodeguard nodes4 {{ {} }}",
            scene.worker.v4
        ),
        "nft insert rule inet nodeguard prerouting accept",
    ] {
        let output = scene.try_on_worker(line);
        assert!(!output.status.success(), "{line}");
        scene.guard.assert_table(&table, line);
    }
    scene.assert_enforced();
    let status = scene.guard.status().unwrap();
    assert_eq!(status.daemon.unwrap().repairs.len(), 0);
    assert!(status.nftables.owned);
    scene.finish();
}

#[test]
fn a_table_that_was_changed_while_nobody_owned_it_is_mended_at_the_start() {
    let mut scene = Scene::new("guard-orphan").unwrap();
    scene.guard.files.bpf = "off";
    scene.guard.write().unwrap();
    scene.guard.start().unwrap();
    let table = scene.guard.table().unwrap();
    let stranger = scene.stranger.v4;
    for (line, says) in [
        ("nft flush ruleset", ""),
        ("nft delete table inet nodeguard", ""),
        ("nft flush chain inet nodeguard input", "of input: gone"),
        (
            &*format!("nft add element inet nodeguard nodes4 {{ {stranger} }}"),
            "set nodes4: 1 element came",
        ),
        (
            &format!(
                "nft delete element inet nodeguard nodes4 {{ {} }}",
                scene.master.v4
            ),
            "set nodes4: 1 element went",
        ),
        (
            "nft insert rule inet nodeguard prerouting accept",
            "rule added to prerouting",
        ),
    ] {
        scene.guard.kill();
        scene.on_worker(line);
        assert_ne!(scene.guard.table().unwrap_or_default(), table, "{line}");
        let began = Instant::now();
        scene.guard.start().unwrap();
        println!("{line}: mended {:?} after the start", began.elapsed());
        scene.guard.assert_table(&table, line);
        scene.assert_enforced();
        if !says.is_empty() {
            scene.guard.wait_for_log(&["WARN", says]).unwrap();
            let repairs = scene.guard.status().unwrap().daemon.unwrap().repairs;
            assert_eq!(repairs.get("nftables"), Some(&1), "{line}");
        }
    }
    scene.finish();
}

#[test]
fn a_detached_program_is_attached_again() {
    for bpf in ["tcx", "xdp"] {
        let mut scene = Scene::new("guard-detach").unwrap();
        scene.guard.files.bpf = bpf;
        scene.guard.write().unwrap();
        scene.guard.start().unwrap();
        let status = scene.guard.status().unwrap();
        assert_eq!(status.health, Health::Ok, "{status:?}");
        assert_eq!(status.bpf.devices[0].attached, bpf);
        let pin = scene.pin(bpf);
        let id = || link_id(&pin);
        for times in 1..=3 {
            let old = id().unwrap();
            let began = Instant::now();
            if times == 2 {
                fs::remove_file(&pin).unwrap();
            } else {
                scene.on_worker(&format!("bpftool link detach pinned {}", pin.display()));
            }
            if times == 3 {
                // Attached again in passing, for a device that came.
                scene.on_worker("ip link add name new0 type veth peer name new1");
            }
            let repaired = || {
                let repairs = scene.guard.status().unwrap().daemon.unwrap().repairs;
                (repairs.get("bpf") == Some(&times)).then_some(())
            };
            wait::until("a new link", MENDED, || {
                // Its pin alone can be made anew.
                id().filter(|new| times == 2 || *new != old)?;
                repaired()
            })
            .unwrap();
            println!("{bpf}: attached again after {:?}", began.elapsed());
        }
        scene
            .guard
            .wait_for_log(&["WARN", "detached", "eth0"])
            .unwrap();
        let page = scene.guard.page("/metrics").unwrap();
        assert!(
            page.contains("nodeguard_repairs_total{what=\"bpf\"} 3"),
            "{page}"
        );
        let before = scene.guard.dropped("bpf").unwrap();
        scene.assert_enforced();
        assert!(scene.guard.dropped("bpf").unwrap() > before);
        scene.finish();
    }
}

#[test]
fn an_xdp_program_of_somebody_else_stays_and_is_told_of() {
    let mut scene = Scene::new("guard-foreign").unwrap();
    let folder = Folder::new("theirs").unwrap();
    let pins = folder.path().join("bpf");
    let mut theirs = Plane::load(&pins).unwrap();
    scene.worker.namespace.run(|| {
        let index = if_nametoindex("eth0").unwrap();
        let (name, mode) = ("eth0".to_owned(), Mode::Xdp);
        let attached = theirs.attach(&[Device { index, name, mode }]).unwrap();
        assert!(matches!(attached[0].state, State::Attached(Mode::Xdp)));
    });
    let shown = |scene: &Scene| {
        let text = scene.on_worker("ip -details link show dev eth0");
        let line = text.lines().find(|line| line.contains("prog/xdp"));
        line.map(|line| line.trim().to_owned())
    };
    let program = shown(&scene).unwrap();
    scene.guard.files.bpf = "xdp";
    scene.guard.write().unwrap();
    scene.guard.start().unwrap();
    let status = scene.guard.status().unwrap();
    assert_eq!(status.health, Health::Degraded);
    assert_eq!(status.bpf.devices[0].attached, "tcx");
    let why = "an XDP program of somebody else is attached";
    assert!(
        status.problems.iter().any(|it| it.contains(why)),
        "{status:?}"
    );
    let text = scene.guard.run(&["status"]).unwrap();
    assert_eq!(text.status.code(), Some(3));
    assert!(text.stdout.contains(why), "{}", text.stdout);
    scene.assert_enforced();
    assert_eq!(shown(&scene).unwrap(), program);
    scene.finish();
    drop(theirs);
    teardown(&pins).unwrap();
}

#[test]
fn devices_and_addresses_are_followed() {
    let scene = Scene::guarded("guard-devices").unwrap();
    let links = |scene: &Scene| {
        let folder = scene.guard.pins().join("links");
        fs::read_dir(folder).unwrap().count()
    };
    let device = |scene: &Scene, name: &str| {
        let devices = scene.guard.status().unwrap().bpf.devices;
        let found = devices.into_iter().find(|it| it.name == name);
        found.map(|it| it.attached)
    };
    let timed = |what: &str, done: &mut dyn FnMut() -> bool| {
        let began = Instant::now();
        wait::until(what, MENDED, || done().then_some(())).unwrap();
        println!("{what}: followed after {:?}", began.elapsed());
    };
    assert_eq!(links(&scene), 1);
    scene.on_worker("ip link add name new0 type veth peer name new1");
    timed("two devices came", &mut || {
        links(&scene) == 3 && device(&scene, "new0") == Some("tcx".to_owned())
    });
    scene.on_worker("ip link set new0 name newer");
    timed("a device was renamed", &mut || {
        device(&scene, "newer") == Some("tcx".to_owned())
    });
    scene.on_worker("ip link delete newer");
    timed("they went", &mut || {
        links(&scene) == 1 && device(&scene, "new1").is_none()
    });

    // An address that no file names: nftables needs not be told, BPF is.
    let added = Ipv4Addr::new(10, 77, 0, 99);
    let target = SocketAddr::from((added, KUBELET));
    let strangers = |_| Ipv4Addr::new(198, 51, 100, 7).into();
    let flood = || Flood::new(Transport::Tcp, target, strangers).unwrap();
    let mut flood = scene.stranger.namespace.run(flood);
    let before = scene.guard.dropped("bpf").unwrap();
    scene.on_worker(&format!("ip address add {added}/24 dev eth0"));
    timed("an address came", &mut || {
        flood.send(1).unwrap();
        scene.guard.dropped("bpf").unwrap() > before
    });
    let meanwhile = scene.guard.dropped("nftables").unwrap();
    println!("nftables dropped {meanwhile} meanwhile");
    assert!(!scene.reaches(&scene.stranger, added.into(), KUBELET));
    scene.on_worker(&format!("ip address delete {added}/24 dev eth0"));
    scene.guard.wait_for_log(&["went", "10.77.0.99"]).unwrap();
    let status = scene.guard.status().unwrap();
    assert_eq!(status.health, Health::Ok, "{status:?}");
    let daemon = status.daemon.unwrap();
    assert_eq!(daemon.repairs.len(), 0, "nobody broke anything");
    // Two devices and an address that came and went; devices bring addresses of their own.
    assert_eq!(daemon.followed["device"], 4);
    assert!(daemon.followed["address"] >= 2, "{:?}", daemon.followed);
    let page = scene.guard.page("/metrics").unwrap();
    let line = "nodeguard_followed_total{what=\"device\"} 4";
    assert!(page.contains(line), "{page}");
    scene.assert_enforced();
    scene.finish();
}

// ---- helpers ----

fn drops(guard: &Guard) -> u64 {
    guard.dropped("bpf").unwrap() + guard.dropped("nftables").unwrap()
}

/// What runs at tcx on the worker's `eth0`.
fn bpf_program(scene: &Scene) -> u64 {
    let link = pinned_link(&scene.pin("tcx"));
    link.unwrap()["prog_id"].as_u64().unwrap()
}

fn link_id(pin: &Path) -> Option<u64> {
    pinned_link(pin)?["id"].as_u64()
}
