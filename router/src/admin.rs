//! The admin page: metrics, health, the configuration in force. Loopback only, read only.
//!
//! hyper serves it on the control runtime, away from the workers.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::control::{Control, Outcome, Status, listing};
use crate::observe::metrics::Registry;
use crate::observe::timestamp::rfc3339;

/// Connections served at a time; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// How long a request's head may take, and how long an idle connection is kept.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a connection may live: scrapers come back anyway.
const LIFETIME: Duration = Duration::from_secs(300);

const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
/// The content type of the exposition format that `Registry::render` writes.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";

const INDEX: &str = "<!doctype html>
<html lang=\"en\"><meta charset=\"utf-8\"><title>Gatehouse router</title>
<h1>Gatehouse router</h1>
<ul>
<li><a href=\"/metrics\">/metrics</a>: numbers, in the Prometheus text format
<li><a href=\"/healthz\">/healthz</a>: 200 while it serves, 503 while it drains
<li><a href=\"/readyz\">/readyz</a>: 200 while it takes new connections
<li><a href=\"/routes\">/routes</a>: the rules in force, in the order of matching
<li><a href=\"/config\">/config</a>: generation, the last reload, what needs a restart
</ul>
";

/// What the admin page shows.
pub struct Admin {
    /// The configuration.
    pub control: Arc<Control>,
    /// The numbers.
    pub registry: Arc<Registry>,
}

/// Listens on the admin address.
///
/// # Errors
/// When the address cannot be had.
pub fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let listener = StdListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves the admin page until the runtime ends.
///
/// # Errors
/// When the runtime cannot take the listener.
pub async fn serve(listener: StdListener, admin: Arc<Admin>) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
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
                tracing::warn!(%error, "admin: cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            let service = service_fn(|request| {
                let response = admin.respond(&request);
                async { Ok::<_, Infallible>(response) }
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

impl Admin {
    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if !is_local(request.headers()) {
            let why = "the Host of a request to the admin page is an address or localhost\n";
            return answer(StatusCode::FORBIDDEN, TEXT, why);
        }
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "GET and HEAD only\n");
            let allowed = HeaderValue::from_static("GET, HEAD");
            response.headers_mut().insert(ALLOW, allowed);
            return response;
        }
        match request.uri().path() {
            "/" => answer(StatusCode::OK, HTML, INDEX),
            "/metrics" => answer(StatusCode::OK, METRICS, self.registry.render()),
            "/healthz" | "/readyz" if self.control.is_draining() => {
                answer(StatusCode::SERVICE_UNAVAILABLE, TEXT, "draining\n")
            }
            // There is a snapshot from the first moment on: without one, nothing is started.
            "/healthz" | "/readyz" => answer(StatusCode::OK, TEXT, "ok\n"),
            "/routes" => {
                let routes = listing::routes(&self.control.published().load());
                json_answer(&json!({ "routes": routes }))
            }
            "/config" => json_answer(&describe(&self.control.status())),
            _ => answer(StatusCode::NOT_FOUND, TEXT, "404 Not Found\n"),
        }
    }
}

/// The configuration in force and the last load.
fn describe(status: &Status) -> Value {
    let (outcome, errors, needs_restart, warnings) = match &status.outcome {
        Outcome::Loaded(report) => (
            "loaded",
            json!([]),
            json!(report.needs_restart),
            json!(report.warnings),
        ),
        Outcome::Refused(errors) => ("refused", errors.to_json(), json!([]), json!([])),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "generation": status.generation,
        "published_at": rfc3339(status.published_at),
        "last_reload": {
            "at": rfc3339(status.loaded_at),
            "outcome": outcome,
            "errors": errors,
            "needs_restart": needs_restart,
            "warnings": warnings,
        },
    })
}

/// Whether the request names this machine by address. A web page that somebody opens on it could
/// otherwise read the admin page under a name of its own that it resolves to 127.0.0.1.
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

fn json_answer(value: &Value) -> Response<Full<Bytes>> {
    answer(StatusCode::OK, JSON, format!("{value:#}\n"))
}

fn answer(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Files;
    use std::time::SystemTime;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn admin(files: &Files) -> Arc<Admin> {
        let registry = Arc::new(Registry::new(SystemTime::now()));
        let control = Arc::new(Control::start(&files.config(), Arc::clone(&registry)).unwrap());
        Arc::new(Admin { control, registry })
    }

    /// Sends bytes to a running admin page and returns the whole answer.
    fn exchange(admin: &Arc<Admin>, request: &str) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let address = listener.local_addr().unwrap();
            let server = tokio::spawn(serve(listener, Arc::clone(admin)));
            let mut client = TcpStream::connect(address).await.unwrap();
            client.write_all(request.as_bytes()).await.unwrap();
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            server.abort();
            String::from_utf8(answer).unwrap()
        })
    }

    fn ask(admin: &Arc<Admin>, method: &str, path: &str) -> String {
        let rest = "Host: 127.0.0.1:9180\r\nConnection: close\r\n\r\n";
        exchange(admin, &format!("{method} {path} HTTP/1.1\r\n{rest}"))
    }

    fn body(answer: &str) -> Value {
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap()
    }

    #[test]
    fn each_page_answers() {
        let admin = admin(&Files::new());
        assert!(ask(&admin, "GET", "/metrics").contains("\nrouter_snapshot_generation 1\n"));
        assert!(ask(&admin, "GET", "/").contains("/metrics"));
        assert!(ask(&admin, "GET", "/nothing").starts_with("HTTP/1.1 404 "));
        let refused = ask(&admin, "POST", "/metrics");
        assert!(refused.starts_with("HTTP/1.1 405 ") && refused.contains("allow: GET, HEAD"));
        let routes = body(&ask(&admin, "GET", "/routes"));
        assert_eq!(routes["routes"][0]["host"], "www.example.org");
        assert_eq!(routes["routes"][0]["endpoints"][0], "127.0.0.1:1");
    }

    #[test]
    fn a_drain_shows_in_the_health_checks() {
        let admin = admin(&Files::new());
        for path in ["/healthz", "/readyz"] {
            assert!(ask(&admin, "GET", path).starts_with("HTTP/1.1 200 "));
        }
        admin.control.begin_drain();
        for path in ["/healthz", "/readyz"] {
            assert!(ask(&admin, "GET", path).starts_with("HTTP/1.1 503 "));
        }
    }

    #[test]
    fn a_refused_reload_shows_with_its_errors() {
        let files = Files::new();
        let admin = admin(&files);
        files.write("routes.d/acme.yaml", "tenant: [\n");
        admin.control.reload().unwrap_err();
        let config = body(&ask(&admin, "GET", "/config"));
        assert_eq!(config["generation"], 1);
        assert_eq!(config["last_reload"]["outcome"], "refused");
        let error = &config["last_reload"]["errors"][0];
        assert!(error["file"].as_str().unwrap().ends_with("acme.yaml"));
    }

    #[test]
    fn names_that_are_not_this_machines_are_refused() {
        let admin = admin(&Files::new());
        for (host, status) in [
            ("localhost", "200"),
            ("localhost:9180", "200"),
            ("[::1]:9180", "200"),
            ("127.0.0.1", "200"),
            ("rebound.example", "403"),
            ("127.0.0.1.example:9180", "403"),
        ] {
            let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let answer = exchange(&admin, &request);
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{host}: {answer}"
            );
        }
    }
}
