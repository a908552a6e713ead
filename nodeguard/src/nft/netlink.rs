//! A ruleset as netlink messages: pure functions, bytes out.

use super::attributes::Writer;
use super::elements::{self, WireElement};
use super::expressions;
use super::message::Batch;
use super::uapi::{chain, element, expression, flag, message, object, rule, set, table};
use crate::ruleset::{Base, Chain, Hook, Rule, Ruleset, Set, TABLE};

/// The length of an attribute has 16 bits, and all elements of a message are one attribute.
const MESSAGE_BYTES: usize = 60_000;
/// Longest comment that the `nft` program takes (`NFTNL_UDATA_COMMENT_MAXLEN`), without its NUL.
const COMMENT_BYTES: usize = 127;

/// Whose table it is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flags {
    /// Anybody's.
    None,
    /// Ours, and it stays when we go.
    OwnedAndPersistent,
}

/// Flags of a table with an owner that it outlives.
pub(super) const OWNED: u32 = table::F_OWNER | table::F_PERSIST;

/// Puts a ruleset in the place of whatever is there under our table's name.
pub(super) fn replacement(ruleset: &Ruleset, flags: Flags) -> Batch {
    let mut batch = removal();
    claim_into(&mut batch, flags);
    for name in &ruleset.counters {
        counter(&mut batch, name);
    }
    for (index, set) in ruleset.sets.iter().enumerate() {
        new_set(&mut batch, set, index);
        let all = elements::wire_elements(set);
        element_messages(&mut batch, message::NEWSETELEM, set.name, all);
    }
    for chain in &ruleset.chains {
        new_chain(&mut batch, chain);
    }
    for (chain, rule) in ruleset.rules() {
        new_rule(&mut batch, chain, rule);
    }
    batch
}

/// Takes our table away, be it there or not.
pub(super) fn removal() -> Batch {
    let mut batch = Batch::new();
    // Without flags, this makes an empty table if there is none, and changes none that is there.
    batch.push(message::NEWTABLE, flag::CREATE, table_object(), |writer| {
        writer.text(table::NAME, TABLE);
    });
    batch.push(message::DELTABLE, 0, table_object(), |writer| {
        writer.text(table::NAME, TABLE);
    });
    batch
}

/// Makes a table ours: an orphan of a process that is gone, or a new one.
pub(super) fn claim() -> Batch {
    let mut batch = Batch::new();
    claim_into(&mut batch, Flags::OwnedAndPersistent);
    batch
}

/// A table of another name, for finding out which flags the kernel knows. Not to be committed.
pub(super) fn probe() -> Batch {
    let mut batch = Batch::new();
    let object = "table nodeguard-probe";
    batch.push(message::NEWTABLE, flag::CREATE, object, |writer| {
        writer.text(table::NAME, "nodeguard-probe");
        writer.number(table::FLAGS, OWNED);
    });
    batch
}

/// A chain in our table, for finding out whether others may do that. Not to be committed.
pub(super) fn intrusion() -> Batch {
    let mut batch = Batch::new();
    let object = "chain nodeguard-probe";
    batch.push(message::NEWCHAIN, flag::CREATE, object, |writer| {
        writer.text(chain::TABLE, TABLE);
        writer.text(chain::NAME, "nodeguard-probe");
    });
    batch
}

/// What turns one ruleset into another when just elements of sets differ.
#[derive(Debug)]
pub(super) struct Difference {
    pub(super) batch: Batch,
    pub(super) added: usize,
    pub(super) removed: usize,
}

/// `None` if more than elements differ.
pub(super) fn difference(from: &Ruleset, to: &Ruleset) -> Option<Difference> {
    let same_shape = |(old, new): (&Set, &Set)| {
        (old.name, &old.key, old.interval, old.counted)
            == (new.name, &new.key, new.interval, new.counted)
    };
    let pairs = || from.sets.iter().zip(&to.sets);
    if from.counters != to.counters
        || from.chains != to.chains
        || from.sets.len() != to.sets.len()
        || !pairs().all(same_shape)
    {
        return None;
    }
    let mut difference = Difference {
        batch: Batch::new(),
        added: 0,
        removed: 0,
    };
    // All that goes, goes first: within a transaction, too, ranges may not overlap.
    for (old, new) in pairs() {
        let gone = only_in_first(&old.elements, &new.elements);
        difference.removed += gone.len();
        let wire = gone
            .into_iter()
            .flat_map(|it| elements::wire(it, old.interval));
        element_messages(&mut difference.batch, message::DELSETELEM, old.name, wire);
    }
    for (old, new) in pairs() {
        let come = only_in_first(&new.elements, &old.elements);
        difference.added += come.len();
        let wire = come
            .into_iter()
            .flat_map(|it| elements::wire(it, new.interval));
        element_messages(&mut difference.batch, message::NEWSETELEM, new.name, wire);
    }
    Some(difference)
}

/// Elements of one sorted list that another one lacks.
fn only_in_first<'a, T: Ord>(first: &'a [T], second: &[T]) -> Vec<&'a T> {
    let mut others = second.iter().peekable();
    first
        .iter()
        .filter(|item| {
            while others.next_if(|other| other < item).is_some() {}
            others.peek() != Some(item)
        })
        .collect()
}

fn table_object() -> String {
    format!("table {TABLE}")
}

fn claim_into(batch: &mut Batch, flags: Flags) {
    batch.push(message::NEWTABLE, flag::CREATE, table_object(), |writer| {
        writer.text(table::NAME, TABLE);
        writer.number(
            table::FLAGS,
            match flags {
                Flags::None => 0,
                Flags::OwnedAndPersistent => OWNED,
            },
        );
    });
}

fn counter(batch: &mut Batch, name: &str) {
    let label = format!("counter {name}");
    batch.push(message::NEWOBJ, flag::CREATE, label, |writer| {
        writer.text(object::TABLE, TABLE);
        writer.text(object::NAME, name);
        writer.number(object::TYPE, object::COUNTER);
        // Required, though a new counter has nothing to say.
        writer.nest(object::DATA, |_| {});
    });
}

fn new_set(batch: &mut Batch, set: &Set, index: usize) {
    let label = format!("set {}", set.name);
    batch.push(message::NEWSET, flag::CREATE, label, |writer| {
        writer.text(set::TABLE, TABLE);
        writer.text(set::NAME, set.name);
        writer.number(set::FLAGS, set_flags(set));
        writer.number(set::KEY_TYPE, elements::key_type(&set.key));
        writer.number(set::KEY_LEN, number(elements::key_len(&set.key)));
        // Required by the kernel, for references within the transaction.
        writer.number(set::ID, number(index + 1));
        if set.counted {
            writer.nest(set::EXPR, |expr| {
                expr.text(expression::NAME, "counter");
                expr.nest(expression::DATA, |_| {});
            });
        }
    });
}

/// Flags that a set is made with.
pub(super) fn set_flags(set: &Set) -> u32 {
    if set.interval { set::F_INTERVAL } else { 0 }
}

fn element_messages(
    batch: &mut Batch,
    kind: u8,
    set: &str,
    elements: impl Iterator<Item = WireElement>,
) {
    let flags = if kind == message::NEWSETELEM {
        flag::CREATE
    } else {
        0
    };
    let mut elements = elements.peekable();
    while elements.peek().is_some() {
        let label = format!("elements of set {set}");
        batch.push(kind, flags, label, |writer| {
            writer.text(element::LIST_TABLE, TABLE);
            writer.text(element::LIST_SET, set);
            writer.nest(element::LIST_ELEMENTS, |list| {
                let start = list.bytes.len();
                while list.bytes.len() - start < MESSAGE_BYTES
                    && let Some(element) = elements.next()
                {
                    new_element(list, &element);
                }
            });
        });
    }
}

fn new_element(list: &mut Writer, element: &WireElement) {
    list.nest(element::ITEM, |item| {
        if element.end {
            item.number(element::FLAGS, element::F_INTERVAL_END);
        }
        item.nest(element::KEY, |key| {
            key.raw(expression::VALUE, &element.key);
        });
    });
}

fn new_chain(batch: &mut Batch, chain: &Chain) {
    let label = format!("chain {}", chain.name);
    batch.push(message::NEWCHAIN, flag::CREATE, label, |writer| {
        writer.text(chain::TABLE, TABLE);
        writer.text(chain::NAME, chain.name);
        if let Some(base) = chain.base {
            writer.text(chain::TYPE, "filter");
            writer.number(chain::POLICY, chain::POLICY_ACCEPT);
            writer.nest(chain::HOOK, |hook| {
                let (number, priority) = hook_numbers(base);
                hook.number(chain::HOOK_NUMBER, number);
                hook.raw(chain::HOOK_PRIORITY, &priority.to_be_bytes());
            });
        }
    });
}

/// The kernel's number of a hook, and its priority.
pub(super) fn hook_numbers(base: Base) -> (u32, i32) {
    let hook = match base.hook {
        Hook::Prerouting => chain::PREROUTING,
        Hook::Input => chain::INPUT,
        Hook::Forward => chain::FORWARD,
    };
    (hook, base.priority)
}

fn new_rule(batch: &mut Batch, chain: &str, rule: &Rule) {
    let label = format!("rule {} of {chain}", rule.name);
    let flags = flag::CREATE | flag::APPEND;
    batch.push(message::NEWRULE, flags, label, |writer| {
        writer.text(rule::TABLE, TABLE);
        writer.text(rule::CHAIN, chain);
        writer.nest(rule::EXPRESSIONS, |list| expressions::write(list, rule));
        writer.raw(rule::USERDATA, &comment(rule.name));
    });
}

/// A rule's name as far as a comment holds it.
pub(super) fn comment_text(name: &str) -> &str {
    &name[..name.floor_char_boundary(COMMENT_BYTES)]
}

fn comment(name: &str) -> Vec<u8> {
    let text = comment_text(name);
    let len = u8::try_from(text.len() + 1).expect("cut to COMMENT_BYTES");
    let mut userdata = vec![rule::COMMENT, len];
    userdata.extend_from_slice(text.as_bytes());
    userdata.push(0);
    userdata
}

fn number(count: usize) -> u32 {
    u32::try_from(count).expect("a few dozen sets, with keys of a few dozen bytes")
}
