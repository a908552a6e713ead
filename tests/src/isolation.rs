//! The isolation matrix: who reaches which port of a tenant's nodes, and what stops the others.
//!
//! [`topology`] is the clusters and everybody around them, [`cases`] the table of what must be open
//! and what must be dropped where, and [`matrix`] puts a case's packets on the wire and judges what
//! came of them, by what arrived and by what was counted, never by how long nothing happened.

pub mod case;
pub mod cases;
pub mod ears;
pub mod frames;
pub mod guard;
pub mod guards;
pub mod matrix;
pub mod place;
pub mod reference;
pub mod results;
pub mod senders;
pub mod services;
pub mod topology;
mod wire;
