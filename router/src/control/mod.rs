//! The control plane: from files to a published snapshot, now and after each change.
//!
//! [`load`] reads, [`build`] turns what was read into a snapshot, [`Control`] publishes it and keeps
//! what a later load is compared with, [`watch`] notices changes. Nothing here is on the request
//! path, and a bad file changes nothing.

pub mod build;
mod change;
mod intern;
pub mod listing;
pub mod load;
mod publish;
#[cfg(test)]
pub(crate) mod tests;
pub mod watch;

pub use publish::{Control, Outcome, ReloadReport, Status};
