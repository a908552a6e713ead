//! The control plane: from files and the registry to a published snapshot, now and after each
//! change.
//!
//! [`load`] reads, [`build`] brings what was read into the table of routes, [`registry`] does the
//! same with the registry's changes, [`Control`] publishes and keeps what a later change is compared
//! with, [`watch`] notices changes of files. Nothing here is on the request path, and a bad file
//! changes nothing.

pub mod build;
mod change;
mod files;
mod intern;
pub mod listing;
pub mod load;
mod log;
mod publish;
mod registry;
mod superseded;
#[cfg(test)]
pub(crate) mod tests;
pub mod watch;

pub use files::{FileConflict, FileRule};
pub use publish::{Control, Outcome, RegistryStatus, ReloadReport, Status};
pub use registry::{LeftOut, LeftOutReason, RegistryUpdate, UnusableEndpoint};
pub use superseded::drop_superseded;
