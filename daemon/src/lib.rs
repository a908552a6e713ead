//! What every long-running program of the house does the same way.
//!
//! Programs use this crate and it knows none of them: what differs between them is handed in.

#![forbid(unsafe_code)]

pub mod error;
pub mod files;
pub mod logging;
pub mod notify;
pub mod output;
pub mod page;
pub mod prometheus;
pub mod watch;
