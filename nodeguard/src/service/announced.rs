//! What the kernel announces, as something that can be waited for.

use std::io;

use tokio::io::unix::AsyncFd;

use crate::{devices, nft};

/// Changes to nftables.
pub(super) fn ruleset() -> anyhow::Result<AsyncFd<nft::Monitor>> {
    let monitor = nft::Monitor::open()?;
    // SAFETY: the monitor owns its socket, closes it when it is dropped and never exchanges it.
    let registered = unsafe { AsyncFd::register(monitor) };
    Ok(registered.map_err(io::Error::from)?)
}

/// Devices and addresses that came or went.
pub(super) fn devices() -> anyhow::Result<AsyncFd<devices::Monitor>> {
    let monitor = devices::Monitor::open()?;
    // SAFETY: the monitor owns its socket, closes it when it is dropped and never exchanges it.
    let registered = unsafe { AsyncFd::register(monitor) };
    Ok(registered.map_err(io::Error::from)?)
}
