//! One stream of a client of HTTP/2: decided, forwarded, answered.

use std::rc::Rc;

use bytes::Bytes;
use config::route::UpstreamProtocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, DATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};

use super::attempts::Attempts;
use super::client::Client;
use super::failure::Failure;
use super::h2_request::{authority, fields, framing, path, request_line, write_head};
use super::h2_to_h1::{Ended, StreamExchange};
use super::h2_to_h2;
use super::http2_upstream;
use super::log::Transaction;
use super::request::decide;
use super::respond::Answer;
use crate::http1::head::Framing;
use crate::http1::rewrite::Forwarding;
use crate::observe::metrics::ClientProtocol;
use crate::snapshot::Snapshot;
use crate::worker::Worker;

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
    match forward(
        &parts, body, &mut reply, &client, &worker, &snapshot, &mut log,
    )
    .await
    {
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
pub(crate) enum Failed {
    Answer(Answer),
    Exchange(Failure),
}

impl From<Answer> for Failed {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

/// The client's side of the answer.
pub(crate) struct Reply {
    pub(crate) respond: SendResponse<Bytes>,
    /// Present once a final head has been sent.
    pub(crate) body: Option<SendStream<Bytes>>,
    pub(crate) head_only: bool,
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
        let over = h2_to_h2::forward(&parts, body, reply, worker, settings, target, log);
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
        let timer = worker.timers.timer();
        let mut exchange = StreamExchange::new(
            (reply, &mut lease.stream),
            (body.take_if(|_| !bodyless), framing),
            (to_upstream, worker.buffers.take()),
            (&timer, settings),
        );
        let result = exchange.run().await;
        let Ended {
            status,
            heard,
            persistent,
            bytes: (sent, received),
            buffers,
        } = exchange.end();
        log.transferred(status, sent, received);
        buffers.into_iter().for_each(|b| worker.buffers.give(b));
        match result {
            Ok(()) => {
                if persistent {
                    worker.pools.put(lease, settings);
                }
                worker.buffers.give(head);
                return Ok(());
            }
            Err(failure)
                if attempts.again(
                    (&worker.pools, settings),
                    &lease,
                    (&failure, heard),
                    (bodyless, parts.method.is_idempotent()),
                ) =>
            {
                log.retried(worker);
            }
            Err(failure) => return Err(Failed::Exchange(failure)),
        }
    }
}

impl Reply {
    /// Answers in the router's own name; how many bytes that is.
    fn answer(&mut self, answer: Answer, date: &str) -> usize {
        let body = answer.body();
        let mut response = Response::new(());
        *response.status_mut() =
            StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
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
