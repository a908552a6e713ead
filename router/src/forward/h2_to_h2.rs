//! One stream of a client of HTTP/2 and its answer from an endpoint of HTTP/2.

use std::future::poll_fn;

use bytes::Bytes;
use h2::RecvStream;
use http::Response;
use http::request::Parts;
use http_body_util::BodyExt;
use hyper::body::Body;

use super::failure::Failure;
use super::h2_request::fields;
use super::http2_upstream;
use super::log::Transaction;
use super::stream::{Failed, Reply};
use crate::http1::rewrite;
use crate::route::RouteTarget;
use crate::snapshot::Settings;
use crate::upstream::OutBody;
use crate::worker::Worker;

/// Forwards a stream to an endpoint that speaks HTTP/2 itself.
pub(crate) async fn forward(
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
        match frame
            .transpose()
            .map_err(|_| Failed::Exchange(Failure::UpstreamGone))?
        {
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
