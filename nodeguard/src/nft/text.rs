//! A ruleset in the language of the `nft` program.

use std::fmt::{self, Display, Write};
use std::net::IpAddr;

use config::guard::Protocol;
use config::net::IpRange;

use super::netlink::comment_text;
use crate::ruleset::{
    Chain, Datum, Element, Family, Field, Hook, KeyPart, Match, Rule, Ruleset, Set, TABLE, Verdict,
};

/// What `nft -f` takes: the same table as [`super::Nft::replace`] makes, except that it belongs to
/// nobody. It replaces the table that is there, in one transaction.
#[must_use]
pub fn text(ruleset: &Ruleset) -> String {
    let mut text = String::new();
    write_all(&mut text, ruleset).expect("a String takes everything");
    text
}

fn write_all(out: &mut String, ruleset: &Ruleset) -> fmt::Result {
    // Deleting needs something to delete.
    writeln!(out, "table inet {TABLE}")?;
    writeln!(out, "delete table inet {TABLE}")?;
    writeln!(out, "table inet {TABLE} {{")?;
    for name in &ruleset.counters {
        writeln!(out, "\tcounter {name} {{")?;
        writeln!(out, "\t}}\n")?;
    }
    for set in &ruleset.sets {
        write_set(out, set)?;
    }
    for (index, chain) in ruleset.chains.iter().enumerate() {
        if index > 0 {
            writeln!(out)?;
        }
        write_chain(out, chain)?;
    }
    writeln!(out, "}}")
}

fn write_set(out: &mut String, set: &Set) -> fmt::Result {
    writeln!(out, "\tset {} {{", set.name)?;
    let key = dotted(set.key.iter().map(|part| key_part(*part)));
    writeln!(out, "\t\ttype {key}")?;
    if set.interval {
        writeln!(out, "\t\tflags interval")?;
    }
    if set.counted {
        writeln!(out, "\t\tcounter")?;
    }
    if let Some((first, others)) = set.elements.split_first() {
        write!(out, "\t\telements = {{ {}", element(first))?;
        for other in others {
            write!(out, ",\n\t\t\t     {}", element(other))?;
        }
        writeln!(out, " }}")?;
    }
    writeln!(out, "\t}}\n")
}

fn write_chain(out: &mut String, chain: &Chain) -> fmt::Result {
    writeln!(out, "\tchain {} {{", chain.name)?;
    if let Some(base) = chain.base {
        let hook = hook(base.hook);
        let priority = base.priority;
        writeln!(
            out,
            "\t\ttype filter hook {hook} priority {priority}; policy accept;"
        )?;
    }
    for rule in &chain.rules {
        writeln!(out, "\t\t{}", RuleText(rule))?;
    }
    writeln!(out, "\t}}")
}

/// A rule as it stands in a listing.
struct RuleText<'a>(&'a Rule);

impl Display for RuleText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for condition in &self.0.matches {
            match condition {
                Match::LoopbackDevice => f.write_str("iif \"lo\" ")?,
                Match::DestinationIn(range) => {
                    let field = match range.base() {
                        IpAddr::V4(_) => Field::DestinationV4,
                        IpAddr::V6(_) => Field::DestinationV6,
                    };
                    write!(f, "{} {} ", field_text(field), range_text(range))?;
                }
                Match::InSet { fields, set } => {
                    let fields = dotted(fields.iter().map(|it| field_text(*it)));
                    write!(f, "{fields} @{set} ")?;
                }
                Match::DestinationIsLocal => f.write_str("fib daddr type local ")?,
                Match::Forwarded => f.write_str("oif != 0 ")?,
                Match::DestinationChanged => f.write_str("ct status dnat ")?,
                Match::ReversePathMissing => f.write_str("fib saddr . iif oif missing ")?,
            }
        }
        if let Some(counter) = self.0.counter {
            write!(f, "counter name \"{counter}\" ")?;
        }
        match self.0.verdict {
            Some(Verdict::Accept) => f.write_str("accept ")?,
            Some(Verdict::Drop) => f.write_str("drop ")?,
            Some(Verdict::Goto(chain)) => write!(f, "goto {chain} ")?,
            None => {}
        }
        write!(f, "comment \"{}\"", comment_text(self.0.name))
    }
}

fn dotted(parts: impl Iterator<Item = &'static str>) -> String {
    parts.collect::<Vec<_>>().join(" . ")
}

/// The nft program's name of a type.
pub(super) fn key_part(part: KeyPart) -> &'static str {
    match part {
        KeyPart::V4 => "ipv4_addr",
        KeyPart::V6 => "ipv6_addr",
        KeyPart::Family => "nf_proto",
        KeyPart::Protocol => "inet_proto",
        KeyPart::Port => "inet_service",
    }
}

/// The nft program's name of a hook.
pub(super) fn hook(hook: Hook) -> &'static str {
    match hook {
        Hook::Prerouting => "prerouting",
        Hook::Input => "input",
        Hook::Forward => "forward",
    }
}

/// The nft program's name of a family, as a value.
pub(super) fn family(family: Family) -> &'static str {
    match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    }
}

/// The nft program's name of a protocol.
pub(super) fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

fn field_text(field: Field) -> &'static str {
    match field {
        Field::SourceV4 => "ip saddr",
        Field::SourceV6 => "ip6 saddr",
        Field::DestinationV4 => "ip daddr",
        Field::DestinationV6 => "ip6 daddr",
        Field::Family => "meta nfproto",
        Field::Protocol => "meta l4proto",
        Field::DestinationPort => "th dport",
    }
}

fn element(element: &Element) -> String {
    match element {
        Element::Value(data) => {
            let parts: Vec<String> = data.iter().map(|datum| datum_text(*datum)).collect();
            parts.join(" . ")
        }
        Element::Range(range) => range_text(range),
    }
}

fn range_text(range: &IpRange) -> String {
    range.to_string()
}

fn datum_text(datum: Datum) -> String {
    match datum {
        Datum::V4(address) => address.to_string(),
        Datum::V6(address) => address.to_string(),
        Datum::Family(it) => family(it).to_owned(),
        Datum::Protocol(it) => protocol(it).to_owned(),
        Datum::Port(port) => port.to_string(),
    }
}
