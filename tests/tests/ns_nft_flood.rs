//! Changes of the guard's table under fire: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use harness::flood::{Flood, Transport};
use harness::namespace::{Host, Network};
use harness::nftables::{drifted, exclusive, nft, script, with_nodes};
use harness::wait;
use nodeguard::nft::Done;

/// An isolated port of the sample.
const PORT: u16 = 10250;

/// A guarded host and a client, with counters before and behind the guard.
struct Scene {
    guarded: Host,
    client: Host,
    _network: Network,
}

impl Scene {
    fn new() -> Self {
        let mut network = Network::new().unwrap();
        let guarded = network.host("guarded").unwrap();
        let client = network.host("client").unwrap();
        script(
            &guarded.namespace,
            &format!(
                "table inet watch {{
                   counter arrived {{ }}
                   counter passed {{ }}
                   chain before {{ type filter hook prerouting priority -460;
                                   tcp dport {PORT} counter name arrived; }}
                   chain behind {{ type filter hook prerouting priority -440;
                                   tcp dport {PORT} counter name passed; }}; }}"
            ),
        );
        Self {
            guarded,
            client,
            _network: network,
        }
    }

    fn client_address(&self) -> [u8; 4] {
        match self.client.v4 {
            IpAddr::V4(address) => address.octets(),
            IpAddr::V6(_) => panic!("an IPv4 address"),
        }
    }

    fn syns(&self, sources: fn(u32) -> IpAddr) -> Flood {
        let target = SocketAddr::new(self.guarded.v4, PORT);
        self.client
            .namespace
            .run(|| Flood::new(Transport::Tcp, target, sources))
            .unwrap()
    }

    fn count(&self, counter: &str) -> usize {
        let arguments = ["list", "counter", "inet", "watch", counter];
        let listing = nft(&self.guarded.namespace, &arguments).stdout;
        let packets = listing.split_once("packets ").unwrap().1;
        packets.split_once(' ').unwrap().0.parse().unwrap()
    }

    /// Sends to the end, and gives what arrived and what passed of it, all in all.
    fn send(&self, syns: &mut Flood, count: usize) -> (usize, usize) {
        let wanted = self.count("arrived") + count;
        let mut sent = 0;
        while sent < count {
            sent += syns.batch().unwrap();
        }
        wait::until_true("all that was sent arrives", || {
            self.count("arrived") >= wanted
        })
        .unwrap();
        (self.count("arrived"), self.count("passed"))
    }

    /// What arrived and what passed, once nothing moves any more.
    fn settled(&self) -> (usize, usize) {
        let look = || (self.count("arrived"), self.count("passed"));
        let mut last = look();
        wait::until("the last packet is through", wait::PATIENCE, || {
            let now = look();
            let still = now == last;
            last = now;
            still.then_some(now)
        })
        .unwrap()
    }

    /// Floods the host while `action` runs.
    fn under_flood<T>(&self, mut syns: Flood, action: impl FnOnce(&AtomicUsize) -> T) -> T {
        let (stop, sent) = (AtomicBool::new(false), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(syns.batch().unwrap(), Ordering::Relaxed);
                }
            });
            let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| action(&sent)));
            stop.store(true, Ordering::Relaxed);
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn strangers(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(0xac10_0000 | number & 0xf_ffff).into()
}

/// The second host on a network.
fn the_client(_: u32) -> IpAddr {
    Ipv4Addr::new(10, 77, 0, 2).into()
}

#[test]
fn nothing_gets_through_while_the_table_is_replaced() {
    let scene = Scene::new();
    let mut guard = exclusive(&scene.guarded.namespace);
    let node = scene.client_address();
    let rulesets = [
        with_nodes([[10, 1, 1, 1]]),
        with_nodes([[10, 1, 1, 1], node]),
    ];
    guard.replace(&rulesets[0]).unwrap();
    let began = Instant::now();
    let (replaced, sent) = scene.under_flood(scene.syns(strangers), |sent| {
        let mut replaced = 0;
        loop {
            for ruleset in &rulesets {
                guard.replace(ruleset).unwrap();
                replaced += 1;
            }
            let sent = sent.load(Ordering::Relaxed);
            if replaced >= 100 && sent >= 1_300_000 || began.elapsed() > Duration::from_secs(90) {
                break (replaced, sent);
            }
        }
    });
    let (arrived, passed) = scene.settled();
    println!(
        "{replaced} replacements in {:?}, {sent} sent, {arrived} arrived, {passed} passed",
        began.elapsed()
    );
    assert!(replaced >= 100, "{replaced}");
    assert!(arrived >= 1_000_000, "{arrived}");
    assert_eq!(passed, 0);
    // The counter behind the guard does count.
    guard.remove().unwrap();
    let (_, passed) = scene.send(&mut scene.syns(strangers), 64);
    assert_eq!(passed, 64);
}

#[test]
fn an_update_takes_effect_at_once_and_disturbs_nobody_else() {
    let scene = Scene::new();
    let mut guard = exclusive(&scene.guarded.namespace);
    let client = scene.client_address();
    assert_eq!(IpAddr::from(client), the_client(0));
    let without = with_nodes([[10, 1, 1, 1]]);
    let mut with = with_nodes([[10, 1, 1, 1], client]);
    guard.replace(&without).unwrap();
    let mut syns = scene.syns(the_client);
    assert_eq!(scene.send(&mut syns, 640), (640, 0));
    let one = |added, removed| Done::Elements { added, removed };
    assert_eq!(guard.update(&without, &with).unwrap(), one(1, 0));
    assert_eq!(scene.send(&mut syns, 640), (1280, 640));
    assert_eq!(guard.update(&with, &without).unwrap(), one(0, 1));
    assert_eq!(scene.send(&mut syns, 640), (1920, 640));
    assert_eq!(guard.update(&without, &without).unwrap(), Done::Nothing);
    assert_eq!(drifted(&mut guard, &without), Vec::<String>::new());
    // 1,280 strangers' SYNs so far: the set counts them, and updates let it.
    let counts = guard.counts(&without).unwrap();
    let packets: u64 = counts.sets["stranger"].values().map(|it| it.packets).sum();
    assert_eq!(packets, 1280);
    assert_eq!(counts.sets["stranger"].len(), 6);
    assert_eq!(counts.named["loopback"].packets, 0);

    guard.update(&without, &with).unwrap();
    let (arrived_before, passed_before) = scene.settled();
    let updates = scene.under_flood(syns, |sent| {
        let (mut current, mut updates) = (with.clone(), 0_u32);
        while updates < 2_000 || sent.load(Ordering::Relaxed) < 50_000 {
            let others = (1..=updates % 7).map(|n| [10, 1, 2, u8::try_from(n).unwrap()]);
            let mut nodes = vec![[10, 1, 1, 1]];
            nodes.extend(others);
            nodes.push(client);
            let next = with_nodes(nodes);
            guard.update(&current, &next).unwrap();
            current = next;
            updates += 1;
        }
        with = current;
        updates
    });
    let (arrived, passed) = scene.settled();
    println!("{updates} updates, {} packets", arrived - arrived_before);
    assert_eq!(arrived - arrived_before, passed - passed_before);

    let syns = scene.syns(the_client);
    scene.under_flood(syns, |_| {
        assert!(matches!(
            guard.update(&with, &without).unwrap(),
            Done::Elements { removed: 1.., .. }
        ));
        let passed = scene.count("passed");
        let arrived = scene.count("arrived");
        wait::until_true("the flood goes on", || {
            scene.count("arrived") > arrived + 10_000
        })
        .unwrap();
        assert_eq!(scene.count("passed"), passed, "after the removal");
    });
}
