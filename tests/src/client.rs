//! A raw HTTP/1 client: sends exactly the bytes it is given, over TCP or TLS.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, ConfigBuilder, NamedGroup, ProtocolVersion, RootCertStore,
    StreamOwned,
};

use crate::ca::{Ca, Leaf};

/// How long a read waits before the test is failed: far beyond what a slow machine needs.
const READ_PATIENCE: Duration = Duration::from_secs(30);

/// Starts TLS connections that trust one authority.
#[derive(Clone, Debug)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
}

/// What a TLS handshake agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The TLS version.
    pub version: Option<ProtocolVersion>,
    /// The protocol chosen by ALPN.
    pub alpn: Option<String>,
    /// The key exchange.
    pub group: Option<NamedGroup>,
    /// The server's own certificate, DER.
    pub certificate: Vec<u8>,
}

impl TlsClient {
    /// A client that trusts `ca` and offers these protocols by ALPN.
    ///
    /// # Panics
    /// Never: the provider supports its own default versions.
    #[must_use]
    pub fn new(ca: &Ca, alpn: &[&str]) -> Self {
        let builder = trusting(ca);
        Self::with(builder.with_no_client_auth(), alpn)
    }

    /// As [`TlsClient::new`], with a certificate that says who we are.
    ///
    /// # Errors
    /// If the certificate or its key cannot be read.
    pub fn with_identity(ca: &Ca, identity: &Leaf, alpn: &[&str]) -> Result<Self> {
        let chain = CertificateDer::pem_slice_iter(identity.chain.as_bytes())
            .collect::<Result<_, _>>()
            .context("our certificate")?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).context("our key")?;
        let builder = trusting(ca);
        Ok(Self::with(builder.with_client_auth_cert(chain, key)?, alpn))
    }

    fn with(mut config: ClientConfig, alpn: &[&str]) -> Self {
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        // Each handshake in full: a resumed one shows no certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Self {
            config: Arc::new(config),
        }
    }

    /// The configuration, for clients that bring their own input and output.
    #[must_use]
    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.config)
    }

    /// Connects and shakes hands.
    ///
    /// # Errors
    /// If the connection or the handshake fails.
    pub fn connect(&self, address: SocketAddr, name: &str) -> Result<Connection> {
        self.handshake(tcp(address)?, name)
    }

    /// As [`TlsClient::connect`], and waits no longer than `patience` for anything: neither for the
    /// connection, nor for a read or write later.
    ///
    /// # Errors
    /// If the connection or the handshake fails, or takes too long.
    pub fn connect_within(
        &self,
        address: SocketAddr,
        name: &str,
        patience: Duration,
    ) -> Result<Connection> {
        let tcp = TcpStream::connect_timeout(&address, patience)
            .with_context(|| format!("connect to {address}"))?;
        self.handshake(settle(tcp, patience)?, name)
    }

    fn handshake(&self, tcp: TcpStream, name: &str) -> Result<Connection> {
        let name = ServerName::try_from(name.to_owned())?;
        let mut session = ClientConnection::new(Arc::clone(&self.config), name)?;
        let mut transport = tcp.try_clone()?;
        while session.is_handshaking() {
            session
                .complete_io(&mut transport)
                .context("TLS handshake")?;
        }
        let handshake = Handshake {
            version: session.protocol_version(),
            alpn: session
                .alpn_protocol()
                .map(|it| String::from_utf8_lossy(it).into_owned()),
            group: session.negotiated_key_exchange_group().map(|it| it.name()),
            certificate: session
                .peer_certificates()
                .and_then(<[_]>::first)
                .map(|it| it.to_vec())
                .unwrap_or_default(),
        };
        Ok(Connection {
            stream: Transport::Tls(Box::new(StreamOwned::new(session, transport))),
            buffer: Vec::new(),
            received: 0,
            tcp,
            handshake: Some(handshake),
        })
    }
}

/// A connection over which arbitrary bytes are sent.
#[derive(Debug)]
pub struct Connection {
    stream: Transport,
    buffer: Vec<u8>,
    received: u64,
    tcp: TcpStream,
    handshake: Option<Handshake>,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// An answer, as it stood on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// Names in lower case and values, in their order.
    pub headers: Vec<(String, String)>,
    /// The body, without its chunk framing.
    pub body: Vec<u8>,
    /// Trailer fields, names in lower case.
    pub trailers: Vec<(String, String)>,
    /// The head's bytes.
    pub head: Vec<u8>,
}

impl Response {
    /// The first value of a field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
    }

    /// Every value of a field.
    #[must_use]
    pub fn header_values(&self, name: &str) -> Vec<&str> {
        self.headers
            .iter()
            .filter(|(it, _)| it == name)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Whether the sender says that the connection ends here.
    #[must_use]
    pub fn closes(&self) -> bool {
        self.header_values("connection")
            .iter()
            .any(|it| it.eq_ignore_ascii_case("close"))
    }
}

impl Connection {
    /// A plain TCP connection.
    ///
    /// # Errors
    /// If nobody listens.
    pub fn plain(address: SocketAddr) -> Result<Self> {
        let tcp = tcp(address)?;
        Ok(Self {
            stream: Transport::Plain(tcp.try_clone()?),
            buffer: Vec::new(),
            received: 0,
            tcp,
            handshake: None,
        })
    }

    /// What the handshake agreed on; `None` without TLS.
    #[must_use]
    pub fn handshake(&self) -> Option<&Handshake> {
        self.handshake.as_ref()
    }

    /// Our own address, as the server sees it.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn local_address(&self) -> Result<SocketAddr> {
        self.tcp.local_addr().map_err(Into::into)
    }

    /// Bytes that came so far, without those of TLS itself: what tells an answer that had begun.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Whether the peer has closed a connection on which no answer is due, as far as we know by now.
    /// Anything else that came unasked makes it as good as closed.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn has_ended(&mut self) -> Result<bool> {
        self.tcp.set_nonblocking(true)?;
        let read = self.stream.read(&mut [0]);
        self.tcp.set_nonblocking(false)?;
        Ok(!matches!(read, Err(error) if error.kind() == ErrorKind::WouldBlock))
    }

    /// How long a read may wait from now on.
    ///
    /// # Errors
    /// If the socket refuses.
    pub fn set_patience(&self, patience: Duration) -> Result<()> {
        self.tcp
            .set_read_timeout(Some(patience))
            .map_err(Into::into)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// If the peer has closed.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        self.stream.write_all(bytes.as_ref())?;
        self.stream.flush()?;
        Ok(())
    }

    /// Ends our half of the connection.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn finish(&mut self) -> Result<()> {
        if let Transport::Tls(tls) = &mut self.stream {
            tls.conn.send_close_notify();
            tls.flush()?;
        }
        self.tcp
            .shutdown(std::net::Shutdown::Write)
            .map_err(Into::into)
    }

    /// Reads one answer to a request with this method; interim (1xx) answers count as answers.
    ///
    /// # Errors
    /// If the peer closes before its end, or it is no HTTP/1 answer.
    pub fn response(&mut self, method: &str) -> Result<Response> {
        let head = self
            .take_through(b"\r\n\r\n")
            .context("read the head of an answer")?;
        let mut response = parse_head(&head)?;
        let status = response.status;
        if method == "HEAD" || status / 100 == 1 || status == 204 || status == 304 {
            return Ok(response);
        }
        if response.header("transfer-encoding").is_some() {
            loop {
                let line = self.take_through(b"\r\n").context("read a chunk size")?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let size = line.trim_end().split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16)
                    .with_context(|| format!("not a chunk size: {line:?}"))?;
                if size == 0 {
                    break;
                }
                let chunk = self.take(size)?;
                response.body.extend_from_slice(&chunk);
                let end = self.take(2)?;
                if end != b"\r\n" {
                    bail!("a chunk does not end in CRLF: {end:?}");
                }
            }
            loop {
                let line = self.take_through(b"\r\n").context("read a trailer")?;
                if line == b"\r\n" {
                    break;
                }
                response
                    .trailers
                    .push(parse_field(&String::from_utf8_lossy(&line))?);
            }
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().context("Content-Length")?;
            response.body = self.take(length).context("read a body")?;
        } else {
            response.body = self.rest()?;
        }
        Ok(response)
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// As [`Connection::send`] and [`Connection::response`].
    pub fn exchange(&mut self, request: impl AsRef<[u8]>) -> Result<Response> {
        let request = request.as_ref();
        let method = request
            .split(|byte| *byte == b' ')
            .next()
            .unwrap_or_default();
        let method = String::from_utf8_lossy(method).into_owned();
        self.send(request)?;
        self.response(&method)
    }

    /// Reads until the peer closes, in whatever way.
    ///
    /// # Errors
    /// If it does not.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        while self.fill()? {}
        Ok(std::mem::take(&mut self.buffer))
    }

    /// Reads exactly so many bytes.
    ///
    /// # Errors
    /// If the peer closes before.
    pub fn take(&mut self, length: usize) -> Result<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill()? {
                bail!("closed after {} of {length} bytes", self.buffer.len());
            }
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Reads until `mark` has come; gives everything before it, and it.
    ///
    /// # Errors
    /// If the peer closes before.
    pub fn take_through(&mut self, mark: &[u8]) -> Result<Vec<u8>> {
        let mut searched: usize = 0;
        loop {
            let start = searched.saturating_sub(mark.len());
            let found = self.buffer[start..]
                .windows(mark.len())
                .position(|it| it == mark);
            if let Some(position) = found {
                return self.take(start + position + mark.len());
            }
            searched = self.buffer.len();
            if !self.fill()? {
                let got = String::from_utf8_lossy(&self.buffer).into_owned();
                bail!(
                    "closed before {:?}, after {got:?}",
                    String::from_utf8_lossy(mark)
                );
            }
        }
    }

    /// Reads a little; `false` when the peer has closed.
    fn fill(&mut self) -> Result<bool> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                self.received += length as u64;
                Ok(true)
            }
            Err(error) => match error.kind() {
                ErrorKind::Interrupted => Ok(true),
                ErrorKind::UnexpectedEof
                | ErrorKind::ConnectionReset
                | ErrorKind::BrokenPipe
                | ErrorKind::ConnectionAborted => Ok(false),
                ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                    let got = String::from_utf8_lossy(&self.buffer).into_owned();
                    bail!("nothing more came, and no close, after {got:?}")
                }
                _ => Err(error.into()),
            },
        }
    }
}

impl Read for Connection {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.buffer.is_empty() {
            return self
                .stream
                .read(buffer)
                .inspect(|length| self.received += *length as u64);
        }
        let length = buffer.len().min(self.buffer.len());
        buffer[..length].copy_from_slice(&self.buffer[..length]);
        self.buffer.drain(..length);
        Ok(length)
    }
}

impl Write for Connection {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

impl Read for Transport {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(it) => it.read(buffer),
            Self::Tls(it) => it.read(buffer),
        }
    }
}

impl Write for Transport {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(it) => it.write(bytes),
            Self::Tls(it) => it.write(bytes),
        }
    }

    fn flush(&mut self) -> std::io::Result<()> {
        match self {
            Self::Plain(it) => it.flush(),
            Self::Tls(it) => it.flush(),
        }
    }
}

fn trusting(ca: &Ca) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    let mut roots = RootCertStore::empty();
    roots
        .add(ca.der().clone())
        .expect("our own authority is a certificate");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider supports the default versions")
        .with_root_certificates(roots)
}

fn tcp(address: SocketAddr) -> Result<TcpStream> {
    let tcp = TcpStream::connect(address).with_context(|| format!("connect to {address}"))?;
    settle(tcp, READ_PATIENCE)
}

fn settle(tcp: TcpStream, patience: Duration) -> Result<TcpStream> {
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(patience))?;
    tcp.set_write_timeout(Some(patience))?;
    Ok(tcp)
}

fn parse_head(head: &[u8]) -> Result<Response> {
    let text = std::str::from_utf8(head).context("a head that is not text")?;
    let mut lines = text.trim_end_matches("\r\n").split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.get(2..5))
        .and_then(|status| status.parse().ok())
        .with_context(|| format!("not a status line: {first:?}"))?;
    let headers = lines.map(parse_field).collect::<Result<_>>()?;
    Ok(Response {
        status,
        headers,
        body: Vec::new(),
        trailers: Vec::new(),
        head: head.to_vec(),
    })
}

fn parse_field(line: &str) -> Result<(String, String)> {
    let (name, value) = line
        .split_once(':')
        .with_context(|| format!("not a field: {line:?}"))?;
    Ok((name.to_ascii_lowercase(), value.trim().to_owned()))
}
