//! Writes of an HTTP/2 connection, gathered.
//!
//! The h2 crate flushes after every DATA frame of 256 bytes or more, which under TLS is a record
//! and a system call for each. Here a flush by h2 does nothing; the connection's own loop flushes
//! once, when nothing more is to be done: answers of many streams leave in one record.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A full TLS record (RFC 8446, section 5.1).
const RECORD: usize = 16 * 1024;

/// The end that h2 writes to.
pub(crate) struct Coalesced<C>(Rc<RefCell<Inner<C>>>);

/// The end that flushes.
pub(crate) struct Flusher<C>(Rc<RefCell<Inner<C>>>);

struct Inner<C> {
    io: C,
    gathered: BytesMut,
    unflushed: bool,
}

/// Splits `io` into an end for h2 and one that flushes.
pub(crate) fn coalesce<C>(io: C) -> (Coalesced<C>, Flusher<C>) {
    let inner = Rc::new(RefCell::new(Inner {
        io,
        gathered: BytesMut::new(),
        unflushed: false,
    }));
    (Coalesced(Rc::clone(&inner)), Flusher(inner))
}

impl<C: AsyncWrite + Unpin> Flusher<C> {
    /// Sends what has been gathered. `gathered` gives its memory back once it is empty.
    pub(crate) fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }
}

impl<C: AsyncWrite + Unpin> Inner<C> {
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.gathered.is_empty() {
            let written = ready!(Pin::new(&mut self.io).poll_write(cx, &self.gathered))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gathered.advance(written);
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_drain(cx))?;
        if self.gathered.capacity() > 0 {
            self.gathered = BytesMut::new();
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }
}

impl<C: AsyncRead + Unpin> AsyncRead for Coalesced<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<C: AsyncWrite + Unpin> AsyncWrite for Coalesced<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut inner = self.0.borrow_mut();
        if inner.gathered.len() >= RECORD {
            ready!(inner.poll_drain(cx))?;
        }
        let mut taken = 0;
        for buf in bufs {
            let part = buf.len().min(RECORD - inner.gathered.len());
            inner.gathered.extend_from_slice(&buf[..part]);
            taken += part;
            if part < buf.len() {
                break;
            }
        }
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.borrow_mut();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.io).poll_shutdown(cx)
    }
}
