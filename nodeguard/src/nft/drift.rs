//! Whether the kernel still holds what was meant, and if not, what is different, in words.
//!
//! What is expected comes from the [`Ruleset`] alone and not from an earlier look at the kernel, so
//! it does not matter when somebody else changed something.

use std::collections::BTreeSet;

use super::attributes::{Attributes, Writer};
use super::elements;
use super::expressions;
use super::netlink::{self, OWNED};
use super::picture::Picture;
use super::seen::{self, Expression, SeenChain, SeenElement, SeenRule, SeenSet};
use super::uapi::{chain, element, object};
use crate::ruleset::{Chain, Rule, Ruleset, Set};

/// Result of a look at the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Integrity {
    /// It is what was meant.
    Intact,
    /// It is not.
    Drifted {
        /// Each difference, such as `set nodes4: 2 elements came, 1 went`; at least one.
        what: Vec<String>,
    },
}

/// Differences between what is meant and what is there. `owner` is the port that is to own the
/// table.
pub(super) fn compare(ruleset: &Ruleset, picture: &Picture, owner: Option<u32>) -> Vec<String> {
    let Some(table) = &picture.table else {
        return vec!["table gone".to_owned()];
    };
    let mut what = Vec::new();
    if table.owner != owner {
        what.push(match (owner, table.owner) {
            (Some(_), None) => "table: belongs to nobody".to_owned(),
            (_, other) => format!("table: belongs to port {}", other.unwrap_or_default()),
        });
    }
    let flags = owner.map_or(0, |_| OWNED);
    if table.owner == owner && table.flags != flags {
        what.push(format!("table: has flags {:#x}", table.flags));
    }
    counters(ruleset, picture, &mut what);
    sets(ruleset, picture, &mut what);
    chains(ruleset, picture, &mut what);
    what
}

fn counters(ruleset: &Ruleset, picture: &Picture, what: &mut Vec<String>) {
    for name in &ruleset.counters {
        let there = |it: &&seen::SeenObject| it.name == *name && it.kind == object::COUNTER;
        if picture.objects.iter().find(there).is_none() {
            what.push(format!("counter {name}: gone"));
        }
    }
    for seen in &picture.objects {
        let known = seen.kind == object::COUNTER && ruleset.counters.contains(&&*seen.name);
        if !known {
            what.push(format!("object {}: came", seen.name));
        }
    }
}

fn sets(ruleset: &Ruleset, picture: &Picture, what: &mut Vec<String>) {
    for set in &ruleset.sets {
        let name = set.name;
        match picture.sets.iter().find(|(seen, _)| seen.name == name) {
            None => what.push(format!("set {name}: gone")),
            Some((seen, _)) if !is_of_kind(set, seen) => {
                what.push(format!("set {name}: of another kind"));
            }
            Some((_, elements)) => what.extend(element_drift(set, elements)),
        }
    }
    for (seen, _) in &picture.sets {
        if ruleset.set(&seen.name).is_none() {
            what.push(format!("set {}: came", seen.name));
        }
    }
}

fn is_of_kind(set: &Set, seen: &SeenSet) -> bool {
    let expressions: &[&str] = if set.counted { &["counter"] } else { &[] };
    seen.flags == netlink::set_flags(set)
        && seen.key_type == elements::key_type(&set.key)
        && usize::try_from(seen.key_len).is_ok_and(|len| len == elements::key_len(&set.key))
        && seen.expressions == expressions
}

fn element_drift(set: &Set, seen: &[SeenElement]) -> Option<String> {
    // Counts are no part of what an element is.
    type Bare<'a> = (&'a [u8], u32, Option<&'a [u8]>);
    let meant: Vec<_> = elements::wire_elements(set).collect();
    let meant: BTreeSet<Bare<'_>> = meant
        .iter()
        .map(|it| {
            (
                &*it.key,
                if it.end { element::F_INTERVAL_END } else { 0 },
                None,
            )
        })
        .collect();
    let there: BTreeSet<Bare<'_>> = seen
        .iter()
        .map(|it| (&*it.key, it.flags, it.key_end.as_deref()))
        // The nft program marks the end of nothing before the first range.
        .filter(|(key, flags, _)| {
            *flags != element::F_INTERVAL_END || key.iter().any(|byte| *byte != 0)
        })
        .collect();
    if meant == there {
        return None;
    }
    let came = tally(there.difference(&meant).map(|it| it.1));
    let went = tally(meant.difference(&there).map(|it| it.1));
    let name = set.name;
    Some(match (came, went) {
        (0, went) => format!("set {name}: {} went", amount(went)),
        (came, 0) => format!("set {name}: {} came", amount(came)),
        (came, went) => format!("set {name}: {} came, {went} went", amount(came)),
    })
}

/// A range is one element to people; that only its end differs is one, too.
fn tally(flags: impl Iterator<Item = u32>) -> usize {
    let (ends, begins): (Vec<u32>, Vec<u32>) =
        flags.partition(|flags| *flags == element::F_INTERVAL_END);
    if begins.is_empty() {
        ends.len()
    } else {
        begins.len()
    }
}

fn amount(count: usize) -> String {
    match count {
        1 => "1 element".to_owned(),
        count => format!("{count} elements"),
    }
}

fn chains(ruleset: &Ruleset, picture: &Picture, what: &mut Vec<String>) {
    for chain in &ruleset.chains {
        let name = chain.name;
        match picture.chains.iter().find(|seen| seen.name == name) {
            None => what.push(format!("chain {name}: gone")),
            Some(seen) if !hangs_alike(chain, seen) => {
                what.push(format!("chain {name}: hangs elsewhere"));
            }
            Some(_) => rules(chain, picture, what),
        }
    }
    for seen in &picture.chains {
        if !ruleset.chains.iter().any(|chain| chain.name == seen.name) {
            what.push(format!("chain {}: came", seen.name));
        }
    }
}

fn hangs_alike(chain: &Chain, seen: &SeenChain) -> bool {
    match chain.base {
        None => seen.hook.is_none(),
        Some(base) => {
            seen.hook == Some(netlink::hook_numbers(base))
                && seen.policy == Some(chain::POLICY_ACCEPT)
                && seen.kind == "filter"
        }
    }
}

fn rules(chain: &Chain, picture: &Picture, what: &mut Vec<String>) {
    let name = chain.name;
    let there: Vec<&SeenRule> = picture
        .rules
        .iter()
        .filter(|rule| rule.chain == name)
        .collect();
    let before = what.len();
    let mut known = 0;
    for rule in &chain.rules {
        let comment = netlink::comment_text(rule.name);
        let mut seen = there
            .iter()
            .filter(|seen| seen.comment.as_deref() == Some(comment));
        match (seen.next(), seen.count()) {
            (None, _) => what.push(format!("rule {} of {name}: gone", rule.name)),
            (Some(first), others) => {
                known += 1;
                if others > 0 {
                    what.push(format!("rule {} of {name}: there {others} more", rule.name));
                    known += others;
                }
                if !does_the_same(rule, first) {
                    what.push(format!("rule {} of {name}: changed", rule.name));
                }
            }
        }
    }
    match there.len().saturating_sub(known) {
        0 => {}
        1 => what.push(format!("rule added to {name}")),
        added => what.push(format!("{added} rules added to {name}")),
    }
    let order = chain
        .rules
        .iter()
        .map(|it| Some(netlink::comment_text(it.name)));
    if what.len() == before && !there.iter().map(|it| it.comment.as_deref()).eq(order) {
        what.push(format!("rules of {name}: in another order"));
    }
}

fn does_the_same(rule: &Rule, seen: &SeenRule) -> bool {
    let mut writer = Writer::default();
    expressions::write(&mut writer, rule);
    let meant = seen::expressions(Attributes::new(&writer.bytes))
        .expect("what we write can be read: tested");
    meant.len() == seen.expressions.len()
        && std::iter::zip(&meant, &seen.expressions).all(|(a, b)| is_same(a, b))
}

/// Everything that was sent must be there. What the kernel adds of its own must be zero, which is
/// its default, or younger than we are.
fn is_same(meant: &Expression, seen: &Expression) -> bool {
    let sent = |path: &[u16]| meant.attributes.iter().any(|(other, _)| other == path);
    let harmless = |path: &[u16], payload: &[u8]| {
        payload.iter().all(|byte| *byte == 0) || path.first() > Some(&last_known(&seen.name))
    };
    meant.name == seen.name
        && meant
            .attributes
            .iter()
            .all(|one| seen.attributes.contains(one))
        && seen
            .attributes
            .iter()
            .all(|(path, payload)| sent(path) || harmless(path, payload))
}

/// The last attribute of an expression in Linux 6.18 (`NFTA_*_MAX`).
fn last_known(name: &str) -> u16 {
    match name {
        "meta" | "cmp" | "fib" => 3,
        "payload" => 8,
        "bitwise" => 7,
        "lookup" | "objref" => 5,
        "immediate" => 2,
        "ct" => 4,
        _ => u16::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::Flags;
    use super::super::reply::{Body, Replies};
    use super::super::seen::{SeenObject, SeenTable};
    use super::super::uapi::{message, table};
    use super::*;
    use crate::nft::sample;

    /// The picture that the kernel would give of a table that we made: an object is reported in
    /// the words in which it is asked for.
    fn picture(ruleset: &Ruleset) -> Picture {
        let bytes = netlink::replacement(ruleset, Flags::None).committed();
        let mut picture = Picture::default();
        for reply in Replies::new(&bytes) {
            let Body::Object(object) = reply.unwrap().body else {
                continue;
            };
            match object.kind {
                message::NEWTABLE => picture.table = Some(SeenTable::read(&object).unwrap()),
                message::NEWCHAIN => picture.chains.push(SeenChain::read(&object).unwrap()),
                message::NEWRULE => picture.rules.push(SeenRule::read(&object).unwrap()),
                message::NEWOBJ => picture.objects.push(SeenObject::read(&object).unwrap()),
                message::NEWSET => {
                    let set = SeenSet::read(&object).unwrap();
                    picture.sets.push((set, Vec::new()));
                }
                message::NEWSETELEM => {
                    let (_, name, elements) = seen::elements(&object).unwrap();
                    let set = picture.sets.iter_mut().find(|(set, _)| set.name == name);
                    set.unwrap().1.extend(elements);
                }
                _ => {}
            }
        }
        picture
    }

    fn after(change: impl FnOnce(&mut Picture)) -> Vec<String> {
        let ruleset = sample::ruleset();
        let mut picture = picture(&ruleset);
        change(&mut picture);
        compare(&ruleset, &picture, None)
    }

    fn rule<'a>(picture: &'a mut Picture, name: &str) -> &'a mut SeenRule {
        let mut rules = picture.rules.iter_mut();
        rules
            .find(|it| it.comment.as_deref() == Some(name))
            .unwrap()
    }

    #[test]
    fn what_is_there_as_meant_is_no_drift() {
        assert_eq!(after(|_| {}), Vec::<String>::new());
        // Elements come in the order of a hash, and counters count.
        let same = after(|picture| {
            for (_, elements) in &mut picture.sets {
                elements.reverse();
                for element in elements {
                    element.count = Some(seen::Count {
                        packets: 7,
                        bytes: 280,
                    });
                }
            }
        });
        assert_eq!(same, Vec::<String>::new());
    }

    #[test]
    fn an_expression_may_gain_zeros_and_what_is_younger_than_we_are_and_nothing_else() {
        let gain = |kind, payload: &[u8]| {
            after(|picture| {
                let rule = rule(picture, "from-node4");
                let lookup = rule.expressions.iter_mut().find(|it| it.name == "lookup");
                let attributes = &mut lookup.unwrap().attributes;
                attributes.push((vec![kind], payload.to_vec()));
            })
        };
        let changed = ["rule from-node4 of sources: changed"];
        // NFTA_LOOKUP_FLAGS, first without and then with NFT_LOOKUP_F_INV.
        assert_eq!(gain(5, &[0; 4]), Vec::<String>::new());
        assert_eq!(gain(5, &[0, 0, 0, 1]), changed);
        assert_eq!(gain(99, &[1; 4]), Vec::<String>::new());
        let lost = after(|picture| {
            rule(picture, "from-node4").expressions.remove(1);
        });
        assert_eq!(lost, changed);
    }

    #[test]
    fn the_owner_of_the_table_is_part_of_it() {
        let ruleset = sample::ruleset();
        let owned = |owner, flags, by| {
            let mut picture = picture(&ruleset);
            let seen = picture.table.as_mut().unwrap();
            (seen.owner, seen.flags) = (by, flags);
            compare(&ruleset, &picture, owner)
        };
        let both = table::F_OWNER | table::F_PERSIST;
        assert_eq!(owned(Some(7), both, Some(7)), Vec::<String>::new());
        let told = owned(Some(7), both, Some(8));
        assert_eq!(told, ["table: belongs to port 8"]);
        let told = owned(Some(7), table::F_PERSIST, None);
        assert_eq!(told, ["table: belongs to nobody"]);
        let told = owned(Some(7), table::F_OWNER, Some(7));
        assert_eq!(told, ["table: has flags 0x2"]);
        assert_eq!(owned(None, 1, None), ["table: has flags 0x1"]);
    }

    #[test]
    fn a_catch_all_element_and_a_moved_end_are_elements() {
        let elements = |set: &'static str, change: fn(&mut Vec<SeenElement>)| {
            after(|picture| {
                let set = picture.sets.iter_mut().find(|(it, _)| it.name == set);
                change(&mut set.unwrap().1);
            })
        };
        let told = elements("nodes4", |them| {
            them.push(SeenElement {
                flags: 2,
                ..SeenElement::default()
            });
        });
        assert_eq!(told, ["set nodes4: 1 element came"]);
        let told = elements("routers4", |them| {
            let end = them.iter_mut().find(|it| it.flags == 1).unwrap();
            end.key[3] ^= 1;
        });
        assert_eq!(told, ["set routers4: 1 element came, 1 went"]);
        let told = elements("routers4", |them| {
            them.push(SeenElement {
                key: vec![0; 4],
                flags: 1,
                ..SeenElement::default()
            });
        });
        assert_eq!(told, Vec::<String>::new());
    }
}
