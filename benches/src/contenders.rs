//! How each contender is configured.

pub(crate) mod haproxy;
pub(crate) mod nginx;
pub(crate) mod pingora;
pub(crate) mod router;
