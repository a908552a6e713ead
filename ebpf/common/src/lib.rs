//! What the node guard's BPF programs and its daemon share: the parser of frames, the decision and
//! the layout of the maps.
//!
//! The same code runs in the kernel and on the host, so that the host can fuzz it, compare it with
//! the loaded programs, and explain a verdict. Everything here is pure: a frame and tables go in, an
//! action comes out.
//!
//! The iron rule: a drop only where nftables would drop as well. What is not understood is left to
//! nftables.

#![no_std]
#![forbid(unsafe_code)]

pub mod decide;
pub mod event;
pub mod packet;
pub mod table;
