//! The isolation matrix: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::isolation::cases;
use harness::isolation::guard::Mode;
use harness::isolation::guards::Guards;
use harness::isolation::matrix::{Matrix, Until};

#[test]
fn every_case_goes_as_it_should_whichever_planes_are_in_force() {
    let mut matrix = Matrix::new().unwrap();
    let cases = cases::all(&[8443]);
    let mut failed = 0;
    for mode in Mode::ALL {
        let began = std::time::Instant::now();
        let mut guards = Guards::install(&matrix.topology, mode, &[8443]).unwrap();
        eprintln!("{mode:?} installed in {:?}", began.elapsed());
        let outcome = matrix
            .pass(mode, &cases, Until::End, &mut || guards.counters())
            .unwrap();
        eprintln!(
            "{mode:?}: {} cases, {} packets, {:?}",
            outcome.cases, outcome.packets, outcome.took
        );
        for failure in outcome.failures.iter().take(12) {
            eprintln!("{}: {}", failure.case, failure.what);
        }
        failed += outcome.failures.len();
    }
    assert_eq!(failed, 0);
}

#[test]
fn debug() {
    let mut matrix = Matrix::new().unwrap();
    let mut cases = cases::all(&[8443]);
    let filter = std::env::var("F").unwrap_or_default();
    cases.retain(|it| it.name.contains(&filter));
    for mode in [Mode::Tcx, Mode::Both] {
        let mut guards = Guards::install(&matrix.topology, mode, &[8443]).unwrap();
        let outcome = matrix
            .pass(mode, &cases, Until::End, &mut || guards.counters())
            .unwrap();
        eprintln!("{mode:?}: {} cases", outcome.cases);
        for failure in outcome.failures.iter().take(20) {
            eprintln!("{}: {}", failure.case, failure.what);
        }
    }
}
