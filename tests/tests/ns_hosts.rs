//! Hosts apart: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::Sender;
use std::time::Duration;

use harness::backend::{Backend, OK};
use harness::ca::KeyKind;
use harness::client::{Connection, TlsClient};
use harness::edge::{Edge, HOST, Upstream, route_file};
use harness::folder::Folder;
use harness::load::Load;
use harness::namespace::{Host, Network, processes_of};
use harness::nginx::{HTTP_PORT, Ingress};
use harness::process::Process;
use harness::router::Router;
use harness::wait;

/// The settings of an edge whose router listens on a host's addresses.
fn edge_on(host: &Host, label: &str) -> Edge {
    let mut edge = Edge::new(label).unwrap();
    edge.certificate("acme", &["*.acme.example.org"], KeyKind::Ecdsa)
        .unwrap();
    edge.http = vec![(host.v4, 80).into(), (host.v6, 80).into()];
    edge.https = vec![(host.v4, 443).into(), (host.v6, 443).into()];
    edge.admin = SocketAddr::from(([127, 0, 0, 1], 9900));
    edge
}

fn start(edge: &Edge, host: &Host) -> Router {
    edge.write_settings().unwrap();
    let addresses: Vec<SocketAddr> = edge.http.iter().chain(&edge.https).copied().collect();
    Router::start(
        &edge.configuration(),
        edge.folder(),
        Some(&host.namespace),
        &addresses,
        edge.admin,
    )
    .unwrap()
}

fn connect(edge: &Edge, client: &Host, address: IpAddr) -> Connection {
    let tls = TlsClient::new(&edge.ca, &["http/1.1"]);
    client
        .namespace
        .run(|| tls.connect((address, 443).into(), HOST))
        .unwrap()
}

#[test]
fn the_clients_own_address_is_passed_on_over_ipv4_and_ipv6() {
    let mut network = Network::new().unwrap();
    let (router_host, client, worker) = (
        network.host("edge").unwrap(),
        network.host("client").unwrap(),
        network.host("worker").unwrap(),
    );
    let edge = edge_on(&router_host, "ns-address");
    for upstream in [
        SocketAddr::new(worker.v4, 80),
        SocketAddr::new(worker.v6, 81),
    ] {
        let backend = Backend::start_in(&worker.namespace, upstream, |conversation| {
            while conversation.request()?.is_some() {
                conversation.send(OK)?;
            }
            Ok(())
        })
        .unwrap();
        let routes = route_file(
            "acme",
            &[Upstream::plain("workers", &[upstream])],
            &[(HOST, "workers")],
        );
        edge.routes("acme", &routes).unwrap();
        let _router = start(&edge, &router_host);
        for (address, own, forwarded) in [
            (router_host.v4, client.v4, format!("for={}", client.v4)),
            (
                router_host.v6,
                client.v6,
                format!("for=\"[{}]\"", client.v6),
            ),
        ] {
            let answer = connect(&edge, &client, address)
                .exchange(format!("GET /{own} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
                .unwrap();
            assert_eq!(answer.text(), "ok", "{address} to {upstream}");
            let recorded = backend.text();
            let request = recorded.split(&format!("GET /{own} ")).nth(1).unwrap();
            assert!(
                request.contains(&format!("X-Forwarded-For: {own}\r\n")),
                "{request}"
            );
            assert!(request.contains(&forwarded), "{request}");

            let plain = client
                .namespace
                .run(|| Connection::plain((address, 80).into()))
                .unwrap();
            let mut plain = plain;
            let answer = plain
                .exchange(format!("GET /a HTTP/1.1\r\nHost: {HOST}\r\n\r\n"))
                .unwrap();
            assert_eq!(
                answer.header("location"),
                Some(format!("https://{HOST}/a").as_str())
            );
        }
    }
}

#[test]
fn no_get_fails_when_a_worker_falls_silent() {
    let mut network = Network::new().unwrap();
    let router_host = network.host("edge").unwrap();
    let client = network.host("client").unwrap();
    let workers: Vec<Host> = ["a1", "a2"].map(|name| network.host(name).unwrap()).into();
    let mut edge = edge_on(&router_host, "ns-silent");
    edge.more = "timeouts:\n  connect: 200ms\n  response_head: 2s\n".into();
    let _nginx: Vec<_> = workers
        .iter()
        .map(|worker| {
            Ingress {
                namespace: Some(&worker.namespace),
                ..Ingress::plain("acme", &worker.name, (worker.v4, HTTP_PORT).into())
            }
            .start(edge.folder())
            .unwrap()
        })
        .collect();
    let endpoints: Vec<SocketAddr> = workers.iter().map(|it| (it.v4, HTTP_PORT).into()).collect();
    edge.routes(
        "acme",
        &route_file(
            "acme",
            &[Upstream::plain("workers", &endpoints)],
            &[(HOST, "workers")],
        ),
    )
    .unwrap();
    // One is silent from the start: connecting to it is never refused, it takes forever.
    network.unplug(&workers[0]).unwrap();
    let _router = start(&edge, &router_host);
    let tls = TlsClient::new(&edge.ca, &["http/1.1"]);
    let load = Load::start(
        4,
        &tls,
        (router_host.v4, 443).into(),
        &[HOST],
        Some(&client.namespace),
    )
    .unwrap();
    load.wait_for(200).unwrap();
    network.plug(&workers[0]).unwrap();
    load.wait_for(200).unwrap();
    let tally = load.finish();
    assert_eq!(tally.failures, Vec::<String>::new());
    assert!(tally.workers.contains_key("a2"));
}

/// Two workers that hold every answer back, and an edge that gives a host a second.
struct Held {
    network: Network,
    workers: Vec<Host>,
    backends: Vec<(Backend, Sender<()>)>,
    client: Connection,
    _router: Router,
    _edge: Edge,
}

impl Held {
    fn new(label: &str) -> Self {
        let mut network = Network::new().unwrap();
        let router_host = network.host("edge").unwrap();
        let client = network.host("client").unwrap();
        let workers: Vec<Host> = ["a1", "a2"].map(|name| network.host(name).unwrap()).into();
        let mut edge = edge_on(&router_host, label);
        edge.more = "timeouts:\n  connect: 200ms\n".into();
        let backends: Vec<_> = workers
            .iter()
            .map(|it| Backend::gated_in(&it.namespace, (it.v4, HTTP_PORT).into()).unwrap())
            .collect();
        let endpoints: Vec<SocketAddr> = backends.iter().map(|it| it.0.address()).collect();
        edge.routes(
            "acme",
            &route_file(
                "acme",
                &[Upstream::plain("workers", &endpoints)],
                &[(HOST, "workers")],
            ),
        )
        .unwrap();
        let router = start(&edge, &router_host);
        Self {
            client: connect(&edge, &client, router_host.v4),
            network,
            workers,
            backends,
            _router: router,
            _edge: edge,
        }
    }

    /// Sends a request; which worker has got it.
    fn ask(&mut self, request: &[u8], seen: &str) -> usize {
        self.client.send(request).unwrap();
        wait::until("a worker to get the request", wait::PATIENCE, || {
            self.backends.iter().position(|it| it.0.count(seen) > 0)
        })
        .unwrap()
    }

    /// How many connections the workers have had.
    fn connections(&self) -> usize {
        self.backends.iter().map(|it| it.0.connections()).sum()
    }
}

/// Several times what a host may take to acknowledge a request at that edge.
const LONG: Duration = Duration::from_secs(4);

#[test]
fn a_living_host_may_take_as_long_as_it_likes() {
    let mut held = Held::new("ns-long");
    let get = format!("GET /long HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let worker = held.ask(get.as_bytes(), "GET /long ");
    std::thread::sleep(LONG);
    held.backends[worker].1.send(()).unwrap();
    assert_eq!(held.client.response("GET").unwrap().text(), "ok");
    assert_eq!(held.connections(), 1);
}

#[test]
fn a_living_host_may_let_an_upload_wait() {
    const BODY: usize = 16 << 20;
    let mut network = Network::new().unwrap();
    let router_host = network.host("edge").unwrap();
    let (client, worker) = (
        network.host("client").unwrap(),
        network.host("worker").unwrap(),
    );
    let mut edge = edge_on(&router_host, "ns-upload");
    edge.more = "timeouts:\n  connect: 200ms\n".into();
    let address = SocketAddr::new(worker.v4, HTTP_PORT);
    // Its window closes, and stays so for longer than a host may take to acknowledge.
    let backend = Backend::start_in(&worker.namespace, address, |conversation| {
        conversation.head()?;
        std::thread::sleep(LONG);
        conversation.swallow(BODY as u64)?;
        conversation.send(OK)
    })
    .unwrap();
    edge.routes(
        "acme",
        &route_file(
            "acme",
            &[Upstream::plain("workers", &[address])],
            &[(HOST, "workers")],
        ),
    )
    .unwrap();
    let _router = start(&edge, &router_host);
    let mut client = connect(&edge, &client, router_host.v4);
    client
        .send(format!(
            "PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {BODY}\r\n\r\n"
        ))
        .unwrap();
    client.send(vec![b'x'; BODY]).unwrap();
    assert_eq!(client.response("PUT").unwrap().text(), "ok");
    assert_eq!(backend.connections(), 1);
}

#[test]
fn a_long_poll_is_asked_again_elsewhere_when_its_host_dies() {
    let mut held = Held::new("ns-long-dies");
    let get = format!("GET /long HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let worker = held.ask(get.as_bytes(), "GET /long ");
    let other = 1 - worker;
    // It has been acknowledged, so nothing is retransmitted: only probes can tell.
    held.network.unplug(&held.workers[worker]).unwrap();
    held.backends[other].0.wait_for("GET /long ").unwrap();
    held.backends[other].1.send(()).unwrap();
    assert_eq!(held.client.response("GET").unwrap().text(), "ok");
}

#[test]
fn hosts_see_each_other_and_nothing_else() {
    let mut network = Network::new().unwrap();
    let (one, two) = (network.host("one").unwrap(), network.host("two").unwrap());
    let backend = Backend::start_in(&two.namespace, (two.v6, 80).into(), |conversation| {
        conversation.request()?;
        conversation.send(OK)
    })
    .unwrap();
    let address = backend.address();
    assert!(
        one.namespace
            .run(|| std::net::TcpStream::connect(address))
            .is_ok()
    );
    assert!(
        std::net::TcpStream::connect(address).is_err(),
        "the machine is on the hosts' network"
    );

    let folder = Folder::new("sleep").unwrap();
    let mut sleep = std::process::Command::new("sleep");
    sleep.arg("60");
    let mut process = Process::start("sleep", sleep, Some(&one.namespace), folder.path()).unwrap();
    assert_eq!(one.namespace.processes(), [process.pid()]);
    let inode = one.namespace.inode().unwrap();
    process.stop();
    assert!(processes_of(inode).is_empty());
}
