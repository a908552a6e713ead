//! The registry's HTTP API: what may be asked under `/v1`, and what is answered.

pub mod types;
