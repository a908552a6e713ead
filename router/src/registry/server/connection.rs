//! One connection: handshake, who it is, requests, the end.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use axum::body::Body;
use http::{Request, Response};
use http_body_util::Limited;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::Error::InvalidCertificate;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tower::ServiceExt as _;

use super::activity::{Activity, OpenRequest, Verdict};
use super::body::AnswerBody;
use super::stream::Patient;
use super::{ApiOptions, Shared};
use crate::registry::auth::certificate::identify;
use crate::registry::auth::guard::{Held, Peer};
use crate::registry::auth::limits::Demand;
use crate::registry::auth::standing::Standing;
use crate::worker::Order;

/// Bytes of a request's body.
pub(super) const MOST_BODY: usize = 256 << 10;
/// Bytes of a request's head.
const MOST_HEAD: usize = 16 << 10;
/// Fields of a request's head.
const MOST_FIELDS: usize = 64;
/// Requests that one HTTP/2 connection may have open.
const MOST_STREAMS: u32 = 32;
/// Bytes of bodies that an HTTP/2 connection may send before anybody has read them.
const WINDOW: u32 = 256 << 10;
/// The same of one stream.
const STREAM_WINDOW: u32 = 64 << 10;

/// How long a client may take to hear that a connection without requests ends.
const FAREWELL: Duration = Duration::from_secs(1);

/// Serves one connection until it ends.
pub(super) async fn serve(tcp: TcpStream, address: SocketAddr, shared: Arc<Shared>) {
    // From before the handshake, so that no change is missed.
    let mut authorities = shared.tls.authorities();
    let accepting = TlsAcceptor::from(shared.tls.config()).accept(tcp);
    let stream = match timeout(shared.options.handshake, accepting).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return refused(&shared, address, &error),
        Err(_) => return refused(&shared, address, &std::io::ErrorKind::TimedOut.into()),
    };
    let (peer, http2) = meet(&stream, address);
    let trusted = peer.certificate.is_some();
    let activity = Activity::new();
    let (ending, ended) = watch::channel(false);
    let service = service_fn(|request| {
        let open = activity.begin();
        let (shared, peer, ended) = (Arc::clone(&shared), peer.clone(), ended.clone());
        async move { Ok::<_, axum::Error>(answer(request, open, &shared, peer, ended).await) }
    });
    let stream = TokioIo::new(Patient::new(stream, shared.options.stall));
    let builder = builder(&shared.options, http2);
    let mut connection = pin!(builder.serve_connection(stream, service));

    let options = &shared.options;
    let mut orders = shared.orders.clone();
    let mut look = options.idle.min(options.stall) / 4;
    let mut leaving_since: Option<Instant> = None;
    loop {
        let stays = leaving_since.is_none();
        let leave = tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    tracing::debug!(peer = %address, error, "registry: connection ended");
                }
                return;
            }
            // An error says that whoever gives orders has gone: the process ends.
            _ = orders.wait_for(|order| *order != Order::Serve), if stays => true,
            _ = authorities.changed(), if stays && trusted => true,
            () = sleep(look) => {
                match activity.verdict(Instant::now(), options.idle, options.stall) {
                    Verdict::Alive => false,
                    Verdict::Idle => true,
                    Verdict::Stalled => return,
                }
            }
        };
        match leaving_since {
            None if leave => {
                leaving_since = Some(Instant::now());
                look = FAREWELL / 4;
                // Watches end, then whatever else is open, then the connection.
                ending.send_replace(true);
                connection.as_mut().graceful_shutdown();
            }
            Some(since) => {
                let draining = *orders.borrow() != Order::Serve;
                let enough = match activity.is_open() {
                    // The drain's own deadline counts.
                    true if draining => None,
                    true => Some(options.deadline),
                    false => Some(FAREWELL),
                };
                if enough.is_some_and(|enough| since.elapsed() >= enough) {
                    return;
                }
            }
            None => {}
        }
    }
}

/// Who is at the other end, and whether they chose HTTP/2.
fn meet(stream: &TlsStream<TcpStream>, address: SocketAddr) -> (Peer, bool) {
    let session = stream.get_ref().1;
    let chain = session.peer_certificates();
    let certificate = chain.and_then(|chain| chain.first()).map(identify);
    let peer = Peer {
        address,
        certificate,
    };
    (peer, session.alpn_protocol() == Some(b"h2"))
}

/// ALPN has chosen: left to guess by the first bytes, hyper would wait for them without a deadline.
fn builder(options: &ApiOptions, http2: bool) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(options.idle)
        .max_buf_size(MOST_HEAD)
        .max_headers(MOST_FIELDS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(options.ping)
        .keep_alive_timeout(options.ping)
        .max_concurrent_streams(MOST_STREAMS)
        .max_header_list_size(MOST_HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize);
    if http2 {
        builder.http2_only()
    } else {
        builder.http1_only()
    }
}

async fn answer(
    request: Request<Incoming>,
    open: OpenRequest,
    shared: &Shared,
    peer: Peer,
    mut ended: watch::Receiver<bool>,
) -> Response<AnswerBody> {
    let mut request = request.map(|body| Body::new(Limited::new(body, MOST_BODY)));
    request.extensions_mut().insert(peer);
    let Ok(mut response) = shared.app.clone().oneshot(request).await;
    let held: Option<Held> = response.extensions_mut().remove();
    let standing: Option<Standing> = response.extensions_mut().remove();
    let watches = held
        .as_ref()
        .is_some_and(|Held(permit)| permit.demand() == Demand::Watch);
    if !watches {
        return response.map(|body| AnswerBody::new(body, open, held));
    }
    let (most, look) = (shared.options.watch, shared.options.standing);
    response.map(|body| {
        AnswerBody::new(body, open, held).until(async move {
            tokio::select! {
                // Resumed by whoever may still do so.
                _ = timeout(most, ended.wait_for(|ended| *ended)) => {}
                () = falls(standing, look) => {}
            }
        })
    })
}

/// Waits until a caller's credential no longer counts.
async fn falls(standing: Option<Standing>, look: Duration) {
    let Some(standing) = standing else {
        return std::future::pending().await;
    };
    while standing.holds(SystemTime::now()) {
        sleep(look).await;
    }
}

/// There is no connection. What a person has to put right is told above `debug`, as often as the
/// limit on failures allows.
fn refused(shared: &Shared, peer: SocketAddr, error: &std::io::Error) {
    shared.metrics.api.handshake_failed();
    let certificate = error
        .get_ref()
        .and_then(|error| error.downcast_ref())
        .is_some_and(|error| matches!(error, InvalidCertificate(_)));
    if certificate && shared.guard.may_complain(peer) {
        tracing::info!(%peer, %error, "registry: client certificate refused");
    } else {
        tracing::debug!(%peer, %error, "registry: no TLS connection");
    }
}
