//! The mutation check of the isolation matrix: nothing in the ruleset is there for nothing. Needs
//! root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::net::IpAddr;
use std::time::Instant;

use harness::isolation::case::Case;
use harness::isolation::cases;
use harness::isolation::guard::Mode;
use harness::isolation::guards::Guards;
use harness::isolation::matrix::{Failure, Matrix, Until};
use harness::isolation::place::Place;
use harness::results::write;
use nodeguard::bpf::Tables;
use nodeguard::ruleset::{Element, Ruleset};
use serde_json::json;

/// What is missing, and how it is made to.
type Mutation<'a> = (String, Box<dyn Fn(&mut Guards) + 'a>);

/// The guards of all nodes, of one plane, and the cases that are to find what is wrong with them.
struct Check {
    mode: Mode,
    matrix: Matrix,
    cases: Vec<Case>,
    guards: Guards,
    began: Instant,
}

impl Check {
    fn new(mode: Mode) -> Self {
        let matrix = Matrix::new().unwrap();
        let guards = Guards::install(&matrix.topology, mode, &[8443]).unwrap();
        let cases = cases::all(&[8443]);
        let began = Instant::now();
        let mut check = Self {
            mode,
            matrix,
            cases,
            guards,
            began,
        };
        let whole = check.first_failure();
        assert!(whole.is_none(), "without any mutation: {}", whole.unwrap());
        check
    }

    /// The first case that notices. Each finding is looked at again by itself, so that no late
    /// packet of an earlier mutant convicts this one.
    fn first_failure(&mut self) -> Option<Failure> {
        let mut pass = |cases: &[Case]| {
            let counters = &mut || self.guards.counters();
            let outcome = self.matrix.pass(self.mode, cases, Until::Failure, counters);
            outcome.unwrap().failures
        };
        for failure in pass(&self.cases) {
            let named = |case: &&Case| failure.cases.contains(&case.name);
            let suspects: Vec<Case> = self.cases.iter().filter(named).cloned().collect();
            if !suspects.is_empty() && !pass(&suspects).is_empty() {
                return Some(failure);
            }
        }
        None
    }

    /// Fails if nobody notices a mutation, or if somebody notices one that should make no
    /// difference.
    fn run(mut self, name: &str, mutations: &[Mutation<'_>], equivalent: &[&str]) {
        let mut table = String::from("| without | fails first |\n|---|---|\n");
        let mut found = serde_json::Map::new();
        let mut wrong = Vec::new();
        for (what, mutation) in mutations {
            mutation(&mut self.guards);
            let failure = self.first_failure();
            let is_equivalent = equivalent.contains(&what.as_str());
            let text = failure.map(|failure| failure.to_string());
            if text.is_some() == is_equivalent {
                wrong.push(format!("{what}: {text:?}"));
            }
            let text = text.unwrap_or_else(|| "nothing".to_owned());
            writeln!(table, "| {what} | {text} |").unwrap();
            found.insert(what.clone(), json!(text));
        }
        eprintln!(
            "{table}\n{} in {:.1?}",
            mutations.len(),
            self.began.elapsed()
        );
        write(name, &json!(found), &table).unwrap();
        assert!(!mutations.is_empty());
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn without_any_one_rule_a_case_of_the_matrix_fails() {
    let check = Check::new(Mode::Nft);
    let names: BTreeSet<&'static str> = check
        .guards
        .rulesets()
        .flat_map(|ruleset| ruleset.rules().map(|(_, rule)| rule.name))
        .collect();
    let mutations: Vec<Mutation<'_>> = names
        .iter()
        .map(|name| -> Mutation<'_> {
            let without = |ruleset: &Ruleset| ruleset.without(name);
            let mutate = move |guards: &mut Guards| guards.mutate(&without).unwrap();
            ((*name).to_owned(), Box::new(mutate))
        })
        .collect();
    check.run("nodeguard-rules", &mutations, &[]);
}

#[test]
fn without_any_one_condition_of_a_rule_a_case_of_the_matrix_fails() {
    let check = Check::new(Mode::Nft);
    let mut conditions = BTreeSet::new();
    for ruleset in check.guards.rulesets() {
        for (_, rule) in ruleset.rules() {
            conditions.extend((0..rule.matches.len()).map(|index| (rule.name, index)));
        }
    }
    let mutations: Vec<Mutation<'_>> = conditions
        .iter()
        .map(|(name, index)| -> Mutation<'_> {
            let without = move |ruleset: &Ruleset| {
                let mut mutant = ruleset.clone();
                let rules = mutant.chains.iter_mut().flat_map(|chain| &mut chain.rules);
                for rule in rules.filter(|rule| rule.name == *name) {
                    rule.matches.remove(*index);
                }
                Some(mutant)
            };
            let mutate = move |guards: &mut Guards| guards.mutate(&without).unwrap();
            (format!("{name}, condition {}", index + 1), Box::new(mutate))
        })
        .collect();
    // Later chains ask for ports once more: these spare everybody else's packets the way.
    let equivalent = [
        "isolated-port, condition 1",
        "forward-isolated-port, condition 1",
        "input-isolated-port, condition 1",
    ];
    check.run("nodeguard-conditions", &mutations, &equivalent);
}

#[test]
fn without_any_one_element_of_a_set_a_case_of_the_matrix_fails() {
    let check = Check::new(Mode::Nft);
    let mut elements: BTreeSet<(&'static str, Element)> = BTreeSet::new();
    for ruleset in check.guards.rulesets() {
        for set in ruleset.sets.iter().filter(|set| !set.counted) {
            elements.extend(set.elements.iter().map(|it| (set.name, it.clone())));
        }
    }
    let mutations: Vec<Mutation<'_>> = elements
        .iter()
        .map(|(name, element)| -> Mutation<'_> {
            let without = move |ruleset: &Ruleset| {
                let mut mutant = ruleset.clone();
                for set in mutant.sets.iter_mut().filter(|set| set.name == *name) {
                    set.elements.retain(|it| it != element);
                }
                Some(mutant)
            };
            let mutate = move |guards: &mut Guards| guards.mutate(&without).unwrap();
            (format!("{name}, {element:?}"), Box::new(mutate))
        })
        .collect();
    check.run("nodeguard-elements", &mutations, &[]);
}

/// Of BPF the tables are what a policy can get wrong: here what they hold of it, not what they hold
/// of the node's other addresses.
#[test]
fn without_any_one_entry_of_bpfs_tables_a_case_of_the_matrix_fails() {
    let check = Check::new(Mode::Tcx);
    let mut ports = BTreeSet::new();
    let mut ranges = BTreeSet::new();
    for tables in check.guards.tables() {
        ports.extend(tables.ports.keys().copied());
        ranges.extend(tables.ranges.keys().copied());
    }
    let mut mutations: Vec<Mutation<'_>> = Vec::new();
    let mut add = |what: String, remove: Box<dyn Fn(&mut Tables)>| {
        let mutate = move |guards: &mut Guards| {
            let without = |tables: &Tables| {
                let mut mutant = tables.clone();
                remove(&mut mutant);
                mutant
            };
            guards.mutate_tables(&without).unwrap();
        };
        mutations.push((what, Box::new(mutate)));
    };
    for port in ports {
        let remove = move |tables: &mut Tables| {
            let _ = tables.ports.remove(&port);
        };
        add(format!("port {port:?}"), Box::new(remove));
    }
    for range in ranges {
        let remove = move |tables: &mut Tables| {
            let _ = tables.ranges.remove(&range);
        };
        add(format!("range {range}"), Box::new(remove));
    }
    for place in Place::GUARDED.into_iter().chain([Place::Edge]) {
        for address in [IpAddr::from(place.v4()), place.v6().into()] {
            let remove = move |tables: &mut Tables| {
                let _ = tables.hosts.remove(&address);
            };
            add(format!("source {address}"), Box::new(remove));
            if place != Place::Edge {
                let remove = move |tables: &mut Tables| {
                    let _ = tables.destinations.remove(&address);
                };
                add(format!("destination {address}"), Box::new(remove));
            }
        }
    }
    check.run("nodeguard-tables", &mutations, &[]);
}
