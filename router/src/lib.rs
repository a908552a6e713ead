//! The HTTPS edge of many tenant clusters.
//!
//! One request's way, from the top: `listen` accepts, `tls` ends TLS, `forward` reads the request
//! (`http1`), decides by host (`route`), takes a connection (`upstream`) and carries the answer
//! back. `control` builds the snapshots all of that looks at; see ARCHITECTURE.md.

#![forbid(unsafe_code)]

pub mod admin;
pub mod announce;
pub mod cli;
pub mod control;
pub mod explain;
pub(crate) mod forward;
pub mod http1;
pub(crate) mod listen;
pub mod observe;
pub mod registry;
pub mod route;
pub mod snapshot;
pub mod tls;
pub mod upstream;
pub mod worker;
