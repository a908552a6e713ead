//! The node guard: the isolated ports of a node answer to the cluster's own nodes and to the
//! routers, and to nobody else.

#![deny(unsafe_code)]

pub mod bpf;
pub mod cli;
pub mod compile;
pub mod control;
pub mod devices;
pub mod drops;
pub mod explain;
pub mod guard;
pub mod load;
pub mod lock;
pub mod metrics;
pub mod nft;
pub mod policy;
pub mod ruleset;
pub mod safeguard;
pub mod service;
pub mod state;
pub mod status;
pub mod verdict;

/// Folder of the last good policy, unless `nodeguard.yaml` says otherwise.
pub const STATE: &str = "/var/lib/nodeguard";
/// Folder of the control socket and the BPF pins, unless `nodeguard.yaml` says otherwise.
pub const RUNTIME: &str = "/run/nodeguard";
