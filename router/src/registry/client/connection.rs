//! One connection to a registry: names are looked up for each anew.

use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::credentials::Source;
use super::{Address, ClientError};
use crate::upstream::named::{first_that_answers, look_up};

/// How long a connection may take: name, TCP and TLS together.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a name may take to be looked up where its addresses are known from before.
const LOOK_UP: Duration = Duration::from_secs(1);
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

/// The addresses that were behind the name when it was connected to last.
#[derive(Default)]
pub(super) struct Known(Mutex<Vec<SocketAddr>>);

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
    pub(super) async fn open(
        address: &Address,
        credentials: &Source,
        known: &Known,
    ) -> Result<Self, ClientError> {
        let unreachable = |reason: String| ClientError::Unreachable {
            address: address.clone(),
            reason,
        };
        let files = credentials.clone();
        let begun = Instant::now();
        let attempt = async {
            // A network file system may hang.
            let loaded = spawn_blocking(move || files.load())
                .await
                .map_err(|error| unreachable(format!("cannot read files: {error}")))??;
            let looked_up = look_up(address.host(), address.port());
            let addresses = addresses(looked_up, known.get())
                .await
                .map_err(&unreachable)?;
            let tcp = first_that_answers(&addresses, CONNECT.saturating_sub(begun.elapsed()))
                .await
                .map_err(&unreachable)?;
            let tls = TlsConnector::from(loaded.tls)
                .connect(address.server_name(), tcp)
                .await
                .map_err(|error| unreachable(format!("no TLS: {error}")))?;
            known.set(addresses);
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

impl Known {
    pub(super) fn get(&self) -> Vec<SocketAddr> {
        self.lock().clone()
    }

    pub(super) fn set(&self, addresses: Vec<SocketAddr>) {
        *self.lock() = addresses;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        // Whole values are put in.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was looked up, or what is known from before if that fails or takes long: an outage of the
/// name service is none of the registry. Whoever answers has to prove the name all the same.
async fn addresses(
    looked_up: impl Future<Output = Result<Vec<SocketAddr>, String>>,
    known: Vec<SocketAddr>,
) -> Result<Vec<SocketAddr>, String> {
    if known.is_empty() {
        return looked_up.await;
    }
    let failure = match timeout(LOOK_UP, looked_up).await {
        Ok(Ok(found)) => return Ok(found),
        Ok(Err(failure)) => failure,
        Err(_) => format!("no address within {LOOK_UP:?}"),
    };
    tracing::debug!(failure, "a registry's last addresses are used");
    Ok(known)
}

/// An error of hyper with its cause, which it leaves out.
pub(crate) fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[tokio::test]
    async fn a_name_that_cannot_be_looked_up_is_where_it_was() {
        let old: Vec<SocketAddr> = vec!["10.0.0.1:8444".parse().unwrap()];
        let new: Vec<SocketAddr> = vec!["10.0.0.2:8444".parse().unwrap()];
        let found = || ready(Ok(new.clone()));
        assert_eq!(addresses(found(), old.clone()).await, Ok(new.clone()));
        assert_eq!(addresses(found(), Vec::new()).await, Ok(new.clone()));
        let failed = || ready(Err("no name server".to_owned()));
        assert_eq!(addresses(failed(), old.clone()).await, Ok(old.clone()));
        addresses(failed(), Vec::new()).await.unwrap_err();
        assert_eq!(addresses(pending(), old.clone()).await, Ok(old));
    }
}
