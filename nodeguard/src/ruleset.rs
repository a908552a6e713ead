//! The ruleset as a value: what nftables is to hold, before anybody says how it is written down.
//!
//! [`crate::compile`] makes it from a policy; netlink bytes, text and JSON ([`crate::nft`]) are
//! views of it. It knows just the few expressions that the guard needs.

use std::net::{Ipv4Addr, Ipv6Addr};

use config::guard::Protocol;
use config::net::IpRange;

/// Name of the guard's table, of family inet.
pub const TABLE: &str = "nodeguard";

/// Everything in the guard's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruleset {
    /// Named counters, for drops that no set counts.
    pub counters: Vec<&'static str>,
    /// Sets, in the order in which they are made.
    pub sets: Vec<Set>,
    /// Chains; one that is gone to stands before the chains that go to it.
    pub chains: Vec<Chain>,
}

/// A named set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// Its name in the table.
    pub name: &'static str,
    /// What an element consists of; more than one part is a concatenation.
    pub key: Vec<KeyPart>,
    /// Whether elements are ranges (an interval set) or values (a hash).
    pub interval: bool,
    /// Whether each element counts the packets that matched it.
    pub counted: bool,
    /// Its elements, sorted, none twice, ranges without overlap.
    pub elements: Vec<Element>,
}

/// A part of a set's key, with nftables' name for the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// `ipv4_addr`.
    V4,
    /// `ipv6_addr`.
    V6,
    /// `nf_proto`: the family of a packet in an inet table.
    Family,
    /// `inet_proto`.
    Protocol,
    /// `inet_service`.
    Port,
}

/// An element of a set.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Element {
    /// A value, with one datum for each part of the key.
    Value(Vec<Datum>),
    /// A range of addresses.
    Range(IpRange),
}

/// A part of an element's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Datum {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A family.
    Family(Family),
    /// A protocol above IP.
    Protocol(Protocol),
    /// A destination port.
    Port(u16),
}

/// IPv4 or IPv6.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Its name in metrics and reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// A chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name in the table.
    pub name: &'static str,
    /// The hook that it is called from; without, other chains go to it.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// Where a base chain hangs. Its policy is `accept`: what the guard does not drop by a rule is not
/// its business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// The hook of family inet.
    pub hook: Hook,
    /// Lower is earlier.
    pub priority: i32,
}

/// A hook of family inet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// All that comes in, before routing.
    Prerouting,
    /// What is for this node.
    Input,
    /// What is for somebody else.
    Forward,
}

/// A rule: if everything matches, it counts and decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the ruleset: for `render`, for drift reports and the mutation check.
    pub name: &'static str,
    /// Conditions, all of which must hold.
    pub matches: Vec<Match>,
    /// A named counter that counts the packet.
    pub counter: Option<&'static str>,
    /// What becomes of the packet; the next rule's turn without.
    pub verdict: Option<Verdict>,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// `iif lo`: came in by the loopback device, whose index is 1 in every network namespace.
    LoopbackDevice,
    /// `ip daddr RANGE`, IPv4.
    DestinationIn(IpRange),
    /// `FIELD . FIELD ... @SET`: the packet's fields are an element of a set. A counted set's
    /// element counts it.
    InSet {
        /// What is looked up.
        fields: Vec<Field>,
        /// In which set.
        set: &'static str,
    },
    /// `fib daddr type local`: addressed to this node.
    DestinationIsLocal,
    /// `meta oif != 0`: it is on its way out again, which only the forward hook can say.
    Forwarded,
    /// `ct status dnat`: somebody changed its destination on this node. Switches connection
    /// tracking on, where it is not.
    DestinationChanged,
    /// `fib saddr . iif oif missing`: an answer would not leave by the device that the packet
    /// came by.
    ReversePathMissing,
}

/// A field of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `ip saddr`; the packet must be IPv4.
    SourceV4,
    /// `ip6 saddr`; the packet must be IPv6.
    SourceV6,
    /// `ip daddr`; the packet must be IPv4.
    DestinationV4,
    /// `ip6 daddr`; the packet must be IPv6.
    DestinationV6,
    /// `meta nfproto`.
    Family,
    /// `meta l4proto`.
    Protocol,
    /// `th dport`: bytes 2 and 3 of the transport header, where TCP, UDP and SCTP alike keep it.
    /// Matches no later fragment.
    DestinationPort,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let through, as far as this hook goes.
    Accept,
    /// Away with it.
    Drop,
    /// Another chain decides, for good.
    Goto(&'static str),
}

impl Ruleset {
    /// Every rule with the name of its chain, in order.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, &Rule)> {
        let chains = self.chains.iter();
        chains.flat_map(|chain| chain.rules.iter().map(|rule| (chain.name, rule)))
    }

    /// The same without one rule, for the mutation check. `None` if there is no such rule.
    #[must_use]
    pub fn without(&self, name: &str) -> Option<Self> {
        let mut mutant = self.clone();
        for chain in &mut mutant.chains {
            if let Some(index) = chain.rules.iter().position(|rule| rule.name == name) {
                chain.rules.remove(index);
                return Some(mutant);
            }
        }
        None
    }

    /// The set of a name.
    #[must_use]
    pub fn set(&self, name: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.name == name)
    }
}
