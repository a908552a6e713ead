use proptest::prelude::*;

use super::*;
use crate::registry::keys;
use crate::registry::store::Listing;

fn host(text: &str) -> HostMatch {
    HostMatch::parse(text).unwrap()
}

fn entry(key: String, value: &str, created: i64, modified: i64) -> KeyValue {
    KeyValue {
        key,
        value: value.to_owned().into(),
        created: Revision(created),
        modified: Revision(modified),
        lease: None,
    }
}

fn source(name: &str, tenant: &str, source: &str, spec: &str, revision: i64) -> KeyValue {
    let key = keys::route(&host(name), tenant, source);
    entry(key, spec, revision, revision)
}

fn plain(address: &str) -> String {
    format!(r#"{{"endpoints":["{address}"]}}"#)
}

fn view(entries: Vec<KeyValue>) -> View {
    let mut view = View::default();
    view.reset(Listing {
        revision: Revision(100),
        entries,
    });
    view
}

/// What is written down, a rule at a time.
fn kept(view: &View) -> Vec<KeyValue> {
    let mut kept = Vec::new();
    let mut after = None;
    loop {
        let (records, last) = view.kept_routes(after.as_ref(), 1);
        kept.extend(records);
        match last {
            Some(last) => after = Some(last),
            None => return kept,
        }
    }
}

fn put(view: &mut View, entry: KeyValue) -> Changes {
    view.apply(Batch {
        revision: entry.modified,
        events: vec![Event::Put(entry)],
    })
}

fn addresses(view: &View, name: &str) -> Vec<String> {
    let route = view.route(&host(name));
    let endpoints = route.map_or(Vec::new(), |route| route.endpoints);
    endpoints.iter().map(|it| it.address.to_string()).collect()
}

#[test]
fn sources_of_one_tenant_add_up() {
    let mut view = view(vec![
        source("a.x.org", "acme", "w2", &plain("10.0.0.2:1"), 2),
        source("a.x.org", "acme", "w1", &plain("10.0.0.1:1"), 1),
    ]);
    assert_eq!(addresses(&view, "a.x.org"), ["10.0.0.1:1", "10.0.0.2:1"]);
    let changes = view.apply(Batch {
        revision: Revision(101),
        events: vec![Event::Delete(keys::route(&host("a.x.org"), "acme", "w1"))],
    });
    assert_eq!(changes.hosts, BTreeSet::from([HostKey(host("a.x.org"))]));
    assert_eq!(addresses(&view, "a.x.org"), ["10.0.0.2:1"]);
    view.apply(Batch {
        revision: Revision(102),
        events: vec![Event::Delete(keys::route(&host("a.x.org"), "acme", "w2"))],
    });
    assert_eq!(
        view.change(&host("a.x.org")),
        RouteChange::Gone(host("a.x.org"))
    );
    assert_eq!((view.len(), view.held_by("acme")), (0, 0));
}

#[test]
fn a_second_tenant_in_the_store_gets_no_traffic() {
    let view = view(vec![
        source("a.x.org", "thief", "w1", &plain("10.6.6.6:1"), 7),
        source("a.x.org", "zeta", "w1", &plain("10.0.0.1:1"), 3),
    ]);
    assert_eq!(addresses(&view, "a.x.org"), ["10.0.0.1:1"]);
    assert_eq!(&*view.route(&host("a.x.org")).unwrap().tenant, "zeta");
}

#[test]
fn the_larger_group_serves_while_instances_move() {
    let http2 = |address: &str| format!(r#"{{"endpoints":["{address}"],"protocol":"http2"}}"#);
    let mut view = view(vec![
        source("a.x.org", "acme", "w1", &plain("10.0.0.1:1"), 1),
        source("a.x.org", "acme", "w2", &plain("10.0.0.2:1"), 2),
        source("a.x.org", "acme", "w3", &plain("10.0.0.3:1"), 3),
    ]);
    put(
        &mut view,
        source("a.x.org", "acme", "w1", &http2("10.0.0.1:1"), 101),
    );
    assert_eq!(addresses(&view, "a.x.org"), ["10.0.0.2:1", "10.0.0.3:1"]);
    put(
        &mut view,
        source("a.x.org", "acme", "w2", &http2("10.0.0.2:1"), 102),
    );
    assert_eq!(addresses(&view, "a.x.org"), ["10.0.0.1:1", "10.0.0.2:1"]);
}

#[test]
fn what_cannot_be_read_is_left_out_and_told_of() {
    let mut view = view(vec![
        source("a.x.org", "acme", "w1", "{\"endpoints\":[\"secret", 1),
        source("b.x.org", "acme", "w1", &plain("10.0.0.1:1"), 1),
        entry("future/thing".into(), "{}", 1, 1),
    ]);
    assert_eq!(view.len(), 1);
    let told: Vec<_> = view.unreadable().collect();
    assert_eq!(told.len(), 2);
    assert!(!told.iter().any(|(_, reason)| reason.contains("secret")));
    // A good record that turns bad is no route either.
    put(
        &mut view,
        source("b.x.org", "acme", "w1", r#"{"endpoints":[]}"#, 101),
    );
    assert!(view.is_empty());
    put(
        &mut view,
        source("b.x.org", "acme", "w1", &plain("10.0.0.1:1"), 102),
    );
    assert_eq!((view.len(), view.unreadable().len()), (1, 2));
}

#[test]
fn a_listing_that_says_the_same_changes_nothing() {
    let entries = vec![source("a.x.org", "acme", "w1", &plain("10.0.0.1:1"), 1)];
    let mut view = view(entries.clone());
    let again = Listing {
        revision: Revision(200),
        entries,
    };
    assert_eq!(view.reset(again), Changes::default());
    let empty = Listing {
        revision: Revision(201),
        entries: Vec::new(),
    };
    let changes = view.reset(empty);
    assert_eq!(changes.hosts, BTreeSet::from([HostKey(host("a.x.org"))]));
}

#[test]
fn a_watch_resumes_while_changes_are_remembered() {
    let mut view = view(Vec::new());
    for revision in 101..=103 {
        put(
            &mut view,
            source("a.x.org", "acme", "w1", &plain("10.0.0.1:1"), revision),
        );
    }
    let changed = |view: &View, after| view.changed_since(Revision(after)).map(|it| it.len());
    assert_eq!(changed(&view, 103), Some(0));
    assert_eq!(changed(&view, 100), Some(1), "each rule once");
    assert_eq!(changed(&view, 99), None, "before the listing");
    assert_eq!(changed(&view, 104), None, "of another store");
    for revision in 104..104 + REMEMBERED as i64 {
        put(
            &mut view,
            source("b.x.org", "acme", "w1", &plain("10.0.0.1:1"), revision),
        );
    }
    assert_eq!(changed(&view, 102), None, "forgotten");
}

#[derive(Clone, Debug)]
enum Step {
    Put(usize, usize, usize, u16),
    Delete(usize, usize, usize),
}

const HOSTS: [&str; 4] = ["a.x.org", "b.x.org", "*.x.org", "*-7.x.org"];
const TENANTS: [&str; 2] = ["acme", "other"];
const SOURCES: [&str; 2] = ["w1", "@api"];

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0..4usize, 0..2usize, 0..2usize, 1..4u16).prop_map(|(h, t, s, p)| Step::Put(h, t, s, p)),
        (0..4usize, 0..2usize, 0..2usize).prop_map(|(h, t, s)| Step::Delete(h, t, s)),
    ]
}

proptest! {
    /// Following change by change ends where a listing does, and every difference was told.
    #[test]
    fn following_equals_listing(steps in proptest::collection::vec(step(), 0..40)) {
        let mut store: BTreeMap<String, KeyValue> = BTreeMap::new();
        let mut followed = view(Vec::new());
        let mut published: BTreeMap<String, RegistryRoute> = BTreeMap::new();
        for (step, revision) in steps.into_iter().zip(101..) {
            let key = |h: usize, t: usize, s: usize| keys::route(&host(HOSTS[h]), TENANTS[t], SOURCES[s]);
            let event = match step {
                Step::Put(h, t, s, port) => {
                    let key = key(h, t, s);
                    let created = store.get(&key).map_or(revision, |it| it.created.0);
                    let put = entry(key.clone(), &plain(&format!("10.0.0.1:{port}")), created, revision);
                    store.insert(key, put.clone());
                    Event::Put(put)
                }
                Step::Delete(h, t, s) => {
                    let key = key(h, t, s);
                    store.remove(&key);
                    Event::Delete(key)
                }
            };
            let changes = followed.apply(Batch { revision: Revision(revision), events: vec![event] });
            for HostKey(host) in changes.hosts {
                match followed.change(&host) {
                    RouteChange::Set(route) => drop(published.insert(host.to_string(), (*route).clone())),
                    RouteChange::Gone(host) => drop(published.remove(&host.to_string())),
                }
            }
        }
        let listed = view(store.into_values().collect());
        let all: BTreeMap<_, _> = listed.routes().map(|it| (it.host.to_string(), it)).collect();
        prop_assert_eq!(&published, &all);
        prop_assert_eq!(followed.routes().count(), all.len());
        // What is written down for a restart is the same routes.
        let recalled = view(kept(&followed));
        let again: BTreeMap<_, _> = recalled.routes().map(|it| (it.host.to_string(), it)).collect();
        prop_assert_eq!(&again, &all);
        for tenant in TENANTS {
            let hosts = |view: &View| view.hosts_after(Some(tenant), None).cloned().collect::<Vec<_>>();
            prop_assert_eq!(hosts(&followed), hosts(&listed));
        }
    }

    /// Pages follow each other without a gap, whatever stands at their edge.
    #[test]
    fn pages_add_up(names in proptest::collection::btree_set("(\\*[.-])?[a-c]{1,3}(-[a-c])?\\.x\\.org", 0..30), size in 1..7usize) {
        let entries = names.iter().map(|name| source(name, "acme", "w1", &plain("10.0.0.1:1"), 1)).collect();
        let view = view(entries);
        let mut found = Vec::new();
        let mut after: Option<HostMatch> = None;
        loop {
            let page: Vec<_> = view.hosts_after(None, after.as_ref()).take(size).cloned().collect();
            let Some(last) = page.last() else { break };
            after = Some(last.clone());
            found.extend(page.iter().map(ToString::to_string));
        }
        let mut expected: Vec<_> = names.into_iter().collect();
        expected.sort_by_key(|name| name.chars().rev().collect::<String>());
        prop_assert_eq!(found, expected);
    }
}
