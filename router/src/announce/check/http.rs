//! A GET that must be answered with 200 to 399.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONNECTION, HOST, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::CheckError;
use crate::registry::client::told;
use crate::tls::{ClientConfigs, Trust};
use crate::upstream::named::connect;

/// Bytes that the head of an answer may have; its body is not read.
const HEAD_BYTES: usize = 32 << 10;

/// Asks for a URL.
///
/// With https any certificate will do, as with the kubelet's probes: the question is whether this
/// host's own server answers, it is asked by an address that its certificate need not name, and
/// nothing secret is sent. Routers verify endpoints by `tls` of the route, on every connection.
pub(super) async fn get(url: &str, within: Duration) -> Result<(), CheckError> {
    let odd = |reason: &str| CheckError::Http(format!("{url}: {reason}"));
    let without_fragment = url.split('#').next().unwrap_or(url);
    let uri: Uri = without_fragment.parse().map_err(|_| odd("is no URL"))?;
    let authority = uri.authority().ok_or_else(|| odd("has no host"))?;
    let host = authority.host();
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let tls = uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if tls { 443 } else { 80 });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let host_field = HeaderValue::try_from(authority.as_str()).map_err(|_| odd("has no host"))?;
    let request = Request::get(path)
        .header(HOST, host_field)
        .header(USER_AGENT, "gatehouse-registrar")
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| odd(&error.to_string()))?;
    let tcp = connect(host, port, within)
        .await
        .map_err(CheckError::Http)?;
    let status = if tls {
        let tls = ClientConfigs::new()
            .for_upstream(host, Trust::InsecureAcceptAny)
            .map_err(|error| odd(&error.to_string()))?;
        let stream = TlsConnector::from(tls.http1)
            .connect(tls.server_name, tcp)
            .await
            .map_err(|error| odd(&format!("no TLS: {error}")))?;
        ask(stream, request).await
    } else {
        ask(tcp, request).await
    };
    match status.map_err(|error| odd(&told(&error)))? {
        status if (200..400).contains(&status.as_u16()) => Ok(()),
        status => Err(CheckError::Status(status)),
    }
}

/// Drives the connection until the head of the answer is there.
async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    request: Request<Empty<Bytes>>,
) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES)
        .handshake(TokioIo::new(stream))
        .await?;
    let response = sender.send_request(request);
    tokio::pin!(response, connection);
    tokio::select! {
        biased;
        response = &mut response => return Ok(response?.status()),
        ended = &mut connection => ended?,
    }
    // The connection is over; what it had to say has been handed on.
    Ok(response.await?.status())
}
