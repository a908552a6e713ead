//! Towards the tenants' clusters: endpoints, choosing one, pools of connections.

mod endpoint;

pub use endpoint::{Endpoint, Upstream, UpstreamTls};
