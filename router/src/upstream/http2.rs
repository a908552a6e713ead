//! Connections of HTTP/2 towards an endpoint: one per worker and endpoint, shared by its requests.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use http_body::Frame;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::mpsc;

use super::connect::{ConnectError, Wanted, connect};
use super::endpoint::Endpoint;
use crate::snapshot::Settings;

/// A request's body on its way to an endpoint of HTTP/2.
pub(crate) enum OutBody {
    /// There is none.
    Empty,
    /// Straight from the stream of a client of HTTP/2.
    Stream {
        stream: RecvStream,
        /// Credit the client gets back once h2 asks for more.
        held: usize,
    },
    /// Handed over by whoever reads it. A channel that closes without [`OutFrame::End`] resets.
    Channel(mpsc::Receiver<OutFrame>),
}

/// A piece of a body that comes through a channel.
pub(crate) enum OutFrame {
    Data(Bytes),
    End(Option<http::HeaderMap>),
}

/// The connection of one worker to one endpoint.
#[derive(Default)]
pub(crate) struct Http2Pool {
    current: RefCell<Option<SendRequest<OutBody>>>,
    /// Held while a connection is made, so that a burst makes one and not many.
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Clone, Copy)]
struct LocalExecutor;

impl Http2Pool {
    /// A handle that takes a request now. True: the connection was there already.
    pub(crate) async fn sender(
        &self,
        endpoint: &Endpoint,
        settings: &Settings,
    ) -> Result<(SendRequest<OutBody>, bool), ConnectError> {
        if let Some(sender) = self.usable() {
            return Ok((sender, true));
        }
        let _turn = self.connecting.lock().await;
        if let Some(sender) = self.usable() {
            return Ok((sender, true));
        }
        let stream = connect(endpoint, Wanted::Http2, settings.timeouts.connect).await?;
        let head_bytes = u32::try_from(settings.limits.head_bytes).unwrap_or(u32::MAX);
        let (sender, connection) = Builder::new(LocalExecutor)
            .timer(TokioTimer::new())
            .max_header_list_size(head_bytes)
            .keep_alive_interval(settings.timeouts.upstream_idle)
            .keep_alive_timeout(settings.timeouts.connect)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ConnectError::Tcp(io::Error::other(error)))?;
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "HTTP/2 connection to an endpoint failed");
            }
        });
        self.current.replace(Some(sender.clone()));
        Ok((sender, false))
    }

    /// Lets go of the connection; requests that are on it end there.
    pub(crate) fn close(&self) {
        self.current.take();
    }

    /// Whether there is a connection that takes requests.
    pub(crate) fn is_open(&self) -> bool {
        let current = self.current.borrow();
        current.as_ref().is_some_and(|sender| !sender.is_closed())
    }

    fn usable(&self) -> Option<SendRequest<OutBody>> {
        let mut current = self.current.borrow_mut();
        if current.as_ref().is_some_and(SendRequest::is_closed) {
            current.take();
        }
        current.clone()
    }
}

impl<F: Future<Output = ()> + 'static> hyper::rt::Executor<F> for LocalExecutor {
    fn execute(&self, future: F) {
        tokio::task::spawn_local(future);
    }
}

impl From<RecvStream> for OutBody {
    fn from(stream: RecvStream) -> Self {
        Self::Stream { stream, held: 0 }
    }
}

impl http_body::Body for OutBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Stream { stream, held } => {
                // Asked for more: what was given before has left.
                let _ = stream.flow_control().release_capacity(std::mem::take(held));
                match stream.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => {
                        *held = data.len();
                        Poll::Ready(Some(Ok(Frame::data(data))))
                    }
                    Poll::Ready(Some(Err(error))) => {
                        Poll::Ready(Some(Err(io::Error::other(error))))
                    }
                    Poll::Ready(None) => stream.poll_trailers(cx).map(|trailers| match trailers {
                        Ok(trailers) => trailers.map(|t| Ok(Frame::trailers(allowed(t)))),
                        Err(error) => Some(Err(io::Error::other(error))),
                    }),
                    Poll::Pending => Poll::Pending,
                }
            }
            Self::Channel(channel) => channel.poll_recv(cx).map(|frame| match frame {
                Some(OutFrame::Data(data)) => Some(Ok(Frame::data(data))),
                Some(OutFrame::End(None)) => None,
                Some(OutFrame::End(Some(trailers))) => Some(Ok(Frame::trailers(trailers))),
                None => Some(Err(io::Error::other("the client's body was cut off"))),
            }),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { stream, .. } => stream.is_end_stream(),
            Self::Channel(_) => false,
        }
    }
}

/// Trailers without the fields that have no business there.
fn allowed(mut trailers: http::HeaderMap) -> http::HeaderMap {
    let forbidden: Vec<_> = trailers
        .keys()
        .filter(|name| crate::http1::is_forbidden_in_trailers(name.as_str().as_bytes()))
        .cloned()
        .collect();
    for name in forbidden {
        trailers.remove(name);
    }
    trailers
}
