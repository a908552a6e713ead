//! What every request passes before a handler sees it, and every answer on its way back.
//!
//! ```text
//! request --> who? --> limits --> handler --> audit --> count --> answer
//!              401       429        500        (changes)
//! ```

use std::borrow::Cow;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, CACHE_CONTROL};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::audit::{AuditEvent, AuditLog, Change, Consequences, Unchanged, shortened};
use super::certificate::{CertificateIdentity, NoIdentity};
use super::credential::{BearerToken, Caller};
use super::limits::{Demand, Exceeded, Limits, Permit, Source};
use super::refusals::{Recorded, Refusals};
use super::standing::Standing;
use super::tokens::{TokenRefused, Tokens};
use crate::observe::metrics::Registry;
use crate::registry::api::OPEN_PATHS;
use crate::registry::api::extract::{BodyDeadline, unknown_method, unknown_path};
use crate::registry::api::problem::{AnsweredReason, Problem};

/// The path whose answers stay open.
const WATCH: &str = "/v1/watch";
/// Statuses of requests that are no calls of the API: nothing that could be changed is meant.
const NO_CALLS: [StatusCode; 3] = [
    StatusCode::METHOD_NOT_ALLOWED,
    StatusCode::PAYLOAD_TOO_LARGE,
    StatusCode::UNSUPPORTED_MEDIA_TYPE,
];

/// The other end of a connection; an extension of each of its requests.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Who its client certificate says it is, if it showed one that our authorities signed.
    pub certificate: Option<Result<CertificateIdentity, NoIdentity>>,
}

/// A place that the answer's body holds until it has been sent; an extension of answers.
#[derive(Clone, Debug)]
pub struct Held(pub Arc<Permit>);

/// Told when a caller is known; an extension of requests, for their connection's sake.
#[derive(Clone)]
pub struct OnKnown(pub Arc<dyn Fn() + Send + Sync>);

/// What requests are checked with.
pub struct Guard {
    /// Knows the tokens.
    pub tokens: Tokens,
    /// Counts requests.
    pub limits: Limits,
    /// Records changes.
    pub audit: AuditLog,
    /// How many refused changes it records.
    pub refusals: Refusals,
    /// Counts answers.
    pub metrics: Arc<Registry>,
    /// How long a handler may take.
    pub deadline: Duration,
}

/// Puts the guard before an API. Handlers find a [`Caller`] among a request's extensions, but for
/// the paths that are open to all; what they say about a change is a [`Change`] or [`Unchanged`]
/// among the answer's.
pub fn guard(api: Router, guard: Arc<Guard>) -> Router {
    api.fallback(unknown_path)
        .method_not_allowed_fallback(unknown_method)
        .layer(from_fn_with_state(guard, pass))
}

async fn pass(State(guard): State<Arc<Guard>>, request: Request, next: Next) -> Response {
    let answered = Arc::clone(&guard).answer(request, next).await;
    let mut response = answered.unwrap_or_else(IntoResponse::into_response);
    // Answers depend on the credential.
    let headers = response.headers_mut();
    headers
        .entry(CACHE_CONTROL)
        .or_insert(HeaderValue::from_static("no-store"));
    guard.metrics.api.request(response.status().as_u16());
    response
}

impl Guard {
    /// Whether a failure of a peer is worth a line in the log; counts it.
    pub(in crate::registry) fn may_complain(&self, peer: SocketAddr) -> bool {
        self.limits.count_failure(Source::of(peer)).is_ok()
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request,
        next: Next,
    ) -> Result<Response, Problem> {
        let Some(peer) = request.extensions().get::<Peer>().cloned() else {
            tracing::error!("a request without a peer");
            return Err(Problem::internal());
        };
        let source = Source::of(peer.address);
        let known = authenticate(
            &self.tokens,
            peer.certificate.as_ref(),
            request.headers(),
            SystemTime::now(),
        );
        if let (Ok(_), Some(OnKnown(tell))) = (&known, request.extensions_mut().remove()) {
            tell();
        }
        let demand = if request.uri().path() == WATCH {
            Demand::Watch
        } else {
            Demand::Request
        };
        // Whoever watches is looked at again; but for that nobody needs it from here on.
        let mut authorization = HeaderMap::new();
        if let (Demand::Watch, Some(value)) = (demand, request.headers_mut().remove(AUTHORIZATION))
        {
            authorization.insert(AUTHORIZATION, value);
        }
        request.headers_mut().remove(AUTHORIZATION);
        let for_body = BodyDeadline(self.deadline / 2);
        request.extensions_mut().insert(for_body);
        let path = request.uri().path();
        let reads = [Method::GET, Method::HEAD].contains(request.method());
        let caller = match known {
            Ok(caller) => Some(caller),
            Err(_) if reads && OPEN_PATHS.contains(&path) => None,
            Err(NotKnown::NotReady(why)) => {
                return Err(Problem::store_unreachable(why.to_string()));
            }
            Err(NotKnown::Refused(why)) => {
                self.limits.count_failure(source).map_err(turned_away)?;
                tracing::info!(peer = %peer.address, reason = %why, "caller is not known");
                return Err(Problem::unauthenticated(why));
            }
        };
        let Some(caller) = caller else {
            self.limits.admit_anonymous(source).map_err(turned_away)?;
            return self.in_time(respond(request, next)).await;
        };
        let permit = self.limits.admit(&caller, demand).map_err(turned_away)?;
        let permit = Arc::new(permit);
        request.extensions_mut().insert(caller.clone());
        if reads {
            let response = self.in_time(respond(request, next)).await?;
            let mut response = holding(response, permit);
            if demand == Demand::Watch {
                let standing = Standing::new(self, caller, peer, authorization);
                response.extensions_mut().insert(standing);
            }
            return Ok(response);
        }
        // In a task of its own: a client that goes away, or a deadline, must not cut off a change
        // between the store and the audit log.
        let guard = Arc::clone(&self);
        let change = tokio::spawn(async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let response = respond(request, next).await;
            if let Some(event) = event(&caller, &peer, &method, path, &response) {
                let also = consequences(&event, &response);
                let made = response.status().is_success();
                guard.record(event, made).await;
                for event in also {
                    guard.audit.record(&event).await;
                }
            }
            holding(response, permit)
        });
        let done = self.in_time(change).await?;
        done.map_err(|error| {
            // It neither panics nor is it aborted, but for the end of the process.
            tracing::error!(%error, "a change was cut off");
            Problem::internal()
        })
    }

    /// Records a change, unless its caller was refused very often lately: then in one line with
    /// others, when their time has come.
    async fn record(self: &Arc<Self>, event: AuditEvent, made: bool) {
        let recorded = if made {
            Recorded::Now
        } else {
            self.refusals.count(&event, Instant::now())
        };
        match recorded {
            Recorded::Now => self.audit.record(&event).await,
            Recorded::WithOthers => {}
            Recorded::After(time) => {
                let guard = Arc::clone(self);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    if let Some(line) = guard.refusals.left_out(&event.caller) {
                        guard.audit.record(&line).await;
                    }
                });
            }
        }
    }

    async fn in_time<T>(&self, work: impl Future<Output = T>) -> Result<T, Problem> {
        let done = tokio::time::timeout(self.deadline, work).await;
        done.map_err(|_| {
            let seconds = self.deadline.as_secs();
            Problem::busy(format!(
                "not done within {seconds} s; a change may still be made"
            ))
        })
    }
}

/// Why nobody is known to call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotKnown {
    /// The credential is missing or no good.
    Refused(Cow<'static, str>),
    /// It cannot be told yet.
    NotReady(TokenRefused),
}

/// Who calls, by certificate or by token. Who shows both must be the same by both: it is not for us
/// to choose.
pub(super) fn authenticate(
    tokens: &Tokens,
    certificate: Option<&Result<CertificateIdentity, NoIdentity>>,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Caller, NotKnown> {
    let refused = |why: &'static str| Err(NotKnown::Refused(why.into()));
    let by_token = match bearer(headers) {
        None => None,
        Some(Err(why)) => return refused(why),
        Some(Ok(token)) => Some(tokens.check(&token, now).map_err(|error| match error {
            TokenRefused::NotReady => NotKnown::NotReady(error),
            refused => NotKnown::Refused(refused.to_string().into()),
        })?),
    };
    match (certificate, by_token) {
        (None, None) => refused("a client certificate or a bearer token is needed"),
        (Some(Err(nobody)), None) => Err(NotKnown::Refused(nobody.to_string().into())),
        (None | Some(Err(_)), Some(caller)) => Ok(caller),
        (Some(Ok(certificate)), _) if has_expired(certificate, now) => {
            refused("the client certificate has expired; connect with the new one")
        }
        (Some(Ok(certificate)), Some(caller))
            if (&caller.role, &caller.scope)
                != (&certificate.caller.role, &certificate.caller.scope) =>
        {
            refused("the client certificate and the token stand for different callers")
        }
        (Some(Ok(certificate)), _) => Ok(certificate.caller.clone()),
    }
}

/// Only the handshake has looked at the certificate's end; the connection may be older.
fn has_expired(certificate: &CertificateIdentity, now: SystemTime) -> bool {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).is_ok_and(|now| now > certificate.not_after)
}

/// The token of the request's only `Authorization` (RFC 6750, section 2.1).
fn bearer(headers: &HeaderMap) -> Option<Result<BearerToken, &'static str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return Some(Err("several Authorization headers"));
    }
    let token = value.to_str().ok().and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        let token = scheme.eq_ignore_ascii_case("bearer").then_some(token)?;
        BearerToken::parse(token.trim_matches(' ')).ok()
    });
    Some(token.ok_or("Authorization is not Bearer with a token of this registry"))
}

fn turned_away(exceeded: Exceeded) -> Problem {
    match exceeded {
        Exceeded::Rate { seconds, .. } => {
            Problem::too_many_requests(exceeded.to_string()).retry_after(seconds)
        }
        Exceeded::Open(_) => Problem::too_many_requests(exceeded.to_string()),
        Exceeded::Busy => Problem::busy(exceeded.to_string()),
    }
}

/// The handler's answer; a panic is an answer, too.
async fn respond(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let mut handling = Box::pin(next.run(request));
    let handled = std::future::poll_fn(|cx| {
        // What the handler shares with others is its own to keep whole; nothing of ours is in it.
        let polled = catch_unwind(AssertUnwindSafe(|| handling.as_mut().poll(cx)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(response)) => Poll::Ready(Some(response)),
            Err(_) => Poll::Ready(None),
        }
    });
    handled.await.unwrap_or_else(|| {
        tracing::error!(path, "a handler panicked");
        Problem::internal().into_response()
    })
}

fn holding(mut response: Response, permit: Arc<Permit>) -> Response {
    response.extensions_mut().insert(Held(permit));
    response
}

/// What is to be recorded of an answered change, if anything is.
fn event(
    caller: &Caller,
    peer: &Peer,
    method: &Method,
    path: String,
    response: &Response,
) -> Option<AuditEvent> {
    let extensions = response.extensions();
    let status = response.status();
    if extensions.get::<Unchanged>().is_some() || NO_CALLS.contains(&status) {
        return None;
    }
    let change = extensions.get::<Change>().cloned().unwrap_or_default();
    let outcome = match extensions.get::<AnsweredReason>() {
        Some(AnsweredReason(reason)) => reason,
        None if status.is_success() => "done",
        None => "refused",
    };
    let action = change.action.map(str::to_owned);
    Some(AuditEvent {
        time: SystemTime::now(),
        caller: Arc::clone(&caller.id),
        role: caller.role.to_string(),
        peer: peer.address,
        tenant: change.tenant.or_else(|| caller.tenant().cloned()),
        action: action.unwrap_or_else(|| method.as_str().to_ascii_lowercase()),
        object: shortened(change.object.unwrap_or(path)),
        hosts: change.hosts,
        endpoints: change.endpoints,
        outcome,
        status: status.as_u16(),
        revision: change.revision,
        refusals: None,
    })
}

/// What else a change did.
fn consequences(cause: &AuditEvent, response: &Response) -> Vec<AuditEvent> {
    let done = response.extensions().get::<Consequences>();
    let done = done.into_iter().flat_map(|Consequences(done)| done);
    done.map(|change| AuditEvent {
        tenant: change.tenant.clone(),
        action: change.action.unwrap_or_default().to_owned(),
        object: shortened(change.object.clone().unwrap_or_default()),
        hosts: change.hosts.clone(),
        endpoints: change.endpoints.clone(),
        revision: change.revision,
        ..cause.clone()
    })
    .collect()
}

#[cfg(test)]
mod tests;
