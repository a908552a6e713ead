//! One connection to a registry: names are looked up for each anew.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::credentials::Source;
use super::{Address, ClientError};

/// How long a connection may take: name, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection is not used for longer than this: the next may find another address behind the
/// name, and a certificate or token that was replaced.
const LIFETIME: Duration = Duration::from_secs(300);

const AGENT: &str = concat!("gatehouse/", env!("CARGO_PKG_VERSION"));

/// An open connection.
pub(super) struct Connection {
    sender: SendRequest<Full<Bytes>>,
    bearer: Option<HeaderValue>,
    host: HeaderValue,
    made: Instant,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    pub(super) method: Method,
    /// With the query.
    pub(super) path: String,
    pub(super) fields: Vec<(http::HeaderName, HeaderValue)>,
    pub(super) body: Bytes,
}

/// Why a question has no answer.
pub(super) struct SendFailure {
    /// Nothing of it has left, so that it can be asked elsewhere whatever it is.
    pub(super) unsent: bool,
    pub(super) reason: String,
}

impl Connection {
    /// Connects within [`CONNECT`].
    pub(super) async fn open(address: &Address, credentials: &Source) -> Result<Self, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            address: address.clone(),
            reason,
        };
        let files = credentials.clone();
        let attempt = async {
            // A network file system may hang.
            let loaded = spawn_blocking(move || files.load())
                .await
                .map_err(|error| unreachable(format!("cannot read files: {error}")))??;
            let tcp = connect(address.host(), address.port(), CONNECT)
                .await
                .map_err(&unreachable)?;
            let tls = TlsConnector::from(loaded.tls)
                .connect(address.server_name(), tcp)
                .await
                .map_err(|error| unreachable(format!("no TLS: {error}")))?;
            let (sender, connection) = handshake(TokioIo::new(tls))
                .await
                .map_err(|error| unreachable(told(&error)))?;
            // It ends when the sender is dropped. What breaks it shows at the sender as well.
            tokio::spawn(async move { drop(connection.await) });
            Ok(Self {
                sender,
                bearer: loaded.bearer,
                host: HeaderValue::try_from(address.authority())
                    .expect("a host and a port can stand in a field"),
                made: Instant::now(),
            })
        };
        timeout(CONNECT, attempt)
            .await
            .unwrap_or_else(|_| Err(unreachable(format!("no connection within {CONNECT:?}"))))
    }

    /// Whether another question may be asked on it.
    pub(super) fn is_usable(&self) -> bool {
        self.sender.is_ready() && self.made.elapsed() < LIFETIME
    }

    pub(super) async fn send(
        &mut self,
        question: &Question,
    ) -> Result<Response<Incoming>, SendFailure> {
        let mut request = Request::new(Full::new(question.body.clone()));
        *request.method_mut() = question.method.clone();
        *request.uri_mut() = question.path.parse().map_err(|error| SendFailure {
            unsent: true,
            reason: format!("{:?} is no path: {error}", question.path),
        })?;
        let fields = request.headers_mut();
        fields.insert(HOST, self.host.clone());
        fields.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        if let Some(bearer) = &self.bearer {
            fields.insert(AUTHORIZATION, bearer.clone());
        }
        for (name, value) in &question.fields {
            fields.insert(name, value.clone());
        }
        let ready = self.sender.ready().await;
        ready.map_err(|error| SendFailure {
            unsent: true,
            reason: told(&error),
        })?;
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut error| SendFailure {
                unsent: error.take_message().is_some(),
                reason: told(error.error()),
            })
    }
}

/// A TCP connection to the first address that answers. Each gets an equal share of the time, so that
/// one that swallows packets does not hide the others.
pub(crate) async fn connect(host: &str, port: u16, within: Duration) -> Result<TcpStream, String> {
    let addresses: Vec<SocketAddr> = lookup_host((host, port))
        .await
        .map_err(|error| format!("cannot look up {host}: {error}"))?
        .collect();
    let mut failure = format!("{host} has no address");
    let share = within / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(tcp)) => {
                // Small messages, each waited for. Without it they are merely slower.
                let _ = tcp.set_nodelay(true);
                return Ok(tcp);
            }
            Ok(Err(error)) => failure = format!("cannot connect to {address}: {error}"),
            Err(_) => failure = format!("{address} does not answer within {share:?}"),
        }
    }
    Err(failure)
}

/// An error of hyper with its cause, which it leaves out.
pub(crate) fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}
