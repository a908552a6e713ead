//! What a run measured, as it goes into router.json: nothing in here is computed.

use serde::{Deserialize, Serialize};

use crate::contender::Contender;
use crate::load::exchange::Choice;
use crate::machine::Machine;
use crate::row::Row;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) contenders: Vec<Participant>,
    pub(crate) windows: Vec<Window>,
    pub(crate) discarded: Vec<Discarded>,
}

/// How the run was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) seconds: f64,
    pub(crate) idle_connections: u32,
    /// Core of client and backend.
    pub(crate) rig_core: usize,
    /// Core of the contenders.
    pub(crate) contender_core: usize,
}

/// A contender and how it was set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Participant {
    pub(crate) contender: Contender,
    pub(crate) version: String,
    pub(crate) configuration: String,
    /// Forwarding fields as they reached the backend, `Name: value`.
    pub(crate) forwarded: Vec<String>,
    /// What it chose when a client offered TLS 1.3, and TLS 1.2.
    pub(crate) tls: Vec<Choice>,
}

/// One window without a failed request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) row: Row,
    pub(crate) round: u32,
    pub(crate) contender: Contender,
    /// Requests, or connections in the row `idle`.
    pub(crate) count: u32,
    /// Nanoseconds of CPU time, or bytes in the row `idle`.
    pub(crate) used: u64,
    /// How long the load took.
    pub(crate) wall_ns: u64,
}

/// A window that does not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Discarded {
    pub(crate) row: Row,
    pub(crate) round: u32,
    pub(crate) contender: Contender,
    pub(crate) reason: String,
}

impl Window {
    /// Nanoseconds per request, or bytes per connection.
    pub(crate) fn cost(&self) -> f64 {
        self.used as f64 / f64::from(self.count)
    }
}
