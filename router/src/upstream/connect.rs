//! Opening a connection to an endpoint.

use std::io;
use std::time::Duration;

use thiserror::Error;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::endpoint::Endpoint;
use super::presence;
use super::stream::Stream;

/// Why an endpoint could not be connected to.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    /// TCP or TLS took longer than `timeouts.connect`.
    #[error("timed out")]
    Timeout,
    /// TCP failed.
    #[error("{0}")]
    Tcp(io::Error),
    /// TLS failed; the endpoint's certificate was not accepted, for one.
    #[error("TLS: {0}")]
    Tls(io::Error),
}

/// Which HTTP version the connection is for: it decides what ALPN offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Http1,
    Http2,
}

/// Connects, TLS included, within `timeout`.
pub(crate) async fn connect(
    endpoint: &Endpoint,
    wanted: Wanted,
    timeout: Duration,
) -> Result<Stream, ConnectError> {
    let attempt = async {
        let tcp = TcpStream::connect(endpoint.address)
            .await
            .map_err(ConnectError::Tcp)?;
        tcp.set_nodelay(true).map_err(ConnectError::Tcp)?;
        presence::watch(&tcp, wanted, timeout).map_err(ConnectError::Tcp)?;
        let Some(tls) = &endpoint.tls else {
            return Ok(Stream::Plain(tcp));
        };
        let config = match wanted {
            Wanted::Http1 => &tls.http1,
            Wanted::Http2 => &tls.http2,
        };
        let stream = TlsConnector::from(config.clone())
            .connect(tls.server_name.clone(), tcp)
            .await
            .map_err(ConnectError::Tls)?;
        if wanted == Wanted::Http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            let message = "the endpoint does not speak HTTP/2 (no ALPN h2)";
            return Err(ConnectError::Tls(io::Error::other(message)));
        }
        Ok(Stream::Tls(Box::new(stream)))
    };
    tokio::time::timeout(timeout, attempt)
        .await
        .unwrap_or(Err(ConnectError::Timeout))
}
