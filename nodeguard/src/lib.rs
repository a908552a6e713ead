//! The node guard: the isolated ports of a node answer to the cluster's own nodes and to the
//! routers, and to nobody else.

#![deny(unsafe_code)]

pub mod bpf;
pub mod compile;
pub mod devices;
pub mod nft;
pub mod policy;
pub mod ruleset;
pub mod safeguard;
pub mod state;
pub mod verdict;
