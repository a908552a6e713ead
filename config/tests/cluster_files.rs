//! The files of a cluster (`cluster.yaml`, `nodeguard.yaml`, `peers.d/*.yaml`, `registrar.yaml`):
//! what is refused beyond what every file's reader refuses.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use config::ConfigErrors;
use config::cluster::{ClusterSpec, Version};
use config::guard::{BpfMode, GuardConfig, PeerFile, Protocol};
use config::registrar::{Credentials, Probe, RegistrarConfig};

/// A good file with one piece replaced must be refused once, saying this.
#[track_caller]
fn refused<T: std::fmt::Debug>(
    parse: fn(&str, &Path) -> Result<T, ConfigErrors>,
    good: &str,
    (from, to): (&str, &str),
    says: &str,
) {
    let file = Path::new("f.yaml");
    parse(good, file).unwrap();
    assert_eq!(good.matches(from).count(), 1, "{from}");
    let errors = parse(&good.replace(from, to), file).unwrap_err();
    assert_eq!(errors.errors().len(), 1, "{errors}");
    assert!(errors.to_string().contains(says), "{errors}");
}

const CLUSTER: &str = "\
name: acme
plan: clustered
version: \"1.20.2\"
masters:
  - {name: m1, address: 10.0.0.1}
workers:
  - {name: w1, address: 10.0.0.11, ssh: {user: op}}
networks: {pods: 10.244.0.0/16, services: 10.96.0.0/16}
dns: {zone: k8s.example.org}
routers:
  - {name: edge, addresses: [192.0.2.1]}
";

#[track_caller]
fn cluster(change: (&str, &str), says: &str) {
    refused(ClusterSpec::parse, CLUSTER, change, says);
}

#[test]
fn plans_say_how_many_hosts_there_are() {
    let hosts = |count: usize, prefix: &str, net: u8| -> String {
        (1..=count)
            .map(|index| format!("  - {{name: {prefix}{index}, address: 10.1.{net}.{index}}}\n"))
            .collect()
    };
    let file = |plan: &str, masters: usize, workers: usize| {
        let text = CLUSTER
            .replace("clustered", plan)
            .replace(
                "  - {name: m1, address: 10.0.0.1}\n",
                &hosts(masters, "m", 0),
            )
            .replace(
                "  - {name: w1, address: 10.0.0.11, ssh: {user: op}}\n",
                &hosts(workers, "w", 1),
            )
            .replace("masters:\nworkers", "masters: []\nworkers")
            .replace("workers:\nnetworks", "workers: []\nnetworks");
        ClusterSpec::parse(&text, Path::new("f.yaml"))
    };
    for masters in 0..=4 {
        for workers in 0..=6 {
            let clustered = (1..=3).contains(&masters) && (1..=5).contains(&workers);
            assert_eq!(
                file("clustered", masters, workers).is_ok(),
                clustered,
                "{masters} {workers}"
            );
            let single = masters == 1 && workers == 0;
            assert_eq!(
                file("single", masters, workers).is_ok(),
                single,
                "{masters} {workers}"
            );
        }
    }
    let error = file("clustered", 4, 1).unwrap_err().to_string();
    assert!(
        error.contains("masters: the clustered plan has 1 to 3, found 4"),
        "{error}"
    );
    assert!(file("clustered", 2, 1).unwrap().tolerates_no_master_loss());
    assert!(!file("clustered", 3, 1).unwrap().tolerates_no_master_loss());
}

#[test]
fn cluster_refusals() {
    cluster(
        ("\"1.20.2\"", "1.20"),
        "version: expected a version, found the number `1.20`",
    );
    cluster(("\"1.20.2\"", "v1.20.2"), "without a `v`");
    cluster(("\"1.20.2\"", "1.08.0"), "is not a version");
    cluster(
        ("name: w1", "name: m1"),
        "7:12: workers[0].name: this name stands twice; first in line 5",
    );
    cluster(
        ("name: edge", "name: m1"),
        "routers[0].name: this name stands twice",
    );
    cluster(
        ("10.0.0.11", "10.0.0.1"),
        "workers[0].address: this address stands twice",
    );
    cluster(
        ("10.0.0.11", "10.244.3.4"),
        "overlaps the pod network 10.244.0.0/16",
    );
    cluster(
        ("192.0.2.1", "10.96.0.0/12"),
        "overlaps the service network",
    );
    cluster(
        ("10.0.0.11", "127.0.0.1"),
        "no address that other nodes could reach",
    );
    cluster(
        ("10.96.0.0/16", "10.244.128.0/17"),
        "overlaps the pods' 10.244.0.0/16",
    );
    cluster(("10.244.0.0/16", "10.244.0.0/24"), "too narrow");
    cluster(("10.96.0.0/16", "10.96.0.0/28"), "too narrow for services");
    cluster(("user: op", "user: -oProxyCommand=x"), "begins with `-`");
    cluster(("user: op", "user: 'a b'"), "holds a blank");
    cluster(
        ("user: op", "usr: op"),
        "unknown field `usr`; did you mean `user`?",
    );
    cluster(("name: acme", "name: Acme"), "is not a name");
    let long = format!("name: {}", "a".repeat(60));
    cluster(("name: acme", &long), "is too long");
}

#[test]
fn versions_are_ordered_by_number() {
    let version = |text: &str| Version::parse(text).unwrap();
    assert!(version("1.9.10") < version("1.20.2"));
    assert_eq!(version("1.20.2").to_string(), "1.20.2");
    for wrong in ["", "1", "1.2", "1.2.3.4", "1..3", "1.2.+3", "1.2.99999"] {
        assert!(Version::parse(wrong).is_err(), "{wrong}");
    }
}

const GUARD: &str = "\
cluster: acme
node: w1
role: worker
addresses: [10.0.0.11, 10.0.0.12]
interfaces: [{name: eth0, bpf: xdp}, {name: eth1}]
routers: [{name: edge, addresses: [192.0.2.1]}]
extra_ports: [{name: exporter, port: 9100, protocol: tcp}]
pods: {ranges: [10.244.0.0/16]}
metrics: 127.0.0.1:9190
";

#[track_caller]
fn guard(change: (&str, &str), says: &str) {
    refused(GuardConfig::parse, GUARD, change, says);
}

#[test]
fn guard_meaning() {
    let parse =
        |text: &str| GuardConfig::parse(text, Path::new("/etc/nodeguard/nodeguard.yaml")).unwrap();
    let read = parse(GUARD);
    assert_eq!(read.peers, Path::new("/etc/nodeguard/peers.d"));
    assert_eq!(read.state, Path::new("/var/lib/nodeguard"));
    assert_eq!(read.pods.ports, [8443]);
    assert_eq!(
        (read.bpf, read.interfaces[0].bpf, read.interfaces[1].bpf),
        (BpfMode::Tcx, Some(BpfMode::Xdp), None)
    );
    let vxlan = &read.extra_ports[1];
    assert_eq!((vxlan.port, vxlan.protocol), (8472, Some(Protocol::Udp)));
    assert_eq!(
        parse(&format!("{GUARD}network: other\n")).extra_ports.len(),
        1
    );
    // An operator's own entry for the port is not doubled.
    let own = GUARD.replace("port: 9100, protocol: tcp", "port: 8472");
    assert_eq!(parse(&own).extra_ports.len(), 1);
}

#[test]
fn guard_refusals() {
    guard(
        ("role: worker", "role: workr"),
        "unknown value `workr`; did you mean `worker`?",
    );
    guard(
        ("10.0.0.12", "10.0.0.11"),
        "addresses[1]: this address stands twice",
    );
    guard(("10.0.0.12", "127.0.0.1"), "is a loopback address");
    guard(
        ("10.0.0.12", "10.0.0.0/24"),
        "a single address is expected here, not a range",
    );
    guard(("[10.0.0.11, 10.0.0.12]", "[]"), "needs 1 to 64 items");
    guard(("name: eth1", "name: eth0"), "this device stands twice");
    guard(("name: eth1", "name: a/b"), "is not a device name");
    guard(
        ("name: eth1", "name: sixteen-letters-"),
        "is not a device name",
    );
    guard(
        ("port: 9100", "port: 22"),
        "SSH is not the guard's business",
    );
    guard(("10.244.0.0/16", "0.0.0.0/0"), "guards nothing");
    guard(("127.0.0.1:9190", "0.0.0.0:9190"), "not a loopback address");
    guard(("192.0.2.1", "\"::/0\""), "guards nothing");
}

const PEERS: &str = "\
cluster: acme
nodes:
  - {name: m1, role: master, addresses: [10.0.0.1]}
  - {name: w1, role: worker, addresses: [10.0.0.11]}
routers:
  - {name: edge, addresses: [192.0.2.0/28]}
";

#[test]
fn peer_refusals() {
    let peers = |change, says| refused(PeerFile::parse, PEERS, change, says);
    peers(
        ("name: w1", "name: m1"),
        "4:12: nodes[1].name: this name stands twice; first in line 3",
    );
    peers(
        ("name: edge", "name: w1"),
        "routers[0].name: this name stands twice",
    );
    peers(
        ("10.0.0.11", "\"::ffff:10.0.0.1\""),
        "nodes[1].addresses[0]: this address stands twice",
    );
    peers(("[10.0.0.11]", "[10.0.0.0/24]"), "not a range");
    peers(("[10.0.0.11]", "[127.0.0.1]"), "no address that a node");
    peers(("[10.0.0.11]", "[]"), "needs 1 to 64 items");
    let empty = PeerFile::parse("cluster: acme\n", Path::new("f.yaml")).unwrap_err();
    assert!(empty.to_string().contains("names no peer"), "{empty}");
}

#[test]
fn files_of_one_guard_must_agree() {
    let (own, peers) = (Path::new("nodeguard.yaml"), Path::new("peers.d/a.yaml"));
    let config = GuardConfig::parse(GUARD, own).unwrap();
    // The router of GUARD has the name of the one in PEERS; a good pair differs there.
    let good = PEERS.replace("name: edge", "name: edge-2");
    let says = |text: &str, says: &str| {
        let file = PeerFile::parse(text, peers).unwrap();
        let errors = config::guard::agree(own, &config, [(peers, &file)]).unwrap_err();
        assert_eq!(errors.errors().len(), 1, "{errors}");
        assert!(errors.to_string().contains(says), "{errors}");
    };
    let file = PeerFile::parse(&good, peers).unwrap();
    config::guard::agree(own, &config, [(peers, &file)]).unwrap();
    says(
        PEERS,
        "peers.d/a.yaml:6:12: routers: `edge` stands in nodeguard.yaml:6 already",
    );
    says(
        &good.replace("cluster: acme", "cluster: b"),
        "1:10: cluster: these are peers of `b`",
    );
    says(
        &good.replace("name: w1, role: worker", "name: w1, role: master"),
        "a master here",
    );
    says(
        &good.replace("10.0.0.1]", "10.244.3.4]"),
        "overlaps the pods' 10.244.0.0/16",
    );
    says(
        &good.replace("192.0.2.0/28", "10.0.0.0/8"),
        "overlaps the pods'",
    );
    let second = PeerFile::parse(
        "cluster: acme\nnodes: [{name: m9, role: master, addresses: [10.0.0.1]}]\n",
        Path::new("peers.d/b.yaml"),
    )
    .unwrap();
    let both = [(peers, &file), (Path::new("peers.d/b.yaml"), &second)];
    let errors = config::guard::agree(own, &config, both).unwrap_err();
    assert!(
        errors.to_string().contains("already an address of `m1`"),
        "{errors}"
    );
}

const REGISTRAR: &str = "\
tenant: acme
registries: [\"https://edge-1.example.org:8444\", \"https://edge-2.example.org\"]
credentials: {certificate: a.crt, key: a.key}
ttl: 60s
renew: 20s
routes:
  - host: \"*-apps-7.example.org\"
    endpoint: 10.0.0.11:31380
    check: {kind: http, url: \"http://127.0.0.1:31380/healthz\", interval: 5s, timeout: 2s}
";

#[track_caller]
fn registrar(change: (&str, &str), says: &str) {
    refused(RegistrarConfig::parse, REGISTRAR, change, says);
}

#[test]
fn registrar_meaning() {
    let file = Path::new("/etc/r/registrar.yaml");
    let read = RegistrarConfig::parse(REGISTRAR, file).unwrap();
    assert_eq!(
        read.routes[0].check.probe,
        Probe::Http {
            url: "http://127.0.0.1:31380/healthz".into()
        }
    );
    assert_eq!(read.instance, None);
    assert!(!read.routes[0].shared);
    let named = REGISTRAR
        .replace("tenant: acme", "tenant: acme\ninstance: w-1")
        .replace("    check:", "    shared: true\n    check:");
    let read = RegistrarConfig::parse(&named, file).unwrap();
    assert_eq!(read.instance.as_deref(), Some("w-1"));
    assert!(read.routes[0].shared);
    let token = REGISTRAR.replace("{certificate: a.crt, key: a.key}", "{token: t}");
    let read = RegistrarConfig::parse(&token, file).unwrap();
    assert_eq!(read.credentials, Credentials::Token("/etc/r/t".into()));
}

#[test]
fn registrar_refusals() {
    registrar(
        ("https://edge-2.example.org", "http://edge-2.example.org"),
        "does not begin with https://",
    );
    registrar(
        (
            "https://edge-2.example.org",
            "https://edge-2.example.org/v1",
        ),
        "has a path",
    );
    registrar(
        (
            "https://edge-2.example.org",
            "https://edge-1.example.org:8444/",
        ),
        "this registry stands twice",
    );
    registrar(
        (
            "https://edge-2.example.org",
            "https://user@edge-2.example.org",
        ),
        "no valid host",
    );
    registrar(
        ("https://edge-2.example.org", "https://edge-2.example.org:0"),
        "no valid port",
    );
    registrar(
        ("key: a.key", "token: t"),
        "credentials.token: stands beside a certificate",
    );
    registrar((", key: a.key", ""), "credentials: is incomplete");
    registrar(
        ("renew: 20s", "renew: 31s"),
        "renew: must be at most half of `ttl`",
    );
    registrar(
        ("timeout: 2s", "timeout: 6s"),
        "check.timeout: must be at most `interval`",
    );
    registrar(
        ("kind: http", "kind: tcp"),
        "check.url: does not belong to this kind",
    );
    registrar(
        (", url: \"http://127.0.0.1:31380/healthz\"", ""),
        "needs `url`",
    );
    registrar(
        (
            "kind: http, url: \"http://127.0.0.1:31380/healthz\"",
            "kind: script",
        ),
        "needs `command`",
    );
    registrar(
        (
            "kind: http, url: \"http://127.0.0.1:31380/healthz\"",
            "kind: script, command: [sh]",
        ),
        "`sh` is not an absolute path",
    );
    registrar(
        ("10.0.0.11:31380", "0.0.0.0:31380"),
        "no address that a router could reach",
    );
    registrar(
        ("tenant: acme", "tenant: acme\ninstance: W1.example.org"),
        "instance: `W1.example.org` is not a name",
    );
    registrar(
        ("ttl: 60s", "ttl: 60s\nadmin: 10.0.0.1:9181"),
        "10.0.0.1 is not a loopback address",
    );
    registrar(("ttl: 60s", "ttl: 4s"), "ttl: must be from 5s to 1h");
    registrar(("ttl: 60s", "ttl: 61m"), "ttl: must be from 5s to 1h");
}

/// One more announcement like that of [`REGISTRAR`], of another port.
fn announcement(port: u16, more: &str) -> String {
    format!(
        "  - {{host: \"*-apps-7.example.org\", endpoint: \"10.0.0.11:{port}\", check: {{kind: tcp}}{more}}}\n"
    )
}

#[test]
fn one_instance_announces_at_most_32_routes_and_agrees_with_itself() {
    let parse = |text: &str| RegistrarConfig::parse(text, Path::new("registrar.yaml"));
    let of = |count: u16| -> String {
        let more: String = (1..count).map(|port| announcement(port, "")).collect();
        format!("{REGISTRAR}{more}")
    };
    assert_eq!(parse(&of(32)).unwrap().routes.len(), 32);
    let errors = parse(&of(33)).unwrap_err().to_string();
    assert!(errors.contains("routes: needs 1 to 32 items"), "{errors}");

    for other in [
        ", shared: true",
        ", protocol: http2",
        ", tls: {server_name: a.example, ca: ca.pem}",
    ] {
        let errors = parse(&format!("{REGISTRAR}{}", announcement(1, other))).unwrap_err();
        let says = "10:5: routes[1]: `*-apps-7.example.org` is announced otherwise in line 7; \
                    endpoints of one name must agree";
        assert!(errors.to_string().contains(says), "{errors}");
        assert_eq!(errors.errors().len(), 1, "{errors}");
    }
}
