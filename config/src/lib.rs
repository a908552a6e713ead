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

pub mod document;
pub mod error;
pub mod net;
pub mod reader;
pub mod route;
pub mod router;

pub use error::{ConfigError, ConfigErrors};
