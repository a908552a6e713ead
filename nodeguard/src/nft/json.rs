//! A ruleset as JSON for `nft -j -f` (`libnftables-json(5)`), and the way back from a listing.
//!
//! Two things are missing in the crate `nftables` 0.6 and are put in by hand: the type `nf_proto`
//! in a set's key, and a set's statement that counts. It reads counters as 32 bits, too, so
//! listings are read as plain JSON.

use std::borrow::Cow;
use std::collections::HashSet;
use std::net::IpAddr;

use config::net::IpRange;
use nftables::expr::{
    CT, Expression, Fib, FibFlag, FibResult, Meta, MetaKey, NamedExpression, Payload, PayloadField,
    Prefix,
};
use nftables::helper::get_current_ruleset_raw;
use nftables::schema;
use nftables::schema::{NfCmd, NfListObject, NfObject, Nftables, SetFlag, SetType, SetTypeValue};
use nftables::stmt::{
    Accept, Counter, Drop, JumpTarget, Match as MatchStatement, Operator, Statement,
};
use nftables::types::{NfChainPolicy, NfChainType, NfFamily, NfHook};
use serde_json::{Value, json};

use super::NftError;
use super::netlink::comment_text;
use super::text;
use crate::ruleset::{
    Chain, Datum, Element, Field, Hook, KeyPart, Match, Rule, Ruleset, Set, TABLE, Verdict,
};

/// The ruleset as what `nft -j -f -` takes; it replaces the table that is there.
#[must_use]
pub fn json(ruleset: &Ruleset) -> Value {
    let table = || {
        NfListObject::Table(schema::Table {
            family: NfFamily::INet,
            name: TABLE.into(),
            handle: None,
        })
    };
    let mut objects = vec![
        NfObject::CmdObject(NfCmd::Add(table())),
        NfObject::CmdObject(NfCmd::Delete(table())),
        NfObject::ListObject(table()),
    ];
    let listed = |object| NfObject::ListObject(object);
    objects.extend(ruleset.counters.iter().map(|name| listed(counter(name))));
    objects.extend(ruleset.sets.iter().map(|it| listed(set(it))));
    objects.extend(ruleset.chains.iter().map(|it| listed(chain(it))));
    objects.extend(ruleset.rules().map(|(chain, it)| listed(rule(chain, it))));
    let document = Nftables {
        objects: objects.into(),
    };
    let mut value = serde_json::to_value(document).expect("all keys are texts");
    if let Some(objects) = value["nftables"].as_array_mut() {
        for object in objects.iter_mut().filter_map(|it| it.get_mut("set")) {
            let name = object["name"].as_str().unwrap_or_default();
            if let Some(set) = ruleset.set(name) {
                complete(object, set);
            }
        }
    }
    value
}

/// What the `nft` program lists of our table, with counters at zero, without handles, and with
/// elements of sets in order: two listings of equal tables are equal.
///
/// # Errors
/// If the program is missing or finds no such table.
pub fn listing() -> Result<Value, NftError> {
    let arguments = ["list", "table", "inet", TABLE];
    let program: Option<&str> = None;
    let text = get_current_ruleset_raw(program, &arguments)
        .map_err(|error| NftError::Program(error.to_string()))?;
    let mut value: Value =
        serde_json::from_str(&text).map_err(|error| NftError::Program(error.to_string()))?;
    still(&mut value);
    Ok(value)
}

/// Takes away what differs between equal tables.
fn still(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(still),
        Value::Object(fields) => {
            fields.remove("handle");
            for (name, field) in fields.iter_mut() {
                match name.as_str() {
                    "packets" | "bytes" => *field = json!(0),
                    "elem" => {
                        still(field);
                        if let Some(elements) = field.as_array_mut() {
                            elements.sort_by_cached_key(Value::to_string);
                        }
                    }
                    _ => still(field),
                }
            }
        }
        _ => {}
    }
}

fn complete(object: &mut Value, set: &Set) {
    object["type"] = match set.key.as_slice() {
        [part] => json!(text::key_part(*part)),
        parts => parts.iter().map(|it| text::key_part(*it)).collect(),
    };
    if set.counted {
        object["stmt"] = json!([{ "counter": null }]);
    }
}

fn counter(name: &'static str) -> NfListObject<'static> {
    NfListObject::Counter(schema::Counter {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: name.into(),
        handle: None,
        packets: None,
        bytes: None,
    })
}

fn set(set: &Set) -> NfListObject<'static> {
    let elements: Vec<_> = set.elements.iter().map(element).collect();
    NfListObject::Set(Box::new(schema::Set {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: set.name.into(),
        // What the crate has no word for is completed afterwards.
        set_type: SetTypeValue::Single(set.key.first().map_or(SetType::Mark, |it| key_part(*it))),
        flags: set.interval.then(|| HashSet::from([SetFlag::Interval])),
        elem: (!elements.is_empty()).then(|| elements.into()),
        ..schema::Set::default()
    }))
}

fn key_part(part: KeyPart) -> SetType {
    match part {
        KeyPart::V4 => SetType::Ipv4Addr,
        KeyPart::V6 => SetType::Ipv6Addr,
        KeyPart::Family => SetType::Mark,
        KeyPart::Protocol => SetType::InetProto,
        KeyPart::Port => SetType::InetService,
    }
}

fn element(element: &Element) -> Expression<'static> {
    match element {
        Element::Value(data) => concatenated(data.iter().map(|it| datum(*it)).collect()),
        Element::Range(range) => range_expression(range),
    }
}

fn datum(datum: Datum) -> Expression<'static> {
    let text: Cow<'static, str> = match datum {
        Datum::V4(address) => address.to_string().into(),
        Datum::V6(address) => address.to_string().into(),
        Datum::Family(it) => text::family(it).into(),
        Datum::Protocol(it) => text::protocol(it).into(),
        Datum::Port(port) => return Expression::Number(u32::from(port)),
    };
    Expression::String(text)
}

fn range_expression(range: &IpRange) -> Expression<'static> {
    let base = Expression::String(range.base().to_string().into());
    if range.address().is_some() {
        return base;
    }
    Expression::Named(NamedExpression::Prefix(Prefix {
        addr: Box::new(base),
        len: u32::from(range.prefix()),
    }))
}

fn concatenated(mut parts: Vec<Expression<'static>>) -> Expression<'static> {
    if parts.len() == 1 {
        parts.remove(0)
    } else {
        Expression::Named(NamedExpression::Concat(parts))
    }
}

fn chain(chain: &Chain) -> NfListObject<'static> {
    let base = chain.base;
    NfListObject::Chain(schema::Chain {
        family: NfFamily::INet,
        table: TABLE.into(),
        name: chain.name.into(),
        newname: None,
        handle: None,
        _type: base.map(|_| NfChainType::Filter),
        hook: base.map(|base| match base.hook {
            Hook::Prerouting => NfHook::Prerouting,
            Hook::Input => NfHook::Input,
            Hook::Forward => NfHook::Forward,
        }),
        prio: base.map(|base| base.priority),
        dev: None,
        policy: base.map(|_| NfChainPolicy::Accept),
    })
}

fn rule(chain: &'static str, rule: &Rule) -> NfListObject<'static> {
    let mut statements: Vec<Statement<'static>> = rule.matches.iter().map(condition).collect();
    statements.extend(
        rule.counter
            .map(|name| Statement::Counter(Counter::Named(name.into()))),
    );
    statements.extend(rule.verdict.map(|verdict| match verdict {
        Verdict::Accept => Statement::Accept(Some(Accept {})),
        Verdict::Drop => Statement::Drop(Some(Drop {})),
        Verdict::Goto(chain) => Statement::Goto(JumpTarget {
            target: chain.into(),
        }),
    }));
    NfListObject::Rule(schema::Rule {
        family: NfFamily::INet,
        table: TABLE.into(),
        chain: chain.into(),
        expr: statements.into(),
        handle: None,
        index: None,
        comment: Some(comment_text(rule.name).into()),
    })
}

fn condition(condition: &Match) -> Statement<'static> {
    let (left, right) = match condition {
        Match::Forwarded => {
            return Statement::Match(MatchStatement {
                left: meta(MetaKey::Oif),
                right: Expression::String("0".into()),
                op: Operator::NEQ,
            });
        }
        Match::DestinationChanged => {
            let status = CT {
                key: "status".into(),
                family: None,
                dir: None,
            };
            return Statement::Match(MatchStatement {
                left: Expression::Named(NamedExpression::CT(status)),
                right: Expression::String("dnat".into()),
                op: Operator::IN,
            });
        }
        Match::LoopbackDevice => (meta(MetaKey::Iif), Expression::String("lo".into())),
        Match::DestinationIn(range) => {
            let destination = match range.base() {
                IpAddr::V4(_) => Field::DestinationV4,
                IpAddr::V6(_) => Field::DestinationV6,
            };
            (field(destination), range_expression(range))
        }
        Match::InSet { fields, set } => {
            let fields = concatenated(fields.iter().map(|it| field(*it)).collect());
            (fields, Expression::String(format!("@{set}").into()))
        }
        Match::DestinationIsLocal => (
            fib(FibResult::Type, &[FibFlag::Daddr]),
            Expression::String("local".into()),
        ),
        Match::ReversePathMissing => (
            fib(FibResult::Oif, &[FibFlag::Saddr, FibFlag::Iif]),
            Expression::Boolean(false),
        ),
    };
    Statement::Match(MatchStatement {
        left,
        right,
        op: Operator::EQ,
    })
}

fn field(field: Field) -> Expression<'static> {
    match field {
        Field::SourceV4 => payload("ip", "saddr"),
        Field::SourceV6 => payload("ip6", "saddr"),
        Field::DestinationV4 => payload("ip", "daddr"),
        Field::DestinationV6 => payload("ip6", "daddr"),
        Field::Family => meta(MetaKey::Nfproto),
        Field::Protocol => meta(MetaKey::L4proto),
        Field::DestinationPort => payload("th", "dport"),
    }
}

fn payload(protocol: &'static str, field: &'static str) -> Expression<'static> {
    Expression::Named(NamedExpression::Payload(Payload::PayloadField(
        PayloadField {
            protocol: protocol.into(),
            field: field.into(),
        },
    )))
}

fn meta(key: MetaKey) -> Expression<'static> {
    Expression::Named(NamedExpression::Meta(Meta { key }))
}

fn fib(result: FibResult, flags: &[FibFlag]) -> Expression<'static> {
    Expression::Named(NamedExpression::Fib(Fib {
        result,
        flags: flags.iter().copied().collect(),
    }))
}
