//! One direction of an exchange: what arrives on one connection and leaves on the other.
//!
//! Bytes come into `inbox`, are checked by the body decoder and leave either straight from the
//! inbox (`direct`, no copy) or, where framing is rewritten, through `outbox`. Nothing is read
//! while what was read before has not left, so memory stays flat whatever the sizes are.

use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};

use crate::http1::body::{self, BodyDecoder, BodyFault, Event};
use crate::http1::head::Framing;

/// The least room a read is given.
pub(crate) const READ_BYTES: usize = 16 * 1024;
/// The most that is kept of one direction.
pub(crate) const MOST_BYTES: usize = 64 * 1024;

/// How a body is announced to the side it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Announced {
    /// As it came: with its length, up to the close, or not at all.
    Plain,
    /// In chunks that were chunks before: boundaries stay, extensions go.
    Chunked,
    /// In chunks, though it came up to the close.
    NewlyChunked,
    /// Payload only, though it came in chunks: for a client of HTTP/1.0.
    Unchunked,
}

/// One direction of an exchange.
pub(crate) struct Flow {
    /// Bytes as they came.
    pub(crate) inbox: BytesMut,
    /// Bytes that were written anew: heads and chunk framing.
    pub(crate) outbox: BytesMut,
    /// So many bytes at the front of `inbox` leave as they are, after `outbox`.
    direct: usize,
    /// Body bytes that have left the inbox.
    pub(crate) body_bytes: u64,
    decoder: BodyDecoder,
    announced: Announced,
    /// A body that lasts up to the close has met it.
    closed: bool,
    unflushed: bool,
}

impl Flow {
    pub(crate) fn new(inbox: BytesMut, outbox: BytesMut) -> Self {
        Self {
            inbox,
            outbox,
            direct: 0,
            body_bytes: 0,
            decoder: BodyDecoder::request(Framing::None),
            announced: Announced::Plain,
            closed: false,
            unflushed: false,
        }
    }

    /// Begins a body; what is already in the inbox belongs to it, as far as it reaches.
    pub(crate) fn begin(&mut self, decoder: BodyDecoder, announced: Announced) {
        self.decoder = decoder;
        self.announced = announced;
    }

    /// Whether the whole body has been taken in.
    pub(crate) fn is_decoded(&self) -> bool {
        self.closed || self.decoder.is_done()
    }

    /// Whether something waits to leave.
    pub(crate) fn is_sending(&self) -> bool {
        self.direct > 0 || !self.outbox.is_empty() || self.unflushed
    }

    /// Whether more input would be of use now.
    pub(crate) fn wants_input(&self) -> bool {
        !self.is_decoded() && self.inbox.len() < MOST_BYTES && self.outbox.len() < MOST_BYTES
    }

    /// Takes in what the inbox holds of the body. True if anything moved.
    pub(crate) fn decode(&mut self) -> Result<bool, BodyFault> {
        let mut moved = false;
        while !self.is_decoded() && self.outbox.len() < MOST_BYTES {
            let consumed = match self.announced {
                Announced::Plain => {
                    let decoded = self.decoder.decode(&self.inbox[self.direct..])?;
                    self.direct += decoded.consumed;
                    decoded.consumed
                }
                Announced::Chunked => {
                    let consumed =
                        body::relay_chunked(&mut self.decoder, &self.inbox, &mut self.outbox)?;
                    self.inbox.advance(consumed);
                    consumed
                }
                Announced::NewlyChunked => {
                    let decoded = self.decoder.decode(&self.inbox)?;
                    body::write_chunk(&self.inbox[..decoded.consumed], &mut self.outbox);
                    self.inbox.advance(decoded.consumed);
                    decoded.consumed
                }
                Announced::Unchunked => {
                    let decoded = self.decoder.decode(&self.inbox)?;
                    if let Event::Data(length) = decoded.event {
                        let end = decoded.consumed;
                        self.outbox
                            .extend_from_slice(&self.inbox[end - length..end]);
                    }
                    self.inbox.advance(decoded.consumed);
                    decoded.consumed
                }
            };
            self.body_bytes += consumed as u64;
            if consumed == 0 {
                break;
            }
            moved = true;
        }
        Ok(moved)
    }

    /// The sender has closed. Ends a body that lasts up to the close; any other is cut off.
    pub(crate) fn end_of_input(&mut self) -> Result<(), BodyFault> {
        self.decoder.end_of_stream()?;
        self.closed = true;
        if self.announced == Announced::NewlyChunked {
            body::write_last_chunk(std::iter::empty(), &mut self.outbox);
        }
        Ok(())
    }

    /// Reads into the inbox. `Ready(Ok(0))` is the end of input.
    pub(crate) fn poll_read(
        &mut self,
        io: &mut (impl AsyncRead + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let room = match self.decoder.remaining() {
            // A long body: fewer, larger reads.
            Some(remaining) if remaining as usize > READ_BYTES => {
                (remaining as usize).min(MOST_BYTES)
            }
            _ => READ_BYTES,
        };
        if self.inbox.capacity() - self.inbox.len() < READ_BYTES.min(room) {
            self.inbox.reserve(room);
        }
        pin!(io.read_buf(&mut self.inbox)).poll(cx)
    }

    /// Sends what waits, and flushes once all has been handed over. True if anything moved.
    pub(crate) fn poll_send(
        &mut self,
        io: &mut (impl AsyncWrite + Unpin),
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<bool>> {
        let mut moved = false;
        while self.direct > 0 || !self.outbox.is_empty() {
            let written = if self.outbox.is_empty() {
                Pin::new(&mut *io).poll_write(cx, &self.inbox[..self.direct])
            } else if self.direct == 0 {
                Pin::new(&mut *io).poll_write(cx, &self.outbox)
            } else {
                let parts = [
                    IoSlice::new(&self.outbox),
                    IoSlice::new(&self.inbox[..self.direct]),
                ];
                Pin::new(&mut *io).poll_write_vectored(cx, &parts)
            };
            let written = match written {
                Poll::Pending if moved => return Poll::Ready(Ok(true)),
                other => ready!(other)?,
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let from_outbox = written.min(self.outbox.len());
            self.outbox.advance(from_outbox);
            self.inbox.advance(written - from_outbox);
            self.direct -= written - from_outbox;
            self.unflushed = true;
            moved = true;
        }
        if self.unflushed {
            match Pin::new(io).poll_flush(cx) {
                Poll::Pending if moved => return Poll::Ready(Ok(true)),
                other => ready!(other)?,
            }
            self.unflushed = false;
        }
        Poll::Ready(Ok(moved))
    }
}
