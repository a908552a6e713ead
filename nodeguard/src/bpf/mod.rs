//! The fast plane: eBPF drops early what nftables would drop.
//!
//! nftables is the authority. These programs judge the same packets before the kernel has made much
//! of them, and pass on whatever they do not understand. They live beside programs of others and
//! never detach one.
//!
//! A caller goes in this order, so that no packet is dropped here that nftables would let through:
//!
//! 1. [`Plane::load`]
//! 2. for every policy: [`Plane::loosen`], the transaction of nftables, [`Plane::tighten`]
//! 3. [`Plane::attach`] after the first policy, and whenever devices come or go
//! 4. [`Plane::check`] every second; what it reports is mended by [`Plane::attach`]
//!
//! Everything that enforces is pinned: the end of the process changes nothing. [`teardown`] does.

mod attach;
mod bpffs;
mod counters;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod image;
#[allow(
    unsafe_code,
    reason = "bpf(2) has no safe wrapper for links; each call is a struct of numbers"
)]
mod kernel;
mod maps;
mod plane;
mod policy;
mod tables;

pub use attach::{Attachment, Detached, Device, Mode, Refusal, State};
pub use counters::{Counters, Drops};
pub use error::BpfError;
pub use image::Changes;
pub use plane::{OBJECT_SHA256, Plane, ProgramSize, teardown};
pub use policy::unparsed;
pub use tables::{Classes, Flags, Port, Tables, protocol};
