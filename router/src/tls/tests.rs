//! Handshakes with real clients over pipes in memory, grouped by subject.

mod certificates;
mod clients;
mod handshake;
mod pairs;
mod reload;
mod resumption;
mod tickets;
mod upstream;
