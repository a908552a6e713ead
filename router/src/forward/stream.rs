//! One stream of an HTTP/2 client, forwarded over HTTP/1.1.
//!
//! RFC 9113, section 8 says what a request may look like; what the h2 crate does not refuse itself
//! is refused here, since the endpoint reads it as HTTP/1.1.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes, BytesMut};
use config::route::UpstreamProtocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE, EXPECT, HOST, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::io::{AsyncReadExt, AsyncWrite};

use super::attempts::Attempts;
use super::http2_upstream;
use super::client::Client;
use super::exchange::Failure;
use super::flow::READ_BYTES;
use super::log::Transaction;
use super::request::decide;
use super::respond::Answer;
use crate::http1::FieldSlots;
use crate::http1::body::{self, BodyDecoder, Decoded, Event};
use crate::http1::head::{Framing, declared_length};
use crate::http1::host::HostPort;
use crate::http1::is_forbidden_in_trailers;
use crate::http1::response::{RequestKind, parse_response};
use crate::http1::rewrite::{self, Forwarding};
use crate::observe::access_log::RequestLine;
use crate::observe::metrics::ClientProtocol;
use crate::route::RouteTarget;
use crate::snapshot::{Settings, Snapshot};
use crate::upstream::{OutBody, Stream};
use crate::worker::Worker;
use crate::worker::timers::Timer;

/// Answers up to this size are copied, so that the buffer they came in is free at once.
const COPIED: usize = 4096;

/// Serves one stream.
pub(crate) async fn serve(
    request: Request<RecvStream>,
    respond: SendResponse<Bytes>,
    client: Rc<Client>,
    worker: Rc<Worker>,
) {
    let mut log = Transaction::begin(ClientProtocol::Http2);
    let mut reply = Reply {
        respond,
        body: None,
        head_only: request.method() == Method::HEAD,
    };
    let snapshot = worker.snapshot();
    let (parts, body) = request.into_parts();
    if snapshot.settings.access_log {
        log.asked(&client, request_line(&parts));
    }
    match forward(&parts, body, &mut reply, &client, &worker, &snapshot, &mut log).await {
        Ok(()) => {}
        Err(Failed::Answer(answer)) => {
            let bytes = reply.answer(answer, &worker.date());
            log.answered(&worker, answer, bytes);
        }
        Err(Failed::Exchange(failure)) => {
            log.failed(&failure);
            if reply.body.is_some() {
                // The answer has begun: only a reset tells that it is not whole.
                reply.reset();
            } else if !matches!(failure, Failure::ClientGone) {
                let answer = failure.answer();
                let bytes = reply.answer(answer, &worker.date());
            log.answered(&worker, answer, bytes);
            }
        }
    }
    log.end(&worker);
}

/// Why a stream was not forwarded to its end.
enum Failed {
    Answer(Answer),
    Exchange(Failure),
}

impl From<Answer> for Failed {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// The client's side of the answer.
struct Reply {
    respond: SendResponse<Bytes>,
    /// Present once a final head has been sent.
    body: Option<SendStream<Bytes>>,
    head_only: bool,
}

async fn forward(
    parts: &Parts,
    body: RecvStream,
    reply: &mut Reply,
    client: &Client,
    worker: &Rc<Worker>,
    snapshot: &Snapshot,
    log: &mut Transaction,
) -> Result<(), Failed> {
    let settings = &snapshot.settings;
    let authority = authority(parts)?;
    let framing = framing(parts, &body)?;
    let path = path(parts)?;
    let target = decide(snapshot, &client.certificate, authority.name)?;
    log.routed(target);
    let forwarding = Forwarding {
        client: client.peer.ip(),
        host: authority.text,
        port: client.local_port,
        trusted: client.trusted,
    };
    if target.upstream.protocol == UpstreamProtocol::Http2 {
        let parts = http2_upstream::head(
            parts.method.clone(),
            path,
            fields(&parts.headers),
            framing,
            &forwarding,
            target.upstream.is_tls(),
        )?;
        let over = over_http2(&parts, body, reply, worker, settings, target, log);
        // Boxed, so that the usual stream's task stays small.
        return Box::pin(over).await;
    }
    let mut head = worker.buffers.take();
    write_head(parts, path, framing, &forwarding, &mut head);
    let bodyless = framing == Framing::None;
    let mut attempts = Attempts::default();
    let mut body = Some(body);
    loop {
        let mut lease = attempts
            .lease(&worker.pools, &target.upstream, settings)
            .await?;
        log.attempted(worker, lease.address(), lease.reused);
        let mut to_upstream = worker.buffers.take();
        to_upstream.extend_from_slice(&head);
        let mut exchange = StreamExchange {
            reply,
            stream: &mut lease.stream,
            settings,
            request: body.take_if(|_| !bodyless),
            framing,
            to_upstream,
            held: 0,
            request_bytes: 0,
            request_broken: false,
            inbox: worker.buffers.take(),
            decoder: None,
            pending: Bytes::new(),
            following: Bytes::new(),
            ended: false,
            end_sent: false,
            trailers: None,
            persistent: false,
            response_bytes: 0,
            heard: false,
            timed: false,
            status: None,
        };
        let timer = worker.timers.timer();
        let result = poll_fn(|cx| exchange.poll(&timer, cx)).await;
        let heard = exchange.heard;
        let persistent = exchange.persistent && exchange.inbox.is_empty();
        log.transferred(exchange.status, exchange.request_bytes, exchange.response_bytes);
        worker.buffers.give(exchange.to_upstream);
        worker.buffers.give(exchange.inbox);
        match result {
            Ok(()) => {
                if persistent {
                    worker.pools.put(lease, settings);
                }
                worker.buffers.give(head);
                return Ok(());
            }
            Err(Failure::UpstreamGone)
                if !heard && attempts.again(&lease, bodyless, parts.method.is_idempotent()) =>
            {
                log.retried(worker);
            }
            Err(failure) => return Err(Failed::Exchange(failure)),
        }
    }
}

fn request_line(parts: &Parts) -> RequestLine<'_> {
    let text = |name| parts.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
    let authority = parts.uri.authority();
    RequestLine {
        method: parts.method.as_str().as_bytes(),
        host: authority.map_or_else(|| text(HOST), |a| a.as_str().as_bytes()),
        path: parts.uri.path_and_query().map_or(b"", |p| p.as_str().as_bytes()),
        user_agent: text(USER_AGENT),
    }
}

/// Forwards a stream to an endpoint that speaks HTTP/2 itself.
async fn over_http2(
    parts: &Parts,
    body: RecvStream,
    reply: &mut Reply,
    worker: &Worker,
    settings: &Settings,
    target: &RouteTarget,
    log: &mut Transaction,
) -> Result<(), Failed> {
    let body = (!body.is_end_stream()).then(|| OutBody::from(body));
    let sent = http2_upstream::send(worker, target, settings, parts, body, log);
    let (response, _active) = tokio::select! {
        biased;
        sent = sent => sent?,
        _ = poll_fn(|cx| reply.respond.poll_reset(cx)) => {
            return Err(Failed::Exchange(Failure::ClientGone));
        }
    };
    let (head, mut answer) = response.into_parts();
    let mut response = Response::new(());
    *response.status_mut() = head.status;
    rewrite::response_fields(fields(&head.headers), response.headers_mut());
    let gone = |_| Failed::Exchange(Failure::ClientGone);
    let ends = answer.is_end_stream();
    log.transferred(Some(head.status.as_u16()), 0, 0);
    let out = reply.respond.send_response(response, ends).map_err(gone)?;
    let out = reply.body.insert(out);
    if ends {
        return Ok(());
    }
    let timer = worker.timers.timer();
    loop {
        timer.set(settings.timeouts.response_idle);
        let frame = tokio::select! {
            biased;
            frame = answer.frame() => frame,
            _ = poll_fn(|cx| out.poll_reset(cx)) => return Err(Failed::Exchange(Failure::ClientGone)),
            () = timer.expired() => return Err(Failed::Exchange(Failure::UpstreamStalled)),
        };
        match frame.transpose().map_err(|_| Failed::Exchange(Failure::UpstreamGone))? {
            None => {
                out.send_data(Bytes::new(), true).map_err(gone)?;
                return Ok(());
            }
            Some(frame) => match frame.into_data() {
                Ok(mut data) => {
                    log.transferred(None, 0, data.len() as u64);
                    timer.set(settings.timeouts.body_idle);
                    while !data.is_empty() {
                        out.reserve_capacity(data.len());
                        let room = tokio::select! {
                            biased;
                            room = poll_fn(|cx| out.poll_capacity(cx)) => room,
                            () = timer.expired() => None,
                        };
                        let Some(Ok(room)) = room else {
                            return Err(Failed::Exchange(Failure::ClientGone));
                        };
                        let piece = data.split_to(room.min(data.len()));
                        out.send_data(piece, false).map_err(gone)?;
                    }
                }
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        out.send_trailers(trailers).map_err(gone)?;
                        return Ok(());
                    }
                }
            },
        }
    }
}

/// The host a request is for: `:authority`, or Host where that is absent. Both must agree (RFC
/// 9113, section 8.3.1).
fn authority(parts: &Parts) -> Result<HostPort<'_>, Answer> {
    if parts.method == Method::CONNECT || parts.method == Method::TRACE {
        return Err(Answer::new(405, "method-not-allowed"));
    }
    let mut hosts = parts.headers.get_all(HOST).iter();
    let host = hosts.next().map(HeaderValue::as_bytes);
    if hosts.next().is_some() {
        return Err(Answer::new(400, "repeated-host"));
    }
    let pseudo = parts.uri.authority().map(|a| a.as_str().as_bytes());
    let parse = |text| HostPort::parse(text).ok_or(Answer::new(400, "invalid-host"));
    match (pseudo, host) {
        (Some(pseudo), Some(host)) => {
            let (pseudo, host) = (parse(pseudo)?, parse(host)?);
            if !pseudo.is_same_as(&host) {
                return Err(Answer::new(400, "host-contradicts-authority"));
            }
            Ok(pseudo)
        }
        (Some(text), None) | (None, Some(text)) => parse(text),
        (None, None) => Err(Answer::new(400, "missing-host")),
    }
}

/// The path as a request line may hold it.
fn path(parts: &Parts) -> Result<&str, Answer> {
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let fits = path.starts_with('/') || (path == "*" && parts.method == Method::OPTIONS);
    if !fits || !path.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Answer::new(400, "bad-target"));
    }
    Ok(path)
}

fn framing(parts: &Parts, body: &RecvStream) -> Result<Framing, Answer> {
    if let Some(expect) = parts.headers.get(EXPECT)
        && !expect.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Answer::new(417, "unknown-expectation"));
    }
    let length = declared_length(fields(&parts.headers))
        .map_err(|refusal| Answer::new(refusal.status(), refusal.reason()))?;
    Ok(match length {
        // h2 resets a stream whose body is not as long as this says.
        Some(length) => Framing::Length(length),
        None if body.is_end_stream() => Framing::None,
        None => Framing::Chunked,
    })
}

fn write_head(
    parts: &Parts,
    path: &str,
    framing: Framing,
    forwarding: &Forwarding<'_>,
    out: &mut BytesMut,
) {
    out.extend_from_slice(parts.method.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(path.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    rewrite::request_fields(fields(&parts.headers), forwarding, out);
    rewrite::request_framing(framing, out);
    out.extend_from_slice(b"\r\n");
}

/// The fields of a map, as the rules take them.
pub(crate) fn fields(map: &HeaderMap) -> impl Iterator<Item = (&[u8], &[u8])> {
    map.iter()
        .map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()))
}

/// A stream and its connection of HTTP/1.1, under way.
struct StreamExchange<'a> {
    reply: &'a mut Reply,
    stream: &'a mut Stream,
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
    timed: bool,
    status: Option<u16>,
}

impl StreamExchange<'_> {
    fn poll(&mut self, timer: &Timer, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut progress = false;
        loop {
            let moved = self.poll_request(cx)?;
            match self.poll_response(cx)? {
                Poll::Ready(()) => {
                    self.persistent &= self.request.is_none()
                        && self.to_upstream.is_empty()
                        && !self.request_broken;
                    return Poll::Ready(Ok(()));
                }
                Poll::Pending if !moved => break,
                Poll::Pending => progress = true,
            }
        }
        if self.is_reset(cx) {
            return Poll::Ready(Err(Failure::ClientGone));
        }
        let (patience, failure) = self.awaits();
        if progress || !self.timed {
            self.timed = true;
            match patience {
                Some(patience) => timer.set(patience),
                None => timer.clear(),
            }
        }
        timer.poll_expired(cx).map(|()| Err(failure))
    }

    fn is_reset(&mut self, cx: &mut Context<'_>) -> bool {
        match &mut self.reply.body {
            Some(body) => body.poll_reset(cx).is_ready(),
            None => self.reply.respond.poll_reset(cx).is_ready(),
        }
    }

    fn awaits(&self) -> (Option<std::time::Duration>, Failure) {
        let timeouts = &self.settings.timeouts;
        if !self.to_upstream.is_empty() && !self.request_broken {
            (Some(timeouts.body_idle), Failure::UpstreamStalled)
        } else if self.request.is_some() && self.decoder.is_none() {
            (Some(timeouts.body_idle), Failure::ClientStalled)
        } else if self.decoder.is_none() {
            let patience = timeouts.response_head;
            ((!patience.is_zero()).then_some(patience), Failure::UpstreamStalled)
        } else if !self.pending.is_empty() {
            // Bytes are here and the client's window is closed.
            (Some(timeouts.body_idle), Failure::ClientStalled)
        } else {
            (Some(timeouts.response_idle), Failure::UpstreamStalled)
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
                Poll::Ready(Ok(_)) => self.heard = true,
                Poll::Ready(Err(_)) => return Err(Failure::UpstreamGone),
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
                    out.send_trailers(trailers).map_err(|_| Failure::ClientGone)?;
                } else if !self.end_sent {
                    out.send_data(Bytes::new(), true).map_err(|_| Failure::ClientGone)?;
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
            self.end_sent |= last;
            if self.pending.is_empty() {
                self.pending = std::mem::take(&mut self.following);
            }
        }
    }
}

/// Reads into `buf`; `Ready(Ok(0))` is the end.
fn poll_read(stream: &mut Stream, buf: &mut BytesMut, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    pin!(stream.read_buf(buf)).poll(cx)
}

fn poll_write(stream: &mut Stream, data: &[u8], cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    Pin::new(stream).poll_write(cx, data)
}

impl Reply {
    /// Answers in the router's own name; how many bytes that is.
    fn answer(&mut self, answer: Answer, date: &str) -> usize {
        let body = answer.body();
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
        let headers = response.headers_mut();
        if let Ok(date) = HeaderValue::from_str(date) {
            headers.insert(DATE, date);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        headers.insert(CONTENT_LENGTH, body.len().into());
        let length = body.len();
        if let Ok(mut out) = self.respond.send_response(response, self.head_only)
            && !self.head_only
        {
            // A client that has gone needs no answer.
            let _ = out.send_data(body.into(), true);
        }
        length
    }

    fn reset(&mut self) {
        if let Some(body) = &mut self.body {
            body.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}
