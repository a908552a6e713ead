//! Boots a real host for `harness::real_host`, which starts it: a program of its own, because what
//! it makes of itself cannot be undone and must not befall a test with its threads.

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::real_host::boot_host(&std::env::args().skip(1).collect::<Vec<_>>())
}
