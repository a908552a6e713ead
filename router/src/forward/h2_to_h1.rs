//! One stream of a client of HTTP/2 and its answer from an endpoint of HTTP/1, driven by one poll
//! function. What `h1_to_h1` is between two connections of HTTP/1.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use h2::RecvStream;
use http::{HeaderMap, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::deadline::{Awaited, Deadline};
use super::failure::Failure;
use super::flow::READ_BYTES;
use super::h2_request::fields;
use super::stream::Reply;
use crate::http1::FieldSlots;
use crate::http1::body::{self, BodyDecoder, Decoded, Event};
use crate::http1::head::Framing;
use crate::http1::is_forbidden_in_trailers;
use crate::http1::response::{RequestKind, parse_response};
use crate::http1::rewrite;
use crate::snapshot::Settings;
use crate::upstream::{self, Stream};
use crate::worker::timers::Timer;

/// Answers up to this size are copied, so that the buffer they came in is free at once.
const COPIED: usize = 4096;

/// A stream and its connection of HTTP/1.1, under way.
pub(crate) struct StreamExchange<'a> {
    reply: &'a mut Reply,
    stream: &'a mut Stream,
    timer: &'a Timer,
    settings: &'a Settings,
    /// The request's body while it is not complete.
    request: Option<RecvStream>,
    framing: Framing,
    to_upstream: BytesMut,
    /// Flow-control credit that the client gets back once these bytes have left.
    held: usize,
    request_bytes: u64,
    request_broken: bool,
    inbox: BytesMut,
    /// Present once the answer's head has been read.
    decoder: Option<BodyDecoder>,
    /// Payload that h2 has not taken yet.
    pending: Bytes,
    /// Payload behind that.
    following: Bytes,
    /// The body has been read to its end.
    ended: bool,
    /// h2 has been told of the end.
    end_sent: bool,
    trailers: Option<HeaderMap>,
    persistent: bool,
    response_bytes: u64,
    heard: bool,
    /// Something has moved since the deadline was set last.
    moved: bool,
    deadline: Deadline,
    status: Option<u16>,
}

/// What remains of an exchange.
pub(crate) struct Ended {
    /// Status of the answer, if one was passed on.
    pub(crate) status: Option<u16>,
    /// Bytes of an answer have arrived.
    pub(crate) heard: bool,
    /// The endpoint's connection may carry another request.
    pub(crate) persistent: bool,
    /// Of the request's body and the answer's.
    pub(crate) bytes: (u64, u64),
    /// To be given back.
    pub(crate) buffers: [BytesMut; 2],
}

impl<'a> StreamExchange<'a> {
    /// `to_upstream` holds the request's head; `body` is absent if the request ends with it.
    pub(crate) fn new(
        (reply, stream): (&'a mut Reply, &'a mut Stream),
        (body, framing): (Option<RecvStream>, Framing),
        (to_upstream, inbox): (BytesMut, BytesMut),
        (timer, settings): (&'a Timer, &'a Settings),
    ) -> Self {
        Self {
            reply,
            stream,
            timer,
            settings,
            request: body,
            framing,
            to_upstream,
            held: 0,
            request_bytes: 0,
            request_broken: false,
            inbox,
            decoder: None,
            pending: Bytes::new(),
            following: Bytes::new(),
            ended: false,
            end_sent: false,
            trailers: None,
            persistent: false,
            response_bytes: 0,
            heard: false,
            moved: true,
            deadline: Deadline::default(),
            status: None,
        }
    }

    /// Runs until the answer has been handed to h2.
    pub(crate) async fn run(&mut self) -> Result<(), Failure> {
        poll_fn(|cx| self.poll(cx)).await
    }

    pub(crate) fn end(self) -> Ended {
        Ended {
            status: self.status,
            heard: self.heard,
            persistent: self.persistent
                && self.request.is_none()
                && self.to_upstream.is_empty()
                && !self.request_broken
                && self.inbox.is_empty(),
            bytes: (self.request_bytes, self.response_bytes),
            buffers: [self.to_upstream, self.inbox],
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let moved = self.poll_request(cx)?;
            self.moved |= moved;
            if self.poll_response(cx)?.is_ready() {
                return Poll::Ready(Ok(()));
            }
            if !moved {
                break;
            }
        }
        if self.is_reset(cx) {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        let awaited = self.awaits();
        let moved = std::mem::take(&mut self.moved);
        let look = upstream::patience(self.settings.timeouts.connect);
        self.deadline
            .poll(awaited, moved, (self.stream, look), self.timer, cx)
            .map(Err)
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.reply.body {
            Some(body) => body.poll_reset(cx).is_ready(),
            None => self.reply.respond.poll_reset(cx).is_ready(),
        }
    }

    fn awaits(&self) -> Awaited {
        let timeouts = &self.settings.timeouts;
        let mut answer = false;
        let (patience, failure) = if !self.to_upstream.is_empty() && !self.request_broken {
            (Some(timeouts.body_idle), Failure::UpstreamStalled)
        } else if self.request.is_some() && self.decoder.is_none() {
            (Some(timeouts.body_idle), Failure::ClientStalled)
        } else if self.decoder.is_none() {
            answer = true;
            let patience = timeouts.response_head;
            (
                (!patience.is_zero()).then_some(patience),
                Failure::UpstreamStalled,
            )
        } else if !self.pending.is_empty() {
            // Bytes are here and the client's window is closed.
            (Some(timeouts.body_idle), Failure::ClientStalled)
        } else {
            (Some(timeouts.response_idle), Failure::UpstreamStalled)
        };
        Awaited {
            patience,
            failure,
            answer,
        }
    }

    /// Moves the request on. True if anything moved.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let mut moved = false;
        loop {
            while !self.to_upstream.is_empty() && !self.request_broken {
                match poll_write(self.stream, &self.to_upstream, cx) {
                    Poll::Ready(Ok(written)) => {
                        self.to_upstream.advance(written);
                        moved = true;
                    }
                    Poll::Ready(Err(_)) => self.request_broken = true,
                    Poll::Pending => break,
                }
            }
            if self.request_broken {
                self.to_upstream.clear();
            }
            let Some(request) = &mut self.request else {
                return Ok(moved);
            };
            if !self.to_upstream.is_empty() {
                return Ok(moved);
            }
            if self.held > 0 {
                // Only now may the client send as much again: memory stays flat.
                let _ = request.flow_control().release_capacity(self.held);
                self.held = 0;
            }
            match request.poll_data(cx) {
                Poll::Ready(Some(Ok(data))) => {
                    self.held = data.len();
                    self.request_bytes += data.len() as u64;
                    if !data.is_empty() && !self.request_broken {
                        let chunked = self.framing == Framing::Chunked;
                        if chunked {
                            body::write_chunk(&data, &mut self.to_upstream);
                        } else {
                            self.to_upstream.extend_from_slice(&data);
                        }
                    }
                }
                Poll::Ready(Some(Err(_))) => return Err(Failure::ClientGone),
                Poll::Ready(None) => match request.poll_trailers(cx) {
                    Poll::Ready(Ok(trailers)) => {
                        if self.framing == Framing::Chunked && !self.request_broken {
                            let trailers = trailers
                                .iter()
                                .flat_map(fields)
                                .filter(|(name, _)| !is_forbidden_in_trailers(name));
                            body::write_last_chunk(trailers, &mut self.to_upstream);
                        }
                        self.request = None;
                    }
                    Poll::Ready(Err(_)) => return Err(Failure::ClientGone),
                    Poll::Pending => return Ok(moved),
                },
                Poll::Pending => return Ok(moved),
            }
            moved = true;
        }
    }

    /// Moves the answer on; ready once all of it has been handed to h2.
    fn poll_response(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, Failure> {
        loop {
            if self.decoder.is_none() {
                while self.head()? && self.decoder.is_none() {}
            }
            if self.decoder.is_some() && self.body(cx)? {
                return Ok(Poll::Ready(()));
            }
            if self.ended || !self.pending.is_empty() {
                return Ok(Poll::Pending);
            }
            self.inbox.reserve(READ_BYTES);
            match poll_read(self.stream, &mut self.inbox, cx) {
                Poll::Ready(Ok(0)) => {
                    self.persistent = false;
                    let Some(decoder) = &self.decoder else {
                        return Err(Failure::UpstreamGone);
                    };
                    decoder.end_of_stream().map_err(Failure::UpstreamBody)?;
                    self.ended = true;
                }
                Poll::Ready(Ok(_)) => (self.heard, self.moved) = (true, true),
                Poll::Ready(Err(error)) => return Err(Failure::of_upstream(&error)),
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
    }

    /// Takes a head out of the inbox, if a whole one is there, and passes it on.
    fn head(&mut self) -> Result<bool, Failure> {
        if self.inbox.is_empty() {
            return Ok(false);
        }
        let limits = self.settings.head_limits();
        let kind = match self.reply.head_only {
            true => RequestKind::Head,
            false => RequestKind::Other,
        };
        let mut slots = FieldSlots::new();
        let head = parse_response(&self.inbox, &mut slots, &limits, kind)
            .map_err(Failure::UpstreamHead)?;
        let Some(head) = head else {
            return Ok(false);
        };
        if head.status == 101 {
            // An upgrade is never passed on from HTTP/2 (RFC 9113, section 8.6).
            return Err(Failure::UpstreamProtocol("unexpected-switch"));
        }
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(head.status)
            .map_err(|_| Failure::UpstreamProtocol("invalid-status"))?;
        rewrite::response_fields(head.end_to_end_fields(), response.headers_mut());
        let length = head.len;
        if head.status < 200 {
            // h2 knows when a client has gone; there is nothing else to do about a failure.
            let _ = self.reply.respond.send_informational(response);
            self.inbox.advance(length);
            return Ok(true);
        }
        self.persistent = head.persistent;
        let decoder = BodyDecoder::response(head.framing);
        self.end_sent = decoder.is_done();
        self.status = Some(head.status);
        self.inbox.advance(length);
        self.decoder = Some(decoder);
        let sent = self.reply.respond.send_response(response, self.end_sent);
        self.reply.body = Some(sent.map_err(|_| Failure::ClientGone)?);
        Ok(true)
    }

    /// Passes on what the inbox holds of the body. True once all of it has been handed over.
    fn body(&mut self, cx: &mut Context<'_>) -> Result<bool, Failure> {
        let (Some(decoder), Some(out)) = (&mut self.decoder, &mut self.reply.body) else {
            return Ok(false);
        };
        loop {
            // One step ahead of what is sent, so that the last bytes carry the end with them.
            while !self.ended && self.following.is_empty() {
                let Decoded { consumed, event } =
                    decoder.decode(&self.inbox).map_err(Failure::UpstreamBody)?;
                match event {
                    Event::Data(length) => {
                        self.inbox.advance(consumed - length);
                        let payload = if length <= COPIED {
                            let copy = Bytes::copy_from_slice(&self.inbox[..length]);
                            self.inbox.advance(length);
                            copy
                        } else {
                            self.inbox.split_to(length).freeze()
                        };
                        self.response_bytes += length as u64;
                        if self.pending.is_empty() {
                            self.pending = payload;
                        } else {
                            self.following = payload;
                        }
                        continue;
                    }
                    Event::Trailers => {
                        let mut trailers = HeaderMap::new();
                        rewrite::response_fields(decoder.trailers(), &mut trailers);
                        self.trailers = Some(trailers);
                    }
                    Event::End => self.ended = true,
                    Event::NeedMore => {
                        self.inbox.advance(consumed);
                        break;
                    }
                    Event::ChunkStart(_) | Event::ChunkEnd => {}
                }
                self.inbox.advance(consumed);
            }
            if self.pending.is_empty() {
                if !self.ended {
                    return Ok(false);
                }
                if let Some(trailers) = self.trailers.take() {
                    out.send_trailers(trailers)
                        .map_err(|_| Failure::ClientGone)?;
                } else if !self.end_sent {
                    out.send_data(Bytes::new(), true)
                        .map_err(|_| Failure::ClientGone)?;
                }
                return Ok(true);
            }
            let last = self.ended && self.following.is_empty() && self.trailers.is_none();
            if last && self.pending.len() <= COPIED {
                // So little may wait in h2 for the client's window.
                let data = std::mem::take(&mut self.pending);
                out.send_data(data, true).map_err(|_| Failure::ClientGone)?;
                return Ok(true);
            }
            out.reserve_capacity(self.pending.len());
            let room = match out.poll_capacity(cx) {
                Poll::Ready(Some(Ok(room))) => room.min(self.pending.len()),
                Poll::Ready(_) => return Err(Failure::ClientGone),
                Poll::Pending => return Ok(false),
            };
            let data = self.pending.split_to(room);
            let last = last && self.pending.is_empty();
            out.send_data(data, last).map_err(|_| Failure::ClientGone)?;
            self.moved = true;
            self.end_sent |= last;
            if self.pending.is_empty() {
                self.pending = std::mem::take(&mut self.following);
            }
        }
    }
}

/// Reads into `buf`; `Ready(Ok(0))` is the end.
fn poll_read(
    stream: &mut Stream,
    buf: &mut BytesMut,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    pin!(stream.read_buf(buf)).poll(cx)
}

fn poll_write(stream: &mut Stream, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(cx, data)
}
