//! An HTTP/2 client by the h2 crate, for what curl and h2load cannot do.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use crate::client::TlsClient;

/// An open connection.
#[derive(Debug)]
pub struct H2Connection {
    /// Opens streams.
    pub requests: SendRequest<Bytes>,
    /// Ends with the connection, `Ok` after an orderly GOAWAY.
    pub driver: JoinHandle<Result<(), h2::Error>>,
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct H2Response {
    /// The status code.
    pub status: u16,
    /// The fields of its head.
    pub headers: http::HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: Option<http::HeaderMap>,
}

/// Runs a conversation to its end, within two minutes.
///
/// # Errors
/// Those of the conversation, and when it takes too long.
pub fn run<T>(conversation: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match tokio::time::timeout(Duration::from_secs(120), conversation).await {
            Ok(result) => result,
            Err(_) => bail!("the HTTP/2 conversation did not end within two minutes"),
        }
    })
}

impl H2Connection {
    /// Connects, and insists that ALPN chooses h2.
    ///
    /// # Errors
    /// If the connection or a handshake fails.
    pub async fn open(tls: &TlsClient, address: SocketAddr, name: &str) -> Result<Self> {
        Self::open_as(&Builder::new(), tls, address, name).await
    }

    /// As [`H2Connection::open`], with settings of its own.
    ///
    /// # Errors
    /// If the connection or a handshake fails.
    pub async fn open_as(
        settings: &Builder,
        tls: &TlsClient,
        address: SocketAddr,
        name: &str,
    ) -> Result<Self> {
        let tcp = TcpStream::connect(address).await?;
        let name = ServerName::try_from(name.to_owned())?;
        let stream = TlsConnector::from(tls.config()).connect(name, tcp).await?;
        let chosen = stream.get_ref().1.alpn_protocol();
        if chosen != Some(b"h2") {
            bail!("ALPN chose {chosen:?} instead of h2");
        }
        let (requests, connection) = settings.handshake(stream).await?;
        Ok(Self {
            requests,
            driver: tokio::spawn(connection),
        })
    }

    /// Starts a request without a body.
    ///
    /// # Errors
    /// If the connection is closing.
    pub async fn start(&mut self, request: Request<()>) -> Result<ResponseFuture> {
        let mut ready = self.requests.clone().ready().await?;
        Ok(ready.send_request(request, true)?.0)
    }

    /// Asks for `https://HOST/PATH` and reads the answer.
    ///
    /// # Errors
    /// If the stream or the connection ends early.
    pub async fn get(&mut self, host: &str, path: &str) -> Result<H2Response> {
        let request = Request::get(format!("https://{host}{path}")).body(())?;
        read(self.start(request).await?).await
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// If the stream ends early.
pub async fn read(response: ResponseFuture) -> Result<H2Response> {
    let (head, mut stream) = response
        .await
        .context("read the head of an answer")?
        .into_parts();
    let mut body = Vec::new();
    while let Some(chunk) = stream.data().await {
        let chunk = chunk?;
        stream.flow_control().release_capacity(chunk.len())?;
        body.extend_from_slice(&chunk);
    }
    let trailers = stream.trailers().await?;
    Ok(H2Response {
        status: head.status.as_u16(),
        headers: head.headers,
        body,
        trailers,
    })
}
