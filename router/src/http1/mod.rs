//! HTTP/1 without I/O: heads, bodies and the rules for passing them on.
//!
//! Pure functions over bytes. `httparse` finds the fields; what an edge has to refuse on top of
//! that (request smuggling, RFC 9112 section 11.2) is decided here, strictly: two parties that read
//! one message differently are the hole, so whatever can be read in two ways is not passed on.
//!
//! - [`scan`]: is it worth parsing yet;
//! - [`head`]: a request head, [`response`]: an upstream's head;
//! - [`body`]: where a body ends, and chunked coding in both directions;
//! - [`rewrite`]: what is passed on to the other side;
//! - [`refusal`]: why a request is refused, with status and a stable word for logs.

#![forbid(unsafe_code)]

pub mod body;
mod connection;
mod fields;
#[doc(hidden)]
pub mod fuzz;
pub mod head;
pub mod host;
mod names;
pub mod refusal;
pub mod response;
pub mod rewrite;
pub mod scan;
mod syntax;
pub mod trailers;

#[cfg(test)]
mod tests;

pub(crate) use names::is_forbidden_in_trailers;

pub use fields::{FieldSlots, MAX_FIELDS};
