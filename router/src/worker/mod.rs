//! One core: its runtime, its listeners, its shard of everything. Workers share the snapshot and
//! nothing else, so a request takes no lock and wakes no other thread.

mod buffers;
mod context;
mod drain;
mod start;
pub(crate) mod timers;
mod vital;

pub(crate) use context::Worker;
pub use drain::Drain;
pub(crate) use drain::Order;
pub use start::{Workers, start};
pub use vital::{Ends, Part, Vital, vital};
