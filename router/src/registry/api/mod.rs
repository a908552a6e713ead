//! The registry's HTTP API: what may be asked under `/v1`, and what is answered.

pub mod extract;
pub mod problem;
pub mod types;
