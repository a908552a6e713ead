//! The guard before a small API, without a network.

use std::sync::Mutex;

use axum::body::{Body, to_bytes};
use axum::routing::{delete, get, put};
use axum::{Extension, Json};
use http::StatusCode;
use http::header::RETRY_AFTER;
use tokio::sync::Semaphore;
use tower::ServiceExt as _;

use super::*;
use crate::registry::api::extract::too_large;
use crate::registry::api::problem::ProblemBody;
use crate::registry::auth::credential::{Role, TokenKind};
use crate::registry::auth::limits::{FAILURES, OPEN_PER_CALLER};
use crate::registry::auth::refusals::LINES;
use crate::registry::auth::tokens::{NewToken, TokenSource, new_token};
use crate::registry::record;
use crate::registry::store::Revision;

/// A store that knows one token of tenant acme.
struct One(NewToken, record::Token);

impl TokenSource for One {
    fn token(&self, id: &str) -> Option<record::Token> {
        (id == self.0.token.id).then(|| self.1.clone())
    }
}

struct Setup {
    guard: Arc<Guard>,
    token: String,
    audit: tempfile::NamedTempFile,
    /// Lets `/v1/late` go.
    gate: Arc<Semaphore>,
}

impl Setup {
    fn new() -> Self {
        Self::with(1000, Duration::from_secs(10))
    }

    fn with(per_second: u32, deadline: Duration) -> Self {
        Self::refusing(per_second, deadline, Refusals::default())
    }

    fn refusing(per_second: u32, deadline: Duration, refusals: Refusals) -> Self {
        let new = new_token(TokenKind::Tenant, &[7; 40]);
        let record = new.record("acme", "", 0, None);
        let token = new.token.reveal();
        let audit = tempfile::NamedTempFile::new().unwrap();
        let metrics = Arc::new(Registry::new(UNIX_EPOCH));
        let guard = Guard {
            tokens: Tokens::new(Arc::new(One(new, record)), None),
            limits: Limits::new(per_second),
            audit: AuditLog::open(Some(audit.path()), Arc::clone(&metrics)).unwrap(),
            refusals,
            metrics,
            deadline,
        };
        Self {
            guard: Arc::new(guard),
            token,
            audit,
            gate: Arc::new(Semaphore::new(0)),
        }
    }

    /// The answer to a request by a token.
    async fn ask(&self, method: &str, path: &str) -> Response {
        self.send(method, path, Some(&self.token), None).await
    }

    async fn send(
        &self,
        method: &str,
        path: &str,
        token: Option<&str>,
        certificate: Option<CertificateIdentity>,
    ) -> Response {
        let certificate = certificate.map(Ok);
        let mut request = Request::builder().method(method).uri(path);
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let address = "192.0.2.1:5".parse().unwrap();
        let request = request.extension(Peer {
            address,
            certificate,
        });
        let request = request.body(Body::empty()).unwrap();
        let api = api().layer(Extension(Arc::clone(&self.gate)));
        let api = guard(api, Arc::clone(&self.guard));
        api.oneshot(request).await.unwrap()
    }

    fn events(&self) -> Vec<serde_json::Value> {
        let text = std::fs::read_to_string(self.audit.path()).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

fn api() -> Router {
    let who = async |Extension(caller): Extension<Caller>, headers: HeaderMap| {
        assert!(!headers.contains_key(AUTHORIZATION));
        caller.role.to_string()
    };
    let change = Change {
        tenant: Some("other".into()),
        action: Some("lease"),
        object: Some("*.example.org".to_owned()),
        revision: Some(Revision(9)),
        ..Change::default()
    };
    let panics = || async { assert!(std::hint::black_box(false), "as it should") };
    let never = || std::future::pending::<()>();
    Router::new()
        .route("/v1/who", get(who).put(who))
        .route("/v1/health", get(async || "fine").put(async || ""))
        .route("/v1/watch", get(async || "events"))
        .route("/v1/zone", put((Extension(change), "leased")))
        .route("/v1/renewal", put((Extension(Unchanged), "renewed")))
        .route(
            "/v1/refused",
            put(async || Problem::changed("not as it was")).delete(StatusCode::IM_A_TEAPOT),
        )
        .route("/v1/refused/{name}", put(async || Problem::changed("no")))
        .route("/v1/large", put(async || too_large()))
        .route(
            "/v1/type",
            put(async || Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid", "")),
        )
        .route("/v1/json", get(Json(1)).delete(Json(1)))
        .route("/v1/panics", get(panics).delete(panics))
        .route("/v1/never", get(never).delete(never))
        .route("/v1/late", delete(late))
}

/// Takes until it is let go.
async fn late(Extension(gate): Extension<Arc<Semaphore>>) -> (Extension<Change>, &'static str) {
    gate.acquire().await.unwrap().forget();
    let change = Change {
        revision: Some(Revision(5)),
        ..Change::default()
    };
    (Extension(change), "done")
}

async fn text(response: Response) -> String {
    let body = to_bytes(response.into_body(), 4096).await.unwrap();
    String::from_utf8(body.into()).unwrap()
}

async fn reason(response: Response) -> (u16, String) {
    let status = response.status().as_u16();
    let problem: ProblemBody = serde_json::from_str(&text(response).await).unwrap();
    (status, problem.reason)
}

fn certificate(role: Role) -> CertificateIdentity {
    CertificateIdentity {
        caller: Caller {
            id: "certificate:x".into(),
            role,
            scope: None,
        },
        not_after: i64::MAX,
    }
}

#[tokio::test]
async fn a_caller_is_known_by_token_by_certificate_or_by_both_if_they_agree() {
    let setup = Setup::new();
    let (acme, other) = (Role::Tenant("acme".into()), Role::Tenant("other".into()));
    let jane = Role::Operator("acme".into());
    let mut expired = certificate(acme.clone());
    expired.not_after = 1;
    let token = Some(&*setup.token);
    for (token, certificate, known) in [
        (token, None, Some("tenant acme")),
        (None, Some(certificate(other.clone())), Some("tenant other")),
        (token, Some(certificate(acme)), Some("tenant acme")),
        (token, Some(certificate(other)), None),
        (token, Some(certificate(jane)), None),
        (token, Some(expired.clone()), None),
        (None, Some(expired), None),
        (None, None, None),
        (Some("ghr_x"), None, None),
    ] {
        let response = setup.send("GET", "/v1/who", token, certificate).await;
        match known {
            Some(role) => assert_eq!(text(response).await, role),
            None => assert_eq!(reason(response).await, (401, "unauthenticated".to_owned())),
        }
    }
    assert!(setup.events().is_empty(), "nothing was to be changed");
}

#[test]
fn a_certificate_that_names_nobody_is_told_of_unless_there_is_a_token() {
    let setup = Setup::new();
    let nobody = Some(Err(NoIdentity::NotOneUri(2)));
    let ask = |headers: &HeaderMap| {
        authenticate(&setup.guard.tokens, nobody.as_ref(), headers, UNIX_EPOCH)
    };
    let mut headers = HeaderMap::new();
    let why = NoIdentity::NotOneUri(2).to_string().into();
    assert_eq!(ask(&headers), Err(NotKnown::Refused(why)));
    let bearer = format!("Bearer {}", setup.token).parse().unwrap();
    headers.insert(AUTHORIZATION, bearer);
    assert_eq!(ask(&headers).unwrap().role, Role::Tenant("acme".into()));
}

#[test]
fn the_header_holds_one_token() {
    let token = format!("ghr_{}_{}", "0".repeat(16), "0".repeat(64));
    let with = |values: &[&str]| {
        let values = values
            .iter()
            .map(|value| (AUTHORIZATION, value.parse().unwrap()));
        bearer(&values.collect())
    };
    assert!(with(&[]).is_none());
    for right in [format!("Bearer {token}"), format!("bEARER  {token} ")] {
        assert!(with(&[&right]).unwrap().is_ok(), "{right}");
    }
    for wrong in [
        format!("Basic {token}"),
        token.clone(),
        "Bearer".to_owned(),
        String::new(),
    ] {
        assert!(with(&[&wrong]).unwrap().is_err(), "{wrong}");
    }
    let right = format!("Bearer {token}");
    assert!(with(&[&right, &right]).unwrap().is_err());
}

#[tokio::test]
async fn some_paths_are_open_to_all_for_reading_and_within_limits() {
    let setup = Setup::new();
    for _ in 0..20 {
        let response = setup
            .send("GET", "/v1/health", Some("ghr_wrong"), None)
            .await;
        assert_eq!(text(response).await, "fine");
    }
    let response = setup.send("GET", "/v1/health", None, None).await;
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(reason(response).await.0, 429);
    let known = setup.ask("GET", "/v1/health").await;
    assert_eq!(
        known.status(),
        200,
        "whoever is known has limits of their own"
    );
    let response = setup.send("PUT", "/v1/health", None, None).await;
    assert_eq!(reason(response).await.0, 401);
}

#[tokio::test]
async fn what_the_api_has_not_is_told_to_those_who_are_known() {
    let setup = Setup::new();
    let unknown = reason(setup.ask("GET", "/v2").await).await;
    assert_eq!(unknown, (404, "not-found".to_owned()));
    let method = setup.ask("POST", "/v1/who").await;
    assert_eq!(method.headers()["allow"], "GET,HEAD,PUT");
    assert_eq!(reason(method).await.0, 405);
    let stranger = setup.send("GET", "/v2", None, None).await;
    assert_eq!(reason(stranger).await.0, 401);
}

#[tokio::test]
async fn rates_and_failures_are_limited_and_say_when_to_come_back() {
    let setup = Setup::with(3, Duration::from_secs(10));
    for _ in 0..3 {
        assert_eq!(setup.ask("GET", "/v1/who").await.status(), 200);
    }
    let response = setup.ask("GET", "/v1/who").await;
    assert_eq!(response.headers()[RETRY_AFTER], "1");
    assert_eq!(
        reason(response).await,
        (429, "too-many-requests".to_owned())
    );
    for _ in 0..FAILURES {
        let response = setup.send("GET", "/v1/who", None, None).await;
        assert_eq!(reason(response).await.0, 401);
    }
    let response = setup.send("GET", "/v1/who", None, None).await;
    assert_eq!(response.headers()[RETRY_AFTER], "10");
    assert_eq!(reason(response).await.0, 429);
    let certificate = certificate(Role::Tenant("other".into()));
    let neighbour = setup.send("GET", "/v1/who", None, Some(certificate)).await;
    assert_eq!(
        neighbour.status(),
        200,
        "failures of others lock nobody out"
    );
    let metrics = setup.guard.metrics.render();
    for line in ["200\"} 4", "401\"} 10", "429\"} 2"] {
        let line = format!("router_registry_requests_total{{code=\"{line}\n");
        assert!(metrics.contains(&line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn an_answer_holds_its_place_until_it_was_sent() {
    let setup = Setup::new();
    let mut held = Vec::new();
    for _ in 0..OPEN_PER_CALLER {
        held.push(setup.ask("GET", "/v1/who").await);
    }
    assert_eq!(reason(setup.ask("GET", "/v1/who").await).await.0, 429);
    assert_eq!(setup.ask("GET", "/v1/watch").await.status(), 200);
    held.clear();
    assert_eq!(setup.ask("GET", "/v1/who").await.status(), 200);
}

#[tokio::test]
async fn a_handler_that_panics_is_answered_for() {
    let setup = Setup::new();
    for method in ["GET", "DELETE"] {
        let panicked = reason(setup.ask(method, "/v1/panics").await).await;
        assert_eq!(panicked, (500, "internal".to_owned()));
    }
    let events = setup.events();
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["outcome"], "internal");
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_answered_for() {
    let setup = Setup::with(1000, Duration::from_millis(5));
    for method in ["GET", "DELETE"] {
        let late = reason(setup.ask(method, "/v1/never").await).await;
        assert_eq!(late, (503, "busy".to_owned()));
    }
    assert!(setup.events().is_empty(), "nothing has been done yet");
}

#[tokio::test]
async fn every_change_is_recorded_made_or_refused_and_a_renewal_is_not() {
    let setup = Setup::new();
    for (method, path) in [
        ("PUT", "/v1/who"),
        ("PUT", "/v1/zone"),
        ("PUT", "/v1/renewal"),
        ("PUT", "/v1/refused?x=1"),
        ("DELETE", "/v1/refused"),
        // No calls at all.
        ("DELETE", "/v1/nothing"),
        ("POST", "/v1/zone"),
        ("PUT", "/v1/large"),
        ("PUT", "/v1/type"),
    ] {
        drop(setup.ask(method, path).await);
    }
    drop(setup.send("PUT", "/v1/who", None, None).await);
    let events: Vec<Vec<String>> = setup
        .events()
        .iter()
        .map(|event| {
            assert_eq!(event["caller"], "token:0707070707070707");
            assert_eq!(event["peer"], "192.0.2.1:5");
            [
                "tenant", "action", "object", "outcome", "status", "revision",
            ]
            .map(|field| event[field].to_string().replace('"', ""))
            .to_vec()
        })
        .collect();
    let expected = [
        ["acme", "put", "/v1/who", "done", "200", "null"],
        ["other", "lease", "*.example.org", "done", "200", "9"],
        ["acme", "put", "/v1/refused", "changed", "412", "null"],
        ["acme", "delete", "/v1/refused", "refused", "418", "null"],
    ];
    assert_eq!(events, expected);
    let file = std::fs::read_to_string(setup.audit.path()).unwrap();
    assert!(!file.contains(&setup.token[21..]), "the secret");
}

#[tokio::test]
async fn a_caller_who_is_refused_fills_no_disk() {
    let setup = Setup::new();
    let path = format!("/v1/refused/{}", "x".repeat(8000));
    for _ in 0..LINES + 9 {
        assert_eq!(setup.ask("PUT", &path).await.status(), 412);
    }
    assert_eq!(setup.ask("PUT", "/v1/zone").await.status(), 200);
    let events = setup.events();
    assert_eq!(
        events.len(),
        LINES as usize + 1,
        "what was made is recorded"
    );
    assert_eq!(events.last().unwrap()["outcome"], "done");
    let object = events[0]["object"].as_str().unwrap();
    assert!(object.len() < 310 && object.ends_with('…'), "{object}");
}

#[tokio::test]
async fn refusals_without_a_line_are_counted_in_one() {
    let window = Duration::from_millis(200);
    let setup = Setup::refusing(10_000, Duration::from_secs(10), Refusals::within(window));
    let asked = u64::from(LINES) * 3;
    for _ in 0..asked {
        drop(setup.ask("PUT", "/v1/refused").await);
    }
    // However many windows that took: none is lost, and none told twice.
    let told = || -> u64 {
        let count = |event: &serde_json::Value| event["refusals"].as_u64().unwrap_or(1);
        setup.events().iter().map(count).sum()
    };
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while told() < asked {
        assert!(std::time::Instant::now() < end, "{}", told());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(told(), asked);
    for event in setup.events() {
        assert_eq!(
            (&event["outcome"], &event["status"]),
            (&"changed".into(), &412.into())
        );
    }
}

#[tokio::test]
async fn a_change_that_outlives_its_caller_is_recorded_all_the_same() {
    let setup = Setup::with(1000, Duration::from_millis(5));
    let late = reason(setup.ask("DELETE", "/v1/late").await).await;
    assert_eq!(late, (503, "busy".to_owned()));
    setup.gate.add_permits(1);
    let end = std::time::Instant::now() + Duration::from_secs(10);
    while setup.events().is_empty() {
        assert!(std::time::Instant::now() < end, "not recorded");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(setup.events()[0]["revision"], 5);
}

/// Events of tracing, as text.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_reaches_the_log() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(move || writer.clone())
        .finish();
    let logging = tracing::subscriber::set_default(subscriber);
    let setup = Setup::new();
    let mut wrong = setup.token.clone();
    wrong.replace_range(25..26, "f");
    for token in [&setup.token, &wrong] {
        drop(setup.send("PUT", "/v1/zone", Some(token), None).await);
    }
    drop(logging);
    let lines = lines.0.lock().unwrap();
    let lines = String::from_utf8_lossy(&lines);
    assert!(
        lines.contains("router::audit") && lines.contains("*.example.org"),
        "{lines}"
    );
    assert!(lines.contains("caller is not known"), "{lines}");
    for token in [setup.token, wrong] {
        assert!(!lines.contains(&token[30..]), "{lines}");
    }
}

#[test]
fn what_else_a_change_did_has_its_cause() {
    let gone = Change {
        tenant: Some("acme".into()),
        action: Some("evicted-by-take-zone-back"),
        object: Some("w1".to_owned()),
        hosts: vec!["www.example.org".to_owned()],
        revision: Some(Revision(7)),
        ..Change::default()
    };
    let cause = AuditEvent {
        time: UNIX_EPOCH,
        caller: "token:ops".into(),
        role: "operator ops".to_owned(),
        peer: "192.0.2.1:5".parse().unwrap(),
        tenant: Some("acme".into()),
        action: "take-zone-back".to_owned(),
        object: "*.example.org".to_owned(),
        hosts: Vec::new(),
        endpoints: Vec::new(),
        outcome: "done",
        status: 200,
        revision: Some(Revision(7)),
        refusals: None,
    };
    let mut response = Response::default();
    assert_eq!(consequences(&cause, &response), []);
    response.extensions_mut().insert(Consequences(vec![gone]));
    let expected = AuditEvent {
        action: "evicted-by-take-zone-back".to_owned(),
        object: "w1".to_owned(),
        hosts: vec!["www.example.org".to_owned()],
        ..cause.clone()
    };
    assert_eq!(consequences(&cause, &response), [expected]);
}
