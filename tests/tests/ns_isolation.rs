//! The isolation matrix: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::isolation::case::{Case, Group};
use harness::isolation::cases;
use harness::isolation::guard::Mode;
use harness::isolation::guards::Guards;
use harness::isolation::matrix::{Matrix, Until};
use harness::isolation::place::Place;
use harness::isolation::reference::{Reference, is_direct};
use harness::isolation::results::Results;
use harness::isolation::topology::Topology;
use harness::results::write;

/// Runs cases in modes; gives what was found, and fails if it is not what it should be.
fn run(modes: &[Mode], pod_ports: &[u16], cases: &[Case]) -> Results {
    let mut results = Results::default();
    for &mode in modes {
        // New hosts each time: where a spoofed SYN got through, its answer is repeated for a
        // minute, and somebody answers that.
        let mut matrix = Matrix::new().unwrap();
        let mut guards = Guards::install(&matrix.topology, mode, pod_ports).unwrap();
        let outcome = matrix
            .pass(mode, cases, Until::End, &mut || guards.counters())
            .unwrap();
        results.add(mode, outcome);
    }
    eprintln!("{}", results.table());
    let failures = results.failures();
    let shown = failures.iter().take(50).cloned().collect::<Vec<_>>();
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        shown.join("\n")
    );
    results
}

/// Without a guard everything gets through, so that what is dropped is dropped by the guard; and
/// each plane, alone and with the other, drops and counts what it can know of.
#[test]
fn every_case_goes_as_it_should_whichever_planes_are_in_force() {
    let cases = cases::all(&[8443]);
    let results = run(&Mode::ALL, &[8443], &cases);
    write("nodeguard-matrix", &results.json(), &results.table()).unwrap();
}

#[test]
fn pods_reach_the_ports_that_they_may_reach_and_no_others() {
    let pod_ports = [10250];
    let mut cases = cases::all(&pod_ports);
    cases.retain(|case| {
        case.from
            .home()
            .is_some_and(|home| Place::ACME.contains(&home))
    });
    let is_open_kubelet = |case: &&Case| case.to.1 == 10250 && case.group == Group::Pods;
    assert!(cases.iter().filter(is_open_kubelet).count() > 0);
    run(&[Mode::Nft, Mode::Both], &pod_ports, &cases);
}

#[test]
fn explain_agrees_with_every_case_that_no_service_translates() {
    let topology = Topology::new().unwrap();
    for pod_ports in [[8443], [10250]] {
        let reference = Reference::new(&topology, &pod_ports).unwrap();
        let cases = cases::all(&pod_ports);
        let direct: Vec<&Case> = cases.iter().filter(|case| is_direct(case)).collect();
        assert!(direct.len() > 2500, "{}", direct.len());
        let disagreements: Vec<String> = direct
            .iter()
            .filter_map(|case| reference.disagreement(case))
            .collect();
        assert!(
            disagreements.is_empty(),
            "{} of {}:\n{}",
            disagreements.len(),
            direct.len(),
            disagreements[..disagreements.len().min(40)].join("\n")
        );
    }
}
