//! The kernel's nftables under nodeguard: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use config::roles::Role;
use harness::namespace::Namespace;
use harness::nftables::{drifted, exclusive, nft, open, script, with_nodes};
use harness::tool::Tool;
use harness::wait;
use nodeguard::compile::compile;
use nodeguard::nft::drift::Integrity;
use nodeguard::nft::{Done, Monitor, NftError, Ownership, json, sample, text};
use nodeguard::policy::{Node, Policy};
use nodeguard::ruleset::{Match, Ruleset};

/// What `nft list table` says, with elements of sets in order: the kernel's is the order of a hash.
fn listed(namespace: &Namespace) -> String {
    let listing = nft(namespace, &["list", "table", "inet", "nodeguard"]);
    assert!(listing.status.success(), "{}", listing.stderr);
    let mut text = String::new();
    let mut rest = listing.stdout.as_str();
    while let Some((before, after)) = rest.split_once("elements = { ") {
        let (elements, after) = after.split_once(" }").unwrap();
        let mut elements: Vec<&str> = elements.split(',').map(str::trim).collect();
        elements.sort_unstable();
        text.push_str(before);
        text.push_str(&elements.join("\n"));
        rest = after;
    }
    text + rest
}

#[test]
fn three_views_make_the_same_table() {
    are_the_same(&sample::ruleset());
    // What a node of each role really has.
    for role in Role::ALL {
        let mut policy = Policy::shut("acme", "w1", Some(role));
        let addresses = vec!["10.0.0.11".parse().unwrap(), "fd00::11".parse().unwrap()];
        policy
            .nodes
            .insert("w1".to_owned(), Node { role, addresses });
        let ranges = ["192.0.2.0/28", "2001:db8::/64", "192.0.2.77"];
        let ranges = ranges.map(|it| it.parse().unwrap()).to_vec();
        policy.routers.insert("edge".to_owned(), ranges);
        policy.pods = vec!["10.244.0.0/16".parse().unwrap()];
        policy.pod_ports = vec![8443];
        are_the_same(&compile(&policy));
    }
}

/// Loads a ruleset in all three views and compares what the kernel then lists.
fn are_the_same(ruleset: &Ruleset) {
    type Load<'a> = &'a dyn Fn(&Namespace);
    let views: [(&str, Load<'_>); 3] = [
        ("netlink", &|namespace| {
            let mut nft = open(namespace, Ownership::Never);
            nft.replace(ruleset).unwrap();
        }),
        ("text", &|namespace| script(namespace, &text::text(ruleset))),
        ("JSON", &|namespace| {
            let tool = Tool::new("nft").args(["-j", "-f", "-"]);
            let input = json::json(ruleset).to_string();
            tool.namespace(Some(namespace))
                .input(input)
                .succeed()
                .unwrap();
        }),
    ];
    let mut first = None;
    for (name, load) in views {
        let namespace = Namespace::new().unwrap();
        // Twice: a view must also replace what is there.
        load(&namespace);
        load(&namespace);
        let mut nft = open(&namespace, Ownership::Never);
        assert_eq!(drifted(&mut nft, ruleset), Vec::<String>::new(), "{name}");
        let now = (listed(&namespace), namespace.run(json::listing).unwrap());
        let (text, value) = first.get_or_insert_with(|| now.clone());
        assert_eq!(*text, now.0, "{name}");
        assert_eq!(*value, now.1, "{name}");
        assert!(now.0.contains("comment \"drop-stranger\""), "{}", now.0);
    }
}

#[test]
fn a_table_of_any_kind_is_replaced() {
    let ruleset = sample::ruleset();
    for before in [
        "table inet nodeguard { flags dormant; chain prerouting { drop; }; }",
        "table inet nodeguard { map nodes4 { type ipv4_addr : verdict; }; counter isolated { }; }",
        "table inet nodeguard { set nodes4 { type inet_service; flags interval; }
           chain other { tcp dport @nodes4 drop; }
           chain known { type nat hook prerouting priority 0; tcp dport 22 jump other; }; }",
    ] {
        let namespace = Namespace::new().unwrap();
        script(&namespace, before);
        let mut nft = exclusive(&namespace);
        assert_ne!(drifted(&mut nft, &ruleset), Vec::<String>::new());
        nft.replace(&ruleset).unwrap();
        assert_eq!(
            drifted(&mut nft, &ruleset),
            Vec::<String>::new(),
            "{before}"
        );
    }
}

#[test]
fn a_refusal_names_what_is_refused_and_changes_nothing() {
    let namespace = Namespace::new().unwrap();
    let (ruleset, mut nft) = (sample::ruleset(), exclusive(&namespace));
    nft.replace(&ruleset).unwrap();
    let mut wrong = ruleset.clone();
    let rule = &mut wrong.chains[1].rules[0];
    let name = rule.name;
    let Match::InSet { set, .. } = &mut rule.matches[0] else {
        panic!("the sample has changed");
    };
    *set = "no-such-set";
    let error = nft.replace(&wrong).unwrap_err();
    let NftError::Refused { object, error, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*object, format!("rule {name} of sources"));
    assert_eq!(error.raw_os_error(), Some(nix::errno::Errno::ENOENT as i32));
    assert_eq!(drifted(&mut nft, &ruleset), Vec::<String>::new());
}

#[test]
fn a_table_that_is_owned_outlives_others_and_its_owner() {
    let namespace = Namespace::new().unwrap();
    let (ruleset, mut first) = (sample::ruleset(), exclusive(&namespace));
    first.replace(&ruleset).unwrap();
    let foreign: &[&[&str]] = &[
        &["delete", "table", "inet", "nodeguard"],
        &["flush", "chain", "inet", "nodeguard", "prerouting"],
        &["add", "rule", "inet", "nodeguard", "sources", "accept"],
        &[
            "add",
            "element",
            "inet",
            "nodeguard",
            "nodes4",
            "{ 10.0.0.9 }",
        ],
    ];
    let refused = |when: &str| {
        for arguments in foreign {
            let output = nft(&namespace, arguments);
            assert!(
                !output.status.success(),
                "{when}: {arguments:?} went through"
            );
        }
        assert!(nft(&namespace, &["flush", "ruleset"]).status.success());
    };
    refused("owned by the first");
    assert_eq!(drifted(&mut first, &ruleset), Vec::<String>::new());

    let mut second = exclusive(&namespace);
    let owned =
        |result: Result<(), NftError>| matches!(result, Err(NftError::OwnedByAnother { .. }));
    assert!(owned(second.replace(&ruleset)));
    assert!(owned(second.remove()));
    assert!(owned(second.claim().map(drop)));
    assert_eq!(drifted(&mut first, &ruleset), Vec::<String>::new());

    drop(first);
    assert!(listed(&namespace).contains("drop-stranger"));
    assert_eq!(drifted(&mut second, &ruleset), ["table: belongs to nobody"]);
    assert!(second.claim().unwrap());
    assert_eq!(drifted(&mut second, &ruleset), Vec::<String>::new());
    refused("owned by the second");
    second.replace(&ruleset).unwrap();
    refused("replaced by the second");

    drop(second);
    let mut third = exclusive(&namespace);
    third.replace(&ruleset).unwrap();
    refused("replaced by the third without a claim");
    drop(third);
    exclusive(&namespace).remove().unwrap();
    assert!(
        !nft(&namespace, &["list", "table", "inet", "nodeguard"])
            .status
            .success()
    );
    exclusive(&namespace).remove().unwrap();
    assert!(!exclusive(&namespace).claim().unwrap());
}

/// What somebody does to the table, and how it is told. `HANDLE` is the handle of the rule whose
/// comment stands before the colon.
const TAMPERING: &[(&str, &[&str])] = &[
    ("flush ruleset", &["table gone"]),
    (
        "flush chain inet nodeguard input; delete chain inet nodeguard input",
        &["chain input: gone"],
    ),
    (
        "flush chain inet nodeguard input",
        &["rule input-isolated of input: gone"],
    ),
    (
        "isolated: delete rule inet nodeguard prerouting handle HANDLE",
        &["rule isolated of prerouting: gone"],
    ),
    (
        "drop-stranger: replace rule inet nodeguard sources handle HANDLE accept comment \"drop-stranger\"",
        &["rule drop-stranger of sources: changed"],
    ),
    (
        "spoofed: replace rule inet nodeguard known handle HANDLE fib saddr . iif oif exists meta nfproto . meta l4proto . th dport @spoofed drop comment \"spoofed\"",
        &["rule spoofed of known: changed"],
    ),
    (
        "own4: replace rule inet nodeguard towards handle HANDLE ip daddr . meta l4proto . th dport != @own4 goto sources comment \"own4\"",
        &["rule own4 of towards: changed"],
    ),
    (
        "add rule inet nodeguard sources accept",
        &["rule added to sources"],
    ),
    (
        "insert rule inet nodeguard sources accept; insert rule inet nodeguard sources accept comment \"known\"",
        &["2 rules added to sources"],
    ),
    (
        "add rule inet nodeguard known accept comment \"known\"",
        &["rule known of known: there 1 more"],
    ),
    (
        "from-node4: delete rule inet nodeguard sources handle HANDLE; add rule inet nodeguard sources ip saddr @nodes4 goto known comment \"from-node4\"",
        &["rules of sources: in another order"],
    ),
    (
        "add element inet nodeguard nodes4 { 10.0.0.9, 10.0.0.10 }; delete element inet nodeguard nodes4 { 10.77.0.1 }",
        &["set nodes4: 2 elements came, 1 went"],
    ),
    (
        "add element inet nodeguard nodes4 { * }",
        &["set nodes4: 1 element came"],
    ),
    (
        "add element inet nodeguard routers4 { 172.16.0.0/12 }",
        &["set routers4: 1 element came"],
    ),
    (
        "flush set inet nodeguard isolated",
        &["set isolated: 3 elements went"],
    ),
    (
        "delete set inet nodeguard everything4",
        &["set everything4: gone"],
    ),
    (
        "delete set inet nodeguard everything4; add set inet nodeguard everything4 { type ipv4_addr; }",
        &["set everything4: of another kind"],
    ),
    (
        "add set inet nodeguard more { type ipv4_addr; }",
        &["set more: came"],
    ),
    (
        "delete counter inet nodeguard unused",
        &["counter unused: gone"],
    ),
    ("add counter inet nodeguard more", &["object more: came"]),
    ("add chain inet nodeguard more", &["chain more: came"]),
    (
        "add chain inet nodeguard input { policy drop; }",
        &["chain input: hangs elsewhere"],
    ),
    (
        "add table inet nodeguard { flags dormant; }",
        &["table: has flags 0x1"],
    ),
];

#[test]
fn every_change_by_others_is_told_and_repaired() {
    let namespace = Namespace::new().unwrap();
    let (ruleset, mut guard) = (sample::ruleset(), open(&namespace, Ownership::Never));
    for (lines, told) in TAMPERING {
        guard.replace(&ruleset).unwrap();
        assert_eq!(drifted(&mut guard, &ruleset), Vec::<String>::new());
        let lines = match lines.split_once(": ") {
            Some((comment, lines)) => lines.replace("HANDLE", &handle(&namespace, comment)),
            None => (*lines).to_owned(),
        };
        script(&namespace, &lines);
        assert_eq!(drifted(&mut guard, &ruleset), *told, "{lines}");
        // It is told as long as it lasts.
        assert_eq!(drifted(&mut guard, &ruleset), *told, "{lines}");
    }
    guard.replace(&ruleset).unwrap();
    assert_eq!(drifted(&mut guard, &ruleset), Vec::<String>::new());
    // What others do elsewhere is no drift.
    script(&namespace, "table ip nodeguard { chain input { drop; }; }");
    assert_eq!(drifted(&mut guard, &ruleset), Vec::<String>::new());
}

fn handle(namespace: &Namespace, comment: &str) -> String {
    let listing = nft(namespace, &["-a", "list", "table", "inet", "nodeguard"]).stdout;
    let comment = format!("comment \"{comment}\" # handle ");
    let line = listing.lines().find_map(|line| line.split_once(&comment));
    line.unwrap().1.to_owned()
}

#[test]
fn a_change_before_the_first_look_is_told_too() {
    let namespace = Namespace::new().unwrap();
    let (ruleset, mut guard) = (sample::ruleset(), open(&namespace, Ownership::Never));
    guard.replace(&ruleset).unwrap();
    script(&namespace, "add rule inet nodeguard sources accept");
    assert_eq!(drifted(&mut guard, &ruleset), ["rule added to sources"]);
}

#[test]
fn others_who_change_their_own_tables_all_the_time_are_no_drift() {
    let namespace = Namespace::new().unwrap();
    let many = with_nodes((0..20_000_u32).map(|n| (0x0a00_0000 + n).to_be_bytes()));
    let mut guard = exclusive(&namespace);
    guard.replace(&many).unwrap();
    let (stop, changes) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                script(&namespace, "add table ip other; delete table ip other");
                changes.fetch_add(1, Ordering::Relaxed);
            }
        });
        let found: Vec<_> = (0..10)
            .map(|_| {
                let before = changes.load(Ordering::Relaxed);
                let changed = || changes.load(Ordering::Relaxed) > before;
                wait::until_true("a change by others", changed).unwrap();
                guard.check(&many)
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        for integrity in found {
            assert_eq!(integrity.unwrap(), Integrity::Intact);
        }
    });
}

#[test]
fn the_monitor_hears_of_changes_and_only_of_them() {
    let namespace = Namespace::new().unwrap();
    let mut monitor = namespace.run(Monitor::open).unwrap();
    let mut guard = exclusive(&namespace);
    assert!(monitor.as_raw_fd() >= 0);
    guard.check(&sample::ruleset()).unwrap();
    assert!(!monitor.drain().unwrap(), "opening and looking are no news");
    guard.replace(&sample::ruleset()).unwrap();
    assert!(monitor.drain().unwrap());
    assert!(!monitor.drain().unwrap());
    // More news than there is room for.
    for _ in 0..200 {
        guard.replace(&sample::ruleset()).unwrap();
    }
    assert!(monitor.drain().unwrap());
    assert!(!monitor.drain().unwrap());
    script(&namespace, "table ip foreign { }");
    assert!(monitor.drain().unwrap());
}

#[test]
fn foreign_chains_before_ours_are_found() {
    let namespace = Namespace::new().unwrap();
    let mut guard = exclusive(&namespace);
    guard.replace(&sample::ruleset()).unwrap();
    script(
        &namespace,
        "table ip a { chain early { type filter hook prerouting priority -500; }
                      chain late { type filter hook prerouting priority -300; }
                      chain other { type filter hook input priority -500; }; }
         table ip6 b { chain early { type filter hook prerouting priority -460; }; }
         table inet c { chain first { type filter hook prerouting priority -600; }; }",
    );
    let found: Vec<_> = guard
        .base_chains_before(-450)
        .unwrap()
        .into_iter()
        .map(|it| (it.priority, it.family, it.table, it.name, it.kind))
        .collect();
    let expected = [
        (-600, "inet", "c", "first", "filter"),
        (-500, "ip", "a", "early", "filter"),
        (-460, "ip6", "b", "early", "filter"),
    ];
    let expected = expected.map(|it| (it.0, it.1, it.2.into(), it.3.into(), it.4.into()));
    assert_eq!(found, expected);
}

#[test]
fn an_update_of_a_table_that_is_gone_replaces_it() {
    let namespace = Namespace::new().unwrap();
    let (from, to) = (with_nodes([[10, 1, 1, 1]]), with_nodes([[10, 1, 1, 2]]));
    let mut guard = open(&namespace, Ownership::Never);
    assert_eq!(guard.update(&from, &to).unwrap(), Done::Replaced);
    assert_eq!(drifted(&mut guard, &to), Vec::<String>::new());
    let fewer = to.without("own").unwrap();
    assert_eq!(guard.update(&to, &fewer).unwrap(), Done::Replaced);
    assert_eq!(drifted(&mut guard, &fewer), Vec::<String>::new());
}

#[test]
fn ranges_are_updated_beside_their_neighbours() {
    let namespace = Namespace::new().unwrap();
    let mut guard = exclusive(&namespace);
    let lists: [&[&str]; 7] = [
        &["10.90.0.0/25", "10.90.0.128/25", "255.0.0.0/8"],
        &["10.90.0.128/25", "255.0.0.0/8"],
        &["10.90.0.0/24", "255.0.0.0/8"],
        &["0.0.0.0/0"],
        &[],
        &["0.0.0.0/1", "128.0.0.0/1"],
        &["10.90.0.0/25", "10.90.0.128/25", "10.90.1.0/24"],
    ];
    let with = |ranges: &[&str]| {
        let mut ruleset = sample::ruleset();
        let set = ruleset.sets.iter_mut().find(|it| it.name == "routers4");
        set.unwrap().elements = ranges.iter().map(|it| sample::range(it)).collect();
        ruleset
    };
    for from in lists {
        for to in lists {
            let (from, to) = (with(from), with(to));
            guard.replace(&from).unwrap();
            let done = guard.update(&from, &to).unwrap();
            assert_ne!(done, Done::Replaced, "{from:?} {to:?}");
            assert_eq!(drifted(&mut guard, &to), Vec::<String>::new());
        }
    }
}

#[test]
fn ten_thousand_hosts_are_a_matter_of_milliseconds() {
    let namespace = Namespace::new().unwrap();
    let host = |n: u32| (0x0a00_0000 + n).to_be_bytes();
    let (from, to) = (
        with_nodes((0..10_000).map(host)),
        with_nodes((0..10_001).map(host)),
    );
    let mut guard = exclusive(&namespace);
    let mut best = [Duration::MAX; 4];
    let mut time = |index: usize, action: &mut dyn FnMut()| {
        let began = Instant::now();
        action();
        best[index] = began.elapsed().min(best[index]);
    };
    for _ in 0..5 {
        time(0, &mut || guard.replace(&from).unwrap());
        time(1, &mut || {
            assert_ne!(guard.update(&from, &to).unwrap(), Done::Replaced)
        });
        time(2, &mut || {
            assert_eq!(guard.check(&to).unwrap(), Integrity::Intact)
        });
        time(3, &mut || {
            assert_eq!(guard.check(&to).unwrap(), Integrity::Intact)
        });
    }
    let [replace, update, look, glance] = best;
    println!(
        "10,000 hosts: replace {replace:?}, one more {update:?}, check {look:?}, \
         check without news {glance:?}"
    );
}
