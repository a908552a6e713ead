//! What a run measured, as it goes into nodeguard-cost.json: nothing in here is computed.

use serde::{Deserialize, Serialize};

use crate::cell::{Cell, Group};
use crate::change::Change;
use crate::contender::Contender;
use crate::idle::Idle;
use crate::machine::Machine;

/// One run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) rules: Vec<Rules>,
    pub(crate) windows: Vec<Window>,
    pub(crate) discarded: Vec<Discarded>,
    pub(crate) changes: Vec<Change>,
    pub(crate) idle: Vec<Idle>,
}

/// How the run was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    /// Undisturbed bursts of a window.
    pub(crate) bursts: u32,
    /// Frames of a burst.
    pub(crate) frames: u32,
    /// Frames that come at once.
    pub(crate) batch: u32,
    pub(crate) change_rounds: u32,
    /// Core of the daemons.
    pub(crate) rig_core: usize,
    /// Core of what is measured.
    pub(crate) measured_core: usize,
}

/// By which rules a contender enforced a group's policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rules {
    pub(crate) group: Group,
    pub(crate) contender: Contender,
    pub(crate) text: String,
}

/// One window that counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Window {
    pub(crate) cell: Cell,
    pub(crate) round: u32,
    pub(crate) contender: Contender,
    /// CPU time of each undisturbed burst, in nanoseconds.
    pub(crate) bursts: Vec<u64>,
    /// Bursts beside those that somebody disturbed.
    pub(crate) disturbed: u32,
}

/// A window that does not count: too many of its bursts were disturbed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Discarded {
    pub(crate) cell: Cell,
    pub(crate) round: u32,
    pub(crate) contender: Contender,
    pub(crate) undisturbed: usize,
    pub(crate) disturbed: u32,
}
