//! The mouth for clients of HTTP/1: reads requests off a connection, one after another.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::{Buf, BytesMut};
use config::route::UpstreamProtocol;
use http::Method;
use http::request::Parts;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncWrite, AsyncWriteExt};

use super::attempts::Attempts;
use super::client::Client;
use super::failure::Failure;
use super::flow::Announced;
use super::h1_to_h1::{Exchange, Request, flows};
use super::h1_to_h2::{FromHttp1, FromHttp1Error};
use super::http2_upstream;
use super::log::Transaction;
use super::request::decide;
use super::respond::{Answer, LINGER, LINGER_BYTES};
use super::upgrade;
use crate::http1::FieldSlots;
use crate::http1::body::BodyDecoder;
use crate::http1::head::{Framing, RequestHead, Version, parse_request};
use crate::http1::response::RequestKind;
use crate::http1::rewrite::{self, Forwarding};
use crate::http1::scan::HeadScanner;
use crate::observe::access_log::RequestLine;
use crate::observe::metrics::ClientProtocol;
use crate::route::RouteTarget;
use crate::snapshot::{Settings, Snapshot};
use crate::worker::Worker;
use crate::worker::timers::Timer;

/// One client connection.
struct Connection<C> {
    io: C,
    client: Client,
    worker: Rc<Worker>,
    timer: Timer,
    /// Bytes of the client that no request has claimed yet.
    input: BytesMut,
    /// The request's head as it goes to the endpoint, kept for a second attempt.
    head: BytesMut,
    /// The request under way asks by HEAD, so our own answer has no body either.
    head_only: bool,
}

/// A request that may be forwarded.
struct Plan<'s> {
    settings: &'s Settings,
    target: &'s RouteTarget,
    request: Request,
    framing: Framing,
    /// RFC 9110, section 9.2.2: sending it twice does what sending it once does.
    idempotent: bool,
    /// The head for an endpoint of HTTP/2; otherwise it lies in the connection.
    http2: Option<Box<Parts>>,
}

/// What the client asked for, decided.
enum Next<'s> {
    Forward(Plan<'s>),
    /// Answer it ourselves; the flag says whether the connection has to close.
    Answer(Answer, bool),
}

/// What waiting for a client brought.
enum Waited {
    /// More bytes are in the input.
    Bytes,
    /// The client is gone, or the worker drains and no request has begun.
    Gone,
    /// The deadline has passed.
    Late,
}

/// Serves one client until it leaves, a rule ends the connection, or the worker drains.
pub(crate) async fn serve<C>(io: C, client: Client, worker: Rc<Worker>)
where
    C: AsyncBufRead + AsyncWrite + Unpin,
{
    let timer = worker.timers.timer();
    let connection = Connection {
        io,
        client,
        timer,
        input: BytesMut::new(),
        head: BytesMut::new(),
        head_only: false,
        worker,
    };
    connection.run().await;
}

impl<C: AsyncBufRead + AsyncWrite + Unpin> Connection<C> {
    async fn run(mut self) {
        let mut scanner = HeadScanner::new();
        let mut seen = None;
        loop {
            let next = match self.wait(&mut scanner, seen).await {
                Waited::Bytes => None,
                Waited::Gone => return Box::pin(self.close()).await,
                Waited::Late => Some(Answer::new(408, "request-head-timeout")),
            };
            // Taken now and not before the wait: idle connections must not keep old snapshots.
            let snapshot = self.worker.snapshot();
            let mut log = Transaction::begin(ClientProtocol::Http1);
            let next = match next {
                Some(late) => Next::Answer(late, true),
                None => match self.plan(&snapshot, &mut log) {
                    Ok(Some(next)) => next,
                    Ok(None) => {
                        seen = Some(self.input.len());
                        continue;
                    }
                    Err(answer) => {
                        if snapshot.settings.access_log && !log.is_recorded() {
                            // What it asked for cannot be told apart from garbage.
                            log.asked(&self.client, RequestLine::default());
                        }
                        Next::Answer(answer, true)
                    }
                },
            };
            let persistent = match next {
                // Boxed: between requests, which is where most connections are, it takes no room.
                Next::Forward(plan) => Box::pin(self.forward(plan, &mut log)).await,
                Next::Answer(answer, close) => {
                    let sent = Box::pin(self.answer(answer, close, &mut log)).await;
                    sent.then_some(!close)
                }
            };
            log.end(&self.worker);
            match persistent {
                Some(true) => {}
                Some(false) => return Box::pin(self.linger()).await,
                None => return,
            }
            (scanner, seen) = (HeadScanner::new(), None);
            self.worker.buffers.give(std::mem::take(&mut self.head));
            if self.input.is_empty() {
                self.worker.buffers.give(std::mem::take(&mut self.input));
            }
        }
    }

    /// Waits until a whole head may be in the input. `seen` is how much of it was there when it
    /// was found incomplete.
    async fn wait(&mut self, scanner: &mut HeadScanner, seen: Option<usize>) -> Waited {
        let (head, idle, limits) = {
            let snapshot = self.worker.snapshot();
            let settings = &snapshot.settings;
            (
                settings.timeouts.request_head,
                settings.timeouts.client_idle,
                settings.head_limits(),
            )
        };
        // The deadline of a head that has begun runs on.
        if seen.is_none() {
            self.timer
                .set(if self.input.is_empty() { idle } else { head });
        }
        while self.input.len() <= seen.unwrap_or(0) || !scanner.ready(&self.input, &limits) {
            let started = !self.input.is_empty();
            match self.read(started).await {
                Waited::Bytes if !started => self.timer.set(head),
                Waited::Bytes => {}
                Waited::Late if !started => return Waited::Gone,
                other => return other,
            }
        }
        Waited::Bytes
    }

    /// Reads what the client has sent. Between requests a drain ends the wait.
    async fn read(&mut self, started: bool) -> Waited {
        let Self {
            io,
            timer,
            input,
            worker,
            ..
        } = self;
        poll_fn(|cx| {
            match Pin::new(&mut *io).poll_fill_buf(cx) {
                Poll::Ready(Ok([]) | Err(_)) => return Poll::Ready(Waited::Gone),
                Poll::Ready(Ok(data)) => {
                    if input.capacity() == 0 {
                        *input = worker.buffers.take();
                    }
                    input.extend_from_slice(data);
                    let length = data.len();
                    Pin::new(&mut *io).consume(length);
                    return Poll::Ready(Waited::Bytes);
                }
                Poll::Pending => {}
            }
            if !started && worker.is_draining() {
                return Poll::Ready(Waited::Gone);
            }
            timer.poll_expired(cx).map(|()| Waited::Late)
        })
        .await
    }

    /// Decides on the head at the front of the input. `None`: it is not complete.
    fn plan<'s>(
        &mut self,
        snapshot: &'s Snapshot,
        log: &mut Transaction,
    ) -> Result<Option<Next<'s>>, Answer> {
        let settings = &snapshot.settings;
        let mut slots = FieldSlots::new();
        let request = parse_request(&self.input, &mut slots, &settings.head_limits())
            .map_err(|refusal| Answer::new(refusal.status(), refusal.reason()))?;
        let Some(request) = request else {
            return Ok(None);
        };
        if settings.access_log {
            log.asked(&self.client, request_line(&request));
        }
        let target = match decide(snapshot, &self.client.certificate, request.host.name) {
            Ok(target) => target,
            Err(answer) => {
                // A body that nobody reads would be taken for the next request.
                let close = !request.persistent || !is_bodyless(request.framing);
                let length = request.len;
                self.head_only = request.method == "HEAD";
                self.input.advance(length);
                return Ok(Some(Next::Answer(answer, close)));
            }
        };
        log.routed(target);
        let upgrade = allowed_upgrade(&request, &settings.upgrades);
        let forwarding = Forwarding {
            client: self.client.peer.ip(),
            host: request.host.text,
            port: self.client.local_port,
            trusted: self.client.trusted,
        };
        let method = Method::from_bytes(request.method.as_bytes()).unwrap_or(Method::POST);
        // What switches protocols does so over HTTP/1.1, whatever the endpoint speaks otherwise.
        let http2 = if target.upstream.protocol == UpstreamProtocol::Http2 && upgrade.is_none() {
            let parts = http2_upstream::head(
                method.clone(),
                request.path,
                request.end_to_end_fields(),
                request.framing,
                &forwarding,
                target.upstream.is_tls(),
            )?;
            Some(Box::new(parts))
        } else {
            if self.head.capacity() == 0 {
                self.head = self.worker.buffers.take();
            }
            self.head.clear();
            rewrite::request_head(&request, &forwarding, upgrade, &mut self.head);
            None
        };
        let plan = Plan {
            request: Request {
                version: request.version,
                kind: match method {
                    Method::HEAD => RequestKind::Head,
                    _ => RequestKind::Other,
                },
                persistent: request.persistent,
                upgrade: upgrade.is_some(),
            },
            framing: request.framing,
            idempotent: method.is_idempotent(),
            target,
            settings,
            http2,
        };
        self.head_only = plan.request.kind == RequestKind::Head;
        let length = request.len;
        self.input.advance(length);
        Ok(Some(Next::Forward(plan)))
    }

    /// Forwards a request and its answer. `None`: the connection is of no more use.
    /// Otherwise the flag says whether it may carry another request.
    async fn forward(&mut self, plan: Plan<'_>, log: &mut Transaction) -> Option<bool> {
        let worker = Rc::clone(&self.worker);
        let settings = plan.settings;
        let upstream = &plan.target.upstream;
        let draining = || worker.is_draining();
        let bodyless = is_bodyless(plan.framing);
        if let Some(parts) = &plan.http2 {
            return Box::pin(self.forward_http2(&plan, parts, log)).await;
        }
        let mut attempts = Attempts::default();
        loop {
            let mut lease = match attempts.lease(&worker.pools, upstream, settings).await {
                Ok(lease) => lease,
                Err(answer) => return Box::pin(self.fail(answer, bodyless, &plan, log)).await,
            };
            log.attempted(&worker, lease.address(), lease.reused);
            let (mut request, response) = flows(
                std::mem::take(&mut self.input),
                [
                    worker.buffers.take(),
                    worker.buffers.take(),
                    worker.buffers.take(),
                ],
            );
            request.outbox.extend_from_slice(&self.head);
            let announced = match plan.framing {
                Framing::Chunked => Announced::Chunked,
                Framing::None | Framing::Length(_) => Announced::Plain,
            };
            request.begin(BodyDecoder::request(plan.framing), announced);
            let mut exchange = Exchange::new(
                (&mut self.io, &mut lease.stream),
                (request, response),
                plan.request,
                &self.timer,
                settings,
                &draining,
            );
            let result = exchange.run().await;
            let (status, heard) = (exchange.status, exchange.heard);
            let (mut request, mut response) = exchange.into_flows();
            self.input = std::mem::take(&mut request.inbox);
            log.transferred(status, request.body_bytes, response.body_bytes);
            match result {
                Ok(end) if end.switched => {
                    worker.buffers.give(request.outbox);
                    worker.buffers.give(response.outbox);
                    let left = (std::mem::take(&mut self.input), response.inbox);
                    let tunnel = upgrade::tunnel(
                        &mut self.io,
                        lease,
                        left,
                        &self.timer,
                        settings,
                        &worker,
                        log,
                    );
                    Box::pin(tunnel).await;
                    return None;
                }
                Ok(end) => {
                    worker.buffers.give(request.outbox);
                    worker.buffers.give(response.outbox);
                    worker.buffers.give(std::mem::take(&mut response.inbox));
                    if end.upstream_persistent {
                        worker.pools.put(lease, settings);
                    }
                    return Some(end.client_persistent);
                }
                Err(failure)
                    if attempts.again(
                        (&worker.pools, settings),
                        &lease,
                        (&failure, heard),
                        (bodyless, plan.idempotent),
                    ) =>
                {
                    log.retried(&worker);
                }
                Err(failure) => {
                    log.failed(&failure);
                    if status.is_some() || matches!(failure, Failure::ClientGone) {
                        return None;
                    }
                    let answer = failure.answer();
                    drop(lease);
                    return Box::pin(self.fail(answer, bodyless, &plan, log)).await;
                }
            }
        }
    }

    /// Forwards a request to an endpoint of HTTP/2; returns as [`Self::forward`] does.
    async fn forward_http2(
        &mut self,
        plan: &Plan<'_>,
        parts: &Parts,
        log: &mut Transaction,
    ) -> Option<bool> {
        let worker = Rc::clone(&self.worker);
        let exchange = FromHttp1 {
            io: &mut self.io,
            input: &mut self.input,
            timer: &self.timer,
            settings: plan.settings,
            framing: plan.framing,
            facts: plan.request,
        };
        match exchange.run(&worker, plan.target, parts, log).await {
            Ok(persistent) => Some(persistent),
            Err(FromHttp1Error::Answer(answer)) => {
                let bodyless = is_bodyless(plan.framing);
                self.fail(answer, bodyless, plan, log).await
            }
            Err(FromHttp1Error::Begun(failure)) => {
                log.failed(&failure);
                None
            }
        }
    }

    /// Answers a request that could not be forwarded.
    async fn fail(
        &mut self,
        answer: Answer,
        bodyless: bool,
        plan: &Plan<'_>,
        log: &mut Transaction,
    ) -> Option<bool> {
        let close = !plan.request.persistent || !bodyless || self.worker.is_draining();
        let sent = self.answer(answer, close, log).await;
        sent.then_some(!close)
    }

    async fn answer(&mut self, answer: Answer, close: bool, log: &mut Transaction) -> bool {
        let mut out = self.worker.buffers.take();
        answer.write_http1(&self.worker.date(), self.head_only, close, &mut out);
        log.answered(&self.worker, answer, out.len());
        self.timer
            .set(self.worker.snapshot().settings.timeouts.body_idle);
        let sent = tokio::select! {
            sent = async {
                self.io.write_all(&out).await?;
                self.io.flush().await
            } => sent.is_ok(),
            () = self.timer.expired() => false,
        };
        self.worker.buffers.give(out);
        sent
    }

    /// Closes our side. With a deadline: what was answered before may fill the socket of a client
    /// that reads nothing.
    async fn close(&mut self) {
        self.timer.set(LINGER);
        tokio::select! {
            _ = self.io.shutdown() => {}
            () = self.timer.expired() => {}
        }
    }

    /// Closes our side and reads the client's for a moment.
    async fn linger(&mut self) {
        self.timer.set(LINGER);
        let io = &mut self.io;
        let drained = async {
            if io.shutdown().await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES;
            while let Ok(data) = io.fill_buf().await {
                let length = data.len();
                if length == 0 || length > left {
                    return;
                }
                left -= length;
                io.consume(length);
            }
        };
        tokio::select! {
            () = drained => {}
            () = self.timer.expired() => {}
        }
    }
}

/// Whether the next request follows right behind the head.
fn is_bodyless(framing: Framing) -> bool {
    matches!(framing, Framing::None | Framing::Length(0))
}

/// The protocol a request may switch to, if it asks for one that the configuration lists. A
/// request with a body, or of HTTP/1.0, goes on as plain HTTP.
pub(crate) fn allowed_upgrade<'b>(
    request: &RequestHead<'_, 'b>,
    allowed: &[String],
) -> Option<&'b str> {
    let wanted = request.upgrade?;
    let fits = request.version == Version::Http11
        && matches!(request.framing, Framing::None)
        && allowed.iter().any(|name| name.eq_ignore_ascii_case(wanted));
    fits.then_some(wanted)
}

/// What the access log tells of a request of HTTP/1.
pub(crate) fn request_line<'a>(request: &RequestHead<'_, 'a>) -> RequestLine<'a> {
    let agent = request
        .fields
        .iter()
        .find(|field| field.name.eq_ignore_ascii_case("user-agent"));
    RequestLine {
        method: request.method.as_bytes(),
        host: request.host.text.as_bytes(),
        path: request.path.as_bytes(),
        user_agent: agent.map_or(b"", |field| field.value),
    }
}
