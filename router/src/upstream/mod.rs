//! Towards the tenants' clusters: endpoints, choosing one, pools of connections.

mod balance;
mod connect;
mod endpoint;
pub mod health;
mod http2;
pub(crate) mod named;
mod pool;
mod presence;
mod stream;

pub use endpoint::{Endpoint, Retired, Upstream, UpstreamTls};
pub(crate) use http2::{OutBody, OutFrame};
pub(crate) use pool::{Active, Lease, NoEndpoint, Pools, Tried};
pub(crate) use presence::{is_gone, patience};
pub(crate) use stream::Stream;
