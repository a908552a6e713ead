//! A registry to ask.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use config::route::HostMatch;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Request};
use serde_json::{Value, json};
use tokio::task::AbortHandle;
use tower::ServiceExt as _;

use crate::control::RegistryUpdate;
use crate::registry::api::{Api, app};
use crate::registry::auth::{Caller, Change, Role};
use crate::registry::change::{FileNames, Quota};
use crate::registry::follow::{Follower, Publish};
use crate::registry::keys::STORE_ID;
use crate::registry::record::TicketSecrets;
use crate::registry::route::{RegistryRoute, RouteChange};
use crate::registry::shared::RouteRegistry;
use crate::registry::store::{Embedded, Revision, Store};

/// Routes that one tenant may hold here.
pub(super) const MOST: usize = 40;
/// Instances of one tenant that may announce here.
pub(super) const MOST_INSTANCES: usize = 150;
/// What all records of one tenant may come to here.
pub(super) const MOST_BYTES: usize = 45_000;

pub(super) struct Lab {
    pub(super) registry: Arc<RouteRegistry>,
    pub(super) published: Published,
    app: Router,
    follower: Mutex<AbortHandle>,
    _folder: tempfile::TempDir,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Value,
    /// What the audit log would tell of it.
    pub(super) change: Option<Change>,
}

struct Recorder(Published);

/// `file.a.example.org` and `file.b.example.org` stand in a file.
struct OneFile;

impl FileNames for OneFile {
    fn file_conflict(&self, host: &HostMatch, _: &str, _: bool) -> Option<String> {
        let names = ["file.a.example.org", "file.b.example.org"];
        names
            .contains(&&*host.to_string())
            .then(|| "stands in routes.d/x.yaml".to_owned())
    }
}

impl Publish for Recorder {
    fn routes(&mut self, update: RegistryUpdate) {
        let mut published = self.0.lock().unwrap();
        match update {
            RegistryUpdate::Reset(all) => {
                *published = all
                    .into_iter()
                    .map(|it| (it.host.to_string(), it))
                    .collect();
            }
            RegistryUpdate::Changes(changes) => {
                for change in changes {
                    match change {
                        RouteChange::Set(route) => {
                            drop(published.insert(route.host.to_string(), route))
                        }
                        RouteChange::Gone(host) => drop(published.remove(&host.to_string())),
                    }
                }
            }
        }
    }

    fn tickets(&mut self, _: Option<&TicketSecrets>, _: bool) {}

    fn reachable(&mut self, _: bool) {}

    fn followed(&mut self, _: Revision) {}
}

type Published = Arc<Mutex<BTreeMap<String, Arc<RegistryRoute>>>>;

fn follow(registry: &Arc<RouteRegistry>, published: &Published) -> AbortHandle {
    let recorder = Recorder(Arc::clone(published));
    let window = Duration::from_millis(5);
    let follower = Follower::new(Arc::clone(registry), recorder, window, None);
    tokio::spawn(follower.run()).abort_handle()
}

pub(super) fn tenant(name: &str) -> Caller {
    Caller {
        id: format!("token:{name}").into(),
        role: Role::Tenant(name.into()),
        scope: None,
    }
}

pub(super) fn operator() -> Caller {
    Caller {
        id: "token:ops".into(),
        role: Role::Operator("ops".into()),
        scope: None,
    }
}

impl Lab {
    /// With zones for tenants `a` (`*.a.example.org`, 10.0.1.0/24) and `b` alike.
    pub(super) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Embedded::open(folder.path()).await.unwrap();
        let registry = Arc::new(RouteRegistry::new(Store::Embedded(store)));
        let published = Arc::default();
        let follower = Mutex::new(follow(&registry, &published));
        let app = app(Arc::new(Api {
            registry: Arc::clone(&registry),
            files: Arc::new(OneFile),
            quota: Quota {
                routes: MOST,
                instances: MOST_INSTANCES,
                bytes: MOST_BYTES,
            },
        }));
        let lab = Self {
            registry,
            published,
            app,
            follower,
            _folder: folder,
        };
        // The follower writes it, and nothing else by itself.
        while lab.registry.view().store_id().is_none() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        for (name, range) in [("a", "10.0.1.0/24"), ("b", "10.0.2.0/24")] {
            let body = json!({"addresses": [range]});
            let path = format!("/v1/zones/{name}/*.{name}.example.org");
            let answer = lab.call(&operator(), "PUT", &path, body).await;
            assert_eq!(answer.status, 201, "{answer:?}");
        }
        lab.settle().await;
        lab
    }

    /// From now on the view stays as it is.
    pub(super) fn stop_following(&self) {
        self.follower.lock().unwrap().abort();
    }

    /// After [`Lab::stop_following`].
    pub(super) fn follow_again(&self) {
        *self.follower.lock().unwrap() = follow(&self.registry, &self.published);
    }

    pub(super) async fn call(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        body: Value,
    ) -> Answer {
        self.ask(caller, method, path, &[], body).await
    }

    /// All pages of a list, of two entries each.
    pub(super) async fn pages(&self, caller: &Caller, list: &str, query: &str) -> Vec<Value> {
        let mut pages = Vec::new();
        let mut after = String::new();
        loop {
            let path = format!("/v1/{list}?limit=2{query}{after}");
            let page = self.call(caller, "GET", &path, Value::Null).await.body;
            assert!(page[list].as_array().unwrap().len() <= 2);
            let next = page["next"].as_str().map(|next| format!("&after={next}"));
            pages.push(page);
            match next {
                None => return pages,
                Some(next) => after = next,
            }
        }
    }

    pub(super) async fn ask(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> Answer {
        let response = self.response(caller, method, path, headers, body).await;
        let (parts, body) = response.into_parts();
        let body = axum::body::to_bytes(body, 1 << 24).await.unwrap();
        let body = if body.is_empty() {
            Value::Null
        } else {
            serde_json::from_slice(&body).unwrap()
        };
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body,
            change: parts.extensions.get().cloned(),
        }
    }

    /// An answer whose body may never end.
    pub(super) async fn response(
        &self,
        caller: &Caller,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Value,
    ) -> http::Response<Body> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .extension(caller.clone());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let body = if body.is_null() {
            Body::empty()
        } else {
            request = request.header(CONTENT_TYPE, "application/json");
            Body::from(body.to_string())
        };
        let request = request.body(body).unwrap();
        self.app.clone().oneshot(request).await.unwrap()
    }

    /// Waits until everything that was committed is published.
    pub(super) async fn settle(&self) {
        let revision = self.registry.store.list().await.unwrap().revision;
        assert!(
            self.registry
                .has_followed(revision, Duration::from_secs(5))
                .await
        );
        for _ in 0..500 {
            let known: Vec<_> = self.registry.view().routes().collect();
            let same = {
                let published = self.published.lock().unwrap();
                published.len() == known.len()
                    && known
                        .iter()
                        .all(|it| published.get(&it.host.to_string()).map(|it| &**it) == Some(it))
            };
            if same {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("what is known was not published");
    }

    /// The addresses that a rule's requests go to.
    pub(super) async fn endpoints(&self, host: &str) -> Vec<String> {
        self.settle().await;
        let published = self.published.lock().unwrap();
        let endpoints = published.get(host).map(|it| &it.endpoints);
        endpoints.map_or(Vec::new(), |it| {
            it.iter().map(|it| it.address.to_string()).collect()
        })
    }

    /// Everything that is in the store, but for revisions.
    pub(super) async fn everything(&self) -> (Revision, Vec<String>) {
        let listing = self.registry.store.list().await.unwrap();
        (
            listing.revision,
            listing
                .entries
                .into_iter()
                .map(|it| it.key)
                .filter(|key| key != STORE_ID)
                .collect(),
        )
    }
}

impl Answer {
    pub(super) fn reason(&self) -> &str {
        self.body["reason"].as_str().unwrap_or("")
    }

    pub(super) fn etag(&self) -> String {
        self.headers["etag"].to_str().unwrap().to_owned()
    }
}

/// The body of an announcement.
pub(super) fn announcement(routes: &[(&str, &str)]) -> Value {
    let routes: Vec<_> = routes
        .iter()
        .map(|(host, endpoint)| json!({"host": host, "endpoint": endpoint}))
        .collect();
    json!({"ttl": 60, "routes": routes})
}
