//! Rotation over every order in which routers may read, commit, stall and die.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::control::RegistryUpdate;
use crate::observe::metrics::Registry;
use crate::registry::follow::{Follower, Publish};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Committed, Embedded, Store};
use crate::tls::SharedTickets;

/// One rotation, in seconds of the model's clock.
const PERIOD: u64 = 60;
/// The deadlines of two calls to the store.
const LONGEST_STALL: u64 = 6;

/// A store with one clock of its own, which keeps to what [`Transaction`] says.
#[derive(Default)]
struct Model {
    now: u64,
    revision: i64,
    keys: BTreeMap<String, (Bytes, i64, Option<LeaseId>)>,
    leases: BTreeMap<i64, u64>,
    granted: i64,
}

impl Model {
    fn wait(&mut self, seconds: u64) {
        self.now += seconds;
        let ended = |lease: &i64| self.leases.get(lease).is_none_or(|ends| *ends <= self.now);
        self.keys
            .retain(|_, (_, _, lease)| !lease.is_some_and(|lease| ended(&lease.0)));
    }

    /// As a store does that cannot know who tried to renew: leases get their full time.
    fn restart(&mut self) {
        for ends in self.leases.values_mut() {
            if *ends > self.now {
                *ends = self.now + PERIOD + SLACK.as_secs();
            }
        }
    }

    fn grant(&mut self) -> LeaseId {
        self.granted += 1;
        let ends = self.now + PERIOD + SLACK.as_secs();
        self.leases.insert(self.granted, ends);
        LeaseId(self.granted)
    }

    fn read(&self) -> TicketState {
        let secrets = self.keys.get(TICKET_SECRETS);
        TicketState {
            secrets: secrets.map(|(value, ..)| serde_json::from_slice(value).unwrap()),
            fresh: self.keys.contains_key(TICKET_FRESH),
            revision: Revision(self.revision),
        }
    }

    fn commit(&mut self, transaction: &Transaction) -> Committed {
        let written = |range: &Range| {
            let mut keys = self.keys.iter();
            keys.any(|(key, (_, modified, _))| {
                range.contains(key) && *modified > transaction.since.0
            })
        };
        let missing = |key: &String| !self.keys.contains_key(key);
        if transaction.unchanged.iter().any(written) || transaction.present.iter().any(missing) {
            return Committed::Conflict;
        }
        self.revision += 1;
        for put in &transaction.puts {
            let value = (put.value.clone(), self.revision, put.lease);
            self.keys.insert(put.key.clone(), value);
        }
        Committed::Done(Revision(self.revision))
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Time goes by.
    Wait(u64),
    /// A router reads, gets a lease, and thinks.
    Begin(usize),
    /// It commits what it has thought out, if it has not stalled for too long.
    Finish(usize),
    /// It dies.
    Die(usize),
    /// The store starts anew.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..2 * PERIOD).prop_map(Step::Wait),
        4 => (0..10_u64).prop_map(Step::Wait),
        8 => (0..3_usize).prop_map(Step::Begin),
        8 => (0..3_usize).prop_map(Step::Finish),
        1 => (0..3_usize).prop_map(Step::Die),
        1 => Just(Step::Restart),
    ]
}

fn secret(number: u64) -> [u8; 32] {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    secret
}

/// Two successive sets of secrets keep to what tickets need.
fn follows(before: &(u64, TicketSecrets), after: &(u64, TicketSecrets)) {
    let ((then, before), (now, after)) = (before, after);
    assert!(now - then >= PERIOD, "{then} {before:?}, {now} {after:?}");
    let current = after.current().unwrap();
    assert_eq!(before.epochs.last(), Some(current), "everybody had it");
    let was_current = before.current().unwrap();
    assert!(after.epochs.contains(was_current), "its tickets are opened");
    assert!(after.epochs.last().unwrap().epoch > current.epoch);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_breaks_a_ticket(steps in prop::collection::vec(step(), 0..80)) {
        let mut store = Model::default();
        let mut planned: [Option<(u64, TicketSecrets, Transaction)>; 3] = Default::default();
        let mut history: Vec<(u64, TicketSecrets)> = Vec::new();
        let mut made = 0;
        let mut begin = |store: &mut Model| {
            let state = store.read();
            let lease = store.grant();
            made += 2;
            plan(&state, lease, [secret(made), secret(made + 1)])
        };
        for step in steps {
            match step {
                Step::Wait(seconds) => store.wait(seconds),
                Step::Restart => store.restart(),
                Step::Die(router) => planned[router] = None,
                Step::Begin(router) => {
                    let plan = begin(&mut store);
                    planned[router] = plan.map(|(secrets, commit)| (store.now, secrets, commit));
                }
                Step::Finish(router) => {
                    let Some((begun, secrets, commit)) = planned[router].take() else { continue };
                    if store.now - begun > LONGEST_STALL {
                        continue;
                    }
                    if store.commit(&commit) == Committed::Conflict {
                        continue;
                    }
                    secrets.check().unwrap();
                    prop_assert!(secrets.epochs.len() >= 2);
                    let stored = store.read();
                    prop_assert_eq!(stored.secrets.as_ref(), Some(&secrets));
                    history.push((store.now, secrets));
                    if let [.., before, after] = &history[..] {
                        follows(before, after);
                    }
                }
            }
        }
        // Whoever comes when the last lease has ended is served.
        store.wait(2 * PERIOD);
        let (_, commit) = begin(&mut store).expect("it is due");
        prop_assert_ne!(store.commit(&commit), Committed::Conflict);
        prop_assert_eq!(begin(&mut store), None);
    }

    #[test]
    fn a_secret_is_written_and_read(epoch: u64, bytes: [u8; 32]) {
        let written = TicketEpoch::new(epoch, &bytes);
        prop_assert_eq!(written.bytes(), Some(bytes));
        let text = serde_json::to_string(&written).unwrap();
        let read: TicketEpoch = serde_json::from_str(&text).unwrap();
        prop_assert!(read == written);
    }
}

#[test]
fn the_first_start_makes_two_epochs_and_each_rotation_one() {
    let mut state = TicketState::default();
    let mut seen = Vec::new();
    for _ in 0..4 {
        let (secrets, _) = plan(&state, LeaseId(1), [[1; 32], [2; 32]]).unwrap();
        let epochs = secrets.epochs.iter().map(|it| it.epoch);
        seen.push((epochs.collect::<Vec<_>>(), secrets.current().unwrap().epoch));
        state.secrets = Some(secrets);
    }
    let expected = [
        (vec![1, 2], 1),
        (vec![1, 2, 3], 2),
        (vec![2, 3, 4], 3),
        (vec![3, 4, 5], 4),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn young_secrets_stay_and_lost_ones_are_made_anew() {
    let (secrets, _) = plan(&TicketState::default(), LeaseId(1), [[1; 32], [2; 32]]).unwrap();
    let mut state = TicketState {
        secrets: Some(secrets),
        fresh: true,
        revision: Revision(7),
    };
    assert_eq!(plan(&state, LeaseId(2), [[3; 32], [4; 32]]), None);
    state.fresh = false;
    let (_, commit) = plan(&state, LeaseId(2), [[3; 32], [4; 32]]).unwrap();
    assert_eq!(commit.present, [TICKET_SECRETS]);
    // Somebody deleted the secrets by hand, and left the mark.
    state.fresh = true;
    state.secrets = None;
    let (secrets, commit) = plan(&state, LeaseId(2), [[3; 32], [4; 32]]).unwrap();
    assert_eq!(secrets.epochs.len(), 2);
    assert_eq!((commit.since, commit.present.len()), (Revision(7), 0));
    let leases: Vec<_> = commit
        .puts
        .iter()
        .map(|put| (&*put.key, put.lease))
        .collect();
    let expected = [(TICKET_SECRETS, None), (TICKET_FRESH, Some(LeaseId(2)))];
    assert_eq!(leases, expected);
}

/// A store in a folder of its own, and the same followed.
async fn store() -> (tempfile::TempDir, Arc<RouteRegistry>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Embedded::open(folder.path()).await.unwrap();
    let registry = RouteRegistry::new(Store::Embedded(store));
    (folder, Arc::new(registry))
}

async fn epochs(store: &Store) -> Vec<u64> {
    let listing = store.read(&[Range::key(TICKET_SECRETS)]).await.unwrap();
    let secrets: TicketSecrets = serde_json::from_slice(&listing.entries[0].value).unwrap();
    secrets.epochs.iter().map(|it| it.epoch).collect()
}

/// As if the lease had ended.
async fn age(store: &Store) {
    let transaction = Transaction {
        deletes: vec![TICKET_FRESH.to_owned()],
        ..Transaction::default()
    };
    store.commit(&transaction).await.unwrap();
}

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn one_of_many_routers_rotates() {
    let (_folder, registry) = store().await;
    let store = &registry.store;
    for (expected, current) in [(vec![1, 2], 1), (vec![1, 2, 3], 2), (vec![2, 3, 4], 3)] {
        let (a, b, c) = tokio::join!(
            rotate(store, HOUR),
            rotate(store, HOUR),
            rotate(store, HOUR),
        );
        let done = [a, b, c].map(Result::unwrap);
        let here = done.iter().filter(|it| **it == Rotated::Here(current));
        assert_eq!(here.count(), 1, "{done:?}");
        assert_eq!(epochs(store).await, expected);
        assert_eq!(rotate(store, HOUR).await.unwrap(), Rotated::Young);
        age(store).await;
    }
}

#[tokio::test]
async fn what_this_version_cannot_read_is_left_alone() {
    let (_folder, registry) = store().await;
    let store = &registry.store;
    for value in [r#"{"epochs":[]}"#, r#"{"epochs":"secret"}"#, "\"secret\""] {
        let put = Put {
            key: TICKET_SECRETS.to_owned(),
            value: value.into(),
            lease: None,
        };
        let transaction = Transaction {
            puts: vec![put],
            ..Transaction::default()
        };
        store.commit(&transaction).await.unwrap();
        let error = rotate(store, HOUR).await.unwrap_err();
        assert!(matches!(error, RotationError::Unreadable(_)), "{error}");
        assert!(!error.to_string().contains("\"secret"), "{error}");
        let listing = store.read(&[Range::key(TICKET_SECRETS)]).await.unwrap();
        assert_eq!(listing.entries[0].value, value);
    }
}

struct Feed(TicketFeed);

impl Publish for Feed {
    fn routes(&mut self, _: RegistryUpdate) {}

    fn tickets(&mut self, secrets: Option<&TicketSecrets>, fresh: bool) {
        self.0.tickets(secrets, fresh);
    }

    fn reachable(&mut self, _: bool) {}

    fn followed(&mut self, _: Revision) {}
}

/// From an empty store to a second rotation, by the follower's watch alone.
#[tokio::test]
async fn secrets_come_into_force_where_the_store_is_followed() {
    let (_folder, registry) = store().await;
    let metrics = Arc::new(Registry::new(std::time::SystemTime::UNIX_EPOCH));
    let routers = [(); 2].map(|()| {
        let tickets = SharedTickets::new(HOUR);
        let (feed, rotation) = keep(tickets.clone(), HOUR, Arc::clone(&metrics));
        let follower = Follower::new(Arc::clone(&registry), Feed(feed), HOUR, None);
        tokio::spawn(follower.run());
        let registry = Arc::clone(&registry);
        tokio::spawn(async move { rotation.run(&registry).await });
        tickets
    });
    for epoch in 1..=3 {
        let both = async {
            while routers.iter().any(|it| it.epoch() != Some(epoch)) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), both)
            .await
            .expect("in force at both routers");
        let line = format!("\nrouter_ticket_epoch {epoch}\n");
        assert!(metrics.render().contains(&line));
        age(&registry.store).await;
    }
}
