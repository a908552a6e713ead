//! From the host of a request to the upstream that owns it.
//!
//! Pure: no I/O, no clock. A [`RouteTable`] that is published is never changed; a copy of it is,
//! which shares what stays as it was.

mod host;
mod shards;
mod table;
#[cfg(test)]
mod tests;

pub use host::{Host, InvalidHost};
pub use table::{DuplicateOwner, Origin, RouteTable, RouteTarget};
