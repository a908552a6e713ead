//! The HTTPS edge: only the HTTP/1 room is declared on this branch.
#![forbid(unsafe_code)]

pub mod http1;
