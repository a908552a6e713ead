//! The mouth for clients of HTTP/2: one connection, a task for each of its streams.

use std::future::poll_fn;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, Connection};
use tokio::io::{AsyncRead, AsyncWrite};

use super::client::Client;
use super::coalesce::{Coalesced, Flusher, coalesce};
use super::stream;
use crate::worker::Worker;
use crate::worker::timers::Timer;

/// Bytes a client may send on a stream before we take them. Envoy's edge default.
const STREAM_WINDOW: u32 = 64 * 1024;
/// Likewise on all streams of a connection together.
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of one stream that h2 keeps for a client that does not take them.
const SEND_BUFFER: usize = 64 * 1024;

/// Serves one client until it leaves, idles too long, or the worker drains.
pub(crate) async fn serve<C>(io: C, client: Client, worker: Rc<Worker>)
where
    C: AsyncRead + AsyncWrite + Unpin,
{
    let (connect, idle) = {
        let snapshot = worker.snapshot();
        let limits = &snapshot.settings.limits;
        let (io, flusher) = coalesce(io);
        let mut builder = Builder::new();
        builder
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_concurrent_streams(limits.h2_streams)
            .max_header_list_size(u32::try_from(limits.head_bytes).unwrap_or(u32::MAX))
            .max_send_buffer_size(SEND_BUFFER);
        let mut handshake = Box::pin(builder.handshake::<_, Bytes>(io));
        let connect = async move {
            // The preface is answered before it has come, so its flush is ours, too.
            let connection = poll_fn(|cx| {
                let done = handshake.as_mut().poll(cx);
                match flusher.poll_flush(cx) {
                    Poll::Ready(Err(_)) => Poll::Ready(None),
                    _ => done.map(Result::ok),
                }
            })
            .await?;
            Some((connection, flusher))
        };
        (connect, snapshot.settings.timeouts.client_idle)
    };
    let timer = worker.timers.timer();
    timer.set(idle);
    let connected = tokio::select! {
        connected = connect => connected,
        () = timer.expired() => None,
    };
    let Some((connection, flusher)) = connected else {
        return;
    };
    let mut session = Session {
        connection,
        flusher,
        client: Rc::new(client),
        timer,
        idle,
        busy: true,
        leaving: false,
        worker,
    };
    poll_fn(|cx| session.poll(cx)).await;
}

/// One client connection.
struct Session<C: AsyncRead + AsyncWrite + Unpin> {
    connection: Connection<Coalesced<C>, Bytes>,
    flusher: Flusher<C>,
    client: Rc<Client>,
    timer: Timer,
    idle: std::time::Duration,
    busy: bool,
    leaving: bool,
    worker: Rc<Worker>,
}

impl<C: AsyncRead + AsyncWrite + Unpin> Session<C> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.worker.is_draining() {
            self.leave();
        }
        loop {
            match self.accept(cx) {
                ControlFlow::Continue(true) => continue,
                ControlFlow::Continue(false) => break,
                ControlFlow::Break(()) => {
                    // The last words (GOAWAY) have to leave as well.
                    return self.flusher.poll_flush(cx).map(|_| ());
                }
            }
        }
        if let Poll::Ready(Err(_)) = self.flusher.poll_flush(cx) {
            return Poll::Ready(());
        }
        // Streams in progress have deadlines of their own.
        let busy = self.connection.has_streams();
        if busy {
            self.timer.clear();
        } else if self.busy {
            self.timer.set(self.idle);
        }
        self.busy = busy;
        if self.timer.poll_expired(cx).is_ready() {
            if self.leaving {
                return Poll::Ready(());
            }
            self.leave();
            self.timer.set(self.idle);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Takes one stream. False: there is none now. Break: the connection is over.
    fn accept(&mut self, cx: &mut Context<'_>) -> ControlFlow<(), bool> {
        match self.connection.poll_accept(cx) {
            Poll::Ready(Some(Ok((request, respond)))) => {
                let client = Rc::clone(&self.client);
                let worker = Rc::clone(&self.worker);
                tokio::task::spawn_local(stream::serve(request, respond, client, worker));
                ControlFlow::Continue(true)
            }
            Poll::Ready(Some(Err(error))) => {
                tracing::debug!(peer = %self.client.peer, %error, "HTTP/2 connection failed");
                ControlFlow::Break(())
            }
            Poll::Ready(None) => ControlFlow::Break(()),
            Poll::Pending => ControlFlow::Continue(false),
        }
    }

    /// Tells the client to open no more streams (GOAWAY, RFC 9113, section 6.8).
    fn leave(&mut self) {
        if !self.leaving {
            self.leaving = true;
            self.connection.graceful_shutdown();
        }
    }
}
