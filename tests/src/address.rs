//! Loopback addresses of one's own, so that tests in parallel need no free ports.
//!
//! All of `127.0.0.0/8` is local. A fixture claims one address and may then use any port on it;
//! outgoing connections of others take `127.0.0.1`, so they never sit on a port of ours.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

/// Port whose listener marks an address as taken.
const CLAIM_PORT: u16 = 61_999;

/// An address that nobody else uses until it is dropped.
#[derive(Debug)]
pub struct Claim {
    address: Ipv4Addr,
    _listener: TcpListener,
}

impl Claim {
    /// Takes the next free address.
    ///
    /// # Errors
    /// If no loopback address is free.
    pub fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        (0..10_000)
            .find_map(|_| {
                let count = NEXT.fetch_add(1, Ordering::Relaxed);
                let seed = std::process::id().wrapping_mul(7_919).wrapping_add(count);
                let [_, a, b, c] = seed.to_be_bytes();
                // 127.64.0.0 and above: far from what people use by hand.
                let address = Ipv4Addr::new(127, 64 | (a & 63), b, c);
                let listener = TcpListener::bind((address, CLAIM_PORT)).ok()?;
                Some(Self {
                    address,
                    _listener: listener,
                })
            })
            .context("no loopback address is free")
    }

    /// A socket address on it.
    #[must_use]
    pub fn port(&self, port: u16) -> SocketAddr {
        (self.address, port).into()
    }
}

/// A port of `[::1]` that was free a moment ago.
///
/// # Errors
/// If the machine has no IPv6 loopback.
pub fn free_v6() -> Result<SocketAddr> {
    let listener = TcpListener::bind(("::1", 0)).context("bind [::1]; is IPv6 off?")?;
    Ok(listener.local_addr()?)
}
