<<<<<<< HEAD
//! The registry's HTTP API: what may be asked under `/v1`, and what is answered.

pub mod types;
=======
//! The registry's HTTP API, `/v1`.

pub mod extract;
pub mod problem;
>>>>>>> front
