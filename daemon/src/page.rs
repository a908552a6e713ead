//! A page on loopback: metrics, health, what is in force. Read only.
//!
//! hyper serves it on the runtime of whoever calls [`serve`]; what is answered is the caller's.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections served at a time; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live: scrapers come back anyway.
const LIFETIME: Duration = Duration::from_secs(300);

/// Content type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";
/// Content type of HTML.
pub const HTML: &str = "text/html; charset=utf-8";
/// Content type of JSON.
pub const JSON: &str = "application/json";
/// Content type of the Prometheus text exposition format.
pub const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is asked: GET or HEAD, by an address of this machine. A body is not read.
pub type Request = http::Request<()>;

/// What is answered; [`answer`] makes it.
pub type Response = http::Response<Bytes>;

/// Listens on the page's address.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the page until the runtime ends. `respond` must not block; HEAD is asked like GET.
///
/// # Errors
/// When the runtime cannot take the listener.
pub async fn serve<H>(listener: StdListener, respond: H) -> io::Result<()>
where
    H: Fn(&Request) -> Response + Send + Sync + 'static,
{
    let listener = TcpListener::from_std(listener)?;
    let respond = Arc::new(respond);
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        let tcp = match listener.accept().await {
            Ok((tcp, _)) => tcp,
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would spin.
                tracing::warn!(%error, "page: cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let respond = Arc::clone(&respond);
        tokio::spawn(async move {
            let service = service_fn(|request: http::Request<_>| {
                let request = request.map(drop);
                let response = refusal(&request).unwrap_or_else(|| respond(&request));
                async { Ok::<_, Infallible>(response.map(Full::new)) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(TokioIo::new(tcp), service);
            // How a scraper's connection ends is of no interest.
            let _ = timeout(LIFETIME, connection).await;
            drop(place);
        });
    }
}

/// An answer that nobody keeps.
pub fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer in JSON, indented for people.
pub fn json(value: &serde_json::Value) -> Response {
    answer(StatusCode::OK, JSON, format!("{value:#}\n"))
}

/// What is answered without asking the program.
fn refusal(request: &Request) -> Option<Response> {
    if !is_local(request.headers()) {
        let why = "the Host of a request to this page is an address or localhost\n";
        return Some(answer(StatusCode::FORBIDDEN, TEXT, why));
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n");
        let allowed = HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return Some(response);
    }
    None
}

/// Whether the request names this machine by address. A web page that somebody opens on it could
/// otherwise read this one under a name of its own that it resolves to 127.0.0.1.
fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let without_port = || match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    host.parse::<SocketAddr>().is_ok()
        || host.parse::<IpAddr>().is_ok()
        || without_port().parse::<IpAddr>().is_ok()
        || without_port().starts_with('[')
        || without_port().eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    /// Sends bytes to a running page that answers with the path, and returns the whole answer.
    fn exchange(request: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let respond =
                |request: &Request| answer(StatusCode::OK, TEXT, request.uri().path().to_owned());
            let server = tokio::spawn(serve(listener, respond));
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            server.abort();
            String::from_utf8(answer).unwrap()
        })
    }

    fn ask(method: &str) -> String {
        let rest = "Host: 127.0.0.1:9180\r\nConnection: close\r\n\r\n";
        exchange(&format!("{method} /metrics HTTP/1.1\r\n{rest}"))
    }

    #[test]
    fn a_page_can_be_read_and_nothing_else() {
        let got = ask("GET");
        assert!(got.starts_with("HTTP/1.1 200 ") && got.ends_with("\r\n\r\n/metrics"));
        assert!(got.contains("cache-control: no-store\r\n"), "{got}");
        let head = ask("HEAD");
        assert!(head.contains("content-length: 8\r\n") && head.ends_with("\r\n\r\n"));
        let refused = ask("POST");
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"));
    }

    #[test]
    fn names_that_are_not_this_machines_are_refused() {
        for (host, status) in [
            ("localhost", "200"),
            ("localhost:9180", "200"),
            ("[::1]:9180", "200"),
            ("127.0.0.1", "200"),
            ("rebound.example", "403"),
            ("127.0.0.1.example:9180", "403"),
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = exchange(&request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{host}: {answer}"
            );
        }
    }
}
