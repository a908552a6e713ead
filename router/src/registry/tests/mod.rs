//! The registry as a whole, in this process: API, embedded store and follower, without a listener.

mod announcing;
mod bounds;
mod failing;
mod holding;
mod lab;
mod stolen;
mod watching;
