//! The registry's HTTP API, `/v1`.

pub mod extract;
pub mod problem;
