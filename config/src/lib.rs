//! The vocabulary that every Gatehouse program shares: roles, the port table, plans, routes, and
//! the type of every file that people or programs write.
//!
//! Parsing is pure: a text and the path it came from go in, a value or every error at once comes
//! out. No function here opens a file, so `router check` and the running router cannot differ.
//!
//! From the ground up: [`document`] (YAML with positions) -> [`reader`] (fields, declared once for
//! the parser and for the JSON Schema) -> one module per kind of file.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod announcement;
pub mod cluster;
pub mod document;
pub mod error;
pub mod guard;
pub mod net;
pub mod plans;
pub mod ports;
pub mod reader;
pub mod registrar;
pub mod roles;
pub mod route;
pub mod router;
pub mod schema;

use std::path::Path;

pub use error::{ConfigError, ConfigErrors};

/// Runs every parser over a text, for the fuzz target `config` and the property tests. Whatever
/// the text holds, this returns.
#[doc(hidden)]
pub fn fuzz_parse(text: &str) {
    let file = Path::new("fuzz.yaml");
    let report = |errors: ConfigErrors| {
        let _ = (errors.to_string(), errors.render(), errors.to_json());
    };
    let _ = router::RouterConfig::parse(text, file).map_err(report);
    let _ = guard::GuardConfig::parse(text, file).map_err(report);
    let _ = guard::PeerFile::parse(text, file).map_err(report);
    let _ = registrar::RegistrarConfig::parse(text, file).map_err(report);
    let _ = cluster::ClusterSpec::parse(text, file).map_err(report);
    match route::RouteFile::parse(text, file) {
        Ok(routes) => {
            let _ = route::owners([(file, &routes), (file, &routes)]).map_err(report);
        }
        Err(errors) => report(errors),
    }
    let _ = net::HostName::parse(text);
    let _ = net::IpRange::parse(text);
    let _ = net::parse_duration(text);
    let _ = net::parse_size(text);
    let _ = route::HostMatch::parse(text);
}
