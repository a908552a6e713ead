//! Requests to endpoints that speak HTTP/2: hyper's client carries them, from either mouth.

use std::error::Error as _;

use http::request::Parts;
use http::{Method, Request, Response, Uri, Version as HttpVersion};
use hyper::body::Incoming;

use super::failure::Failure;
use super::log::Transaction;
use super::respond::Answer;
use crate::http1::head::Framing;
use crate::http1::rewrite::{self, FieldSink, Forwarding};
use crate::route::RouteTarget;
use crate::snapshot::Settings;
use crate::upstream::{self, Active, NoEndpoint, OutBody, Tried};
use crate::worker::Worker;

/// A request's head as HTTP/2 wants it (RFC 9113, section 8.3.1). Fields follow the same policy as
/// towards HTTP/1.1; framing fields other than a length have no place.
pub(crate) fn head<'a>(
    method: Method,
    path: &str,
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    framing: Framing,
    forwarding: &Forwarding<'a>,
    tls: bool,
) -> Result<Parts, Answer> {
    let uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(forwarding.host)
        .path_and_query(path)
        .build()
        .map_err(|_| Answer::new(400, "bad-target"))?;
    let mut request = Request::new(());
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.version_mut() = HttpVersion::HTTP_2;
    rewrite::request_fields(fields, forwarding, request.headers_mut());
    if let Framing::Length(length) = framing {
        request.headers_mut().field(
            b"content-length",
            itoa::Buffer::new().format(length).as_bytes(),
        );
    }
    Ok(request.into_parts().0)
}

/// Sends a request and waits for the answer's head. A request without a body that died before an
/// answer is sent once more if that is safe.
pub(crate) async fn send(
    worker: &Worker,
    target: &RouteTarget,
    settings: &Settings,
    parts: &Parts,
    mut body: Option<OutBody>,
    log: &mut Transaction,
) -> Result<(Response<Incoming>, Active), Answer> {
    let mut tried = Tried::default();
    let mut again = false;
    let bodyless = body.is_none();
    loop {
        let leased = worker
            .pools
            .http2(&target.upstream, settings, &mut tried)
            .await;
        let mut lease = match leased {
            Ok(lease) => lease,
            Err(NoEndpoint { last: None }) if !tried.is_empty() => {
                // The only endpoint there is gets the second attempt, too.
                tried = Tried::default();
                continue;
            }
            Err(error) => return Err(Answer::new(503, error.reason())),
        };
        log.attempted(worker, lease.endpoint.endpoint.address, lease.reused);
        let request = Request::from_parts(parts.clone(), body.take().unwrap_or(OutBody::Empty));
        let sent = async {
            lease.sender.ready().await?;
            lease.sender.send_request(request).await
        };
        let patience = settings.timeouts.response_head;
        let answer = if patience.is_zero() {
            sent.await
        } else {
            match tokio::time::timeout(patience, sent).await {
                Ok(answer) => answer,
                Err(_) => return Err(Failure::UpstreamStalled.answer()),
            }
        };
        let error = match answer {
            Ok(response) => return Ok((response, lease.active)),
            Err(error) => error,
        };
        let lost = is_lost(&error);
        if lost {
            let rest = settings.timeouts.endpoint_rest;
            worker.pools.lost(&lease.endpoint, rest);
        }
        if again || !bodyless || !parts.method.is_idempotent() {
            tracing::debug!(%error, "request over HTTP/2 failed");
            let failure = match lost {
                true => Failure::UpstreamLost,
                false => Failure::UpstreamGone,
            };
            return Err(failure.answer());
        }
        again = true;
        lease.endpoint.http2.close();
        tried.add(&lease.endpoint);
        log.retried(worker);
    }
}

/// Whether a request has failed because the endpoint's host is gone.
fn is_lost(error: &hyper::Error) -> bool {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let mut errors = causes.filter_map(|cause| {
        let of_http2 = cause.downcast_ref::<h2::Error>().and_then(|it| it.get_io());
        of_http2.or_else(|| cause.downcast_ref())
    });
    errors.any(upstream::is_gone)
}
