//! The node guard's daemon and its files: which ones it refuses, and how soon it follows the others.
//! Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use harness::folder;
use harness::guard::{Guard, Peer};
use harness::guarded::{KUBELET, MENDED, Scene, echoes};
use harness::wait;
use nodeguard::status::{Health, Status};

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

// ---- helpers ----

fn refusals(status: &Status) -> Vec<String> {
    status.daemon.as_ref().unwrap().refused.clone()
}
