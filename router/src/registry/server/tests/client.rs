//! A client of the API, by HTTP/1.1 or HTTP/2.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{Authority, Pair};

pub(super) type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Http {
    One,
    Two,
}

pub(super) const BOTH: [Http; 2] = [Http::One, Http::Two];

/// What a client trusts and shows.
pub(super) fn config(trusts: &Authority, shows: Option<&Pair>, http: Http) -> ClientConfig {
    config_of(rustls::ALL_VERSIONS, trusts, shows, http)
}

/// The same, with versions of TLS.
pub(super) fn config_of(
    versions: &[&'static SupportedProtocolVersion],
    trusts: &Authority,
    shows: Option<&Pair>,
    http: Http,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_slice(trusts.pem.as_bytes()).unwrap();
    roots.add(authority).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    let mut config = match shows {
        None => config.with_no_client_auth(),
        Some(pair) => {
            let (chain, key) = pair.der();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = match http {
        Http::One => vec![b"http/1.1".into()],
        Http::Two => vec![b"h2".into()],
    };
    config
}

/// A TLS connection, from an address of loopback.
pub(super) async fn tls(
    config: ClientConfig,
    from: &str,
    to: SocketAddr,
) -> Result<TlsStream<TcpStream>, Failure> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(format!("{from}:0").parse()?)?;
    let tcp = socket.connect(to).await?;
    let name = to.ip().into();
    Ok(TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?)
}

/// A connection that requests can be sent on.
pub(super) enum Client {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

/// What was answered.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<String>,
    pub(super) text: String,
}

impl Client {
    pub(super) async fn over(stream: TlsStream<TcpStream>) -> Result<Self, Failure> {
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        let io = TokioIo::new(stream);
        Ok(if http2 {
            let (client, connection) = http2::handshake(TokioExecutor::new(), io).await?;
            tokio::spawn(connection);
            Self::Two(client)
        } else {
            let (client, connection) = http1::handshake(io).await?;
            tokio::spawn(connection);
            Self::One(client)
        })
    }

    /// By HTTP/2, with so many bytes that a stream may send before it was read.
    pub(super) async fn over_windows_of(
        stream: TlsStream<TcpStream>,
        bytes: u32,
    ) -> Result<Self, Failure> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(bytes);
        let (client, connection) = builder.handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self::Two(client))
    }

    pub(super) async fn begin(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, Failure> {
        Ok(match self {
            Self::One(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
            Self::Two(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
        })
    }

    pub(super) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, Failure> {
        let response = self.begin(request).await?;
        let (parts, body) = response.into_parts();
        let retry_after = parts.headers.get("retry-after");
        Ok(Answer {
            status: parts.status.as_u16(),
            retry_after: retry_after.map(|value| value.to_str().unwrap().to_owned()),
            text: String::from_utf8(body.collect().await?.to_bytes().into())?,
        })
    }

    pub(super) async fn get(&mut self, path: &str, token: Option<&str>) -> Result<Answer, Failure> {
        self.send(request("GET", path, token, Bytes::new())).await
    }
}

pub(super) fn request(
    method: &str,
    path: &str,
    token: Option<&str>,
    body: impl Into<Bytes>,
) -> Request<Full<Bytes>> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("https://127.0.0.1{path}"))
        .header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    request.body(Full::new(body.into())).unwrap()
}
