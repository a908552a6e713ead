//! What an operator sees of the router: metrics, the access log, diagnostics.
//!
//! Nothing here takes a lock or wakes another thread per request: workers write to shards of their
//! own, and a thread apart formats what they hand over in batches.

pub mod access_log;
mod counters;
pub mod logging;
pub mod metrics;
pub(crate) mod timestamp;
