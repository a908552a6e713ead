use super::*;
use crate::registry::keys;
use crate::registry::store::{Batch, Event, KeyValue, Listing};

fn host(text: &str) -> HostMatch {
    HostMatch::parse(text).unwrap()
}

/// In lists, too, they stand in the order of their numbers: names are compared from behind.
fn name(number: usize) -> String {
    let digits: String = format!("{number:04}").chars().rev().collect();
    format!("n{digits}.w")
}

fn entry(name: &str, revision: i64) -> KeyValue {
    KeyValue {
        key: keys::route(&host(name), "acme", "w1"),
        value: r#"{"endpoints":["10.0.0.1:1"]}"#.into(),
        created: Revision(revision),
        modified: Revision(revision),
        lease: None,
    }
}

fn view(names: impl Iterator<Item = String>) -> View {
    let mut view = View::default();
    view.reset(Listing {
        revision: Revision(100),
        entries: names.map(|name| entry(&name, 1)).collect(),
    });
    view
}

fn put(view: &mut View, names: &[String], revision: i64) {
    let events = names.iter().map(|name| Event::Put(entry(name, revision)));
    view.apply(Batch {
        revision: Revision(revision),
        events: events.collect(),
    });
}

fn delete(view: &mut View, name: &str, revision: i64) {
    view.apply(Batch {
        revision: Revision(revision),
        events: vec![Event::Delete(keys::route(&host(name), "acme", "w1"))],
    });
}

/// What is told until there is nothing new: kind and name, and the ids that are told.
fn all(follower: &mut Follower, view: &View) -> (Vec<String>, Vec<i64>) {
    let (mut told, mut ids) = (Vec::new(), Vec::new());
    while let Some(step) = follower.step(view) {
        for one in step {
            let data: serde_json::Value = serde_json::from_str(&one.data).unwrap();
            told.push(format!(
                "{} {}",
                one.kind,
                data["host"].as_str().unwrap_or("")
            ));
            ids.extend(one.id.map(|id| id.0));
        }
    }
    (told, ids)
}

fn telling(kind: &str, names: impl Iterator<Item = usize>) -> Vec<String> {
    names.map(|it| format!("{kind} {}", name(it))).collect()
}

const MANY: usize = 2 * AT_ONCE + 7;

#[test]
fn a_long_list_is_told_in_steps_and_what_changes_meanwhile_after_it() {
    let mut view = view((0..MANY).map(name));
    let mut follower = Follower::new(None, None);
    let first = follower.step(&view).unwrap();
    assert_eq!(first.len(), AT_ONCE);
    assert_eq!(first[0].id, Some(NOTHING));
    assert!(first[1..].iter().all(|it| it.id.is_none()));
    // One goes and one changes that were told, one goes that was not.
    delete(&mut view, &name(3), 101);
    put(&mut view, &[name(4)], 102);
    delete(&mut view, &name(MANY - 1), 103);
    let (told, ids) = all(&mut follower, &view);
    let mut expected = telling("route", AT_ONCE..MANY - 1);
    expected.extend([
        format!("gone {}", name(3)),
        format!("route {}", name(4)),
        format!("gone {}", name(MANY - 1)),
        "synced ".to_owned(),
    ]);
    assert_eq!((told, ids), (expected, vec![103]));
}

#[test]
fn a_list_that_falls_too_far_behind_begins_anew() {
    let mut view = view((0..MANY).map(name));
    let mut follower = Follower::new(None, None);
    follower.step(&view).unwrap();
    view.reset(Listing {
        revision: Revision(200),
        entries: vec![entry(&name(MANY - 1), 1)],
    });
    let (told, ids) = all(&mut follower, &view);
    let last = format!("route {}", name(MANY - 1));
    assert_eq!(told, [&last, "reset ", &last, "synced "]);
    assert_eq!(ids, [0, 0, 200]);
}

#[test]
fn many_changes_are_told_in_steps_and_only_the_last_has_an_id() {
    let mut view = view((0..MANY).map(name));
    let mut follower = Follower::new(Some("acme".into()), Some(Revision(100)));
    assert_eq!(
        all(&mut follower, &view),
        (vec!["synced ".into()], vec![100])
    );
    let names: Vec<String> = (0..MANY).map(name).collect();
    put(&mut view, &names, 101);
    let first = follower.step(&view).unwrap();
    assert_eq!(first.len(), AT_ONCE);
    assert!(first.iter().all(|it| it.id.is_none()));
    // Told as of now, and again with what is next: it changed after what is being told.
    delete(&mut view, &name(MANY - 1), 102);
    let (told, ids) = all(&mut follower, &view);
    let gone = format!("gone {}", name(MANY - 1));
    let mut expected = telling("route", AT_ONCE..MANY - 1);
    expected.extend([gone.clone(), gone]);
    assert_eq!((told, ids), (expected, vec![101, 102]));
}

#[test]
fn another_tenants_changes_are_silent() {
    let mut view = view(std::iter::empty());
    let mut follower = Follower::new(Some("other".into()), Some(Revision(100)));
    all(&mut follower, &view);
    put(&mut view, &[name(1)], 101);
    assert_eq!(all(&mut follower, &view), (Vec::new(), Vec::new()));
}

#[test]
fn whoever_knows_a_part_of_a_list_is_told_that_it_is_void() {
    let view = view((0..2).map(name));
    let mut follower = Follower::new(None, Some(NOTHING));
    let (told, ids) = all(&mut follower, &view);
    let [first, second] = [0, 1].map(|it| format!("route {}", name(it)));
    assert_eq!(told, ["reset ", &first, &second, "synced "]);
    assert_eq!(ids, [0, 0, 100]);
}

#[test]
fn a_step_holds_so_many_bytes() {
    let endpoints: Vec<String> = (1..=64).map(|port| format!("10.0.0.1:{port}")).collect();
    let value = serde_json::json!({ "endpoints": endpoints }).to_string();
    let entries = (0..AT_ONCE).map(|number| KeyValue {
        value: value.clone().into(),
        ..entry(&name(number), 1)
    });
    let mut view = View::default();
    view.reset(Listing {
        revision: Revision(100),
        entries: entries.collect(),
    });
    for after in [None, Some(Revision(100))] {
        let mut follower = Follower::new(None, after);
        if after.is_some() {
            all(&mut follower, &view);
            let again = (0..AT_ONCE).map(|number| {
                Event::Put(KeyValue {
                    value: value.clone().into(),
                    ..entry(&name(number), 101)
                })
            });
            view.apply(Batch {
                revision: Revision(101),
                events: again.collect(),
            });
        }
        let first = follower.step(&view).unwrap();
        let bytes: usize = first.iter().map(|it| it.data.len()).sum();
        assert!(
            (BYTES_AT_ONCE..BYTES_AT_ONCE + 4096).contains(&bytes),
            "{bytes}"
        );
        let rest = all(&mut follower, &view).0;
        let routes = rest.iter().filter(|it| it.starts_with("route ")).count();
        assert_eq!(first.len() + routes, AT_ONCE);
    }
}
