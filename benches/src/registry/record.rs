//! What a run measured, as it goes into registry.json: nothing in here is computed.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::machine::Machine;
use crate::registry_lookup;

/// One run; what was not asked for is empty.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) machine: Machine,
    pub(crate) settings: Settings,
    pub(crate) etcd: String,
    pub(crate) delays: Vec<Delays>,
    pub(crate) storms: Vec<Storm>,
    pub(crate) memory: Vec<Memory>,
    pub(crate) replaced: Option<Replaced>,
    pub(crate) requests: Vec<Requests>,
    pub(crate) served: Vec<Served>,
    pub(crate) lookup: Option<registry_lookup::Record>,
}

/// How the run was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Settings {
    pub(crate) rounds: u32,
    pub(crate) quick: bool,
    /// The batch window of followers, in milliseconds.
    pub(crate) window_ms: u32,
    /// Core of clients, backend and, where a router is measured, etcd.
    pub(crate) rig_core: usize,
    /// Core of a router that is measured.
    pub(crate) router_core: usize,
}

/// Where routes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Etcd,
    Embedded,
}

/// How changes follow one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Series {
    /// Further apart than the batch window.
    Single,
    /// Fifty within one.
    Burst,
}

/// What a number of changes took, each from when it was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Delays {
    pub(crate) kind: Kind,
    pub(crate) routes: u32,
    pub(crate) series: Series,
    pub(crate) round: u32,
    /// Published meanwhile.
    pub(crate) snapshots: u32,
    /// Until the writer knew that it was done.
    pub(crate) returned: Micros,
    /// Until a bare watch was handed it.
    pub(crate) bare: Micros,
    /// Until the snapshot that workers read had it.
    pub(crate) snapshot: Micros,
}

/// Microseconds of one change each; on one line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Micros(pub(crate) Vec<u32>);

/// Many changes at once. Microseconds, from when the first was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Storm {
    pub(crate) kind: Kind,
    pub(crate) routes: u32,
    pub(crate) round: u32,
    pub(crate) changes: u32,
    /// Changes of one transaction.
    pub(crate) together: u32,
    /// Until the writer knew that all were done.
    pub(crate) committed: u32,
    /// Until the bare watch had the last one.
    pub(crate) heard: u32,
    /// Until the snapshot that workers read had all of them.
    pub(crate) published: u32,
    /// How many were published on the way.
    pub(crate) snapshots: u32,
}

/// How the routes of a measured router came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Shape {
    /// One record per route, with all its endpoints.
    Put,
    /// As registrars announce them: a record for each endpoint, and one per instance.
    Announced,
}

/// What a router takes that follows so many routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
    pub(crate) routes: u32,
    /// Proportional set size, in bytes.
    pub(crate) bytes: u64,
    /// From its start until all routes were in force.
    pub(crate) ready_ms: u32,
}

/// A router whose routes were replaced again and again, each time by others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Replaced {
    pub(crate) routes: u32,
    /// Proportional set size in bytes: at first, and after each replacement.
    pub(crate) bytes: Vec<u64>,
}

/// What is asked for in a window of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Load {
    /// One host, as in the row `h1` of router.json.
    H1,
    /// One host, as in its row `h2`.
    H2,
    /// Hosts drawn from all, over HTTP/1.1.
    Any,
}

/// A window of load on a router with so many routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Requests {
    pub(crate) load: Load,
    pub(crate) routes: u32,
    pub(crate) round: u32,
    pub(crate) requests: u32,
    /// CPU time of the router.
    pub(crate) cpu_ns: u64,
    pub(crate) wall_ns: u64,
}

/// What goes on while requests are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Scene {
    /// Nothing else.
    Quiet,
    /// A storm in the same etcd, under a prefix that the router does not follow.
    Elsewhere,
    /// The same storm among the router's routes.
    Followed,
}

/// Requests through a router, one every millisecond, during a scene.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Served {
    pub(crate) scene: Scene,
    pub(crate) routes: u32,
    pub(crate) changes: u32,
    pub(crate) round: u32,
    pub(crate) wall_ns: u64,
    /// CPU time of the router.
    pub(crate) cpu_ns: u64,
    pub(crate) snapshots: u32,
    /// From when each request was due until its answer was read.
    pub(crate) latency: Micros,
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = serde_json::to_string(&self.0).map_err(serde::ser::Error::custom)?;
        let line = RawValue::from_string(text).map_err(serde::ser::Error::custom)?;
        line.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_series_is_one_line_and_comes_back() {
        let micros = Micros(vec![812, 790]);
        let text = serde_json::to_string_pretty(&[&micros]).unwrap();
        assert_eq!(text, "[\n  [812,790]\n]");
        assert_eq!(
            serde_json::from_str::<Vec<Micros>>(&text).unwrap(),
            [micros]
        );
    }
}
