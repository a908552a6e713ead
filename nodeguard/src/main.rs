//! The `nodeguard` program; the command line is in `nodeguard::cli`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    nodeguard::cli::main()
}
