//! Sessions are resumed under the name they were made for, and under no other.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, HandshakeKind, NamedGroup, SupportedProtocolVersion};

use super::clients::{ECDSA_SCHEMES, TLS12, TLS13, client_of, shake, shown};
use super::pairs::{Directory, ECDSA};
use crate::tls::CertificateStore;

/// A client that offers whatever session it has to whomever it speaks with.
pub(super) fn promiscuous(versions: &[&'static SupportedProtocolVersion]) -> Arc<ClientConfig> {
    let mut config = client_of(versions, ECDSA_SCHEMES);
    config.resumption = Resumption::store(Arc::new(OnePot::default()));
    Arc::new(config)
}

/// How a handshake went, and the pair the client was shown.
pub(super) async fn visit(
    store: &CertificateStore,
    client: &Arc<ClientConfig>,
    name: &str,
) -> (HandshakeKind, String) {
    let (served, connected) = shake(store, client, name).await;
    let (served, connected) = (
        served.expect("a handshake"),
        connected.expect("a handshake"),
    );
    let kind = connected
        .get_ref()
        .1
        .handshake_kind()
        .expect("it is complete");
    assert_eq!(served.stream.get_ref().1.handshake_kind(), Some(kind));
    (kind, shown(store, &connected))
}

#[tokio::test]
async fn a_session_is_resumed_under_its_own_name() {
    let store = Directory::with(&["a.test"]).load();
    for versions in [TLS12, TLS13] {
        let client = promiscuous(versions);
        assert_eq!(
            visit(&store, &client, "a.test").await.0,
            HandshakeKind::Full
        );
        assert_eq!(
            visit(&store, &client, "a.test").await.0,
            HandshakeKind::Resumed
        );
    }
}

#[tokio::test]
async fn a_session_is_resumed_after_a_reload() {
    let directory = Directory::with(&["a.test"]);
    let before = directory.load();
    for versions in [TLS12, TLS13] {
        let client = promiscuous(versions);
        visit(&before, &client, "a.test").await;
        directory.pair("b.test", &["b.test"], ECDSA);
        let after = directory.reload(&before);
        assert_eq!(
            visit(&after, &client, "a.test").await.0,
            HandshakeKind::Resumed
        );
    }
}

#[tokio::test]
async fn a_session_is_not_resumed_by_another_process() {
    let directory = Directory::with(&["a.test"]);
    let client = promiscuous(TLS13);
    visit(&directory.load(), &client, "a.test").await;
    // Loading without a previous store makes keys of its own.
    let (kind, _) = visit(&directory.load(), &client, "a.test").await;
    assert_ne!(kind, HandshakeKind::Resumed);
}

#[tokio::test]
async fn a_session_is_not_resumed_under_another_name() {
    let directory = Directory::with(&["a.test", "b.test", "*.c.test"]);
    let store = directory.load();
    for versions in [TLS12, TLS13] {
        for (first, second, pair) in [
            ("a.test", "b.test", "b.test"),
            ("x.c.test", "y.c.test", "wild.c.test"),
        ] {
            let client = promiscuous(versions);
            visit(&store, &client, first).await;
            let (kind, shown) = visit(&store, &client, second).await;
            assert_ne!(kind, HandshakeKind::Resumed, "{first} -> {second}");
            assert_eq!(shown, pair);
        }
    }
}

#[tokio::test]
async fn a_session_of_the_default_is_not_resumed_under_a_name() {
    let directory = Directory::with(&["a.test", "fallback.test"]);
    let store = directory.load_with_default("fallback.test");
    for versions in [TLS12, TLS13] {
        for first in ["unknown.test", "192.0.2.1"] {
            let client = promiscuous(versions);
            visit(&store, &client, first).await;
            let (kind, shown) = visit(&store, &client, "a.test").await;
            assert_ne!(kind, HandshakeKind::Resumed, "{first}");
            assert_eq!(shown, "a.test");
        }
    }
}

/// Keeps every session in one pot, whatever name it was made for.
#[derive(Debug, Default)]
struct OnePot {
    tickets: Mutex<VecDeque<Tls13ClientSessionValue>>,
    session: Mutex<Option<Tls12ClientSessionValue>>,
}

impl OnePot {
    fn tickets(&self) -> MutexGuard<'_, VecDeque<Tls13ClientSessionValue>> {
        self.tickets.lock().expect("no test panics with it")
    }

    fn session(&self) -> MutexGuard<'_, Option<Tls12ClientSessionValue>> {
        self.session.lock().expect("no test panics with it")
    }
}

impl ClientSessionStore for OnePot {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, value: Tls12ClientSessionValue) {
        *self.session() = Some(value);
    }

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.session().clone()
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {
        *self.session() = None;
    }

    fn insert_tls13_ticket(&self, _: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.tickets().push_back(value);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.tickets().pop_front()
    }
}
