//! A socket that puts whole frames on a device.

use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, bind, send, socket};

/// A device that takes frames as they are.
#[derive(Debug)]
pub(super) struct Wire {
    socket: OwnedFd,
}

impl Wire {
    /// Opens a device of the namespace that this thread is in.
    ///
    /// # Errors
    /// If there is no such device, or without `CAP_NET_RAW`.
    pub(super) fn open(device: &str) -> Result<Self> {
        let address = getifaddrs()?
            .filter(|it| it.interface_name == device)
            .find_map(|it| it.address?.as_link_addr().copied())
            .with_context(|| format!("find the device {device}"))?;
        // Of no protocol: it only sends.
        let socket = socket(
            AddressFamily::Packet,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        bind(socket.as_raw_fd(), &address)?;
        Ok(Self { socket })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// If the device is down or its queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> Result<()> {
        send(self.socket.as_raw_fd(), frame, MsgFlags::empty())?;
        Ok(())
    }
}
