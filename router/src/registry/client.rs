//! Client of the registry's API: what registrars and operators use.
//!
//! One [`Client`] per registry. HTTP/1.1 over TLS, one connection that is kept between calls; every
//! call has a deadline, every answer a bound, and redirects are not followed: a credential goes to
//! nobody but who was named.

mod address;
mod calls;
mod connection;
mod credentials;
mod error;
mod events;
mod runtime;
#[cfg(test)]
pub(crate) mod scripted;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, ETAG, RETRY_AFTER};
use http::{HeaderMap, Method, Response, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

pub use address::{Address, InvalidAddress};
pub use calls::{Precondition, Tagged};
pub use credentials::{Credentials, LoadedCredentials, Proof, Source};
pub use error::{ClientError, Problem};
pub use events::ServerEvent;
pub use runtime::ClientRuntime;

pub(crate) use connection::told;
use connection::{Connection, Known, Question};
use events::EventParser;

/// How long a call may take, connection included, unless the caller sets another deadline.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer at most.
const MAX_ANSWER: usize = 1 << 20;
/// Bytes of a list at most.
const MAX_LIST: usize = 16 << 20;
/// A watch that says nothing for this long is dead: registries send a comment every 15 s.
const SILENCE: Duration = Duration::from_secs(45);

/// Client of one registry.
pub struct Client {
    address: Address,
    credentials: Source,
    /// A connection that nobody uses at the moment.
    kept: Mutex<Option<Connection>>,
    known: Known,
}

/// A success.
struct Answer {
    status: StatusCode,
    fields: HeaderMap,
    body: Bytes,
}

/// The events of a watch, in order.
pub struct Events {
    address: Address,
    body: Incoming,
    parser: EventParser,
    ready: VecDeque<ServerEvent>,
    /// Ends with the watch.
    _connection: Connection,
}

impl Client {
    /// A client of the registry at `address`. Reads no file and opens no connection before the
    /// first call.
    #[must_use]
    pub fn new(address: Address, credentials: impl Into<Source>) -> Self {
        Self {
            address,
            credentials: credentials.into(),
            kept: Mutex::new(None),
            known: Known::default(),
        }
    }

    /// The registry.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Takes over where the registry was found last: a name that cannot be looked up at the moment is
    /// still there.
    pub fn remember(&self, earlier: &Self) {
        self.known.set(earlier.known.get());
    }

    /// Asks and reads the whole answer within `deadline`.
    async fn call(
        &self,
        question: Question,
        limit: usize,
        deadline: Duration,
    ) -> Result<Answer, ClientError> {
        timeout(deadline, self.ask(&question, limit))
            .await
            .unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {deadline:?}"))))
    }

    /// Asks on the kept connection, or on a new one where there is none or it does not do.
    async fn ask(&self, question: &Question, limit: usize) -> Result<Answer, ClientError> {
        if let Some(mut kept) = self.take_kept() {
            match kept.send(question).await {
                // It was made with a token or certificate that may have been replaced since.
                Ok(response) if response.status() == StatusCode::UNAUTHORIZED => {}
                Ok(response) => return self.finish(kept, response, limit).await,
                // The registry may have closed it meanwhile.
                Err(failure) if failure.unsent || may_be_repeated(question) => {}
                Err(failure) => return Err(self.unreachable(failure.reason)),
            }
        }
        let mut connection =
            Connection::open(&self.address, &self.credentials, &self.known).await?;
        let response = connection
            .send(question)
            .await
            .map_err(|failure| self.unreachable(failure.reason))?;
        self.finish(connection, response, limit).await
    }

    /// Reads the answer and keeps the connection.
    async fn finish(
        &self,
        connection: Connection,
        response: Response<Incoming>,
        limit: usize,
    ) -> Result<Answer, ClientError> {
        let (head, body) = response.into_parts();
        let body = self.read(body, limit).await?;
        if connection.is_usable() {
            *self.lock() = Some(connection);
        }
        if head.status.is_success() {
            return Ok(Answer {
                status: head.status,
                fields: head.headers,
                body,
            });
        }
        Err(self.refusal(head.status, &head.headers, &body))
    }

    async fn read(&self, body: Incoming, limit: usize) -> Result<Bytes, ClientError> {
        match Limited::new(body, limit).collect().await {
            Ok(collected) => Ok(collected.to_bytes()),
            Err(error) if error.is::<LengthLimitError>() => {
                Err(self.unexpected(format!("an answer of more than {limit} bytes")))
            }
            Err(error) => Err(self.unreachable(format!("the answer broke off: {error}"))),
        }
    }

    fn refusal(&self, status: StatusCode, fields: &HeaderMap, body: &[u8]) -> ClientError {
        if !status.is_client_error() && !status.is_server_error() {
            return self.unexpected(format!("status {status}; redirects are not followed"));
        }
        let retry_after = fields
            .get(RETRY_AFTER)
            .and_then(|value| value.to_str().ok());
        ClientError::Refused {
            address: self.address.clone(),
            problem: Box::new(Problem::read(status, retry_after, body)),
        }
    }

    /// Begins a stream of events.
    async fn stream(&self, question: Question) -> Result<Events, ClientError> {
        let attempt = async {
            let mut connection =
                Connection::open(&self.address, &self.credentials, &self.known).await?;
            let response = connection
                .send(&question)
                .await
                .map_err(|failure| self.unreachable(failure.reason))?;
            let (head, body) = response.into_parts();
            if head.status != StatusCode::OK {
                let body = self.read(body, MAX_ANSWER).await?;
                return Err(self.refusal(head.status, &head.headers, &body));
            }
            let kind = head.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes());
            if !kind.is_some_and(|kind| kind.starts_with(b"text/event-stream")) {
                return Err(self.unexpected("no stream of events".to_owned()));
            }
            Ok(Events {
                address: self.address.clone(),
                body,
                parser: EventParser::default(),
                ready: VecDeque::new(),
                _connection: connection,
            })
        };
        timeout(DEADLINE, attempt)
            .await
            .unwrap_or_else(|_| Err(self.unreachable(format!("no answer within {DEADLINE:?}"))))
    }

    fn take_kept(&self) -> Option<Connection> {
        self.lock().take().filter(Connection::is_usable)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Connection>> {
        // Whole values are put in and taken out.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unreachable(&self, reason: String) -> ClientError {
        ClientError::Unreachable {
            address: self.address.clone(),
            reason,
        }
    }

    fn unexpected(&self, reason: String) -> ClientError {
        ClientError::Unexpected {
            address: self.address.clone(),
            reason,
        }
    }
}

impl Events {
    /// The next event; `None` when the registry has ended the stream.
    ///
    /// Loses nothing when it is dropped and called again.
    ///
    /// # Errors
    /// When the connection breaks, stays silent for too long, or carries too much at once.
    pub async fn next(&mut self) -> Result<Option<ServerEvent>, ClientError> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            let broken = |reason: String| ClientError::Unreachable {
                address: self.address.clone(),
                reason,
            };
            let frame = match timeout(SILENCE, self.body.frame()).await {
                Err(_) => return Err(broken(format!("silent for {SILENCE:?}"))),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(broken(told(&error))),
                Ok(Some(Ok(frame))) => frame,
            };
            if let Some(bytes) = frame.data_ref() {
                let pushed = self.parser.push(bytes, &mut self.ready);
                pushed.map_err(|error| ClientError::Unexpected {
                    address: self.address.clone(),
                    reason: error.to_string(),
                })?;
            }
        }
    }
}

/// Whether asking once more does no harm if the first one was heard after all.
fn may_be_repeated(question: &Question) -> bool {
    let idempotent = matches!(question.method, Method::GET | Method::PUT | Method::DELETE);
    // `If-Match` would fail on what the first one has changed.
    idempotent
        && question
            .fields
            .iter()
            .all(|(name, _)| *name == CONTENT_TYPE)
}

/// The version of an answer.
fn tag_of(fields: &HeaderMap) -> Option<String> {
    let tag = fields.get(ETAG)?.to_str().ok()?;
    Some(tag.to_owned())
}
