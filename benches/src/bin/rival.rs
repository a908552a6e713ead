//! A rival of the router, built on pingora-proxy: what somebody gets who takes Cloudflare's
//! framework instead of writing a proxy. It does the router's work and nothing else: TLS with h2
//! and http/1.1, a table of hosts, forwarding headers, a pool of upstream connections, and a
//! redirect on the plain port.
#![forbid(unsafe_code)]

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use async_trait::async_trait;
use clap::Parser;
use pingora_core::listeners::tls::TlsSettings;
use pingora_core::server::Server;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::{ProxyHttp, Session, http_proxy_service};

// The router has an allocator of its own; a rival without one would lose for that alone.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// pingora-proxy with one route.
#[derive(Parser)]
struct Arguments {
    /// Address of the plain listener, which redirects.
    #[arg(long)]
    http: SocketAddr,
    /// Address of the TLS listener.
    #[arg(long)]
    https: SocketAddr,
    /// PEM certificate chain.
    #[arg(long)]
    certificate: String,
    /// PEM private key.
    #[arg(long)]
    key: String,
    /// The one host that is routed.
    #[arg(long)]
    host: String,
    /// Where its requests go.
    #[arg(long)]
    upstream: SocketAddr,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    // pingora installs ring unless a provider is there; ring is slower at what is measured here.
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .ok()
        .context("a crypto provider was installed before ours")?;

    let settings = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 256,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, settings);
    server.bootstrap();
    let rival = Rival {
        routes: HashMap::from([(arguments.host, arguments.upstream)]),
    };
    let mut service = http_proxy_service(&server.configuration, rival);
    service.add_tcp(&arguments.http.to_string());
    let mut tls = TlsSettings::intermediate(&arguments.certificate, &arguments.key)
        .map_err(|error| anyhow::anyhow!("TLS settings: {error}"))?;
    tls.enable_h2();
    service.add_tls_with_settings(&arguments.https.to_string(), None, tls);
    server.add_service(service);
    server.run_forever();
}

struct Rival {
    routes: HashMap<String, SocketAddr>,
}

/// What one request learned on its way.
#[derive(Default)]
struct Request {
    host: Option<Arc<str>>,
}

#[async_trait]
impl ProxyHttp for Rival {
    type CTX = Request;

    fn new_ctx(&self) -> Request {
        Request::default()
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        context: &mut Request,
    ) -> pingora_core::Result<bool> {
        let authority = authority(session.req_header());
        let Some(authority) = authority else {
            return answer(session, 400, None).await;
        };
        let host = without_port(authority);
        let tls = session
            .digest()
            .is_some_and(|digest| digest.ssl_digest.is_some());
        if !tls {
            let path = session
                .req_header()
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str());
            let target = format!("https://{host}{path}");
            return answer(session, 308, Some(target)).await;
        }
        if !self.routes.contains_key(host) {
            return answer(session, 404, None).await;
        }
        context.host = Some(Arc::from(host));
        Ok(false)
    }

    async fn upstream_peer(
        &self,
        _session: &mut Session,
        context: &mut Request,
    ) -> pingora_core::Result<Box<HttpPeer>> {
        let upstream = context
            .host
            .as_deref()
            .and_then(|host| self.routes.get(host));
        let upstream = *upstream.expect("request_filter answers requests without a route");
        Ok(Box::new(HttpPeer::new(upstream, false, String::new())))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        context: &mut Request,
    ) -> pingora_core::Result<()> {
        let host = context.host.as_deref().unwrap_or_default();
        let client = session.client_addr().and_then(|address| address.as_inet());
        let client = client
            .map(|address| address.ip().to_string())
            .unwrap_or_default();
        request.insert_header("x-forwarded-for", &client)?;
        request.insert_header("x-forwarded-proto", "https")?;
        request.insert_header("x-forwarded-host", host)?;
        request.insert_header("x-forwarded-port", "443")?;
        request.insert_header("forwarded", format!("for={client};host={host};proto=https"))?;
        Ok(())
    }
}

fn authority(request: &RequestHeader) -> Option<&str> {
    let from_uri = request.uri.authority().map(http::uri::Authority::as_str);
    from_uri.or_else(|| request.headers.get(http::header::HOST)?.to_str().ok())
}

fn without_port(authority: &str) -> &str {
    authority
        .rsplit_once(':')
        .map_or(authority, |(host, _)| host)
}

/// Answers without a body; `true` tells pingora that nothing is left to do.
async fn answer(
    session: &mut Session,
    status: u16,
    location: Option<String>,
) -> pingora_core::Result<bool> {
    let mut head = ResponseHeader::build(status, Some(2))?;
    head.insert_header(http::header::CONTENT_LENGTH, "0")?;
    if let Some(location) = location {
        head.insert_header(http::header::LOCATION, location)?;
    }
    session.write_response_header(Box::new(head), true).await?;
    Ok(true)
}
