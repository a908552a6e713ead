//! Sockets that clients connect to.

mod https;
mod listener;
mod redirect;

pub(crate) use https::serve as serve_https;
pub(crate) use listener::{bind, serve};
pub(crate) use redirect::serve as serve_redirect;
