//! Requests for another host each time. h2load asks one host for everything.

use std::time::Instant;

use anyhow::Result;

use super::exchange::{Connection, Version, client};
use super::{Done, Target};
use crate::backend::SMALL;

/// As many as h2load has in the row `h1`.
const CONNECTIONS: usize = 32;

/// Sends at least `requests` requests, each for the host that `host` names: one on each connection,
/// then all answers are read, and so on. It is the client that waits then, so a router finds several
/// requests at a time, as with h2load.
pub(crate) fn run(
    target: &Target,
    requests: u32,
    mut host: impl FnMut() -> String,
) -> Result<Done> {
    let config = client(Version::Tls13, &target.authority)?;
    let connections = (0..CONNECTIONS).map(|_| Connection::exchange(target.https, &config));
    let mut connections = connections.collect::<Result<Vec<_>>>()?;
    let begun = Instant::now();
    let mut done = 0;
    while done < requests {
        for connection in &mut connections {
            connection.send(&host(), SMALL)?;
        }
        for connection in &mut connections {
            connection.small()?;
        }
        done += CONNECTIONS as u32;
    }
    let wall = begun.elapsed();
    connections.into_iter().for_each(Connection::close);
    Ok(Done {
        requests: done,
        wall,
    })
}
