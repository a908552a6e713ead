//! The authority: one table of nftables.
//!
//! [`crate::ruleset::Ruleset`] is what is meant. [`netlink`] says it to the kernel by way of
//! [`socket::Nft`], [`text`] and [`json`] say it to people and to the `nft` program, [`drift`]
//! compares it with what is there, and [`counts`] reads what it counted.

mod attributes;
mod channel;
pub mod counts;
pub mod drift;
mod elements;
mod error;
mod expressions;
pub mod fuzz;
pub mod json;
mod message;
mod monitor;
mod netlink;
mod picture;
mod reply;
pub mod sample;
mod seen;
pub mod socket;
pub mod text;
mod uapi;

pub use attributes::Malformed;
pub use error::NftError;
pub use monitor::Monitor;
pub use seen::Count;
pub use socket::{Done, Nft, Ownership};

#[cfg(test)]
mod tests;
