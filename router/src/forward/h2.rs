//! The mouth for clients of HTTP/2: one connection, a task for each of its streams.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

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
        streams: Rc::default(),
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
    streams: Rc<Streams>,
    busy: bool,
    leaving: bool,
    worker: Rc<Worker>,
}

/// The streams of a connection that have a task.
#[derive(Default)]
struct Streams {
    open: Cell<usize>,
    /// The connection's own task, told when the last of them ends.
    waker: RefCell<Option<Waker>>,
}

/// Counts a stream as open until dropped.
struct Open(Rc<Streams>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        if self.0.open.get() == 0
            && let Some(waker) = self.0.waker.borrow_mut().take()
        {
            waker.wake();
        }
    }
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
        // Streams with a task have deadlines of their own. One that only waits for the client to
        // take its last bytes has none: then the connection's own runs.
        let busy = self.streams.open.get() > 0;
        if busy {
            let mut waker = self.streams.waker.borrow_mut();
            if !waker
                .as_ref()
                .is_some_and(|waker| waker.will_wake(cx.waker()))
            {
                *waker = Some(cx.waker().clone());
            }
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
                self.streams.open.set(self.streams.open.get() + 1);
                let open = Open(Rc::clone(&self.streams));
                tokio::task::spawn_local(async move {
                    stream::serve(request, respond, client, worker).await;
                    drop(open);
                });
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
