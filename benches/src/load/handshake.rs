//! A connection and a full handshake per request.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::load::exchange::{Connection, Version, client};
use crate::load::{Done, Target};

/// Connections at a time.
const AT_A_TIME: u32 = 16;

/// Makes `requests` connections, each with a handshake of its own and one request.
pub(crate) fn run(version: Version, requests: u32, target: &Target) -> Result<Done> {
    let config = client(version, &target.authority)?;
    let taken = AtomicU32::new(0);
    let start = Instant::now();
    let work = || -> Result<u32> {
        let mut done = 0;
        while taken.fetch_add(1, Ordering::Relaxed) < requests {
            let connection = Connection::exchange(target.https, &config)?;
            connection.check()?;
            connection.close();
            done += 1;
        }
        Ok(done)
    };
    let done = thread::scope(|scope| {
        let threads: Vec<_> = (0..AT_A_TIME).map(|_| scope.spawn(work)).collect();
        let done = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic in a client"));
        done.sum::<Result<u32>>()
    })
    .with_context(|| format!("handshakes with {}", target.https))?;
    ensure!(done == requests, "{done} of {requests} handshakes");
    Ok(Done {
        requests,
        wall: start.elapsed(),
    })
}
