//! The matcher, against examples and against a model too simple to be wrong.

use std::path::Path;
use std::sync::Arc;

use config::document::Position;
use config::net::HostName;
use config::route::{HostMatch, UpstreamProtocol};
use proptest::prelude::*;

use super::{Host, InvalidHost, Origin, RouteTable, RouteTarget};
use crate::upstream::{Retired, Upstream};

fn upstream() -> Arc<Upstream> {
    Arc::new(Upstream {
        id: 1,
        tenant: "acme".into(),
        name: "apps".into(),
        protocol: UpstreamProtocol::Http1,
        endpoints: Vec::new(),
        unhealthy: Default::default(),
        retired: Retired::default(),
    })
}

fn rule(pattern: &str) -> HostMatch {
    match pattern.strip_prefix('*') {
        Some(suffix) => HostMatch::Suffix(suffix.into()),
        None => HostMatch::Exact(HostName::parse(pattern).expect("a host name")),
    }
}

fn build(patterns: &[&str]) -> Result<RouteTable, super::DuplicateOwner> {
    let upstream = upstream();
    let targets = patterns
        .iter()
        .enumerate()
        .map(|(line, pattern)| target(pattern, line + 1, &upstream));
    RouteTable::build(targets.collect())
}

fn target(pattern: &str, line: usize, upstream: &Arc<Upstream>) -> RouteTarget {
    RouteTarget {
        host: rule(pattern),
        upstream: Arc::clone(upstream),
        shared: false,
        origin: Origin::File {
            file: Path::new("acme.yaml").into(),
            position: Position { line, column: 3 },
        },
    }
}

fn host(text: &str) -> Host {
    Host::parse(text).expect("a valid host")
}

/// The pattern that takes a host.
fn taken_by(table: &RouteTable, text: &str) -> Option<String> {
    let target = table.lookup(&host(text))?;
    Some(target.host.to_string())
}

#[test]
fn host_is_lower_case_without_trailing_dot() {
    assert_eq!(host("WWW.Example.ORG.").as_str(), "www.example.org");
    assert_eq!(host("a_b.x").as_str(), "a_b.x");
    assert_eq!(host("A.b"), host("a.B."));
}

#[test]
fn host_that_is_no_name_is_refused() {
    let long_label = "a".repeat(64);
    let long_name = ["a".repeat(63).as_str(); 4].join(".");
    for (text, reason) in [
        ("", InvalidHost::Empty),
        (".", InvalidHost::Empty),
        ("a..b", InvalidHost::EmptyLabel),
        (".a", InvalidHost::EmptyLabel),
        ("a..", InvalidHost::EmptyLabel),
        ("a b", InvalidHost::ForbiddenByte),
        ("a:443", InvalidHost::ForbiddenByte),
        ("a%41", InvalidHost::ForbiddenByte),
        ("*.a", InvalidHost::ForbiddenByte),
        ("m\u{fc}nchen.de", InvalidHost::ForbiddenByte),
        ("a\0b", InvalidHost::ForbiddenByte),
        ("[::1", InvalidHost::InvalidIpv6),
        ("[::1%25eth0]", InvalidHost::InvalidIpv6),
        ("[v1.x]", InvalidHost::InvalidIpv6),
        (&long_label, InvalidHost::TooLong),
        (&long_name, InvalidHost::TooLong),
    ] {
        assert_eq!(Host::parse(text), Err(reason), "{text:?}");
    }
    let longest = format!(
        "{}.{}",
        ["a".repeat(63).as_str(); 3].join("."),
        "b".repeat(61)
    );
    assert_eq!(host(&format!("{longest}.")).as_str(), longest);
}

#[test]
fn addresses_are_hosts_that_match_nothing() {
    let table = build(&["*.0.0.1", "*.1", "x.y"]).expect("distinct");
    for text in ["127.0.0.1", "127.0.0.1.", "[2001:DB8::1]"] {
        assert!(host(text).is_literal(), "{text}");
        assert_eq!(taken_by(&table, text), None, "{text}");
    }
    assert_eq!(host("[2001:DB8::1]").as_str(), "[2001:db8::1]");
    assert!(!host("1.2.3.4.5").is_literal());
}

#[test]
fn exact_beats_suffix_and_longest_suffix_wins() {
    let table = build(&[
        "*.k8s.example.org",
        "*-7.k8s.example.org",
        "*-apps-7.k8s.example.org",
        "shop-apps-7.k8s.example.org",
    ])
    .expect("distinct");
    for (text, pattern) in [
        (
            "shop-apps-7.k8s.example.org",
            Some("shop-apps-7.k8s.example.org"),
        ),
        (
            "SHOP-apps-7.k8s.example.org.",
            Some("shop-apps-7.k8s.example.org"),
        ),
        (
            "cart-apps-7.k8s.example.org",
            Some("*-apps-7.k8s.example.org"),
        ),
        (
            "a-b-apps-7.k8s.example.org",
            Some("*-apps-7.k8s.example.org"),
        ),
        ("apps-7.k8s.example.org", Some("*-7.k8s.example.org")),
        ("x-8.k8s.example.org", Some("*.k8s.example.org")),
        ("k8s.example.org", None),
        ("example.org", None),
        ("x.y.k8s.example.org", None),
    ] {
        assert_eq!(taken_by(&table, text).as_deref(), pattern, "{text}");
    }
}

#[test]
fn star_stands_for_at_least_one_character_and_no_dot() {
    let table = build(&["*-apps-7.example.org"]).expect("distinct");
    assert_eq!(taken_by(&table, "-apps-7.example.org"), None);
    assert_eq!(taken_by(&table, "x.-apps-7.example.org"), None);
    assert_eq!(taken_by(&table, "apps-7.example.org"), None);
    assert!(taken_by(&table, "x-apps-7.example.org").is_some());
    assert!(taken_by(&table, "--apps-7.example.org").is_some());
}

#[test]
fn a_pattern_without_parent_matches_single_labels() {
    let table = build(&["*-local"]).expect("distinct");
    assert!(taken_by(&table, "a-local").is_some());
    assert_eq!(taken_by(&table, "a-local.x"), None);
    assert_eq!(taken_by(&table, "local"), None);
}

#[test]
fn two_rules_for_one_name_are_refused_with_both_places() {
    for pattern in ["www.example.org", "*-7.example.org", "*.example.org"] {
        let error = build(&[pattern, "other.example.org", pattern])
            .err()
            .expect("a duplicate");
        let text = error.to_string();
        assert!(text.contains(pattern), "{text}");
        assert!(text.contains("acme.yaml:1:3 (tenant acme)"), "{text}");
        assert!(text.contains("acme.yaml:3:3 (tenant acme)"), "{text}");
    }
}

#[test]
fn rules_come_back_as_they_were_given() {
    let patterns = ["*-7.example.org", "a.example.org", "b.example.org"];
    let table = build(&patterns).expect("distinct");
    assert_eq!(listed(&table), patterns);
    assert_eq!(table.len(), 3);
    for pattern in patterns {
        let found = table.get(&rule(pattern)).expect("a rule");
        assert_eq!(found.host.to_string(), pattern);
    }
    // Neither a host that a rule takes nor a name without its star is a rule.
    for other in ["x-7.example.org", "*-8.example.org", "*.example.org"] {
        assert!(table.get(&rule(other)).is_none(), "{other}");
    }
    assert!(build(&[]).expect("nothing to clash").is_empty());
}

#[test]
fn a_change_is_seen_in_the_copy_alone() {
    let before = build(&["*-7.example.org", "a.example.org"]).expect("distinct");
    let mut after = before.clone();
    let new = Arc::new(target("b.example.org", 9, &upstream()));
    after.insert(Arc::clone(&new)).expect("a new rule");
    assert!(after.remove(&rule("*-7.example.org")).is_some());
    assert!(after.remove(&rule("*-7.example.org")).is_none());
    assert_eq!(listed(&before), ["*-7.example.org", "a.example.org"]);
    assert_eq!(listed(&after), ["a.example.org", "b.example.org"]);
    assert_eq!(
        taken_by(&before, "x-7.example.org").as_deref(),
        Some("*-7.example.org")
    );
    assert_eq!(taken_by(&after, "x-7.example.org"), None);
    let again = after.insert(new).expect_err("a duplicate");
    assert!(
        again
            .to_string()
            .starts_with("b.example.org is routed twice")
    );
    assert_eq!(after.len(), 2);
}

fn listed(table: &RouteTable) -> Vec<String> {
    let mut listed: Vec<_> = table.iter().map(|it| it.host.to_string()).collect();
    listed.sort();
    listed
}

#[test]
fn many_clusters_under_one_domain() {
    let patterns: Vec<String> = (0..30_000)
        .flat_map(|id| {
            [
                format!("*-apps-{id}.k8s.example.org"),
                format!("api-{id}.k8s.example.org"),
            ]
        })
        .collect();
    let patterns: Vec<&str> = patterns.iter().map(String::as_str).collect();
    let table = build(&patterns).expect("distinct");
    for id in (0..30_000).step_by(7) {
        let pattern = format!("*-apps-{id}.k8s.example.org");
        let name = format!("shop-apps-{id}.k8s.example.org");
        assert_eq!(taken_by(&table, &name), Some(pattern));
        let name = format!("api-{id}.k8s.example.org");
        assert_eq!(taken_by(&table, &name), Some(name));
    }
    assert_eq!(taken_by(&table, "shop-apps-30000.k8s.example.org"), None);
}

/// What the rules mean, read off their definition: try each, keep the longest.
fn naive<'a>(patterns: &'a [String], name: &str) -> Option<&'a String> {
    if let Some(exact) = patterns.iter().find(|pattern| *pattern == name) {
        return Some(exact);
    }
    patterns
        .iter()
        .filter(|pattern| {
            pattern
                .strip_prefix('*')
                .and_then(|suffix| name.strip_suffix(suffix))
                .is_some_and(|star| !star.is_empty() && !star.contains('.'))
        })
        .max_by_key(|pattern| pattern.len())
}

fn patterns() -> impl Strategy<Value = Vec<String>> {
    let exact = "[ab][ab-]{0,3}[ab](\\.[ab]{1,2}){1,2}";
    let suffix = "\\*[.-]([ab-]{0,4}[ab]\\.)?[ab]{1,2}(\\.[ab]{1,2}){0,2}";
    proptest::collection::btree_set(prop_oneof![exact, suffix], 0..40)
        .prop_map(|set| set.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn the_table_agrees_with_the_model(
        patterns in patterns(),
        names in proptest::collection::vec("[ab-]{1,8}(\\.[ab-]{1,3}){0,3}", 1..40),
    ) {
        let borrowed: Vec<&str> = patterns.iter().map(String::as_str).collect();
        let table = build(&borrowed).expect("a set holds no duplicates");
        for name in &names {
            let taken = taken_by(&table, name);
            prop_assert_eq!(taken.as_ref(), naive(&patterns, name), "{}", name);
        }
    }

    #[test]
    fn edits_lead_where_building_leads(
        steps in proptest::collection::vec(patterns(), 1..8),
        names in proptest::collection::vec("[ab-]{1,8}(\\.[ab-]{1,3}){0,3}", 1..40),
    ) {
        let upstream = upstream();
        let mut table = RouteTable::default();
        let mut rules: Vec<String> = Vec::new();
        let mut versions = Vec::new();
        for step in steps {
            versions.push((table.clone(), rules.clone()));
            for pattern in step {
                // What is there goes, what is not comes.
                match rules.iter().position(|it| *it == pattern) {
                    Some(at) => {
                        rules.remove(at);
                        let removed = table.remove(&rule(&pattern)).map(|it| it.host.to_string());
                        prop_assert_eq!(removed, Some(pattern));
                    }
                    None => {
                        table.insert(Arc::new(target(&pattern, 1, &upstream))).expect("new");
                        rules.push(pattern);
                    }
                }
            }
        }
        versions.push((table, rules));
        // Every version is still what it was, whatever became of its copies.
        for (table, mut rules) in versions {
            let borrowed: Vec<&str> = rules.iter().map(String::as_str).collect();
            let built = build(&borrowed).expect("distinct");
            for name in &names {
                let taken = taken_by(&table, name);
                prop_assert_eq!(taken.as_ref(), naive(&rules, name), "{}", name);
                prop_assert_eq!(taken, taken_by(&built, name), "{}", name);
            }
            rules.sort();
            prop_assert_eq!(table.len(), rules.len());
            prop_assert_eq!(table.parents(), built.parents());
            prop_assert_eq!(listed(&table), rules);
        }
    }

    #[test]
    fn parsing_never_panics_and_is_idempotent(text in "\\PC{0,300}|[a-zA-Z0-9.:\\[\\]-]{0,300}") {
        if let Ok(host) = Host::parse(&text) {
            prop_assert_eq!(Host::parse(host.as_str()), Ok(host));
        }
    }
}
