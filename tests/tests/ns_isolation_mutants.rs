//! The mutation check of the isolation matrix: no rule is there for nothing. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fmt::Write;
use std::time::Instant;

use harness::isolation::case::Case;
use harness::isolation::cases;
use harness::isolation::guard::Mode;
use harness::isolation::guards::Guards;
use harness::isolation::matrix::{Failure, Matrix, Until};
use harness::isolation::results::write;
use serde_json::json;

/// The first case that notices that the guards are not what they were. Each finding is looked at
/// again by itself, so that no late packet of an earlier mutant convicts this one.
fn first_failure(matrix: &mut Matrix, guards: &mut Guards, cases: &[Case]) -> Option<Failure> {
    let mut pass = |cases: &[Case]| {
        let outcome = matrix.pass(Mode::Nft, cases, Until::Failure, &mut || guards.counters());
        outcome.unwrap().failures
    };
    for failure in pass(cases) {
        let named = |case: &&Case| failure.cases.contains(&case.name);
        let suspects: Vec<Case> = cases.iter().filter(named).cloned().collect();
        if !suspects.is_empty() && !pass(&suspects).is_empty() {
            return Some(failure);
        }
    }
    None
}

#[test]
fn without_any_one_rule_a_case_of_the_matrix_fails() {
    let began = Instant::now();
    let mut matrix = Matrix::new().unwrap();
    let cases = cases::all(&[8443]);
    let mut guards = Guards::install(&matrix.topology, Mode::Nft, &[8443]).unwrap();
    let rules = guards.rules();
    let whole = first_failure(&mut matrix, &mut guards, &cases);
    assert!(whole.is_none(), "with all rules: {}", whole.unwrap());
    let mut table = String::from("| without the rule | fails first |\n|---|---|\n");
    let mut found = serde_json::Map::new();
    let mut survivors = Vec::new();
    for rule in &rules {
        guards.remove_rule(rule).unwrap();
        let failure = first_failure(&mut matrix, &mut guards, &cases);
        guards.restore().unwrap();
        let text = match failure {
            Some(failure) => failure.to_string(),
            None => {
                survivors.push(*rule);
                "nothing".to_owned()
            }
        };
        writeln!(table, "| {rule} | {text} |").unwrap();
        found.insert((*rule).to_owned(), json!(text));
    }
    println!("{table}\n{} rules in {:.1?}", rules.len(), began.elapsed());
    write("nodeguard-mutants", &json!(found), &table).unwrap();
    assert!(survivors.is_empty(), "nobody misses {survivors:?}");
}
