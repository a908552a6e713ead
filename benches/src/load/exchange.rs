//! A TLS connection with one exchange on it, by rustls, never resumed.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, HandshakeKind, NamedGroup, RootCertStore,
    StreamOwned,
};
use serde::{Deserialize, Serialize};

use crate::backend::{SMALL, SMALL_BYTES};
use crate::site::HOST;

const TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_LIMIT: usize = 16 * 1024;

/// The TLS version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Tls12,
    Tls13,
}

/// What a server chose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Choice {
    pub(crate) version: String,
    pub(crate) cipher: String,
    pub(crate) group: String,
    /// Session tickets that came with the handshake.
    pub(crate) tickets: u32,
}

/// Settings of a client that offers one group and one cipher per version, asks for tickets as
/// browsers do, and never uses one.
pub(crate) fn client(
    version: Version,
    authority: &CertificateDer<'static>,
) -> Result<Arc<ClientConfig>> {
    let mut groups = vec![aws_lc_rs::kx_group::X25519];
    if version == Version::Tls12 {
        // In TLS 1.2 the list also says which curves a certificate may be on (RFC 8422, 5.1).
        groups.push(aws_lc_rs::kx_group::SECP256R1);
    }
    let provider = CryptoProvider {
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ],
        kx_groups: groups,
        ..aws_lc_rs::default_provider()
    };
    let versions = match version {
        Version::Tls12 => [&rustls::version::TLS12],
        Version::Tls13 => [&rustls::version::TLS13],
    };
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone()).context("authority")?;
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&versions)
        .context("TLS versions")?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A connection that has carried a request and its whole answer.
pub(crate) struct Connection {
    stream: StreamOwned<ClientConnection, TcpStream>,
}

impl Connection {
    /// Connects, shakes hands, asks for the small answer and reads it to its end.
    pub(crate) fn exchange(address: SocketAddr, config: &Arc<ClientConfig>) -> Result<Self> {
        let (connection, body) = Self::fetch(address, config, SMALL)?;
        let length = body.len();
        ensure!(
            length == SMALL_BYTES,
            "{length} bytes of body where {SMALL_BYTES} are due"
        );
        Ok(connection)
    }

    /// Connects, shakes hands, asks for `path` and reads the answer to its end.
    pub(crate) fn fetch(
        address: SocketAddr,
        config: &Arc<ClientConfig>,
        path: &str,
    ) -> Result<(Self, Vec<u8>)> {
        let tcp = TcpStream::connect_timeout(&address, TIMEOUT).context("connect")?;
        tcp.set_nodelay(true).context("TCP_NODELAY")?;
        tcp.set_read_timeout(Some(TIMEOUT))
            .context("read timeout")?;
        tcp.set_write_timeout(Some(TIMEOUT))
            .context("write timeout")?;
        let name = ServerName::try_from(HOST).context("host name")?;
        let tls = ClientConnection::new(Arc::clone(config), name).context("TLS client")?;
        let stream = StreamOwned::new(tls, tcp);
        let mut connection = Connection { stream };
        connection.send(HOST, path)?;
        let body = read_answer(&mut connection.stream)?;
        Ok((connection, body))
    }

    /// Asks for the small answer once more and reads it to its end.
    pub(crate) fn again(&mut self) -> Result<()> {
        self.send(HOST, SMALL)?;
        self.small()
    }

    /// Sends a request for a path of a host.
    pub(crate) fn send(&mut self, host: &str, path: &str) -> Result<()> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: */*\r\n\r\n");
        self.stream.write_all(request.as_bytes()).context("request")
    }

    /// Reads the small answer to its end.
    pub(crate) fn small(&mut self) -> Result<()> {
        let length = read_answer(&mut self.stream)?.len();
        ensure!(
            length == SMALL_BYTES,
            "{length} bytes of body where {SMALL_BYTES} are due"
        );
        Ok(())
    }

    /// Whether the handshake was in full and used what is compared.
    ///
    /// # Errors
    ///
    /// Another cipher or group was used, or a session was resumed.
    pub(crate) fn check(&self) -> Result<()> {
        let tls = &self.stream.conn;
        let cipher = tls.negotiated_cipher_suite().map(|cipher| cipher.suite());
        let group = tls
            .negotiated_key_exchange_group()
            .map(|group| group.name());
        let ciphers = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        let kind = tls.handshake_kind();
        ensure!(
            cipher.is_some_and(|cipher| ciphers.contains(&cipher)),
            "cipher {cipher:?}"
        );
        ensure!(group == Some(NamedGroup::X25519), "group {group:?}");
        ensure!(kind == Some(HandshakeKind::Full), "handshake {kind:?}");
        Ok(())
    }

    /// What the server chose in the handshake.
    pub(crate) fn choice(&self) -> Result<Choice> {
        let tls = &self.stream.conn;
        let version = tls.protocol_version().context("no version")?;
        let cipher = tls.negotiated_cipher_suite().context("no cipher")?;
        let group = tls.negotiated_key_exchange_group().context("no group")?;
        Ok(Choice {
            version: format!("{version:?}"),
            cipher: format!("{:?}", cipher.suite()),
            group: format!("{:?}", group.name()),
            tickets: tls.tls13_tickets_received(),
        })
    }

    /// Whether the server still holds the connection and has said nothing since its answer.
    pub(crate) fn rests(&self) -> Result<bool> {
        let tcp = &self.stream.sock;
        tcp.set_nonblocking(true).context("non-blocking socket")?;
        let unread = tcp.peek(&mut [0]);
        tcp.set_nonblocking(false).context("blocking socket")?;
        Ok(unread.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
    }

    /// Says goodbye as TLS wants it and closes.
    pub(crate) fn close(mut self) {
        self.stream.conn.send_close_notify();
        // The answer has been read; a server that has already gone makes no difference to it.
        let _ = self.stream.flush();
    }
}

/// Reads a 200 answer with a Content-Length and gives its body.
fn read_answer(stream: &mut impl Read) -> Result<Vec<u8>> {
    let mut answer = Vec::with_capacity(2048);
    let mut chunk = [0; 4096];
    loop {
        let length = match stream.read(&mut chunk) {
            Ok(0) => bail!("closed after {} bytes of the answer", answer.len()),
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("answer"),
        };
        answer.extend_from_slice(&chunk[..length]);
        if let Some((start, length)) = body(&answer)? {
            let read = answer.len() - start;
            ensure!(
                read <= length,
                "{read} bytes of body where {length} were announced"
            );
            if read == length {
                return Ok(answer.split_off(start));
            }
        }
        ensure!(
            answer.len() < ANSWER_LIMIT,
            "an answer of more than {ANSWER_LIMIT} bytes"
        );
    }
}

/// Where the body starts and how long it will be; `None` while the head is incomplete.
fn body(answer: &[u8]) -> Result<Option<(usize, usize)>> {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&answer[..end]);
    ensure!(
        head.starts_with("HTTP/1.1 200 "),
        "unexpected answer: {head}"
    );
    let fields = head.lines().filter_map(|line| line.split_once(':'));
    let mut fields = fields.filter(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    let (_, length) = fields
        .next()
        .with_context(|| format!("no length: {head}"))?;
    let length = length
        .trim()
        .parse()
        .with_context(|| format!("content-length {length}"))?;
    Ok(Some((end + 4, length)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(body: usize) -> Vec<u8> {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SMALL_BYTES}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; body]].concat()
    }

    #[test]
    fn an_answer_is_read_to_its_end() {
        let body = read_answer(&mut answer(SMALL_BYTES).as_slice()).unwrap();
        assert_eq!(body, vec![b'x'; SMALL_BYTES]);
    }

    #[test]
    fn a_short_long_or_refused_answer_is_an_error() {
        assert!(read_answer(&mut answer(SMALL_BYTES - 1).as_slice()).is_err());
        assert!(read_answer(&mut answer(SMALL_BYTES + 1).as_slice()).is_err());
        let refused = String::from_utf8(answer(SMALL_BYTES))
            .unwrap()
            .replace("200 OK", "502 Bad");
        assert!(read_answer(&mut refused.as_bytes()).is_err());
    }
}
