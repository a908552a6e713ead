//! The mutation check of the isolation matrix: nothing in the ruleset is there for nothing. Needs
//! root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Instant;

use harness::isolation::case::Case;
use harness::isolation::cases;
use harness::isolation::guard::Mode;
use harness::isolation::guards::Guards;
use harness::isolation::matrix::{Failure, Matrix, Until};
use harness::isolation::results::write;
use nodeguard::ruleset::{Element, Ruleset};
use serde_json::json;

type Mutation<'a> = (String, Box<dyn Fn(&Ruleset) -> Option<Ruleset> + 'a>);

/// The guards of all nodes, nftables alone, and the cases that are to find what is wrong with them.
struct Check {
    matrix: Matrix,
    cases: Vec<Case>,
    guards: Guards,
    began: Instant,
}

impl Check {
    fn new() -> Self {
        let matrix = Matrix::new().unwrap();
        let guards = Guards::install(&matrix.topology, Mode::Nft, &[8443]).unwrap();
        let cases = cases::all(&[8443]);
        let began = Instant::now();
        let mut check = Self {
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
            let outcome = self.matrix.pass(Mode::Nft, cases, Until::Failure, counters);
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
            self.guards.mutate(mutation).unwrap();
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
    let check = Check::new();
    let names: BTreeSet<&'static str> = check
        .guards
        .rulesets()
        .flat_map(|ruleset| ruleset.rules().map(|(_, rule)| rule.name))
        .collect();
    let mutations: Vec<Mutation<'_>> = names
        .iter()
        .map(|name| -> Mutation<'_> {
            let without = move |ruleset: &Ruleset| ruleset.without(name);
            ((*name).to_owned(), Box::new(without))
        })
        .collect();
    check.run("nodeguard-rules", &mutations, &[]);
}

#[test]
fn without_any_one_condition_of_a_rule_a_case_of_the_matrix_fails() {
    let check = Check::new();
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
            (
                format!("{name}, condition {}", index + 1),
                Box::new(without),
            )
        })
        .collect();
    // `towards` asks for ports once more: there they spare everybody else's packets the way.
    let equivalent = [
        "isolated-port, condition 1",
        "forward-isolated-port, condition 1",
    ];
    check.run("nodeguard-conditions", &mutations, &equivalent);
}

#[test]
fn without_any_one_element_of_a_set_a_case_of_the_matrix_fails() {
    let check = Check::new();
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
            (format!("{name}, {element:?}"), Box::new(without))
        })
        .collect();
    check.run("nodeguard-elements", &mutations, &[]);
}
