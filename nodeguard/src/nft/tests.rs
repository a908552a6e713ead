//! The views of a whole ruleset, and the parser of answers under any bytes.

use std::path::PathBuf;

use proptest::prelude::*;

use super::attributes::{Attributes, Writer};
use super::message::HEADER;
use super::netlink::{self, Flags};
use super::reply::{Body, Replies};
use super::seen::{SeenChain, SeenRule, SeenSet};
use super::uapi::message;
use super::{expressions, fuzz, json, sample, seen, text};
use crate::ruleset::{Element, Ruleset};

/// Compares with a file beside this one; `GATEHOUSE_GOLDEN=write` writes it instead.
fn golden(name: &str, now: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("src/nft/golden")
        .join(name);
    if std::env::var_os("GATEHOUSE_GOLDEN").is_some_and(|value| value == "write") {
        std::fs::write(&path, now).unwrap();
    }
    let then = std::fs::read_to_string(&path).unwrap();
    assert!(
        now == then,
        "{} no longer holds; it is now:\n{now}",
        path.display()
    );
}

/// Messages of a batch, one a line: what each is about, and its bytes.
fn hexadecimal(batch: &super::message::Batch) -> String {
    let bytes = batch.committed();
    let (mut rest, mut text, mut sequence) = (&bytes[..], String::new(), 0);
    while let Some(length) = rest.first_chunk() {
        let length = usize::try_from(u32::from_ne_bytes(*length)).unwrap();
        let (message, others) = rest.split_at(length.next_multiple_of(4));
        let hex: Vec<String> = message
            .chunks(4)
            .map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect())
            .collect();
        text.push_str(&format!("{}: {}\n", batch.object(sequence), hex.join(" ")));
        rest = others;
        sequence += 1;
    }
    text
}

#[test]
#[cfg(target_endian = "little")]
fn the_sample_has_the_bytes_that_it_had() {
    let batch = netlink::replacement(&sample::ruleset(), Flags::OwnedAndPersistent);
    golden("sample.netlink", &hexadecimal(&batch));
}

#[test]
fn the_sample_has_the_text_that_it_had() {
    golden("sample.nft", &text::text(&sample::ruleset()));
}

#[test]
fn the_sample_has_the_json_that_it_had() {
    let mut value = json::json(&sample::ruleset());
    sort_flags(&mut value);
    golden("sample.json", &format!("{value:#}\n"));
}

/// Flags come out of a hash set.
fn sort_flags(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Array(items) => items.iter_mut().for_each(sort_flags),
        serde_json::Value::Object(fields) => {
            for (name, field) in fields.iter_mut() {
                match field.as_array_mut() {
                    Some(flags) if name == "flags" => flags.sort_by_key(ToString::to_string),
                    _ => sort_flags(field),
                }
            }
        }
        _ => {}
    }
}

#[test]
fn chains_are_made_before_the_rules_that_go_to_them() {
    let ruleset = sample::ruleset();
    let (mut chains, mut sets, mut rules) = (Vec::new(), Vec::new(), 0);
    let bytes = netlink::replacement(&ruleset, Flags::None).committed();
    for reply in Replies::new(&bytes) {
        let Body::Object(object) = reply.unwrap().body else {
            continue;
        };
        match object.kind {
            message::NEWCHAIN => chains.push(SeenChain::read(&object).unwrap().name),
            message::NEWSET => sets.push(SeenSet::read(&object).unwrap().name),
            message::NEWRULE => {
                let rule = SeenRule::read(&object).unwrap();
                assert_eq!(chains.len(), ruleset.chains.len());
                assert_eq!(sets.len(), ruleset.sets.len());
                assert!(chains.contains(&rule.chain));
                rules += 1;
            }
            _ => {}
        }
    }
    assert_eq!(rules, ruleset.rules().count());
}

#[test]
fn what_is_sent_can_be_read_as_what_is_dumped() {
    for (_, rule) in sample::ruleset().rules() {
        let mut writer = Writer::default();
        expressions::write(&mut writer, rule);
        let read = seen::expressions(Attributes::new(&writer.bytes)).unwrap();
        assert!(!read.is_empty() || rule.matches.is_empty() && rule.verdict.is_none());
    }
}

fn with_hosts(hosts: impl IntoIterator<Item = u32>) -> Ruleset {
    let mut ruleset = sample::ruleset();
    let hosts = hosts.into_iter().map(u32::to_be_bytes);
    *ruleset
        .sets
        .iter_mut()
        .find(|set| set.name == "nodes4")
        .unwrap() = sample::hosts("nodes4", hosts);
    ruleset
}

/// Elements of all messages of a kind in a batch, and the length of the longest message.
fn elements(bytes: &[u8], kind: u8) -> (usize, usize) {
    let (mut count, mut longest) = (0, 0);
    for reply in Replies::new(bytes) {
        if let Body::Object(object) = reply.unwrap().body
            && object.kind == kind
        {
            count += seen::elements(&object).unwrap().2.len();
            longest = longest.max(
                object
                    .attributes()
                    .map(|it| it.unwrap().payload.len())
                    .sum(),
            );
        }
    }
    (count, longest)
}

#[test]
fn many_elements_go_into_several_messages() {
    let ruleset = with_hosts(0x0a00_0000..0x0a00_0000 + 50_000);
    let bytes = netlink::replacement(&ruleset, Flags::None).committed();
    let (count, longest) = elements(&bytes, message::NEWSETELEM);
    let wire = ruleset.sets.iter().flat_map(super::elements::wire_elements);
    assert_eq!(count, wire.count());
    assert!(longest < usize::from(u16::MAX) - HEADER, "{longest}");
}

#[test]
fn a_difference_holds_what_differs() {
    let (from, to) = (with_hosts([1, 2, 3, 5]), with_hosts([2, 4, 5, 6]));
    let difference = netlink::difference(&from, &to).unwrap();
    assert_eq!((difference.added, difference.removed), (2, 2));
    let bytes = difference.batch.committed();
    assert_eq!(elements(&bytes, message::NEWSETELEM).0, 2);
    assert_eq!(elements(&bytes, message::DELSETELEM).0, 2);
    let nothing = netlink::difference(&from, &from).unwrap();
    assert_eq!((nothing.added, nothing.removed), (0, 0));
}

#[test]
fn more_than_elements_is_no_difference() {
    let from = sample::ruleset();
    assert!(netlink::difference(&from, &from.without("own").unwrap()).is_none());
    let change: [fn(&mut Ruleset); 4] = [
        |it| it.counters.truncate(1),
        |it| it.sets[0].counted = true,
        |it| it.sets.truncate(3),
        |it| {
            it.chains
                .last_mut()
                .unwrap()
                .base
                .as_mut()
                .unwrap()
                .priority = 0
        },
    ];
    for change in change {
        let mut to = from.clone();
        change(&mut to);
        assert!(netlink::difference(&from, &to).is_none());
    }
    let mut to = from.clone();
    let routers = to
        .sets
        .iter_mut()
        .find(|set| set.name == "routers4")
        .unwrap();
    routers.elements[2] = Element::Range("10.90.3.8".parse().unwrap());
    let difference = netlink::difference(&from, &to).unwrap();
    assert_eq!((difference.added, difference.removed), (1, 1));
}

#[test]
fn the_corpus_of_answers_is_read_without_a_panic() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/netlink_reply");
    let mut files = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        fuzz::netlink_reply(&std::fs::read(entry.unwrap().path()).unwrap());
        files += 1;
    }
    assert!(files > 0, "no corpus in {}", folder.display());
}

/// What the kernel might send, changed in a few places.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let whole = netlink::replacement(&sample::ruleset(), Flags::None).committed();
    let places = proptest::collection::vec((0..whole.len(), any::<u8>()), 1..8);
    (places, 0..whole.len()).prop_map(move |(places, end)| {
        let mut bytes = whole.clone();
        for (place, value) in places {
            bytes[place] = value;
        }
        bytes.truncate(end);
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        fuzz::netlink_reply(&bytes);
    }

    #[test]
    fn damaged_answers_are_read_without_a_panic(bytes in damaged()) {
        fuzz::netlink_reply(&bytes);
    }

    #[test]
    fn a_difference_turns_one_set_into_the_other(
        from in proptest::collection::btree_set(0_u32..60, 0..40),
        to in proptest::collection::btree_set(0_u32..60, 0..40),
    ) {
        let difference =
            netlink::difference(&with_hosts(from.clone()), &with_hosts(to.clone())).unwrap();
        prop_assert_eq!(difference.added, to.difference(&from).count());
        prop_assert_eq!(difference.removed, from.difference(&to).count());
    }
}
