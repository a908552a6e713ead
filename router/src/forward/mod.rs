//! The request path: a client's request in, an endpoint's answer out.
//!
//! `h1` and `h2` are the mouths, `stream` is one stream of the latter; `request` decides. Then four
//! files carry a request and its answer, one for each pair of versions (`h1_to_h1` to `h2_to_h2`:
//! client first), and `upgrade` what follows a switch of protocols.

mod attempts;
mod client;
mod coalesce;
mod deadline;
mod failure;
mod flow;
pub(crate) mod h1;
mod h1_to_h1;
mod h1_to_h2;
pub(crate) mod h2;
mod h2_request;
mod h2_to_h1;
mod h2_to_h2;
mod http2_upstream;
mod log;
mod request;
mod respond;
mod stream;
mod upgrade;

pub(crate) use client::Client;
pub(crate) use flow::{MOST_BYTES, READ_BYTES};
pub(crate) use h1::{allowed_upgrade, request_line};
pub(crate) use request::decide;
pub(crate) use respond::{Answer, LINGER, LINGER_BYTES};
