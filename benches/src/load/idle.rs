//! TLS connections that rest after one request.

use std::thread;

use anyhow::{Context, Result, ensure};

use crate::load::Target;
use crate::load::exchange::{Connection, Version, client};

/// Connections that are being opened at a time.
const AT_A_TIME: u32 = 4;

/// Opens `count` connections, sends a request on each and keeps them.
pub(crate) fn open(count: u32, target: &Target) -> Result<Vec<Connection>> {
    let config = client(Version::Tls13, &target.authority)?;
    let open = |number| {
        Connection::exchange(target.https, &config).with_context(|| format!("connection {number}"))
    };
    let share = |thread: u32| {
        (thread..count)
            .step_by(AT_A_TIME as usize)
            .map(open)
            .collect()
    };
    thread::scope(|scope| {
        let threads = (0..AT_A_TIME).map(|thread| scope.spawn(move || share(thread)));
        let threads: Vec<_> = threads.collect();
        let shares = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic in a client"));
        let shares: Result<Vec<Vec<Connection>>> = shares.collect();
        Ok(shares?.into_iter().flatten().collect())
    })
}

/// That none of them was closed meanwhile.
pub(crate) fn check(connections: &[Connection]) -> Result<()> {
    let mut resting = 0;
    for connection in connections {
        resting += usize::from(connection.rests()?);
    }
    let count = connections.len();
    ensure!(
        resting == count,
        "{resting} of {count} connections are still open"
    );
    Ok(())
}
