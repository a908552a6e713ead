//! A socket that puts whole frames on a device: the one file of the matrix that needs `unsafe`.

use std::io;

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// A device that takes frames as they are.
#[derive(Debug)]
pub(super) struct Wire {
    socket: Socket,
}

impl Wire {
    /// Opens a device of the namespace that this thread is in.
    ///
    /// # Errors
    /// If there is no such device, or without `CAP_NET_RAW`.
    pub(super) fn open(device: &str) -> Result<Self> {
        let index = nix::net::if_::if_nametoindex(device)
            .with_context(|| format!("find the device {device}"))?;
        // Protocol 0: it only sends.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.bind(&address(index)?)?;
        Ok(Self { socket })
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// If the device is down or its queue is full.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        self.socket.send(frame).map(drop)
    }
}

fn address(index: u32) -> io::Result<SockAddr> {
    let family = libc::sa_family_t::try_from(libc::AF_PACKET).expect("17");
    let length = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).expect("20");
    // SAFETY: `sockaddr_storage` is larger than `sockaddr_ll`, aligned for every address, and
    // zeroed by `try_init`; two fields of plain integers are written, and the length is that of
    // the type that was written.
    let ((), address) = unsafe {
        SockAddr::try_init(|storage, size| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = family;
            (*link).sll_ifindex = index.cast_signed();
            *size = length;
            Ok(())
        })
    }?;
    Ok(address)
}
