//! What the node guard tells: by its status, its counters and its commands. Needs root, for network
//! namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use harness::flood::{Flood, Transport};
use harness::guard::Peer;
use harness::guarded::{KUBELET, OPEN, Scene};
use harness::namespace::Host;
use harness::tool::Tool;
use harness::wait;
use nodeguard::status::Health;

/// What `setpriv` is told so that a process cannot use BPF.
const WITHOUT_BPF: [&str; 3] = ["setpriv", "--bounding-set", "-bpf,-perfmon,-sys_admin"];

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
