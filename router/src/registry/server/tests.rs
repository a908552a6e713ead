//! The API's listener, over real TLS on loopback.

mod client;
mod identity;
mod patience;
mod reload;
mod strangers;
mod watches;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::routing::{delete, get, put};
use axum::{Extension, Router};
use bytes::Bytes;
use config::router::RegistryApi;
use http::Response;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tempfile::TempDir;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_stream::StreamExt as _;

use super::{ApiOptions, ApiServer, check, start};
use crate::observe::metrics::Registry;
use crate::registry::api::extract::Json;
use crate::registry::auth::credential::{Caller, TokenKind};
use crate::registry::auth::tokens::{NewToken, TokenSource, new_token};
use crate::registry::record;
use crate::tls::pki::{Authority, Pair};
use crate::worker::Drain;
use client::{Answer, Client, Failure, Http, config, tls};

const ACME: &str = "spiffe://gatehouse/tenant/acme";
/// How long anything may take before a test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tenants' tokens, which come and go.
#[derive(Default)]
struct Store(Mutex<HashMap<String, record::Token>>);

impl TokenSource for Store {
    fn token(&self, id: &str) -> Option<record::Token> {
        self.0.lock().unwrap().get(id).cloned()
    }
}

impl Store {
    /// A new token of a tenant.
    fn issue(&self, tenant: &str, seed: u8, expires: Option<u64>) -> NewToken {
        let new = new_token(TokenKind::Tenant, &[seed; 40]);
        let record = new.record(tenant, "", 0, expires);
        self.0.lock().unwrap().insert(new.token.id.clone(), record);
        new
    }

    fn revoke(&self, token: &NewToken) {
        self.0.lock().unwrap().remove(&token.token.id);
    }
}

/// A running API with its files.
struct Setup {
    folder: TempDir,
    /// Signs the API's certificate.
    own: Authority,
    /// Signs clients' certificates.
    clients: Authority,
    store: Arc<Store>,
    metrics: Arc<Registry>,
    drain: Drain,
    server: ApiServer,
    gate: Gate,
}

/// What handlers of `/v1/wait` wait for.
#[derive(Clone)]
struct Gate {
    opens: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
}

impl Setup {
    fn new() -> Self {
        Self::with(ApiOptions::default(), 1000)
    }

    fn with(mut options: ApiOptions, requests_per_second: u32) -> Self {
        options.files.debounce = Duration::from_millis(10);
        options.files.poll = Duration::from_millis(50);
        let folder = tempfile::tempdir().unwrap();
        let (own, clients) = (Authority::new("own"), Authority::new("clients"));
        let path = |name: &str| folder.path().join(name);
        write(&path("operators"), "");
        write(&path("clients.pem"), &clients.pem);
        write(&path("clients.crl"), &clients.revoking(&[]));
        let pair = own.server("127.0.0.1");
        write(&path("api.crt"), &pair.chain);
        write(&path("api.key"), &pair.key);
        let config = RegistryApi {
            addresses: vec!["127.0.0.1:0".parse().unwrap()],
            certificate: path("api.crt"),
            key: path("api.key"),
            client_ca: Some(path("clients.pem")),
            client_crl: Some(path("clients.crl")),
            operators: Some(path("operators")),
            audit_log: Some(path("audit.log")),
            requests_per_second,
            routes_per_tenant: 1000,
            instances_per_tenant: 1000,
            bytes_per_tenant: 1 << 20,
        };
        let store = Arc::new(Store::default());
        let metrics = Arc::new(Registry::new(UNIX_EPOCH));
        let (drain, _) = Drain::new();
        let gate = Gate {
            opens: Arc::new(Semaphore::new(0)),
            waiting: Arc::default(),
        };
        let api = api(gate.clone());
        let tokens = Arc::clone(&store) as Arc<dyn TokenSource>;
        let server = start(&config, api, tokens, &metrics, &drain, options).unwrap();
        Self {
            folder,
            own,
            clients,
            store,
            metrics,
            drain,
            server,
            gate,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn address(&self) -> SocketAddr {
        self.server.addresses()[0]
    }

    async fn connect(&self, shows: Option<&Pair>, http: Http) -> Result<Client, Failure> {
        self.connect_from("127.0.0.1", shows, http).await
    }

    async fn connect_from(
        &self,
        from: &str,
        shows: Option<&Pair>,
        http: Http,
    ) -> Result<Client, Failure> {
        let config = config(&self.own, shows, http);
        Client::over(tls(config, from, self.address()).await?).await
    }

    /// Who the API takes somebody for, by a connection of its own.
    async fn who(
        &self,
        shows: Option<&Pair>,
        http: Http,
        token: Option<&str>,
    ) -> Result<Answer, Failure> {
        let mut client = self.connect(shows, http).await?;
        client.get("/v1/who", token).await
    }

    /// A metric without labels.
    fn metric(&self, name: &str) -> u64 {
        let page = self.metrics.render();
        let value = page.lines().find_map(|line| line.strip_prefix(name));
        value.unwrap().trim().parse().unwrap()
    }

    /// Waits until something holds.
    async fn until(&self, what: &str, mut holds: impl AsyncFnMut() -> bool) {
        let end = Instant::now() + PATIENCE;
        while !holds().await {
            assert!(Instant::now() < end, "{what}: not yet");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What is heard of an answer until it ends.
    async fn heard(&self, answer: Response<Incoming>) -> Result<Bytes, Failure> {
        let body = timeout(PATIENCE, answer.into_body().collect()).await;
        Ok(body.expect("an end")?.to_bytes())
    }

    /// Drains, and waits until the server has ended.
    async fn stop(self, patience: Duration) {
        self.drain.begin(patience);
        let ended = async || self.server.thread.is_finished();
        self.until("the server has ended", ended).await;
        self.server.join().unwrap();
    }
}

/// Writes a file in place of another, as a deployment does.
fn write(path: &std::path::Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(new, path).unwrap();
}

fn api(gate: Gate) -> Router {
    let who = async |Extension(caller): Extension<Caller>| caller.role.to_string();
    let wait = async move || {
        gate.waiting.fetch_add(1, Relaxed);
        gate.opens.acquire().await.unwrap().forget();
        "done"
    };
    let watch = async || {
        let events = tokio_stream::once(Ok::<_, std::io::Error>("begins\n"));
        axum::body::Body::from_stream(events.chain(tokio_stream::pending()))
    };
    // A watch that says more than its client takes.
    let flood = async || {
        let events = tokio_stream::iter(0..1000).map(|_| Ok::<_, std::io::Error>("x".repeat(1024)));
        axum::body::Body::from_stream(events.chain(tokio_stream::pending()))
    };
    let panics = async || assert!(std::hint::black_box(false), "as it should");
    Router::new()
        .route("/v1/health", get(async || "fine"))
        .route("/v1/who", get(who))
        .route(
            "/v1/length",
            put(async |Json(text): Json<String>| text.len().to_string()),
        )
        .route("/v1/wait", delete(wait))
        .route("/v1/watch", get(watch))
        .route("/v1/flood", get(flood))
        .route("/v1/panics", get(panics))
        .route("/v1/big", get(async || vec![b'x'; 32 << 20]))
}
