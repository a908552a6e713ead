//! Tickets that the whole edge opens: what they look like, and who opens them when.

use std::sync::Arc;
use std::time::Duration;

use config::router::TlsVersion;
use proptest::prelude::*;
use rustls::server::ProducesTickets;
use rustls::{HandshakeKind, SupportedProtocolVersion};

use super::clients::{TLS12, TLS13, shake};
use super::pairs::{BOTH_VERSIONS, Directory, ECDSA};
use super::resumption::{promiscuous, visit};
use crate::registry::record::{TicketEpoch, TicketSecrets};
use crate::registry::tickets::TicketSecretsError;
use crate::tls::{CertificateStore, SharedTickets, TlsPolicy};

/// Secrets of these epochs, each a function of its epoch.
fn secrets(epochs: impl IntoIterator<Item = u64>) -> TicketSecrets {
    let epochs = epochs.into_iter();
    TicketSecrets {
        epochs: epochs
            .map(|epoch| TicketEpoch::new(epoch, &[epoch as u8; 32]))
            .collect(),
    }
}

fn tickets() -> SharedTickets {
    SharedTickets::new(Duration::from_secs(6 * 3600))
}

fn ticketer(epochs: impl IntoIterator<Item = u64>) -> Arc<dyn ProducesTickets> {
    let tickets = tickets();
    tickets.install(&secrets(epochs)).expect("secrets");
    tickets.ticketer(BOTH_VERSIONS)
}

/// A router of the edge: its certificates, and the handle for its tickets.
struct Router {
    store: CertificateStore,
    tickets: SharedTickets,
}

impl Router {
    fn start(directory: &Directory, policy: TlsPolicy) -> Self {
        let tickets = tickets();
        let (store, _) =
            CertificateStore::load_sharing(directory.path(), None, &policy, tickets.clone())
                .expect("valid pairs");
        Self { store, tickets }
    }

    fn with(directory: &Directory, policy: TlsPolicy, epochs: [u64; 3]) -> Self {
        let router = Self::start(directory, policy);
        router.tickets.install(&secrets(epochs)).expect("secrets");
        router
    }
}

/// Visits one router, lets something happen, and visits another.
async fn resumed(
    versions: &[&'static SupportedProtocolVersion],
    first: &Router,
    meanwhile: impl FnOnce(),
    second: &Router,
) -> bool {
    let client = promiscuous(versions);
    let (kind, _) = visit(&first.store, &client, "a.test").await;
    assert_eq!(kind, HandshakeKind::Full);
    meanwhile();
    let (kind, _) = visit(&second.store, &client, "a.test").await;
    kind == HandshakeKind::Resumed
}

#[tokio::test]
async fn a_session_is_resumed_at_another_router_until_its_key_is_gone() {
    let directory = Directory::with(&["a.test"]);
    for versions in [TLS12, TLS13] {
        let router = || Router::with(&directory, BOTH_VERSIONS, [1, 2, 3]);
        let rotate = |router: &Router, epochs| {
            router.tickets.install(&secrets(epochs)).expect("secrets");
        };
        let (one, two) = (router(), router());
        assert!(resumed(versions, &one, || {}, &two).await);
        let once = || rotate(&two, [2, 3, 4]);
        assert!(resumed(versions, &one, once, &two).await);
        let twice = || rotate(&two, [3, 4, 5]);
        assert!(!resumed(versions, &router(), twice, &two).await);
        // One that has rotated already, and one that has not.
        let (ahead, behind) = (router(), router());
        rotate(&ahead, [2, 3, 4]);
        assert!(resumed(versions, &ahead, || {}, &behind).await);
    }
}

#[tokio::test]
async fn a_session_of_another_policy_is_not_resumed() {
    let directory = Directory::with(&["a.test"]);
    let policies = [(TlsVersion::V1_3, true), (TlsVersion::V1_2, false)];
    let one = Router::with(&directory, BOTH_VERSIONS, [1, 2, 3]);
    for (minimum, http2) in policies {
        let two = Router::with(&directory, TlsPolicy { minimum, http2 }, [1, 2, 3]);
        assert!(!resumed(TLS13, &one, || {}, &two).await);
        assert!(!resumed(TLS13, &two, || {}, &one).await);
    }
}

#[tokio::test]
async fn without_secrets_there_are_no_tickets() {
    let directory = Directory::with(&["a.test"]);
    for versions in [TLS12, TLS13] {
        let router = Router::start(&directory, BOTH_VERSIONS);
        let client = promiscuous(versions);
        for _ in 0..2 {
            let (served, connected) = shake(&router.store, &client, "a.test").await;
            served.expect("a handshake");
            let connected = connected.expect("a handshake");
            let connection = connected.get_ref().1;
            assert_eq!(connection.handshake_kind(), Some(HandshakeKind::Full));
            assert_eq!(connection.tls13_tickets_received(), 0);
        }
        // The same configuration issues them from the moment that it has secrets.
        router.tickets.install(&secrets([1, 2])).expect("secrets");
        assert!(resumed(versions, &router, || {}, &router).await);
    }
}

#[tokio::test]
async fn the_handle_outlives_reloads() {
    // A name that is new after the reload: its configuration is made from the template.
    let directory = Directory::with(&["b.test"]);
    let before = Router::with(&directory, BOTH_VERSIONS, [1, 2, 3]);
    directory.pair("a.test", &["a.test"], ECDSA);
    let other = Router::with(&directory, BOTH_VERSIONS, [3, 4, 5]);
    let store = directory.reload(&before.store);
    let tickets = store.shared_tickets().expect("kept").clone();
    let after = Router { store, tickets };
    let new = secrets([3, 4, 5]);
    before.tickets.install(&new).expect("secrets");
    assert_eq!(after.tickets.epoch(), Some(4));
    for versions in [TLS12, TLS13] {
        assert!(resumed(versions, &other, || {}, &after).await);
        assert!(resumed(versions, &after, || {}, &other).await);
    }
    assert!(directory.load().shared_tickets().is_none());
}

#[test]
fn the_last_but_one_epoch_encrypts_and_all_decrypt() {
    for (epochs, current) in [
        (vec![9], 9),
        (vec![1, 2], 1),
        (vec![1, 2, 3], 2),
        (vec![4, 7, 9], 7),
    ] {
        let tickets = tickets();
        assert_eq!(tickets.epoch(), None);
        tickets.install(&secrets(epochs.clone())).expect("secrets");
        assert_eq!(tickets.epoch(), Some(current));
        let all = tickets.ticketer(BOTH_VERSIONS);
        let ticket = all.encrypt(b"a session").expect("a ticket");
        assert_eq!(all.decrypt(&ticket).as_deref(), Some(&b"a session"[..]));
        for epoch in epochs {
            let alone = ticketer([epoch]);
            assert_eq!(alone.decrypt(&ticket).is_some(), epoch == current);
            let theirs = alone.encrypt(b"another").expect("a ticket");
            assert_eq!(all.decrypt(&theirs).as_deref(), Some(&b"another"[..]));
        }
    }
}

/// The same secrets in another epoch, or under another policy, are other keys.
#[test]
fn keys_hang_on_secret_epoch_and_policy() {
    let of = |epoch, secret, policy| {
        let tickets = tickets();
        let epochs = vec![TicketEpoch::new(epoch, &secret)];
        tickets.install(&TicketSecrets { epochs }).expect("secrets");
        tickets.ticketer(policy)
    };
    let ticket = of(1, [1; 32], BOTH_VERSIONS).encrypt(b"a session").unwrap();
    assert!(of(1, [1; 32], BOTH_VERSIONS).decrypt(&ticket).is_some());
    let others = [
        of(2, [1; 32], BOTH_VERSIONS),
        of(1, [2; 32], BOTH_VERSIONS),
        of(
            1,
            [1; 32],
            TlsPolicy {
                http2: false,
                ..BOTH_VERSIONS
            },
        ),
        of(
            1,
            [1; 32],
            TlsPolicy {
                minimum: TlsVersion::V1_3,
                ..BOTH_VERSIONS
            },
        ),
    ];
    for other in others {
        assert_eq!(other.decrypt(&ticket), None);
        let name = &other.encrypt(b"a session").unwrap()[..16];
        assert_ne!(name, &ticket[..16], "the name tells the keys apart");
    }
}

/// Made by other programs (Python's hashlib and OpenSSL): another release of ours must open it.
#[test]
fn the_layout_stays() {
    let golden = "6f79cf53987f0f2c9b609d80c73f81dc a0a1a2a3a4a5a6a7a8a9aaab \
                  45d1221a9daf2a2382 9d49b914d328a9b79ad07124cfa13e2c";
    let golden: String = golden.split_whitespace().collect();
    let golden: Vec<u8> = (0..golden.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&golden[at..at + 2], 16).unwrap())
        .collect();
    let secret: [u8; 32] = std::array::from_fn(|index| index as u8);
    let tickets = tickets();
    let epochs = vec![TicketEpoch::new(7, &secret)];
    tickets.install(&TicketSecrets { epochs }).expect("secrets");
    let ticketer = tickets.ticketer(BOTH_VERSIONS);
    assert_eq!(
        ticketer.decrypt(&golden).as_deref(),
        Some(&b"a session"[..])
    );

    let (one, two) = (
        ticketer.encrypt(b"a session").unwrap(),
        ticketer.encrypt(b"a session").unwrap(),
    );
    assert_eq!(one.len(), golden.len());
    assert_eq!(one[..16], golden[..16]);
    assert_ne!(one[16..28], two[16..28], "each has a nonce of its own");
    assert_eq!(ticketer.lifetime(), 6 * 3600);
    assert!(ticketer.encrypt(&[0; 2048 - 44]).is_some());
    assert!(ticketer.encrypt(&[0; 2048 - 43]).is_none());
}

#[test]
fn what_is_no_secret_is_refused_and_changes_nothing() {
    let tickets = tickets();
    tickets.install(&secrets([1, 2, 3])).expect("secrets");
    let ticketer = tickets.ticketer(BOTH_VERSIONS);
    let ticket = ticketer.encrypt(b"a session").unwrap();
    let mut odd = secrets([1, 2]);
    odd.epochs[1].secret.truncate(62);
    let mut ugly = secrets([1, 2]);
    ugly.epochs[0].secret.replace_range(3..5, "ä");
    for (wrong, why) in [
        (secrets([]), TicketSecretsError::Count(0)),
        (secrets([1, 2, 3, 4]), TicketSecretsError::Count(4)),
        (secrets([2, 1]), TicketSecretsError::Order(1)),
        (secrets([1, 2, 2]), TicketSecretsError::Order(2)),
        (odd, TicketSecretsError::Secret(2)),
        (ugly, TicketSecretsError::Secret(1)),
    ] {
        assert_eq!(tickets.install(&wrong), Err(why));
        assert!(ticketer.decrypt(&ticket).is_some());
    }
    assert_eq!(tickets.epoch(), Some(2));
    // Neither a handle nor an error shows a secret.
    let shown = format!("{tickets:?} {ticketer:?} {}", TicketSecretsError::Secret(2));
    assert!(
        !shown.contains("0202") && shown.contains("epoch 2"),
        "{shown}"
    );
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Behead(prop::sample::Index),
    Append(Vec<u8>),
    Rename([u8; 16]),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<prop::sample::Index>(), 1..=u8::MAX).prop_map(|(at, bits)| Damage::Flip(at, bits)),
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        any::<prop::sample::Index>().prop_map(Damage::Behead),
        prop::collection::vec(any::<u8>(), 1..40).prop_map(Damage::Append),
        any::<[u8; 16]>().prop_map(Damage::Rename),
    ]
}

impl Damage {
    fn apply(&self, ticket: &mut Vec<u8>) {
        let length = ticket.len();
        match self {
            Self::Flip(at, bits) => ticket[at.index(length)] ^= bits,
            Self::Cut(at) => ticket.truncate(at.index(length)),
            Self::Behead(at) => drop(ticket.drain(..=at.index(length))),
            Self::Append(more) => ticket.extend(more),
            Self::Rename(name) => ticket[..16].copy_from_slice(name),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whole_tickets_open_and_damaged_ones_do_not(
        plain in prop::collection::vec(any::<u8>(), 0..600),
        damage in damage(),
    ) {
        let ticketer = ticketer([1, 2, 3]);
        let ticket = ticketer.encrypt(&plain).unwrap();
        prop_assert_eq!(ticketer.decrypt(&ticket), Some(plain));
        let mut damaged = ticket.clone();
        damage.apply(&mut damaged);
        prop_assume!(damaged != ticket);
        prop_assert_eq!(ticketer.decrypt(&damaged), None);
    }

    /// The name of a key that is known, before anything at all.
    #[test]
    fn foreign_tickets_do_not_open(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        named in any::<bool>(),
    ) {
        let ticketer = ticketer([1, 2, 3]);
        let mut ticket = bytes;
        if named && ticket.len() >= 16 {
            ticket[..16].copy_from_slice(&ticketer.encrypt(b"").unwrap()[..16]);
        }
        prop_assert_eq!(ticketer.decrypt(&ticket), None);
    }

    /// A name that is swapped for another known one: the name is authenticated, and the key other.
    #[test]
    fn a_ticket_does_not_change_epochs(plain in prop::collection::vec(any::<u8>(), 0..99)) {
        let mut ticket = ticketer([2]).encrypt(&plain).unwrap();
        ticket[..16].copy_from_slice(&ticketer([3]).encrypt(b"").unwrap()[..16]);
        prop_assert_eq!(ticketer([1, 2, 3]).decrypt(&ticket), None);
    }
}
