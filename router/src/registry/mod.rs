//! The route registry: routes that announce themselves, kept outside of the routers.
//!
//! ```text
//! registrars, operators --HTTPS--> api (auth, claims) --transactions--> store
//!                                                                        |
//!                          control (snapshot) <--changes-- follow <--watch
//! ```
//!
//! Every router follows the store; those that listen serve the API as well. Nothing here is on the
//! request path.

pub mod ahead;
pub mod api;
pub mod auth;
pub mod change;
pub mod check;
pub mod claims;
pub mod client;
pub mod follow;
mod hex;
pub(crate) mod jitter;
pub mod keys;
pub mod memory;
pub mod origin;
pub mod record;
pub mod route;
pub mod server;
pub mod shared;
pub mod start;
pub mod store;
pub mod tickets;
pub mod turns;
mod upkeep;
pub mod view;

#[cfg(test)]
mod tests;
