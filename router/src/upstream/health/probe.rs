//! One check of one endpoint.

use std::time::Duration;

use bytes::Bytes;
use config::route::{HostMatch, UpstreamProtocol};
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::schedule::Job;
use crate::registry::record::Check;
use crate::upstream::Stream;
use crate::upstream::connect::{ConnectError, Wanted, connect};

/// Bytes that an answer's head may have.
const HEAD_BYTES: usize = 32 << 10;

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeError {
    /// There was no connection.
    #[error("no connection: {0}")]
    Connect(#[from] ConnectError),
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The path of the check is none.
    #[error("no request can be made of the check's path: {0}")]
    Request(#[from] http::Error),
    /// The connection broke, or what came is not HTTP.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
    /// A mistake of ours.
    #[error("the check broke off")]
    BrokeOff,
    /// An answer that says no.
    #[error("answered with {0}")]
    Status(StatusCode),
}

/// Connects as a request would, TLS included; with a path, asks for it as well. Takes at most as
/// long as the check allows.
pub(super) async fn probe(job: &Job) -> Result<(), ProbeError> {
    let check = &job.spec.check;
    let timeout = patience(check);
    let wanted = match job.endpoint.protocol {
        UpstreamProtocol::Http1 => Wanted::Http1,
        UpstreamProtocol::Http2 => Wanted::Http2,
    };
    let attempt = async {
        let stream = connect(&job.endpoint, wanted, timeout).await?;
        let Some(path) = &check.path else {
            return Ok(());
        };
        let host = host(&job.spec.host);
        let status = match wanted {
            Wanted::Http1 => ask_http1(stream, path, &host).await?,
            Wanted::Http2 => {
                let scheme = if job.endpoint.tls.is_some() {
                    "https"
                } else {
                    "http"
                };
                ask_http2(stream, &format!("{scheme}://{host}{path}")).await?
            }
        };
        match status.as_u16() {
            200..=399 => Ok(()),
            _ => Err(ProbeError::Status(status)),
        }
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .unwrap_or(Err(ProbeError::Timeout))
}

/// How long a check may take. A record may be older than the rule that limits it.
pub(super) fn patience(check: &Check) -> Duration {
    Duration::from_secs(check.timeout.min(Check::LONGEST).into())
}

/// The rule's own name, or for a suffix one that it takes: the star must not be empty, and every
/// rule is a name with one character in its place.
fn host(rule: &HostMatch) -> String {
    match rule {
        HostMatch::Exact(name) => name.as_str().to_owned(),
        HostMatch::Suffix(suffix) => format!("x{suffix}"),
    }
}

async fn ask_http1(stream: Stream, path: &str, host: &str) -> Result<StatusCode, ProbeError> {
    let request = request(path).header(header::HOST, host);
    let request = request
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    answer(sender.send_request(request), connection).await
}

async fn ask_http2(stream: Stream, url: &str) -> Result<StatusCode, ProbeError> {
    let request = request(url).body(Empty::<Bytes>::new())?;
    let (mut sender, connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES as u32)
        .handshake(TokioIo::new(stream))
        .await?;
    answer(sender.send_request(request), connection).await
}

fn request(url: &str) -> http::request::Builder {
    Request::get(url)
        .header(header::USER_AGENT, "gatehouse-check")
        .header(header::ACCEPT, "*/*")
}

/// Runs the connection only until the head of the answer is there; the body does not matter.
async fn answer<B>(
    response: impl Future<Output = hyper::Result<http::Response<B>>>,
    connection: impl Future<Output = hyper::Result<()>>,
) -> Result<StatusCode, ProbeError> {
    tokio::pin!(response, connection);
    tokio::select! {
        biased;
        answer = &mut response => return Ok(answer?.status()),
        ended = &mut connection => ended?,
    }
    // The connection is over; whatever it had to say has been handed on.
    Ok(response.await?.status())
}
