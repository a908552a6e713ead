//! The HTTPS edge of many tenant clusters.

#![forbid(unsafe_code)]

pub mod route;
pub mod tls;
pub mod upstream;
