//! Objects of nftables as the kernel reports them. Pure over bytes, like [`super::reply`].

use super::attributes::{Attributes, Malformed};
use super::reply::Object;
use super::uapi::{chain, element, expression, object, rule, set, table};

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenTable {
    pub(super) name: String,
    pub(super) flags: u32,
    /// Port of the netlink socket that owns it.
    pub(super) owner: Option<u32>,
}

/// A chain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenChain {
    pub(super) table: String,
    pub(super) name: String,
    /// Number of the hook and priority, of a base chain.
    pub(super) hook: Option<(u32, i32)>,
    pub(super) policy: Option<u32>,
    pub(super) kind: String,
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenRule {
    pub(super) table: String,
    pub(super) chain: String,
    pub(super) comment: Option<String>,
    pub(super) expressions: Vec<Expression>,
}

/// An expression: its name, and its attributes in the order of their kinds, each with the path of
/// kinds that leads to it. The kernel may put them in another order than they were sent in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Expression {
    pub(super) name: String,
    pub(super) attributes: Vec<(Vec<u16>, Vec<u8>)>,
}

/// A set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenSet {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) flags: u32,
    pub(super) key_type: u32,
    pub(super) key_len: u32,
    /// Names of the expressions that each element has.
    pub(super) expressions: Vec<String>,
}

/// An element of a set.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SeenElement {
    /// Empty for the element that stands for all others.
    pub(super) key: Vec<u8>,
    pub(super) flags: u32,
    pub(super) key_end: Option<Vec<u8>>,
    pub(super) count: Option<Count>,
}

/// What a counter has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Their bytes, from the network header on.
    pub bytes: u64,
}

/// A named object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SeenObject {
    pub(super) table: String,
    pub(super) name: String,
    pub(super) kind: u32,
    /// Of counters.
    pub(super) count: Option<Count>,
}

impl SeenTable {
    pub(super) fn read(message: &Object<'_>) -> Result<Self, Malformed> {
        let mut seen = Self::default();
        for attribute in message.attributes() {
            let attribute = attribute?;
            match attribute.kind {
                table::NAME => seen.name = attribute.text(),
                table::FLAGS => seen.flags = attribute.number()?,
                table::OWNER => seen.owner = Some(attribute.number()?),
                _ => {}
            }
        }
        Ok(seen)
    }
}

impl SeenChain {
    pub(super) fn read(message: &Object<'_>) -> Result<Self, Malformed> {
        let mut seen = Self::default();
        for attribute in message.attributes() {
            let attribute = attribute?;
            match attribute.kind {
                chain::TABLE => seen.table = attribute.text(),
                chain::NAME => seen.name = attribute.text(),
                chain::TYPE => seen.kind = attribute.text(),
                chain::POLICY => seen.policy = Some(attribute.number()?),
                chain::HOOK => {
                    let mut hook = (0, 0);
                    for part in attribute.nested() {
                        let part = part?;
                        match part.kind {
                            chain::HOOK_NUMBER => hook.0 = part.number()?,
                            chain::HOOK_PRIORITY => hook.1 = part.number()?.cast_signed(),
                            _ => {}
                        }
                    }
                    seen.hook = Some(hook);
                }
                _ => {}
            }
        }
        Ok(seen)
    }
}

impl SeenRule {
    pub(super) fn read(message: &Object<'_>) -> Result<Self, Malformed> {
        let mut seen = Self::default();
        for attribute in message.attributes() {
            let attribute = attribute?;
            match attribute.kind {
                rule::TABLE => seen.table = attribute.text(),
                rule::CHAIN => seen.chain = attribute.text(),
                rule::EXPRESSIONS => seen.expressions = expressions(attribute.nested())?,
                rule::USERDATA => seen.comment = comment(attribute.payload),
                _ => {}
            }
        }
        Ok(seen)
    }
}

impl SeenSet {
    pub(super) fn read(message: &Object<'_>) -> Result<Self, Malformed> {
        let mut seen = Self::default();
        for attribute in message.attributes() {
            let attribute = attribute?;
            match attribute.kind {
                set::TABLE => seen.table = attribute.text(),
                set::NAME => seen.name = attribute.text(),
                set::FLAGS => seen.flags = attribute.number()?,
                set::KEY_TYPE => seen.key_type = attribute.number()?,
                set::KEY_LEN => seen.key_len = attribute.number()?,
                set::EXPR => seen.expressions.push(expression(attribute.nested())?.name),
                set::EXPRESSIONS => {
                    let all = expressions(attribute.nested())?;
                    seen.expressions.extend(all.into_iter().map(|it| it.name));
                }
                _ => {}
            }
        }
        Ok(seen)
    }
}

/// Elements of a message, with the names of their table and set.
pub(super) fn elements(
    message: &Object<'_>,
) -> Result<(String, String, Vec<SeenElement>), Malformed> {
    let (mut table, mut set, mut elements) = (String::new(), String::new(), Vec::new());
    for attribute in message.attributes() {
        let attribute = attribute?;
        match attribute.kind {
            element::LIST_TABLE => table = attribute.text(),
            element::LIST_SET => set = attribute.text(),
            element::LIST_ELEMENTS => {
                for item in attribute.nested() {
                    elements.push(SeenElement::read(item?.nested())?);
                }
            }
            _ => {}
        }
    }
    Ok((table, set, elements))
}

impl SeenElement {
    fn read(attributes: Attributes<'_>) -> Result<Self, Malformed> {
        let mut seen = Self::default();
        for attribute in attributes {
            let attribute = attribute?;
            match attribute.kind {
                element::KEY => seen.key = value(attribute.nested())?,
                element::KEY_END => seen.key_end = Some(value(attribute.nested())?),
                element::FLAGS => seen.flags = attribute.number()?,
                element::EXPR => seen.count = seen.count.or(count_of(attribute.nested())?),
                element::EXPRESSIONS => {
                    for item in attribute.nested() {
                        seen.count = seen.count.or(count_of(item?.nested())?);
                    }
                }
                _ => {}
            }
        }
        Ok(seen)
    }
}

impl SeenObject {
    pub(super) fn read(message: &Object<'_>) -> Result<Self, Malformed> {
        let mut seen = Self::default();
        let mut data = None;
        for attribute in message.attributes() {
            let attribute = attribute?;
            match attribute.kind {
                object::TABLE => seen.table = attribute.text(),
                object::NAME => seen.name = attribute.text(),
                object::TYPE => seen.kind = attribute.number()?,
                object::DATA => data = Some(attribute.nested()),
                _ => {}
            }
        }
        // What the data means depends on the type, wherever that stands.
        if let Some(data) = data.filter(|_| seen.kind == object::COUNTER) {
            seen.count = Some(count(data)?);
        }
        Ok(seen)
    }
}

/// Number of the ruleset's generation, from the answer to `NFT_MSG_GETGEN`.
pub(super) fn generation(message: &Object<'_>) -> Result<Option<u32>, Malformed> {
    for attribute in message.attributes() {
        let attribute = attribute?;
        if attribute.kind == object::GENERATION {
            return attribute.number().map(Some);
        }
    }
    Ok(None)
}

/// Expressions of a list.
pub(super) fn expressions(list: Attributes<'_>) -> Result<Vec<Expression>, Malformed> {
    list.map(|item| expression(item?.nested())).collect()
}

fn expression(parts: Attributes<'_>) -> Result<Expression, Malformed> {
    let mut seen = Expression::default();
    let mut data = None;
    for part in parts {
        let part = part?;
        match part.kind {
            expression::NAME => seen.name = part.text(),
            expression::DATA => data = Some(part.nested()),
            _ => {}
        }
    }
    if let Some(data) = data {
        flatten(&seen.name, data, &mut Vec::new(), &mut seen.attributes)?;
        seen.attributes.sort();
    }
    Ok(seen)
}

/// Attributes of attributes are told by their place: the kernel flags them in some versions only.
fn flatten(
    name: &str,
    attributes: Attributes<'_>,
    path: &mut Vec<u16>,
    flat: &mut Vec<(Vec<u16>, Vec<u8>)>,
) -> Result<(), Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        path.push(attribute.kind);
        let nested = matches!(
            (name, path.as_slice()),
            ("cmp", [expression::CMP_DATA])
                | (
                    "bitwise",
                    [expression::BITWISE_MASK | expression::BITWISE_XOR]
                )
                | ("immediate", [expression::IMMEDIATE_DATA])
                | (
                    "immediate",
                    [expression::IMMEDIATE_DATA, expression::VERDICT]
                )
        );
        if nested {
            flatten(name, attribute.nested(), path, flat)?;
        } else {
            flat.push((path.clone(), attribute.payload.to_vec()));
        }
        path.pop();
    }
    Ok(())
}

fn value(attributes: Attributes<'_>) -> Result<Vec<u8>, Malformed> {
    for attribute in attributes {
        let attribute = attribute?;
        if attribute.kind == expression::VALUE {
            return Ok(attribute.payload.to_vec());
        }
    }
    Ok(Vec::new())
}

/// What an expression has counted, if it is a counter.
fn count_of(parts: Attributes<'_>) -> Result<Option<Count>, Malformed> {
    let (mut is_counter, mut data) = (false, None);
    for part in parts {
        let part = part?;
        match part.kind {
            expression::NAME => is_counter = part.text() == "counter",
            expression::DATA => data = Some(part.nested()),
            _ => {}
        }
    }
    data.filter(|_| is_counter).map(count).transpose()
}

fn count(attributes: Attributes<'_>) -> Result<Count, Malformed> {
    let mut seen = Count::default();
    for attribute in attributes {
        let attribute = attribute?;
        match attribute.kind {
            object::COUNTER_BYTES => seen.bytes = attribute.long()?,
            object::COUNTER_PACKETS => seen.packets = attribute.long()?,
            _ => {}
        }
    }
    Ok(seen)
}

/// The comment in a rule's user data, which is a list of its own: kind, length, bytes.
fn comment(userdata: &[u8]) -> Option<String> {
    let mut rest = userdata;
    while let [kind, length, tail @ ..] = rest {
        let (payload, next) = tail.split_at_checked(usize::from(*length))?;
        if *kind == rule::COMMENT {
            let text = payload.strip_suffix(&[0]).unwrap_or(payload);
            return Some(String::from_utf8_lossy(text).into_owned());
        }
        rest = next;
    }
    None
}
