//! TLS connections that rest after one request.

use anyhow::{Context, Result};

use crate::load::Target;
use crate::load::exchange::{Connection, Version, client};

/// Opens `count` connections one after the other, sends a request on each and keeps them.
pub(crate) fn open(count: u32, target: &Target) -> Result<Vec<Connection>> {
    let config = client(Version::Tls13, &target.authority)?;
    let open = |number| {
        Connection::exchange(target.https, &config).with_context(|| format!("connection {number}"))
    };
    (1..=count).map(open).collect()
}
