//! The registry as a whole, in this process: API, embedded store and follower, without a listener.

mod announcing;
mod bounds;
mod credentials;
mod failing;
mod holding;
mod lab;
mod large;
mod leases;
mod reading;
mod stolen;
mod watching;
mod zones;
