//! What a run measured, as it goes into registry.json: nothing in here is computed.

use serde::{Deserialize, Serialize};

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) settings: Settings,
    pub(crate) memory: Vec<Memory>,
    pub(crate) measured: Vec<Measured>,
}

/// How the run was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) sizes: Vec<u32>,
    /// The core that everything ran on.
    pub(crate) core: usize,
}

/// What a process takes without routes and with some.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) routes: u32,
    /// Proportional set size without routes, in bytes.
    pub(crate) before: u64,
    /// The same with them.
    pub(crate) after: u64,
}

/// One size in one round. Nanoseconds of CPU time each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) round: u32,
    pub(crate) routes: u32,
    /// A lookup of one of ten hosts that are in every table, over and over.
    pub(crate) same_hosts: f64,
    /// A lookup of a host drawn from all.
    pub(crate) any_host: f64,
    /// The same in a plain hash map from name to target.
    pub(crate) any_host_plain_map: f64,
    /// A rule taken out of a copy of the table and put in again, and the copy dropped.
    pub(crate) edit: f64,
    /// A route with another endpoint, through the control plane, until it is published.
    pub(crate) change: f64,
}
