//! The request path: a client's request in, an endpoint's answer out.
//!
//! `h1` and `h2` are the mouths; `request` decides; `exchange` and `stream` carry one request and
//! its answer over HTTP/1.1, `upgrade` what follows a switch of protocols.

mod attempts;
mod client;
mod coalesce;
mod exchange;
mod flow;
pub(crate) mod h1;
pub(crate) mod h2;
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
pub(crate) use respond::Answer;
