//! Clients move to another router when theirs dies or drains: by a virtual address that keepalived
//! moves, or by several addresses in DNS. Needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use harness::ca::KeyKind;
use harness::client::TlsClient;
use harness::clients::{Clients, Count, Plan};
use harness::edge::{Edge, HOST, Upstream, route_file};
use harness::folder;
use harness::keepalived::{Keepalived, holds};
use harness::namespace::{Host, Network};
use harness::nginx::{HTTP_PORT, Ingress, Nginx};
use harness::results::Rows;
use harness::router::Router;
use harness::tool::Tool;
use harness::wait;

/// What the operator's page tells to use.
const CONFIGURATION: &str = include_str!("../../docs/examples/keepalived.conf");

const VIRTUAL_V4: &str = "10.77.0.200";
const VIRTUAL_V6: &str = "fd77::200";

/// As the operator's page tells for a virtual address: longer than it takes to move.
const DRAIN_DELAY: Duration = Duration::from_secs(5);

/// keepalived gives the address up, and the next one takes it: within this, clients are answered
/// again if the router goes on serving until then.
const HANDED_OVER: Duration = Duration::from_millis(1_500);

/// Within this time the address has moved and clients are answered again. It takes 2 to 4 s.
const MOVED: Duration = Duration::from_secs(10);

static ROWS: Mutex<Rows> = Mutex::new(Rows::new(
    "edge-clients-move",
    &const { Count::head::<8>("what happens", &[]) },
));

fn note(what: &str, count: &Count) {
    ROWS.lock()
        .unwrap()
        .add(count.row(("what happens", what)))
        .unwrap();
}

/// A router and its host.
struct Door {
    host: Host,
    folder: PathBuf,
    router: Router,
    keepalived: Option<Keepalived>,
}

/// Three routers before one NGINX, and a client.
struct Scene {
    doors: Vec<Door>,
    client: Host,
    tls: TlsClient,
    edge: Edge,
    network: Network,
    _nginx: Nginx,
}

impl Scene {
    fn new(label: &str, drain_delay: Duration) -> Self {
        let mut network = Network::new().unwrap();
        let hosts: Vec<Host> = ["edge-1", "edge-2", "edge-3"]
            .map(|name| network.host(name).unwrap())
            .into();
        let worker = network.host("worker").unwrap();
        let client = network.host("client").unwrap();
        let mut edge = Edge::new(label).unwrap();
        edge.certificate("acme", &["*.acme.example.org"], KeyKind::Ecdsa)
            .unwrap();
        let any = |port| vec![SocketAddr::from(([0, 0, 0, 0], port))];
        edge.http = any(80);
        edge.https = any(443);
        edge.https.push("[::]:443".parse().unwrap());
        edge.admin = SocketAddr::from(([127, 0, 0, 1], 9180));
        let endpoint = SocketAddr::new(worker.v4, HTTP_PORT);
        let upstream = Upstream::plain("workers", &[endpoint]);
        edge.routes(
            "acme",
            &route_file("acme", &[upstream], &[(HOST, "workers")]),
        )
        .unwrap();
        edge.more = format!("timeouts:\n  drain_delay: {}s\n", drain_delay.as_secs());
        edge.write_settings().unwrap();
        let nginx = Ingress {
            namespace: Some(&worker.namespace),
            ..Ingress::plain("acme", "worker", endpoint)
        }
        .start(edge.folder())
        .unwrap();
        let doors = hosts
            .into_iter()
            .map(|host| {
                let folder = edge.folder().join(&host.name);
                std::fs::create_dir(&folder).unwrap();
                Door {
                    router: router(&edge, &host, &folder),
                    keepalived: None,
                    host,
                    folder,
                }
            })
            .collect();
        Self {
            doors,
            client,
            tls: TlsClient::new(&edge.ca, &["http/1.1"]),
            edge,
            network,
            _nginx: nginx,
        }
    }

    /// Starts keepalived on all hosts, with the page's own configuration.
    fn keepalived(&mut self) {
        for number in 0..self.doors.len() {
            let mut text = CONFIGURATION.to_owned();
            let mut replace = |old: &str, new: &str| {
                assert!(
                    text.contains(old),
                    "{old:?} is not in the page's configuration"
                );
                text = text.replace(old, new);
            };
            let own = &self.doors[number].host;
            let mut others = self
                .doors
                .iter()
                .map(|it| &it.host)
                .filter(|it| it.v4 != own.v4);
            replace("10.0.0.11 ", &format!("{} ", own.v4));
            for peer in ["10.0.0.12\n", "10.0.0.13\n"] {
                replace(peer, &format!("{}\n", others.next().unwrap().v4));
            }
            replace("10.0.0.10/24", &format!("{VIRTUAL_V4}/24"));
            replace("fd00::10/64", &format!("{VIRTUAL_V6}/64"));
            replace(
                "priority 150 ",
                ["priority 150 ", "priority 100 ", "priority 50 "][number],
            );
            let door = &mut self.doors[number];
            door.keepalived = Some(Keepalived::start(&door.host, &text, &door.folder).unwrap());
        }
    }

    /// Index of the host that has the virtual addresses, and alone.
    fn holder(&self) -> Option<usize> {
        let holders: Vec<usize> = (0..self.doors.len())
            .filter(|number| {
                let host = &self.doors[*number].host;
                let has = |address: &str| holds(host, address.parse().unwrap()).unwrap();
                has(VIRTUAL_V4) && has(VIRTUAL_V6)
            })
            .collect();
        <[usize; 1]>::try_from(holders).ok().map(|[only]| only)
    }

    fn one_holder(&self) -> usize {
        wait::until("one host to hold the address", wait::PATIENCE, || {
            self.holder()
        })
        .unwrap()
    }

    fn clients(&self, addresses: &[SocketAddr], insist: Duration) -> Clients {
        Plan {
            insist,
            // A dead host's packets vanish: this is what waiting for them costs.
            silence: Duration::from_secs(2),
            ..Plan::new(&self.tls, &self.client.namespace, addresses, &[HOST])
        }
        .start()
    }
}

fn router(edge: &Edge, host: &Host, folder: &std::path::Path) -> Router {
    Router::start(
        &edge.configuration(),
        folder,
        Some(&host.namespace),
        &[(host.v4, 80).into(), (host.v4, 443).into()],
        edge.admin,
    )
    .unwrap()
}

fn virtual_addresses() -> [SocketAddr; 2] {
    [VIRTUAL_V4, VIRTUAL_V6].map(|it| SocketAddr::new(it.parse::<IpAddr>().unwrap(), 443))
}

#[test]
fn a_virtual_address_leaves_a_router_that_dies_or_drains_and_a_host_that_dies() {
    let mut scene = Scene::new("virtual-address", DRAIN_DELAY);
    scene.keepalived();
    let mut holder = scene.one_holder();
    assert_eq!(holder, 0, "the highest priority begins");
    for what in [
        "keepalived is stopped, then the router that it was for",
        "SIGTERM to the router that holds the address",
        "SIGKILL to the router that holds the address",
        "the host that holds the address dies",
    ] {
        let [v4, v6] = virtual_addresses();
        // Each has one address only, and insists.
        let insist = MOVED * 3;
        let (old, new) = (scene.clients(&[v4], insist), scene.clients(&[v6], insist));
        for clients in [&old, &new] {
            clients.wait_for(200).unwrap();
        }
        let door = &mut scene.doors[holder];
        let dies = what.contains("host that");
        if what.contains("stopped") {
            door.keepalived.take().unwrap().process.stop();
            door.router.terminate();
        } else if what.contains("SIGTERM") {
            door.router.terminate();
        } else if dies {
            // First the two: keepalived gives the address up when its link goes.
            door.keepalived.as_mut().unwrap().crash().unwrap();
            door.router.process.crash();
            scene.network.unplug(&door.host).unwrap();
        } else {
            door.router.process.crash();
        }
        let next = wait::until("another host to hold the address", wait::PATIENCE, || {
            (0..scene.doors.len()).find(|it| {
                let host = &scene.doors[*it].host;
                *it != holder && holds(host, v4.ip()).unwrap() && holds(host, v6.ip()).unwrap()
            })
        })
        .unwrap();
        for (family, clients) in [("IPv4", old), ("IPv6", new)] {
            clients.wait_for_calm(100).unwrap();
            let count = clients.finish();
            note(&format!("{what} ({family})"), &count);
            assert_eq!(count.failed_gets, Vec::<String>::new(), "{what}");
            assert!(count.retries > 0, "{what}: nobody noticed: {count:?}");
            assert!(count.slowest < MOVED, "{what}: {count:?}");
            if what.contains("SIGTERM") {
                assert!(count.gap < HANDED_OVER, "{what}: {count:?}");
            }
            // One answer at most for each client that had one under way.
            assert!(count.broken.len() <= 4, "{what}: {count:?}");
        }
        if dies {
            // It would come back with the address that it still has, as no real host does.
            assert!(holds(&scene.doors[holder].host, v4.ip()).unwrap());
        } else {
            let door = &mut scene.doors[holder];
            door.router.process.wait(wait::PATIENCE).unwrap();
            door.router = router(&scene.edge, &door.host, &door.folder);
            if door.keepalived.is_none() {
                let file = door.folder.join("keepalived.conf");
                let text = std::fs::read_to_string(file).unwrap();
                door.keepalived = Some(Keepalived::start(&door.host, &text, &door.folder).unwrap());
            }
            assert_eq!(scene.one_holder(), next, "the address went back by itself");
        }
        holder = next;
    }
}

#[test]
fn clients_with_three_addresses_lose_no_get_when_a_router_dies_or_drains() {
    let mut scene = Scene::new("three-addresses", Duration::ZERO);
    let addresses: Vec<SocketAddr> = scene
        .doors
        .iter()
        .map(|it| SocketAddr::new(it.host.v4, 443))
        .collect();
    let load = |scene: &Scene| {
        let clients = scene.clients(&addresses, Duration::ZERO);
        clients.wait_for(200).unwrap();
        clients
    };
    let end = |what: &str, clients: Clients| {
        clients.wait_for_calm(100).unwrap();
        let count = clients.finish();
        note(&format!("{what} (three addresses)"), &count);
        assert_eq!(count.failed_gets, Vec::<String>::new(), "{what}");
        assert!(count.retries > 0, "{what}: nobody noticed: {count:?}");
        assert!(count.broken.len() <= 4, "{what}: {count:?}");
    };

    let clients = load(&scene);
    scene.doors[0].router.terminate();
    scene.doors[0].router.process.wait(wait::PATIENCE).unwrap();
    end("SIGTERM to one router", clients);

    let door = &mut scene.doors[0];
    door.router = router(&scene.edge, &door.host, &door.folder);
    let clients = load(&scene);
    scene.doors[0].router.process.crash();
    end("SIGKILL to one router", clients);
    // Real clients as well: curl tries one address after the other.
    let list: Vec<String> = addresses.iter().map(|it| it.ip().to_string()).collect();
    let ca = scene.edge.folder().join("ca.pem");
    folder::write(&ca, scene.edge.ca.pem()).unwrap();
    let answer = Tool::new("curl")
        .args(["--silent", "--show-error", "--max-time", "60", "--cacert"])
        .args([&ca])
        .args(["--resolve", &format!("{HOST}:443:{}", list.join(","))])
        .args(["--write-out", " %{remote_ip} %{http_code}"])
        .args([format!("https://{HOST}/hello")])
        .namespace(Some(&scene.client.namespace))
        .succeed()
        .unwrap();
    assert!(answer.ends_with(" 200"), "{answer}");
    assert!(!answer.contains(&list[0]), "{answer}");

    let clients = load(&scene);
    scene.network.unplug(&scene.doors[1].host).unwrap();
    scene.doors[1].router.process.crash();
    end("the host of one router dies", clients);
}
