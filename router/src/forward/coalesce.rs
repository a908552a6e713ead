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
use smallvec::SmallVec;
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
        let inner = &mut *self.0.borrow_mut();
        let offered: usize = bufs.iter().map(|buf| buf.len()).sum();
        if inner.gathered.len() + offered <= RECORD {
            for buf in bufs {
                inner.gathered.extend_from_slice(buf);
            }
            return Poll::Ready(Ok(offered));
        }
        loop {
            // One full record of what was gathered and what is offered; the latter is not copied.
            let waiting = inner.gathered.len();
            let written = {
                let mut room = RECORD.saturating_sub(waiting);
                let mut parts: SmallVec<[IoSlice<'_>; 4]> = SmallVec::new();
                parts.push(IoSlice::new(&inner.gathered));
                for buf in bufs {
                    let part = &buf[..buf.len().min(room)];
                    room -= part.len();
                    parts.push(IoSlice::new(part));
                }
                let writing = Pin::new(&mut inner.io).poll_write_vectored(cx, &parts);
                ready!(writing)?
            };
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            inner.unflushed = true;
            inner.gathered.advance(written.min(waiting));
            if written > waiting {
                return Poll::Ready(Ok(written - waiting));
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::task::Waker;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Counts the writes that get through.
    struct Counting(tokio::io::DuplexStream, usize);

    impl AsyncWrite for Counting {
        fn poll_write(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            buf: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.1 += 1;
            Pin::new(&mut self.0).poll_write(cx, buf)
        }

        fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_flush(cx)
        }

        fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
            Pin::new(&mut self.0).poll_shutdown(cx)
        }
    }

    #[tokio::test(flavor = "current_thread")]
    async fn small_writes_leave_together_and_only_when_flushed() {
        let (near, mut far) = tokio::io::duplex(64 * 1024);
        let (mut gathering, flusher) = coalesce(Counting(near, 0));
        for _ in 0..10 {
            gathering.write_all(b"answer").await.unwrap();
            gathering.flush().await.unwrap();
        }
        let mut buf = [0; 100];
        let mut read = ReadBuf::new(&mut buf);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(
            Pin::new(&mut far)
                .poll_read(&mut cx, &mut read)
                .is_pending()
        );
        poll_fn(|cx| flusher.poll_flush(cx)).await.unwrap();
        let n = far.read(&mut buf).await.unwrap();
        assert_eq!(&buf[..n], b"answer".repeat(10));
        assert_eq!(flusher.0.borrow().io.1, 1);
        assert_eq!(
            flusher.0.borrow().gathered.capacity(),
            0,
            "an idle one holds no buffer"
        );
    }

    #[tokio::test(flavor = "current_thread")]
    async fn large_writes_arrive_whole_through_a_narrow_pipe() {
        let (near, mut far) = tokio::io::duplex(1000);
        let (mut gathering, flusher) = coalesce(Counting(near, 0));
        let sent: Vec<u8> = (0..100_000u32).map(|i| i as u8).collect();
        let writing = async {
            gathering.write_all(&sent[..10]).await.unwrap();
            gathering.write_all(&sent[10..]).await.unwrap();
            poll_fn(|cx| flusher.poll_flush(cx)).await.unwrap();
            gathering.shutdown().await.unwrap();
        };
        let mut received = Vec::new();
        let (_, read) = tokio::join!(writing, far.read_to_end(&mut received));
        read.unwrap();
        assert!(received == sent);
    }
}
