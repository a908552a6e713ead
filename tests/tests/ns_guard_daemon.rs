//! The node guard's daemon on real hosts: what it takes over, follows, refuses and mends. Needs
//! root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use harness::flood::{Flood, Transport};
use harness::folder::{self, Folder};
use harness::guard::{Guard, Peer};
use harness::guarded::{KUBELET, MENDED, OPEN, Scene, echoes, pinned_link};
use harness::namespace::Host;
use harness::tool::Tool;
use harness::wait;
use nix::net::if_::if_nametoindex;
use nodeguard::bpf::{Device, Mode, Plane, State, teardown};
use nodeguard::status::{Health, Status};

/// What `setpriv` is told so that a process cannot use BPF.
const WITHOUT_BPF: [&str; 3] = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"];

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

// ---- what it refuses ----

#[test]
fn bad_files_change_nothing_and_are_told_of() {
    let mut scene = Scene::guarded("guard-bad").unwrap();
    let before = scene.guard.table().unwrap();
    let peers = fs::read_to_string(scene.guard.peer_file()).unwrap();
    for (bad, says) in [
        ("nodes: [".to_owned(), "cluster.yaml"),
        (peers.replace("acme", "other"), "these are peers of `other`"),
        (peers.replace("m1", "w1"), "stands"),
        (peers.replace("role: master", "role: king"), "king"),
        (
            format!("{peers}routers:\n  - {{name: edge, addresses: [10.244.1.0/24]}}\n"),
            "pod",
        ),
        (peers.replace("role: worker", "role: master"), "worker"),
    ] {
        let refused = refusals(&scene.guard.status().unwrap());
        assert!(refused.is_empty(), "{refused:?}");
        folder::write(&scene.guard.peer_file(), &bad).unwrap();
        let output = scene.guard.run(&["reload"]).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(output.stderr.contains(says), "{says}: {}", output.stderr);
        assert!(output.stderr.contains("nothing has changed"));
        let check = scene.guard.run(&["check"]).unwrap();
        assert_eq!(check.status.code(), Some(1));
        assert!(check.stderr.contains(says), "{says}: {}", check.stderr);
        let status = scene.guard.status().unwrap();
        assert_eq!(status.health, Health::Degraded);
        assert!(
            refusals(&status).iter().any(|it| it.contains(says)),
            "{status:?}"
        );
        let text = scene.guard.run(&["status"]).unwrap();
        assert_eq!(text.status.code(), Some(3), "{}", text.stdout);
        assert!(text.stdout.contains(says), "{}", text.stdout);
        scene
            .guard
            .wait_for_log(&["ERROR", "refused", says])
            .unwrap();
        scene.guard.assert_table(&before, "");
        let page = scene.guard.page("/metrics").unwrap();
        assert!(page.contains("nodeguard_last_reload_refused 1"), "{page}");
        // Good again.
        folder::write(&scene.guard.peer_file(), &peers).unwrap();
        assert!(scene.guard.reload(false).unwrap().is_ok());
    }
    // nodeguard.yaml itself, noticed by the daemon alone.
    let text = fs::read_to_string(scene.guard.configuration()).unwrap();
    folder::write(&scene.guard.configuration(), text.replace("role:", "rôle:")).unwrap();
    scene.guard.wait_for_log(&["ERROR", "rôle"]).unwrap();
    scene.guard.assert_table(&before, "");
    // A daemon cannot start with it, and what is enforced stays.
    scene.guard.kill();
    let (status, log) = scene
        .guard
        .run_second(&scene.guard.configuration())
        .unwrap();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("rôle"), "{log}");
    scene.guard.assert_table(&before, "");
    assert!(scene.reaches(&scene.master, scene.worker.v4, KUBELET));
    folder::write(&scene.guard.configuration(), text).unwrap();
    // With bad peers it starts, and enforces the last good ones.
    folder::write(&scene.guard.peer_file(), "nodes: [").unwrap();
    scene.guard.start().unwrap();
    let status = scene.guard.status().unwrap();
    assert_eq!(status.policy.unwrap().origin, "stored");
    assert_eq!(status.health, Health::Degraded);
    scene.guard.assert_table(&before, "");
    scene.assert_enforced();
    scene.finish();
}

#[test]
fn safeguards_hold_until_they_are_forced() {
    let mut scene = Scene::new("guard-safe").unwrap();
    let whole = {
        let more = |number: u8| Peer {
            name: format!("w{number}"),
            role: "worker",
            addresses: vec![Ipv4Addr::new(10, 77, 1, number).into()],
        };
        scene.guard.files.peers.extend((2..8).map(more));
        scene.guard.files.peers.clone()
    };
    scene.guard.write().unwrap();
    scene.guard.start().unwrap();
    let before = scene.guard.table().unwrap();
    let without = |name: &str| -> Vec<Peer> {
        let others = whole.iter().filter(|it| it.name != name);
        others.cloned().collect()
    };
    let mut moved = whole.clone();
    moved[0].addresses.truncate(1);
    for (peers, says) in [
        (Vec::new(), "name no node"),
        (whole[..2].to_vec(), "shrink from 10 addresses to 4"),
        (without("w1"), "this node, w1, is not in any peer file"),
        (without("m1"), "name no master"),
        (moved, "an address of this node"),
    ] {
        scene.guard.files.peers = peers;
        if scene.guard.files.peers.is_empty() {
            fs::remove_file(scene.guard.peer_file()).unwrap();
        } else {
            scene.guard.write_peers().unwrap();
        }
        let reasons = scene.guard.reload(false).unwrap().unwrap_err();
        assert!(
            reasons.iter().any(|it| it.contains(says)),
            "{says}: {reasons:?}"
        );
        scene.guard.assert_table(&before, says);
        let check = scene.guard.run(&["check"]).unwrap();
        assert_eq!(check.status.code(), Some(1));
        assert!(check.stderr.contains(says), "{says}: {}", check.stderr);
        // A restart is no way around it, be it in order or not.
        scene.guard.kill();
        scene.guard.start().unwrap();
        let status = scene.guard.status().unwrap();
        assert_eq!(status.policy.as_ref().unwrap().origin, "stored");
        assert!(refusals(&status).iter().any(|it| it.contains(says)));
        scene.guard.assert_table(&before, says);
    }
    // Forced, the shrunken list is followed, by the command and by a start.
    scene.guard.files.peers = whole[..2].to_vec();
    scene.guard.write_peers().unwrap();
    let output = scene.guard.run(&["reload", "--force"]).unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    let status = scene.guard.status().unwrap();
    assert_eq!(status.health, Health::Ok, "{status:?}");
    assert_eq!(status.policy.unwrap().peers, 4);
    assert_ne!(scene.guard.table().unwrap(), before);
    scene.assert_enforced();
    scene.guard.terminate().unwrap();
    scene.guard.start().unwrap();
    assert_eq!(scene.guard.status().unwrap().policy.unwrap().peers, 4);
    scene.finish();
}

// ---- what it follows ----

#[test]
fn a_removed_peer_is_cut_at_once_and_an_added_one_waits_for_nothing() {
    for bpf in ["tcx", "off"] {
        let mut scene = Scene::new("guard-peers").unwrap();
        let with = Peer::of(&scene.stranger, "worker");
        scene.guard.files.bpf = bpf;
        scene.guard.files.peers.push(with.clone());
        scene.guard.write().unwrap();
        scene.guard.start().unwrap();
        let mut stream = scene.connect(&scene.stranger).unwrap();
        let mut back = [0; 4];
        stream.write_all(b"ping").unwrap();
        stream.read_exact(&mut back).unwrap();

        scene.guard.files.peers.pop();
        scene.guard.write_peers().unwrap();
        scene.guard.reload(false).unwrap().unwrap();
        stream.write_all(b"more").unwrap();
        let patience = Some(Duration::from_millis(800));
        stream.set_read_timeout(patience).unwrap();
        let error = stream.read_exact(&mut back).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::WouldBlock, "{bpf}: it is cut");

        scene.guard.files.peers.push(with);
        scene.guard.write_peers().unwrap();
        scene.guard.reload(false).unwrap().unwrap();
        // A SYN that is lost is sent again after a second.
        let began = Instant::now();
        assert!(echoes(scene.connect(&scene.stranger).unwrap(), b"new"));
        let took = began.elapsed();
        println!("{bpf}: an added peer is answered after {took:?}");
        assert!(took < Duration::from_millis(900), "{took:?}");
        // The one that was cut goes on: nobody has told its ends.
        stream.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"more");
        scene.finish();
    }
}

#[test]
fn changed_files_are_noticed() {
    let mut scene = Scene::guarded("guard-watch").unwrap();
    let applied = |guard: &Guard| guard.status().unwrap().policy.unwrap();
    scene
        .guard
        .files
        .peers
        .push(Peer::of(&scene.stranger, "worker"));
    let peers_file = scene.guard.folder().join("peers.d/edge.yaml");
    let router = "cluster: acme\nrouters: [{name: edge, addresses: [192.0.2.0/28]}]\n";
    type Step<'a> = (&'a str, &'a dyn Fn(&Guard), &'a dyn Fn(&Guard) -> bool);
    let steps: [Step<'_>; 4] = [
        (
            "a peer file changed",
            &|guard| guard.write_peers().unwrap(),
            &|guard| applied(guard).nodes == 3,
        ),
        (
            "a peer file came",
            &|_| fs::write(&peers_file, router).unwrap(),
            &|guard| applied(guard).routers == 1,
        ),
        (
            "a peer file went",
            &|_| fs::remove_file(&peers_file).unwrap(),
            &|guard| applied(guard).routers == 0,
        ),
        (
            "nodeguard.yaml changed",
            &|guard| {
                let text = fs::read_to_string(guard.configuration()).unwrap();
                let ports = "extra_ports: [{name: exporter, port: 9100}]";
                folder::write(
                    &guard.configuration(),
                    text.replace("extra_ports: []", ports),
                )
                .unwrap();
            },
            &|guard| applied(guard).ports.contains(&"9100".to_owned()),
        ),
    ];
    for (what, change, is_followed) in steps {
        assert!(!is_followed(&scene.guard), "{what}");
        let began = Instant::now();
        change(&scene.guard);
        wait::until(what, MENDED, || is_followed(&scene.guard).then_some(())).unwrap();
        println!("{what}: in force after {:?}", began.elapsed());
    }
    assert!(scene.reaches(&scene.stranger, scene.worker.v4, KUBELET));
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
    assert_eq!(
        status.daemon.unwrap().repairs.len(),
        0,
        "nobody broke anything"
    );
    scene.assert_enforced();
    scene.finish();
}

// ---- what it tells ----

#[test]
fn without_bpf_nftables_enforces_alone_and_says_so() {
    let mut scene = Scene::new("guard-nobpf").unwrap();
    scene.guard.write().unwrap();
    // First a daemon with everything: what it leaves must not judge by an old policy.
    scene.guard.start().unwrap();
    scene.guard.kill();
    scene.guard.wrapper = WITHOUT_BPF.to_vec();
    scene.guard.start().unwrap();
    let status = scene.guard.status().unwrap();
    assert_eq!(status.health, Health::Degraded);
    assert!(status.nftables.enforcing && status.nftables.owned);
    assert!(!status.bpf.loaded);
    let why = status.bpf.problem.unwrap();
    assert!(why.contains("CAP_BPF"), "{why}");
    let text = scene.guard.run(&["status"]).unwrap();
    assert_eq!(text.status.code(), Some(3));
    assert!(text.stdout.contains("CAP_BPF"), "{}", text.stdout);
    assert!(!scene.pin("tcx").exists());
    let before = scene.guard.dropped("nftables").unwrap();
    scene.assert_enforced();
    assert!(scene.guard.dropped("nftables").unwrap() > before);
    scene
        .guard
        .files
        .peers
        .push(Peer::of(&scene.stranger, "worker"));
    scene.guard.write_peers().unwrap();
    scene.guard.reload(false).unwrap().unwrap();
    assert!(scene.reaches(&scene.stranger, scene.worker.v4, KUBELET));
    // With everything again.
    scene.guard.terminate().unwrap();
    scene.guard.wrapper.clear();
    scene.guard.start().unwrap();
    let status = scene.guard.status().unwrap();
    assert_eq!(status.health, Health::Ok, "{status:?}");
    scene.finish();
}

#[test]
fn every_dropped_packet_is_counted_once_and_under_its_name() {
    type Row = (Transport, IpAddr, u16, fn(u32) -> IpAddr, u32, &'static str);
    fn stranger4(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0xc633_6400 | number & 0xff).into()
    }
    fn stranger6(number: u32) -> IpAddr {
        format!("2001:db8::{number:x}").parse().unwrap()
    }
    fn pod(number: u32) -> IpAddr {
        Ipv4Addr::from_bits(0x0af4_0100 | number & 0xff).into()
    }
    for (bpf, plane) in [("off", "nftables"), ("tcx", "bpf"), ("xdp", "bpf")] {
        let mut scene = Scene::new("guard-counts").unwrap();
        scene.guard.files.bpf = bpf;
        scene.guard.files.extra_ports = vec![9100];
        scene.guard.write().unwrap();
        scene.guard.start().unwrap();
        let Host { v4, v6, .. } = scene.worker;
        let loopback = Ipv4Addr::new(127, 0, 0, 1).into();
        let rows: [Row; 8] = [
            (Transport::Tcp, v4, 10250, stranger4, 7, "stranger"),
            (Transport::Udp, v4, 10256, stranger4, 5, "stranger"),
            (Transport::Tcp, v6, 31380, stranger6, 3, "stranger"),
            (Transport::Udp, v6, 8472, stranger6, 2, "stranger"),
            (Transport::Tcp, v6, 9100, stranger6, 11, "stranger"),
            (Transport::Tcp, v4, 10250, pod, 4, "pod"),
            (Transport::Tcp, loopback, 22, stranger4, 6, "loopback"),
            // A port of masters: nothing of a worker's.
            (Transport::Tcp, v4, 2379, stranger4, 9, ""),
        ];
        let mut expected = Vec::new();
        for (transport, to, port, sources, count, reason) in rows {
            let target = SocketAddr::new(to, port);
            let hop = if to.is_loopback() { v4 } else { to };
            let make = || Flood::new(transport, target, sources).unwrap().by(hop);
            let mut flood = scene.stranger.namespace.run(make);
            assert_eq!(flood.send(count).unwrap(), count as usize);
            let family = if to.is_ipv4() { "ipv4" } else { "ipv6" };
            let (protocol, port) = match (transport, reason) {
                (_, "") => continue,
                (_, "loopback") => ("", String::new()),
                (Transport::Tcp, _) => ("tcp", port.to_string()),
                (Transport::Udp, _) => ("udp", port.to_string()),
            };
            expected.push(format!(
                "nodeguard_dropped_packets_total{{plane=\"{plane}\",reason=\"{reason}\",\
                 family=\"{family}\",protocol=\"{protocol}\",port=\"{port}\"}} {count}"
            ));
        }
        expected.sort();
        let counted = |scene: &Scene| {
            let page = scene.guard.page("/metrics").unwrap();
            let lines = page
                .lines()
                .filter(|it| it.starts_with("nodeguard_dropped"));
            let mut lines: Vec<String> = lines.map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let _ = wait::until_true("all to arrive", || counted(&scene) == expected);
        assert_eq!(counted(&scene), expected, "{bpf}");
        // Neither a reload that replaces everything nor a restart forgets any.
        scene.guard.files.extra_ports = vec![9100, 9200];
        scene.guard.write_configuration().unwrap();
        scene.guard.reload(false).unwrap().unwrap();
        assert_eq!(counted(&scene), expected, "{bpf}, reloaded");
        if bpf != "off" {
            scene.guard.kill();
            scene.guard.start().unwrap();
            assert_eq!(counted(&scene), expected, "{bpf}, restarted");
        }
        scene.finish();
    }
}

#[test]
fn explain_says_what_happens() {
    for bpf in ["tcx", "off"] {
        let mut scene = Scene::new("guard-explain").unwrap();
        scene.guard.files.bpf = bpf;
        scene.guard.files.extra_ports = vec![9100];
        let edge = scene.network.host("edge").unwrap();
        scene.guard.files.routers = vec![("edge", format!("{}/32, \"{}\"", edge.v4, edge.v6))];
        scene.guard.write().unwrap();
        scene.guard.start().unwrap();
        let (mut asked, mut passed) = (0, 0);
        for from in [&scene.master, &edge, &scene.stranger] {
            for (source, to) in [(from.v4, scene.worker.v4), (from.v6, scene.worker.v6)] {
                for (port, protocol) in [
                    (KUBELET, "tcp"),
                    (31390, "tcp"),
                    (9100, "tcp"),
                    (8472, "udp"),
                    (10256, "udp"),
                    // Not isolated: a master's, nobody's.
                    (2379, "tcp"),
                    (OPEN, "tcp"),
                    (8472, "tcp"),
                ] {
                    let says = scene.guard.run(&[
                        "explain",
                        &source.to_string(),
                        &to.to_string(),
                        &port.to_string(),
                        "--protocol",
                        protocol,
                        "--json",
                    ]);
                    let says = says.unwrap();
                    assert_eq!(says.status.code(), Some(0), "{}", says.stderr);
                    let json: serde_json::Value = serde_json::from_str(&says.stdout).unwrap();
                    let explained = json["passes"].as_bool().unwrap();
                    let happens = answers(from, SocketAddr::new(to, port), protocol);
                    assert_eq!(explained, happens, "{bpf} {}: {}", from.name, says.stdout);
                    asked += 1;
                    passed += u32::from(happens);
                }
            }
        }
        println!("{bpf}: {asked} packets asked for and sent, {passed} passed");
        assert_eq!((asked, passed), (48, 38));
        scene.finish();
    }
}

#[test]
fn render_is_taken_by_the_nft_program_and_wrong_usage_ends_with_2() {
    let scene = Scene::new("guard-render").unwrap();
    scene.guard.write().unwrap();
    let text = scene.guard.run(&["render"]).unwrap();
    assert_eq!(text.status.code(), Some(0), "{}", text.stderr);
    let json = scene.guard.run(&["render", "--format", "json"]).unwrap();
    for (options, rules) in [
        (&["-c", "-f", "-"][..], text),
        (&["-c", "-j", "-f", "-"], json),
    ] {
        let nft = Tool::new("nft").args(options).input(rules.stdout);
        nft.namespace(Some(&scene.worker.namespace))
            .succeed()
            .unwrap();
    }
    let check = scene.guard.run(&["check"]).unwrap();
    assert_eq!(check.status.code(), Some(0), "{}", check.stderr);
    for words in [
        &["explain", "10.0.0.1"][..],
        &["render", "--format", "xml"],
        &["start"],
        &["status", "--jsonn"],
        &["run", "--log-format", "prose"],
    ] {
        let output = scene.guard.run(words).unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{words:?}: {}",
            output.stderr
        );
    }
    for words in [&["reload"][..], &["reload", "--force"]] {
        let output = scene.guard.run(words).unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert!(
            output.stderr.contains("no daemon answers"),
            "{}",
            output.stderr
        );
    }
    let status = scene.guard.run(&["status"]).unwrap();
    assert_eq!(
        status.status.code(),
        Some(1),
        "isolated ports are open: {}",
        status.stdout
    );
    fs::remove_file(scene.guard.configuration()).unwrap();
    for words in [
        &["check"][..],
        &["render"],
        &["explain", "10.0.0.1", "10.0.0.2", "1"],
    ] {
        let output = scene.guard.run(words).unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(
            output.stderr.contains("nodeguard.yaml"),
            "{}",
            output.stderr
        );
    }
}

// ---- helpers ----

fn refusals(status: &Status) -> Vec<String> {
    status.daemon.as_ref().unwrap().refused.clone()
}

fn drops(guard: &Guard) -> u64 {
    guard.dropped("bpf").unwrap() + guard.dropped("nftables").unwrap()
}

/// What runs at tcx on the worker's `eth0`.
fn bpf_program(scene: &Scene) -> u64 {
    let link = pinned_link(&scene.pin("tcx"));
    link.unwrap()["prog_id"].as_u64().unwrap()
}

fn link_id(pin: &std::path::Path) -> Option<u64> {
    pinned_link(pin)?["id"].as_u64()
}

/// Whether anything comes back: a connection, a refusal, an ICMP error.
fn answers(from: &Host, to: SocketAddr, protocol: &str) -> bool {
    let patience = Duration::from_millis(400);
    from.namespace.run(|| {
        if protocol == "tcp" {
            let result = TcpStream::connect_timeout(&to, patience);
            return !matches!(result, Err(error) if error.kind() == ErrorKind::TimedOut);
        }
        let any: IpAddr = match to {
            SocketAddr::V4(_) => [0, 0, 0, 0].into(),
            SocketAddr::V6(_) => [0; 16].into(),
        };
        let socket = UdpSocket::bind((any, 0)).unwrap();
        socket.connect(to).unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.send(b"?").unwrap();
        let answer = socket.recv(&mut [0; 8]);
        matches!(answer, Err(error) if error.kind() == ErrorKind::ConnectionRefused)
    })
}
