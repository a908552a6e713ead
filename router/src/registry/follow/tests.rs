//! From a store to what is published.

use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::registry::store::{Embedded, Put, Store, Transaction};

use super::*;

/// Tells how many changes were published at once; the first time, all there are.
struct Told(UnboundedSender<usize>);

impl Publish for Told {
    fn routes(&mut self, update: RegistryUpdate) {
        let count = match update {
            RegistryUpdate::Reset(routes) => routes.len(),
            RegistryUpdate::Changes(changes) => changes.len(),
        };
        let _ = self.0.send(count);
    }

    fn tickets(&mut self, _: Option<&TicketSecrets>, _: bool) {}

    fn reachable(&mut self, _: bool) {}

    fn followed(&mut self, _: Revision) {}

    fn foreign(&mut self, foreign: bool) {
        let _ = self.0.send(if foreign { FOREIGN } else { FAMILIAR });
    }
}

async fn followed(window: Duration) -> (Arc<RouteRegistry>, UnboundedReceiver<usize>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).await.unwrap();
    let registry = Arc::new(RouteRegistry::new(Store::Embedded(store)));
    let (sender, mut published) = unbounded_channel();
    let follower = Follower::new(Arc::clone(&registry), Told(sender), window, None);
    tokio::spawn(follower.run());
    assert_eq!(published.recv().await, Some(0));
    (registry, published, folder)
}

/// A router that knows one route of the store `x` from before, and an empty store.
async fn recalled(
    store_id: Option<&str>,
) -> (Arc<RouteRegistry>, UnboundedReceiver<usize>, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).await.unwrap();
    let registry = Arc::new(RouteRegistry::new(Store::Embedded(store)));
    let store_id = store_id.map_or(String::new(), |id| format!(r#","store":"{id}""#));
    let text = format!(
        "{{\"version\":1,\"revision\":9,\"records\":1{store_id}}}\n\
         {{\"k\":\"route/gro.x.a/acme/w1\",\"c\":1,\"m\":1,\"v\":{{\"endpoints\":[\"10.0.0.1:1\"]}}}}"
    );
    let memory = Memory::new(folder.path());
    std::fs::write(memory.file(), text).unwrap();
    let (sender, published) = unbounded_channel();
    let mut follower = Follower::new(
        Arc::clone(&registry),
        Told(sender),
        Duration::ZERO,
        Some(memory),
    );
    follower.recall();
    tokio::spawn(follower.run());
    (registry, published, folder)
}

const FOREIGN: usize = 1_000;
const FAMILIAR: usize = 2_000;

#[tokio::test]
async fn an_empty_store_takes_no_known_route_away_and_is_not_written_to() {
    for id in [None, Some("x")] {
        let (registry, mut published, folder) = recalled(id).await;
        assert_eq!(published.recv().await, Some(1));
        assert_eq!(published.recv().await, Some(FOREIGN));
        assert!(!registry.is_reachable());
        assert_eq!(registry.view().len(), 1);
        assert_eq!(registry.store.list().await.unwrap().entries, []);
        let file = std::fs::read_to_string(Memory::new(folder.path()).file()).unwrap();
        assert!(file.contains("gro.x.a"));
        // Another store's name makes it no better.
        let commit = |transaction| {
            let registry = Arc::clone(&registry);
            async move { registry.store.commit(&transaction).await.unwrap() }
        };
        commit(origin::naming([9; 16], Revision(0))).await;
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        assert_eq!(registry.view().len(), 1);
        assert!(!registry.is_reachable());
        // The one that it should be.
        let put = |key: &str, value: &str| Put {
            key: key.to_owned(),
            value: value.to_owned().into(),
            lease: None,
        };
        let right = Transaction {
            puts: vec![
                put(crate::registry::keys::STORE_ID, "x"),
                put("route/gro.x.b/acme/w1", r#"{"endpoints":["10.0.0.1:1"]}"#),
            ],
            ..Transaction::default()
        };
        commit(right).await;
        assert_eq!(published.recv().await, Some(FAMILIAR));
        assert_eq!(published.recv().await, Some(2), "one gone, one new");
        assert_eq!(registry.view().store_id(), Some("x"));
    }
}

#[tokio::test]
async fn an_empty_store_is_named_and_followed_by_whoever_knows_no_route() {
    let (registry, mut published, _folder) = followed(Duration::ZERO).await;
    put(&registry, &["a"]).await;
    assert_eq!(published.recv().await, Some(1));
    let read = [crate::registry::store::Range::key(
        crate::registry::keys::STORE_ID,
    )];
    let stored = registry.store.read(&read).await.unwrap().entries;
    let name = std::str::from_utf8(&stored[0].value).unwrap().to_owned();
    assert_eq!(registry.view().store_id(), Some(name.as_str()));
    assert!(registry.is_reachable());
}

async fn put(registry: &RouteRegistry, names: &[&str]) {
    let puts = names.iter().map(|name| Put {
        key: format!("route/gro.x.{name}/acme/w1"),
        value: r#"{"endpoints":["10.0.0.1:1"]}"#.into(),
        lease: None,
    });
    let transaction = Transaction {
        puts: puts.collect(),
        ..Transaction::default()
    };
    registry.store.commit(&transaction).await.unwrap();
}

#[tokio::test]
async fn a_change_after_quiet_waits_for_no_window_and_those_that_follow_come_together() {
    let window = Duration::from_millis(500);
    let (registry, mut published, _folder) = followed(window).await;
    for _ in 0..2 {
        tokio::time::sleep(window + Duration::from_millis(20)).await;
        let begun = Instant::now();
        put(&registry, &["a"]).await;
        assert_eq!(published.recv().await, Some(1));
        let first = begun.elapsed();
        assert!(first < window, "{first:?}");
        for names in [&["b"][..], &["c", "d"], &["b"]] {
            put(&registry, names).await;
        }
        assert_eq!(published.recv().await, Some(3), "b, c and d");
        assert!(begun.elapsed() >= window);
    }
}

#[tokio::test]
async fn without_a_window_every_change_is_published_at_once() {
    let (registry, mut published, _folder) = followed(Duration::ZERO).await;
    for names in [&["a"][..], &["b", "c"], &["a"]] {
        put(&registry, names).await;
        assert_eq!(published.recv().await, Some(names.len()));
    }
}
