//! `/v1/watch`: what changes, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! ```text
//! route  {...}        there is one, or it changed
//! gone   {"host"}     there is none any more
//! reset  {}           what was known before is void: everything follows anew
//! synced {}           everything up to `id` has been told
//! ```
//!
//! An `id` is the revision up to which everything has been told with this event: the last one of a
//! transaction has one, those before it have none. `0` stands for a list that has only begun.

mod follower;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use http::HeaderMap;
use tokio_stream::Stream;

use super::Api;
use super::extract::Query;
use super::problem::Problem;
use super::responses::Always;
use super::types::WatchQuery;
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::Revision;
use follower::{Follower, Told};

/// How often a line is sent while nothing changes, so that a dead connection shows.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Watches routes
///
/// First everything (or what changed after `after`), then `synced`, then each change. After a break
/// `Last-Event-ID` resumes; what is no longer remembered begins with `reset`.
#[utoipa::path(get, path = "/v1/watch", tag = "routes",
    params(WatchQuery, ("Last-Event-ID" = Option<String>, Header, description = "The last `id` that was seen")),
    responses((status = 200, description = "Events `route`, `gone`, `reset` and `synced`", body = String, content_type = "text/event-stream"), Always))]
pub(super) async fn watch(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Query(query): Query<WatchQuery>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let tenant = valid::limited_to(&caller, query.tenant.as_deref())?;
    let after = match headers.get("last-event-id") {
        None => query.after,
        Some(id) => match id.to_str().ok().and_then(|id| id.parse().ok()) {
            Some(id) => Some(id),
            None => return Err(Problem::malformed("Last-Event-ID: is no revision")),
        },
    };
    if after.is_some_and(|after| after < 0) {
        return Err(Problem::malformed("query: after: must not be negative"));
    }
    let follower = Follower::new(tenant.map(Into::into), after.map(Revision));
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let events = stream(Arc::clone(&api.registry), follower);
    Ok(Sse::new(events).keep_alive(keep_alive))
}

fn stream(
    registry: Arc<RouteRegistry>,
    mut follower: Follower,
) -> impl Stream<Item = Result<Event, Infallible>> {
    let (events, receiver) = tokio::sync::mpsc::channel(16);
    let mut followed = registry.subscribe();
    // Ends when the client does: sending fails then. A closed channel is noticed between changes.
    tokio::spawn(async move {
        loop {
            followed.mark_unchanged();
            // The view is not locked while the client takes what is told.
            let step = follower.step(&registry.view());
            if let Some(step) = step {
                for told in step {
                    if events.send(Ok(event(told))).await.is_err() {
                        return;
                    }
                }
                continue;
            }
            tokio::select! {
                () = events.closed() => return,
                changed = followed.changed() => if changed.is_err() { return },
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

fn event(told: Told) -> Event {
    let event = Event::default().event(told.kind).data(told.data);
    match told.id {
        Some(Revision(id)) => event.id(id.to_string()),
        None => event,
    }
}
