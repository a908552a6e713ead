//! The isolation matrix: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::isolation::cases;
use harness::isolation::guard::{Counted, Mode};
use harness::isolation::matrix::{Matrix, Until};

#[test]
fn without_a_guard_everything_gets_through() {
    let began = std::time::Instant::now();
    let mut matrix = Matrix::new().unwrap();
    eprintln!("built in {:?}", began.elapsed());
    let cases = cases::all(&[8443]);
    let outcome = matrix
        .pass(Mode::Off, &cases, Until::End, &mut || Ok(Counted::new()))
        .unwrap();
    eprintln!("{} cases, {} packets, {:?}", outcome.cases, outcome.packets, outcome.took);
    for failure in outcome.failures.iter().take(60) {
        eprintln!("{}: {}", failure.case, failure.what);
    }
    assert!(outcome.failures.is_empty(), "{}", outcome.failures.len());
}
