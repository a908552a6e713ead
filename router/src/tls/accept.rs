//! A client's TLS handshake, from the first byte to an encrypted stream.
//!
//! ```text
//! first byte --not 22--> plain HTTP: 400 / else: close
//!     |
//! ClientHello --no certificate--> alert unrecognized_name
//!     |
//! handshake with the configuration of that name
//! ```

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;

use super::CertEntry;

/// First byte of a record that carries a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// A fatal alert `unrecognized_name(112)` (RFC 6066, section 3) as a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];

const PLAIN_HTTP_ANSWER: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain\r\n\
    Content-Length: 51\r\n\
    Connection: close\r\n\
    \r\n\
    This port speaks HTTPS: use https:// in the address";

/// A handshake that succeeded.
#[derive(Debug)]
pub struct Accepted<IO> {
    /// The encrypted stream.
    pub stream: TlsStream<IO>,
    /// What the client was shown; tells which hosts the connection may carry.
    pub certificate: Arc<CertEntry>,
    /// Whether ALPN chose HTTP/2.
    pub http2: bool,
}

impl<IO> Accepted<IO> {
    /// The server name the client asked for, as rustls keeps it.
    pub fn sni(&self) -> Option<&str> {
        self.stream.get_ref().1.server_name()
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// Not done within the time allowed.
    #[error("the TLS handshake took too long")]
    Timeout,
    /// The client left without a byte, as port scanners and TCP health checks do.
    #[error("the client sent nothing")]
    Empty,
    /// The first byte is not that of a TLS handshake.
    #[error("the client does not speak TLS{}", if *.http { " but plain HTTP" } else { "" })]
    NotTls {
        /// It looked like an HTTP request and was answered with a 400.
        http: bool,
    },
    /// No certificate for the name, and no default.
    #[error("no certificate for {}", .0.as_deref().unwrap_or("a client without server name"))]
    UnknownName(Option<Box<str>>),
    /// Client and router agree on nothing, or one broke the protocol. Alerts were sent.
    #[error("TLS handshake failed: {0}")]
    Handshake(#[source] rustls::Error),
    /// The connection broke.
    #[error("connection lost during the TLS handshake: {0}")]
    Io(#[source] io::Error),
}

/// Accepts TLS on a fresh connection.
///
/// `select` is asked once, when the ClientHello is there, with the server name it holds (none if it
/// was absent or an address); usually it is [`CertificateStore::select`] of the newest snapshot.
/// `timeout` spans everything from the first byte on.
///
/// # Errors
/// When there is no connection to go on with. Whatever the client has to be told (an alert, an
/// answer in plain HTTP) was sent; the connection is closed.
///
/// [`CertificateStore::select`]: super::CertificateStore::select
pub async fn accept<IO, Select>(
    io: IO,
    select: Select,
    timeout: Duration,
) -> Result<Accepted<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    Select: FnOnce(Option<&str>) -> Option<Arc<CertEntry>>,
{
    tokio::time::timeout(timeout, handshake(io, select))
        .await
        .unwrap_or(Err(AcceptError::Timeout))
}

async fn handshake<IO, Select>(mut io: IO, select: Select) -> Result<Accepted<IO>, AcceptError>
where
    IO: AsyncRead + AsyncWrite + Unpin,
    Select: FnOnce(Option<&str>) -> Option<Arc<CertEntry>>,
{
    let hello = match read_hello(&mut io).await {
        Ok(hello) => hello,
        Err((error, farewell)) => {
            say_farewell(&mut io, &farewell).await;
            return Err(error);
        }
    };
    let client = hello.client_hello();
    let Some(certificate) = select(client.server_name()) else {
        let name = client.server_name().map(Into::into);
        say_farewell(&mut io, &UNRECOGNIZED_NAME).await;
        return Err(AcceptError::UnknownName(name));
    };
    let start = StartHandshake::from_parts(hello, io);
    let stream = start
        .into_stream(Arc::clone(certificate.config()))
        .await
        .map_err(classify)?;
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok(Accepted {
        stream,
        certificate,
        http2,
    })
}

/// Reads up to the end of the ClientHello. An error comes with what to tell the client.
///
/// Not tokio-rustls' `LazyConfigAcceptor`, because that answers anything with a TLS alert: somebody
/// who speaks plain HTTP would see seven odd bytes.
async fn read_hello<IO>(io: &mut IO) -> Result<rustls::server::Accepted, (AcceptError, Vec<u8>)>
where
    IO: AsyncRead + Unpin,
{
    let silently = |error| (error, Vec::new());
    let mut acceptor = Acceptor::default();
    let mut first = None;
    loop {
        let read = poll_fn(|context| {
            let mut reader = Reader {
                io: &mut *io,
                context,
                first: &mut first,
            };
            match acceptor.read_tls(&mut reader) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                result => Poll::Ready(result),
            }
        });
        match read.await {
            Ok(0) if first.is_none() => return Err(silently(AcceptError::Empty)),
            Ok(0) => {
                return Err(silently(AcceptError::Io(
                    io::ErrorKind::UnexpectedEof.into(),
                )));
            }
            Ok(_) => {}
            Err(error) => return Err(silently(AcceptError::Io(error))),
        }
        match first {
            Some(HANDSHAKE_RECORD) | None => {}
            Some(b'A'..=b'Z') => {
                return Err((
                    AcceptError::NotTls { http: true },
                    PLAIN_HTTP_ANSWER.to_vec(),
                ));
            }
            Some(_) => return Err(silently(AcceptError::NotTls { http: false })),
        }
        match acceptor.accept() {
            Ok(Some(hello)) => return Ok(hello),
            Ok(None) => {}
            Err((error, mut alert)) => {
                let mut record = Vec::new();
                // Writing to a vector does not fail.
                let _ = alert.write_all(&mut record);
                return Err((AcceptError::Handshake(error), record));
            }
        }
    }
}

/// Best effort: the connection is over either way, and the error that ended it is the one to report.
async fn say_farewell<IO: AsyncWrite + Unpin>(io: &mut IO, farewell: &[u8]) {
    if !farewell.is_empty() && io.write_all(farewell).await.is_ok() {
        let _ = io.shutdown().await;
    }
}

fn classify(error: io::Error) -> AcceptError {
    match error.downcast::<rustls::Error>() {
        Ok(error) => AcceptError::Handshake(error),
        Err(error) => AcceptError::Io(error),
    }
}

/// Lets rustls read straight into its own buffer, and remembers the very first byte.
struct Reader<'a, 'b, IO> {
    io: &'a mut IO,
    context: &'a mut Context<'b>,
    first: &'a mut Option<u8>,
}

impl<IO: AsyncRead + Unpin> io::Read for Reader<'_, '_, IO> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut buffer = ReadBuf::new(buffer);
        match Pin::new(&mut *self.io).poll_read(self.context, &mut buffer) {
            Poll::Pending => return Err(io::ErrorKind::WouldBlock.into()),
            Poll::Ready(result) => result?,
        }
        let filled = buffer.filled();
        if self.first.is_none() {
            *self.first = filled.first().copied();
        }
        Ok(filled.len())
    }
}
