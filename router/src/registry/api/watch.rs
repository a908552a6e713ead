//! `/v1/watch`: what changes, as server-sent events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! ```text
//! route  {...}        there is one, or it changed; id: the revision
//! gone   {"host"}     there is none any more
//! reset  {}           what was known before is void: everything follows anew
//! synced {}           everything up to `id` has been told
//! ```

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use config::route::HostMatch;
use http::HeaderMap;
use serde::Serialize;
use tokio::sync::watch;
use tokio_stream::Stream;

use super::Api;
use super::extract::Query;
use super::problem::Problem;
use super::responses::Always;
use super::types::WatchQuery;
use super::valid;
use crate::registry::auth::Caller;
use crate::registry::change::represent;
use crate::registry::shared::RouteRegistry;
use crate::registry::store::Revision;
use crate::registry::view::View;

/// How often a line is sent while nothing changes, so that a dead connection shows.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Routes that are looked up at once: the view is locked meanwhile.
const AT_ONCE: usize = 500;

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
    let follower = Follower {
        followed: api.registry.subscribe(),
        registry: Arc::clone(&api.registry),
        tenant: tenant.map(Into::into),
        state: match after {
            Some(after) => Told::UpTo(Revision(after)),
            None => Told::Nothing,
        },
        resuming: after.is_some(),
        queue: Vec::new(),
    };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(stream(follower)).keep_alive(keep_alive))
}

/// One client's place in the course of changes.
struct Follower {
    registry: Arc<RouteRegistry>,
    followed: watch::Receiver<Revision>,
    tenant: Option<Arc<str>>,
    state: Told,
    /// Whether a client that resumes is still to be told that it has caught up.
    resuming: bool,
    /// What is to be sent next, the last first.
    queue: Vec<Event>,
}

/// What the client knows.
enum Told {
    /// Nothing yet.
    Nothing,
    /// Everything up to a rule, of a whole list that may change meanwhile: those changes are told
    /// after it, from `since` on.
    UpToHost { host: HostMatch, since: Revision },
    /// Everything.
    UpTo(Revision),
}

fn stream(follower: Follower) -> impl Stream<Item = Result<Event, Infallible>> {
    let (events, receiver) = tokio::sync::mpsc::channel(16);
    // Ends when the client does: sending fails then. A closed channel is noticed between changes.
    tokio::spawn(async move {
        let mut follower = follower;
        loop {
            while let Some(event) = follower.queue.pop() {
                if events.send(Ok(event)).await.is_err() {
                    return;
                }
            }
            if follower.step() {
                continue;
            }
            tokio::select! {
                () = events.closed() => return,
                changed = follower.followed.changed() => if changed.is_err() { return },
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

impl Follower {
    /// Queues what is next; false if there is nothing new.
    fn step(&mut self) -> bool {
        self.followed.mark_unchanged();
        let registry = Arc::clone(&self.registry);
        let view = registry.view();
        let mut events = Vec::new();
        match &self.state {
            Told::Nothing => self.list(&view, None, view.revision(), &mut events),
            Told::UpToHost { host, since } => {
                let (host, since) = (host.clone(), *since);
                self.list(&view, Some(&host), since, &mut events);
            }
            Told::UpTo(revision) if *revision == view.revision() && !self.resuming => return false,
            Told::UpTo(revision) => match view.changed_since(*revision) {
                None => {
                    events.push(event("reset", None, &Empty {}));
                    self.state = Told::Nothing;
                    self.resuming = false;
                }
                Some(changed) => {
                    self.changes(&view, &changed, &mut events);
                    if std::mem::take(&mut self.resuming) {
                        events.push(event("synced", Some(view.revision()), &Empty {}));
                    }
                    self.state = Told::UpTo(view.revision());
                }
            },
        }
        events.reverse();
        self.queue = events;
        true
    }

    /// The next part of the whole list.
    fn list(
        &mut self,
        view: &View,
        after: Option<&HostMatch>,
        since: Revision,
        events: &mut Vec<Event>,
    ) {
        let hosts: Vec<_> = view
            .hosts_after(self.tenant.as_deref(), after)
            .take(AT_ONCE)
            .collect();
        events.extend(hosts.iter().filter_map(|host| self.route(view, host, None)));
        self.state = match hosts.last() {
            Some(last) if hosts.len() == AT_ONCE => Told::UpToHost {
                host: HostMatch::clone(last),
                since,
            },
            _ => {
                // What changed while the list was told may have been told as it was before.
                match view.changed_since(since) {
                    Some(changed) => self.changes(view, &changed, events),
                    None => {
                        events.push(event("reset", None, &Empty {}));
                        self.state = Told::Nothing;
                        return;
                    }
                }
                events.push(event("synced", Some(view.revision()), &Empty {}));
                Told::UpTo(view.revision())
            }
        };
    }

    fn changes(&self, view: &View, changed: &[(Arc<str>, HostMatch)], events: &mut Vec<Event>) {
        let mine = |tenant: &Arc<str>| self.tenant.as_ref().is_none_or(|own| own == tenant);
        for (_, host) in changed.iter().filter(|(tenant, _)| mine(tenant)) {
            let id = Some(view.revision());
            events.push(match self.route(view, host, id) {
                Some(event) => event,
                None => event(
                    "gone",
                    id,
                    &Gone {
                        host: host.to_string(),
                    },
                ),
            });
        }
    }

    fn route(&self, view: &View, host: &HostMatch, id: Option<Revision>) -> Option<Event> {
        let route = represent(host, view.sources(host))?;
        let mine = self
            .tenant
            .as_ref()
            .is_none_or(|own| **own == *route.tenant);
        mine.then(|| event("route", id, &route))
    }
}

#[derive(Serialize)]
struct Gone {
    host: String,
}

#[derive(Serialize)]
struct Empty {}

/// An event without an id is one of many that only count together: a break in between begins anew.
fn event(name: &str, id: Option<Revision>, data: &impl Serialize) -> Event {
    let text = serde_json::to_string(data).expect("these are JSON");
    let event = Event::default().event(name).data(text);
    match id {
        Some(Revision(id)) => event.id(id.to_string()),
        None => event,
    }
}
