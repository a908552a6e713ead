//! News of changes to nftables, whoever makes them.

use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::NftError;
use super::uapi::GROUP;

/// A socket that becomes readable when the ruleset has changed (`NFNLGRP_NFTABLES`). It does not
/// block, and so suits an `AsyncFd`. Our own transactions are news, too.
#[derive(Debug)]
pub struct Monitor {
    socket: Socket,
}

impl Monitor {
    /// Subscribes.
    ///
    /// # Errors
    /// If the machine gives us no such socket.
    pub fn open() -> Result<Self, NftError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NftError::Socket)?;
        socket
            .bind(&SocketAddr::new(0, 0))
            .and_then(|()| socket.add_membership(GROUP))
            .and_then(|()| socket.set_non_blocking(true))
            .map_err(NftError::Socket)?;
        Ok(Self { socket })
    }

    /// Reads all news and forgets them; whether there were any. News that were lost because there
    /// were too many (`ENOBUFS`) are news.
    ///
    /// # Errors
    /// If the socket fails otherwise.
    pub fn drain(&mut self) -> Result<bool, NftError> {
        let mut news = false;
        // What they say does not matter, so they may be cut short.
        let mut buffer: Vec<u8> = Vec::with_capacity(64);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, libc::MSG_DONTWAIT) {
                Ok(_) => news = true,
                Err(error) if lost(&error) => news = true,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(news),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(NftError::Io(error)),
            }
        }
    }
}

impl AsRawFd for Monitor {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

fn lost(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOBUFS)
}
