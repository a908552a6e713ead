//! From the host of a request to the upstream that owns it.
//!
//! Pure: no I/O, no clock. A [`RouteTable`] is immutable and shared by all workers; a reload builds
//! another one.

mod host;
mod table;
#[cfg(test)]
mod tests;

pub use host::{Host, InvalidHost};
pub use table::{DuplicateOwner, RouteTable, RouteTarget};
