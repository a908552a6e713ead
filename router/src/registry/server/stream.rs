//! A client's connection that is cut when the client stops reading, and closed in a way that lets
//! it hear the last answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a connection is read from after our last byte, at most. Closed with bytes unread, it
/// would be reset, and a reset takes the answer with it that is still on its way.
const LINGER: Duration = Duration::from_secs(1);
/// Bytes read meanwhile, at most.
const LINGER_BYTES: usize = 1 << 20;

/// See above.
pub(super) struct Patient<IO> {
    io: IO,
    /// How long the client may not read.
    patience: Duration,
    /// Runs while it does not.
    stalled: Option<Pin<Box<Sleep>>>,
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    left: usize,
}

impl<IO> Patient<IO> {
    pub(super) fn new(io: IO, patience: Duration) -> Self {
        Self {
            io,
            patience,
            stalled: None,
            lingering: None,
        }
    }

    /// Passes on how a write went, unless it has hung for too long.
    fn patiently<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Patient<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Patient<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.patiently(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.patiently(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.io).poll_flush(cx);
        self.patiently(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.lingering.is_none() {
            let shut = Pin::new(&mut this.io).poll_shutdown(cx);
            ready!(this.patiently(cx, shut))?;
        }
        let lingering = this.lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(sleep(LINGER)),
            left: LINGER_BYTES,
        });
        let mut sink = [0; 4096];
        while lingering.left > 0 && lingering.until.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut sink);
            let read = ready!(Pin::new(&mut this.io).poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                break;
            }
            lingering.left = lingering.left.saturating_sub(buffer.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    /// Hangs forever if it is broken.
    async fn soon<T>(what: impl Future<Output = T>) -> T {
        timeout(Duration::from_secs(20), what).await.expect("done")
    }

    #[tokio::test]
    async fn a_client_that_does_not_read_is_given_up() {
        let (server, mut client) = duplex(8);
        let mut server = Patient::new(server, Duration::from_millis(20));
        server.write_all(b"12345678").await.unwrap();
        let error = soon(server.write_all(b"9")).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut read = [0; 8];
        client.read_exact(&mut read).await.unwrap();
        server.write_all(b"9").await.unwrap();
    }

    #[tokio::test]
    async fn what_the_client_still_says_is_heard_out() {
        let (server, mut client) = duplex(8);
        let mut server = Patient::new(server, Duration::from_secs(20));
        let talks = soon(async {
            client.write_all(&[0; 10_000]).await.unwrap();
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            client.shutdown().await.unwrap();
        });
        let (shut, ()) = tokio::join!(server.shutdown(), talks);
        shut.unwrap();
    }

    #[tokio::test]
    async fn but_not_for_ever() {
        let (server, mut client) = duplex(8);
        let mut server = Patient::new(server, Duration::from_secs(20));
        let talks = tokio::spawn(async move { while client.write_all(&[0; 8]).await.is_ok() {} });
        server.shutdown().await.unwrap();
        drop(server);
        talks.await.unwrap();
    }
}
