//! A ruleset that has everything that there is, once. For tests, here and across programs.

use config::guard::Protocol;
use config::net::IpRange;

use crate::ruleset::{
    Base, Chain, Datum, Element, Family, Field, Hook, KeyPart, Match, Rule, Ruleset, Set, Verdict,
};

/// The ruleset. Its shape is the guard's: strangers to the isolated ports are dropped and counted.
#[must_use]
pub fn ruleset() -> Ruleset {
    Ruleset {
        counters: vec!["loopback", "unused"],
        sets: sets(),
        chains: chains(),
    }
}

/// A set of single IPv4 addresses, sorted.
#[must_use]
pub fn hosts(name: &'static str, hosts: impl IntoIterator<Item = [u8; 4]>) -> Set {
    let hosts = hosts.into_iter().map(|host| vec![Datum::V4(host.into())]);
    values(name, &[KeyPart::V4], hosts)
}

/// A range as an element.
///
/// # Panics
/// If the text is no range.
#[must_use]
pub fn range(text: &str) -> Element {
    Element::Range(IpRange::parse(text).expect("a range"))
}

fn values(
    name: &'static str,
    key: &[KeyPart],
    values: impl IntoIterator<Item = Vec<Datum>>,
) -> Set {
    let mut elements: Vec<Element> = values.into_iter().map(Element::Value).collect();
    elements.sort();
    Set {
        name,
        key: key.to_vec(),
        interval: false,
        counted: false,
        elements,
    }
}

fn ranges(name: &'static str, key: KeyPart, texts: &[&str]) -> Set {
    Set {
        interval: true,
        elements: texts.iter().map(|text| range(text)).collect(),
        ..values(name, &[key], [])
    }
}

fn sets() -> Vec<Set> {
    use KeyPart::{Port, Protocol as Proto, V4, V6};
    use Protocol::{Sctp, Tcp, Udp};
    let port = |protocol, port| vec![Datum::Protocol(protocol), Datum::Port(port)];
    let at = |address: Datum, rest: Vec<Datum>| [vec![address], rest].concat();
    let v6 = |last: u16| Datum::V6([0xfd77, 0, 0, 0, 0, 0, 0, last].into());
    let v4 = |last: u8| Datum::V4([10, 77, 0, last].into());
    let counted = |name, ports: &[Vec<Datum>]| {
        let families = [Family::V4, Family::V6].map(Datum::Family);
        let elements = families
            .into_iter()
            .flat_map(|family| ports.iter().map(move |it| at(family, it.clone())));
        Set {
            counted: true,
            ..values(name, &[KeyPart::Family, Proto, Port], elements)
        }
    };
    let isolated = [port(Tcp, 10250), port(Udp, 10250), port(Sctp, 10250)];
    vec![
        values("isolated", &[Proto, Port], isolated.clone()),
        values("ports", &[Port], [vec![Datum::Port(22)]]),
        hosts("nodes4", [[10, 77, 0, 1], [10, 77, 0, 200]]),
        values("nodes6", &[V6], [vec![v6(1)], vec![v6(200)]]),
        values("own4", &[V4, Proto, Port], [at(v4(2), port(Tcp, 10250))]),
        values("own6", &[V6, Proto, Port], [at(v6(2), port(Udp, 10250))]),
        ranges(
            "routers4",
            V4,
            &[
                "10.90.0.0/25",
                "10.90.0.128/25",
                "10.90.3.7",
                "10.91.0.0/16",
                "255.0.0.0/8",
            ],
        ),
        ranges(
            "routers6",
            V6,
            &["fd90::/64", "fd90:0:0:1::/64", "fd91::7", "ff00::/8"],
        ),
        ranges("everything4", V4, &["0.0.0.0/0"]),
        ranges("nothing6", V6, &[]),
        hosts("nobody4", []),
        counted("stranger", &isolated),
        counted("spoofed", &isolated),
    ]
}

fn chains() -> Vec<Chain> {
    let chain = |name, base, rules| Chain { name, base, rules };
    let hook = |hook| {
        Some(Base {
            hook,
            priority: -450,
        })
    };
    vec![
        chain("known", None, known()),
        chain("sources", None, sources()),
        chain("passing", None, passing()),
        chain("towards", None, towards()),
        chain("prerouting", hook(Hook::Prerouting), prerouting()),
        chain("input", hook(Hook::Input), forwarded("input-isolated")),
        chain(
            "forward",
            hook(Hook::Forward),
            forwarded("forward-isolated"),
        ),
    ]
}

fn known() -> Vec<Rule> {
    let counted = &[Field::Family, Field::Protocol, Field::DestinationPort];
    vec![
        rule(
            "spoofed",
            vec![Match::ReversePathMissing, in_set(counted, "spoofed")],
            Some(Verdict::Drop),
        ),
        rule("known", vec![], Some(Verdict::Accept)),
    ]
}

fn sources() -> Vec<Rule> {
    let counted = &[Field::Family, Field::Protocol, Field::DestinationPort];
    let from = |name, field, set| {
        let matches = vec![in_set(&[field], set)];
        rule(name, matches, Some(Verdict::Goto("known")))
    };
    vec![
        from("from-node4", Field::SourceV4, "nodes4"),
        from("from-node6", Field::SourceV6, "nodes6"),
        from("from-router4", Field::SourceV4, "routers4"),
        from("from-router6", Field::SourceV6, "routers6"),
        rule("count-stranger", vec![in_set(counted, "stranger")], None),
        rule("drop-stranger", vec![], Some(Verdict::Drop)),
    ]
}

fn towards() -> Vec<Rule> {
    let port = [Field::Protocol, Field::DestinationPort];
    let sources = Some(Verdict::Goto("sources"));
    let isolated = || in_set(&port, "isolated");
    let own4 = [Field::DestinationV4, port[0], port[1]];
    let own6 = [Field::DestinationV6, port[0], port[1]];
    vec![
        rule("own", vec![isolated(), Match::DestinationIsLocal], sources),
        rule(
            "node4",
            vec![in_set(&own4[..1], "nodes4"), isolated()],
            sources,
        ),
        rule(
            "node6",
            vec![in_set(&own6[..1], "nodes6"), isolated()],
            sources,
        ),
        rule("own4", vec![in_set(&own4, "own4")], sources),
        rule("own6", vec![in_set(&own6, "own6")], sources),
        rule(
            "local-from-nobody",
            vec![
                Match::DestinationIsLocal,
                in_set(&[Field::SourceV4], "nobody4"),
                in_set(&[Field::DestinationV4], "nodes4"),
            ],
            Some(Verdict::Drop),
        ),
    ]
}

fn prerouting() -> Vec<Rule> {
    let to = |name, range: &str| {
        let range = IpRange::parse(range).expect("a range");
        rule(name, vec![Match::DestinationIn(range)], Some(Verdict::Drop))
    };
    vec![
        rule(
            "loopback-device",
            vec![Match::LoopbackDevice],
            Some(Verdict::Accept),
        ),
        Rule {
            counter: Some("loopback"),
            ..to("to-loopback", "127.0.0.0/8")
        },
        to("to-one4", "192.0.2.1"),
        to("to-one6", "2001:db8::1"),
        to("to-odd4", "198.51.100.0/25"),
        to("to-odd6", "2001:db8:8000::/33"),
        to("to-even6", "2001:db8:1::/48"),
        rule(
            "port-of-nobody",
            vec![
                in_set(&[Field::SourceV6], "nothing6"),
                in_set(&[Field::DestinationPort], "ports"),
            ],
            Some(Verdict::Drop),
        ),
        rule(
            "isolated",
            vec![in_set(
                &[Field::Protocol, Field::DestinationPort],
                "isolated",
            )],
            Some(Verdict::Goto("towards")),
        ),
    ]
}

fn forwarded(name: &'static str) -> Vec<Rule> {
    let fields = &[Field::Protocol, Field::DestinationPort];
    vec![rule(
        name,
        vec![in_set(fields, "isolated")],
        Some(Verdict::Goto("towards")),
    )]
}

fn passing() -> Vec<Rule> {
    let fields = &[Field::Protocol, Field::DestinationPort];
    vec![
        rule("forwarded", vec![Match::Forwarded], None),
        rule(
            "changed",
            vec![in_set(fields, "isolated"), Match::DestinationChanged],
            Some(Verdict::Goto("sources")),
        ),
    ]
}

fn rule(name: &'static str, matches: Vec<Match>, verdict: Option<Verdict>) -> Rule {
    Rule {
        name,
        matches,
        counter: None,
        verdict,
    }
}

fn in_set(fields: &[Field], set: &'static str) -> Match {
    Match::InSet {
        fields: fields.to_vec(),
        set,
    }
}
