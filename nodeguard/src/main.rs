//! The `nodeguard` program.
fn main() {}
