//! The registrar: announces an instance's routes to the registries while they are healthy.
//!
//! ```text
//! check (TCP, HTTP, script) --results--> state --calls--> registry::client --HTTPS--> a registry
//!                                          ^                    |
//!                                          +------outcome-------+
//! ```
//!
//! `state` decides, with `health` and `schedule`; `daemon` ties the rest to it.

pub mod check;
pub mod daemon;
pub mod health;
pub mod load;
pub mod once;
pub mod outcome;
pub mod page;
pub mod registries;
pub mod schedule;
pub mod state;
pub mod tell;
#[cfg(test)]
mod tests;
pub mod trial;
