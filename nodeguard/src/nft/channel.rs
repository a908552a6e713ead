//! A netlink socket to the kernel's nftables: requests in, answers out.
//!
//! The kernel works on a request while it is being sent, so whatever it has to say is there when
//! `send` returns, and nothing here ever waits.

use std::io::{self, ErrorKind};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use super::NftError;
use super::attributes::Writer;
use super::message::{self, Batch};
use super::reply::{Body, Object, Replies};
use super::uapi::flag;

/// A transaction is one `send`, whatever its size; 100,000 IPv6 addresses make 3 MB.
const SEND_BYTES: usize = 32 * 1024 * 1024;
/// Room for one error per message of a batch.
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;
/// The kernel's datagrams have 32 KiB at most (`netlink_dump`).
const DATAGRAM_BYTES: usize = 128 * 1024;

/// Whether a transaction is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// It takes effect.
    Commit,
    /// The kernel says what it thinks of it and forgets it.
    Rehearse,
}

/// The socket.
#[derive(Debug)]
pub(super) struct Channel {
    socket: Socket,
    port: u32,
    buffer: Vec<u8>,
    sequence: u32,
    /// A dump was left half read, and the kernel begins no other on this socket.
    stuck: bool,
}

impl Channel {
    pub(super) fn open() -> Result<Self, NftError> {
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(NftError::Socket)?;
        let own = socket.bind_auto().map_err(NftError::Socket)?;
        // Other processes can no longer send to it.
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(NftError::Socket)?;
        socket.set_ext_ack(true).map_err(NftError::Socket)?;
        socket.set_cap_ack(true).map_err(NftError::Socket)?;
        // Beyond the limits of sysctl only with CAP_NET_ADMIN, without which nothing works anyway.
        setsockopt(&socket, sockopt::SndBufForce, &SEND_BYTES)
            .and_then(|()| setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BYTES))
            .map_err(|error| NftError::Socket(error.into()))?;
        Ok(Self {
            socket,
            port: own.port_number(),
            buffer: Vec::with_capacity(DATAGRAM_BYTES),
            sequence: 0,
            stuck: false,
        })
    }

    /// What the kernel knows this socket by: the owner of what it owns.
    pub(super) fn port(&self) -> u32 {
        self.port
    }

    /// Has a batch carried out, or judged.
    ///
    /// # Errors
    /// [`NftError::Refused`] with the first message that the kernel does not like.
    pub(super) fn transact(&mut self, batch: &Batch, mode: Mode) -> Result<(), NftError> {
        let bytes = match mode {
            Mode::Commit => batch.committed(),
            Mode::Rehearse => batch.rehearsed(),
        };
        self.send(&bytes)?;
        let mut answered = false;
        let mut refusal = None;
        loop {
            match self.receive() {
                Ok(true) => {}
                Ok(false) => break,
                // What was lost cannot be better than what is known already.
                Err(error) => return Err(refusal.unwrap_or(error)),
            }
            for reply in Replies::new(&self.buffer) {
                let reply = reply?;
                match reply.body {
                    Body::Verdict { errno: 0, .. } => {
                        answered |= reply.sequence == batch.last_sequence();
                    }
                    Body::Verdict { errno, text } => {
                        refusal.get_or_insert_with(|| NftError::Refused {
                            object: batch.object(reply.sequence).to_owned(),
                            error: io::Error::from_raw_os_error(errno),
                            text,
                        });
                    }
                    Body::Overrun => return Err(refusal.unwrap_or(NftError::Lost)),
                    _ => {}
                }
            }
        }
        match refusal {
            Some(refusal) => Err(refusal),
            None if answered => Ok(()),
            None => Err(NftError::Unanswered),
        }
    }

    /// Asks for objects and hands over each that comes. Whether they are one picture: `false` if
    /// something changed meanwhile.
    ///
    /// # Errors
    /// [`NftError::Refused`] if the kernel gives none, and what `each` returns.
    pub(super) fn ask(
        &mut self,
        question: &Question<'_>,
        mut each: impl FnMut(&Object<'_>) -> Result<(), NftError>,
    ) -> Result<bool, NftError> {
        if self.stuck {
            *self = Self::open()?;
        }
        self.sequence = self.sequence.wrapping_add(1).max(1);
        let sequence = self.sequence;
        let flags = if question.dump { flag::DUMP } else { flag::ACK };
        let (kind, family) = (question.kind, question.family);
        let request = message::request(kind, family, flags, sequence, question.fill);
        self.send(&request)?;
        self.stuck = question.dump;
        let mut steady = true;
        while self.receive()? {
            for reply in Replies::new(&self.buffer) {
                let reply = reply?;
                if reply.sequence != sequence {
                    continue;
                }
                match reply.body {
                    Body::Object(object) => {
                        steady &= !object.interrupted;
                        each(&object)?;
                    }
                    Body::Done { errno: 0 } | Body::Verdict { errno: 0, .. } => {
                        self.stuck = false;
                        return Ok(steady);
                    }
                    Body::Done { errno } => return Err(refused(question, errno, None)),
                    Body::Verdict { errno, text } => {
                        self.stuck = false;
                        return Err(refused(question, errno, text));
                    }
                    Body::Overrun => return Err(NftError::Lost),
                    Body::Other => {}
                }
            }
        }
        Err(NftError::Unanswered)
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), NftError> {
        // Answers to something that was given up are answers to nothing now.
        while matches!(self.receive(), Ok(true) | Err(NftError::Lost)) {}
        let sent = again_if_interrupted(|| self.socket.send(bytes, 0)).map_err(NftError::Io)?;
        if sent == bytes.len() {
            Ok(())
        } else {
            Err(NftError::Io(ErrorKind::WriteZero.into()))
        }
    }

    /// Reads the next datagram of the kernel into the buffer; `false` if there is none.
    fn receive(&mut self) -> Result<bool, NftError> {
        loop {
            self.buffer.clear();
            let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
            let received = again_if_interrupted(|| self.socket.recv_from(&mut self.buffer, flags));
            match received {
                Ok((length, _)) if length > self.buffer.len() => {
                    return Err(NftError::TooLong(self.buffer.len()));
                }
                // The kernel is port 0; it lets nobody else through to a connected socket.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    return Err(NftError::Lost);
                }
                Err(error) => return Err(NftError::Io(error)),
            }
        }
    }
}

/// A request for objects.
pub(super) struct Question<'a> {
    /// `NFT_MSG_GET*`.
    pub(super) kind: u8,
    /// Of all families if unspecified.
    pub(super) family: u8,
    /// All that match, instead of the one that is named.
    pub(super) dump: bool,
    /// What is asked for, for errors.
    pub(super) what: &'a str,
    /// Attributes that narrow it down.
    pub(super) fill: &'a dyn Fn(&mut Writer),
}

fn refused(question: &Question<'_>, errno: i32, text: Option<String>) -> NftError {
    NftError::Refused {
        object: question.what.to_owned(),
        error: io::Error::from_raw_os_error(errno),
        text,
    }
}

fn again_if_interrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}
