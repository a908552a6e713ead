//! What a worker keeps, and what it forgets, while routes come and go.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::route::UpstreamProtocol;
use tokio::net::TcpListener;

use super::{Lease, Pools, Tried};
use crate::control::tests::Files;
use crate::control::{Control, RegistryUpdate};
use crate::observe::metrics::Registry;
use crate::registry::route::{RegistryEndpoint, RegistryRoute, RouteChange};
use crate::route::Host;
use crate::snapshot::Settings;
use crate::upstream::Upstream;
use crate::upstream::health::Unhealthy;
use crate::worker::timers::Timers;

/// A worker's pools and a control plane with one route of the registry.
struct Scene {
    control: Control,
    timers: Rc<Timers>,
    pools: Pools,
    settings: Arc<Settings>,
    _files: Files,
}

impl Scene {
    fn new() -> Self {
        let files = Files::new();
        let metrics = Arc::new(Registry::new(std::time::SystemTime::now()));
        let shard = metrics.add_shard();
        let control = Control::start(&files.config(), metrics).unwrap();
        let timers = Timers::new();
        Self {
            settings: Arc::clone(&control.published().load().settings),
            control,
            pools: Pools::new(Rc::clone(&timers), shard, 7),
            timers,
            _files: files,
        }
    }

    fn announce(&self, endpoints: &[SocketAddr]) -> Arc<Upstream> {
        let endpoint = |&address| RegistryEndpoint { address, tls: None };
        let route = RegistryRoute {
            host: "shop.example.org".parse().unwrap(),
            tenant: "globex".into(),
            shared: false,
            protocol: UpstreamProtocol::Http1,
            endpoints: endpoints.iter().map(endpoint).collect(),
            check: None,
        };
        let change = RouteChange::Set(Arc::new(route));
        self.control
            .apply_registry(RegistryUpdate::Changes(vec![change]));
        let snapshot = self.control.published().load();
        let host = Host::parse("shop.example.org").unwrap();
        Arc::clone(&snapshot.routes.lookup(&host).unwrap().upstream)
    }

    fn withdraw(&self) {
        let change = RouteChange::Gone("shop.example.org".parse().unwrap());
        self.control
            .apply_registry(RegistryUpdate::Changes(vec![change]));
    }

    async fn lease(&self, upstream: &Arc<Upstream>) -> Lease {
        let mut tried = Tried::default();
        let lease = self
            .pools
            .http1(upstream, &self.settings, &mut tried, false);
        lease.await.expect("a listener")
    }

    /// A lease on one endpoint of several, whatever the dice say.
    async fn lease_on(&self, upstream: &Arc<Upstream>, address: SocketAddr) -> Lease {
        let mut others = Vec::new();
        loop {
            let lease = self.lease(upstream).await;
            if lease.address() == address {
                return lease;
            }
            // As long as it is busy, the other one is the better choice.
            others.push(lease);
        }
    }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn connections_stay_warm_when_other_endpoints_come_and_go() {
    let scene = Scene::new();
    let ((_a, a), (_b, b)) = (listener().await, listener().await);
    let lease = scene.lease(&scene.announce(&[a])).await;
    assert!(!lease.reused);
    scene.pools.put(lease, &scene.settings);
    for endpoints in [&[a, b][..], &[a], &[a, b]] {
        let upstream = scene.announce(endpoints);
        scene.pools.sweep();
        let lease = scene.lease_on(&upstream, a).await;
        assert!(lease.reused, "{endpoints:?}");
        scene.pools.put(lease, &scene.settings);
    }
    // The upstreams that are gone are forgotten, and b with the one that had it alone.
    scene.announce(&[a]);
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (0, 1));
}

#[tokio::test]
async fn a_request_goes_on_when_its_endpoint_is_withdrawn_and_leaves_nothing() {
    let scene = Scene::new();
    let (listener, address) = listener().await;
    let upstream = scene.announce(&[address]);
    let (busy, unused) = (scene.lease(&upstream).await, scene.lease(&upstream).await);
    let (mut first, _) = listener.accept().await.unwrap();
    let (second, _) = listener.accept().await.unwrap();
    scene.pools.put(unused, &scene.settings);
    scene.withdraw();
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (0, 0));
    // The unused connection is closed, the busy one carries on.
    let mut byte = [0; 1];
    second.readable().await.unwrap();
    assert_eq!(second.try_read(&mut byte).unwrap(), 0);
    let mut busy = busy;
    tokio::io::AsyncWriteExt::write_all(&mut busy.stream, b"x")
        .await
        .unwrap();
    tokio::io::AsyncReadExt::read_exact(&mut first, &mut byte)
        .await
        .unwrap();
    assert_eq!(&byte, b"x");
    // Nobody will ask for it again, so it is not kept when the request is over.
    scene.pools.put(busy, &scene.settings);
    assert_eq!(
        tokio::io::AsyncReadExt::read(&mut first, &mut byte)
            .await
            .unwrap(),
        0
    );

    // A request that began under an old snapshot may still come for it.
    let late = scene.lease(&upstream).await;
    assert_eq!(scene.pools.known(), (1, 1));
    drop(late);
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (0, 0));
}

#[tokio::test]
async fn what_is_at_rest_is_forgotten_and_what_is_not_is_kept() {
    let scene = Scene::new();
    let ((_a, a), (b_listener, b)) = (listener().await, listener().await);
    drop(b_listener);
    let upstream = scene.announce(&[a, b]);
    // Whoever is asked first: b refuses and rests, a is left.
    let lease = loop {
        let lease = scene.lease(&upstream).await;
        if scene.pools.rests(&upstream) == [false, true] {
            break lease;
        }
    };
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (1, 2), "a request is under way");
    scene.pools.put(lease, &scene.settings);
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (1, 2), "a connection is kept");
    let begun = Instant::now();
    let later = |after: Duration| scene.timers.tick(begun + after + Duration::from_secs(1));
    later(scene.settings.timeouts.endpoint_rest);
    assert!(scene.settings.timeouts.upstream_idle > scene.settings.timeouts.endpoint_rest);
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (1, 2), "beside one that is kept");
    later(scene.settings.timeouts.upstream_idle);
    scene.pools.sweep();
    assert_eq!(scene.pools.known(), (0, 0));
}

#[tokio::test]
async fn what_fails_its_checks_is_passed_over_unless_nothing_else_is_left() {
    let scene = Scene::new();
    let ((_a, a), (b_listener, b)) = (listener().await, listener().await);
    let upstream = scene.announce(&[a, b]);
    let flags = upstream.unhealthy.get_or_init(|| Unhealthy::new(2).into());
    let at = |address| {
        upstream
            .endpoints
            .iter()
            .position(|it| it.address == address)
    };
    let (at_a, at_b) = (at(a).unwrap(), at(b).unwrap());
    let used = async || {
        let mut used = BTreeSet::new();
        for _ in 0..40 {
            used.insert(scene.lease(&upstream).await.address());
        }
        used.into_iter().collect::<Vec<_>>()
    };
    let mut both = vec![a, b];
    both.sort_unstable();
    assert_eq!(used().await, both);
    flags.set(at_a, true);
    assert_eq!(used().await, [b]);
    flags.set(at_b, true);
    assert_eq!(used().await, both, "all are as bad");
    flags.set(at_a, false);
    assert_eq!(used().await, [a]);
    // One that is refused by the last healthy endpoint is served by an unhealthy one.
    flags.set(at_a, true);
    flags.set(at_b, false);
    drop(b_listener);
    assert_eq!(used().await, [a]);
}

#[tokio::test]
async fn a_host_that_fell_silent_takes_its_unused_connections_along_and_rests() {
    let scene = Scene::new();
    let ((a_listener, a), (_b, b)) = (listener().await, listener().await);
    let upstream = scene.announce(&[a, b]);
    let (busy, unused) = (
        scene.lease_on(&upstream, a).await,
        scene.lease_on(&upstream, a).await,
    );
    let _busy_there = a_listener.accept().await.unwrap();
    scene.pools.put(unused, &scene.settings);
    let state = Rc::clone(&busy.endpoint);
    scene
        .pools
        .lost(&state, scene.settings.timeouts.endpoint_rest);
    // Whoever comes now goes elsewhere, and finds nothing here when there is nowhere else.
    for _ in 0..10 {
        assert_eq!(scene.lease(&upstream).await.address(), b);
    }
    let only = scene.announce(&[a]);
    assert!(!scene.lease(&only).await.reused);
}
