//! The daemon against scripted registries and real endpoints.

mod rotation;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::registrar::{Check, Probe};
use daemon::watch::WatchOptions;
use http::Method;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::daemon::Registrar;
use super::load::{Loaded, load};
use super::once::once;
use super::state::{Settings, Wanted};
use crate::registry::api::types::AnnouncedRoute;
use crate::registry::client::scripted::{Authority, Reply, Scripted, Seen};

/// Nothing here takes so long unless it hangs.
const LONG: Duration = Duration::from_secs(20);
const RENEW: Duration = Duration::from_millis(300);

/// Does what it is asked.
fn willing(seen: &Seen) -> Reply {
    match seen.method {
        Method::PUT => Reply::json(200, &json!({"revision": 1, "ttl": 60, "renewed": true})),
        _ => Reply::status(204),
    }
}

/// Something that listens, to be healthy.
async fn endpoint() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn wanted(name: &str, endpoint: SocketAddr) -> Wanted {
    Wanted {
        route: AnnouncedRoute {
            host: format!("{name}.example.org"),
            endpoint,
            protocol: Default::default(),
            tls: None,
            shared: false,
        },
        check: Check {
            probe: Probe::Tcp { address: None },
            interval: Duration::from_millis(50),
            // A closed port is refused at once; a slow machine is no failure.
            timeout: LONG,
            failures: 2,
        },
    }
}

fn loaded(authority: &Authority, registries: &[&Scripted], wanted: Vec<Wanted>) -> Loaded {
    Loaded {
        tenant: "acme".to_owned(),
        instance: "w1".to_owned(),
        registries: registries
            .iter()
            .map(|it| it.url().parse().unwrap())
            .collect(),
        credentials: authority.token().load().unwrap(),
        settings: Settings {
            ttl: Duration::from_secs(60),
            renew: RENEW,
            registries: registries.len(),
        },
        wanted,
        sources: Vec::new(),
    }
}

/// A registrar that runs.
struct Running {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(file: PathBuf, loaded: Loaded) -> Self {
        let (stop, stopped) = oneshot::channel();
        let hangup = signal(SignalKind::user_defined2()).unwrap();
        let options = WatchOptions {
            debounce: Duration::from_millis(20),
            poll: Duration::from_millis(100),
        };
        let registrar = Registrar::new(&file, loaded);
        let stop_it = async { drop(stopped.await) };
        let task = tokio::spawn(registrar.run(stop_it, hangup, options));
        Self { stop, task }
    }

    /// One that never reloads.
    fn with(loaded: Loaded) -> Self {
        Self::start("/nowhere/registrar.yaml".into(), loaded)
    }

    /// Stops it as SIGTERM does, and says how long that took.
    async fn stop(self) -> Duration {
        let begun = Instant::now();
        self.stop.send(()).unwrap();
        timeout(LONG, self.task).await.unwrap().unwrap();
        begun.elapsed()
    }
}

/// The hosts of an announcement, `-` for a withdrawal.
fn hosts(seen: &Seen) -> String {
    assert_eq!(seen.path, "/v1/tenants/acme/instances/w1");
    if seen.method == Method::DELETE {
        return "-".to_owned();
    }
    assert_eq!(seen.json()["ttl"], 60);
    let routes = seen.json()["routes"].clone();
    let routes = routes.as_array().unwrap().iter();
    let name = |route: &serde_json::Value| {
        let host = route["host"].as_str().unwrap().to_owned();
        host.split('.').next().unwrap().to_owned()
    };
    routes.map(name).collect::<Vec<_>>().join(" ")
}

fn last_is(expected: &'static str) -> impl Fn(&[Seen]) -> bool {
    move |seen| seen.last().is_some_and(|seen| hosts(seen) == expected)
}

#[tokio::test]
async fn everything_healthy_is_announced_and_renewed_at_its_pace() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, willing).await;
    let ((_one, one), (_two, two), (gone, closed)) =
        (endpoint().await, endpoint().await, endpoint().await);
    drop(gone);
    let routes = vec![wanted("a", one), wanted("b", two), wanted("c", closed)];
    let running = Running::with(loaded(&authority, &[&registry], routes));
    let seen = registry.wait_for(|seen| seen.len() >= 6).await;
    running.stop().await;
    // On a slow machine one check may have ended after the moment that the first one waits.
    for request in &seen[1..] {
        assert_eq!(hosts(request), "a b");
        assert_eq!(request.connection, 0);
    }
    // When it arrives is up to the machine as well; `state` is tested for the pace itself.
    let took = seen[5].at - seen[1].at;
    assert!(took >= RENEW.mul_f64(4.0 * 0.7), "{took:?}");
    assert!(took <= RENEW * 40, "{took:?}");
}

#[tokio::test]
async fn what_fails_is_withdrawn_and_what_comes_back_is_announced() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, willing).await;
    let ((one, first), (two, second)) = (endpoint().await, endpoint().await);
    let routes = vec![wanted("a", first), wanted("b", second)];
    let running = Running::with(loaded(&authority, &[&registry], routes));
    registry.wait_for(last_is("a b")).await;
    drop(two);
    registry.wait_for(last_is("a")).await;
    drop(one);
    registry.wait_for(last_is("-")).await;
    let _two = TcpListener::bind(second).await.unwrap();
    registry.wait_for(last_is("b")).await;
    running.stop().await;
}

#[tokio::test]
async fn it_withdraws_at_the_end() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, willing).await;
    let (_one, address) = endpoint().await;
    let running = Running::with(loaded(&authority, &[&registry], vec![wanted("a", address)]));
    registry.wait_for(last_is("a")).await;
    running.stop().await;
    assert!(last_is("-")(&registry.seen()));
}

#[tokio::test]
async fn it_withdraws_at_the_next_registry_if_the_first_has_died() {
    let authority = Authority::new();
    let mut first = Scripted::start(&authority, willing).await;
    let second = Scripted::start(&authority, willing).await;
    let (_one, address) = endpoint().await;
    let mut loaded = loaded(&authority, &[&first, &second], vec![wanted("a", address)]);
    loaded.settings.renew = LONG;
    let running = Running::with(loaded);
    first.wait_for(last_is("a")).await;
    first.kill().await;
    running.stop().await;
    assert!(last_is("-")(&second.seen()));
}

#[tokio::test]
async fn the_end_does_not_wait_for_registries_that_hang() {
    let authority = Authority::new();
    let hanging = |_: &Seen| Reply::Hang;
    let first = Scripted::start(&authority, hanging).await;
    let second = Scripted::start(&authority, hanging).await;
    let (_one, address) = endpoint().await;
    let loaded = loaded(&authority, &[&first, &second], vec![wanted("a", address)]);
    let running = Running::with(loaded);
    first.wait_for(last_is("a")).await;
    let took = running.stop().await;
    assert!(took < Duration::from_millis(6_500), "{took:?}");
    for registry in [&first, &second] {
        assert!(last_is("-")(&registry.seen()));
    }
}

#[tokio::test]
async fn it_goes_to_the_next_registry_and_stays_there() {
    let authority = Authority::new();
    let mut first = Scripted::start(&authority, willing).await;
    let second = Scripted::start(&authority, willing).await;
    let (_one, address) = endpoint().await;
    let running = Running::with(loaded(
        &authority,
        &[&first, &second],
        vec![wanted("a", address)],
    ));
    let before = first.wait_for(|seen| seen.len() >= 2).await.len();
    assert_eq!(second.seen().len(), 0);
    first.kill().await;
    second.wait_for(|seen| seen.len() >= 2).await;
    first.revive().await;
    let so_far = second.seen().len();
    second.wait_for(|seen| seen.len() >= so_far + 2).await;
    running.stop().await;
    assert!(first.seen().len() <= before + 1);
}

#[tokio::test]
async fn registries_without_their_store_are_asked_less_and_less_until_it_is_back() {
    let authority = Authority::new();
    let back = Arc::new(AtomicBool::new(false));
    let script = |back: Arc<AtomicBool>| {
        move |seen: &Seen| match back.load(Relaxed) {
            true => willing(seen),
            false => Reply::problem(503, "store-unreachable", None),
        }
    };
    let first = Scripted::start(&authority, script(Arc::clone(&back))).await;
    let second = Scripted::start(&authority, script(Arc::clone(&back))).await;
    let (_one, address) = endpoint().await;
    let running = Running::with(loaded(
        &authority,
        &[&first, &second],
        vec![wanted("a", address)],
    ));
    first.wait_for(last_is("a")).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Random pauses of up to 0.5, 1, 2, 4 seconds: 30 rounds cannot be.
    let (one, two) = (first.seen().len(), second.seen().len());
    assert!(
        (1..30).contains(&one) && one.abs_diff(two) <= 1,
        "{one}, {two}"
    );
    back.store(true, Relaxed);
    let accepted = |seen: &[Seen]| seen.len() > one + 2;
    let both = async {
        tokio::select! {
            _ = first.wait_for(accepted) => {}
            _ = second.wait_for(accepted) => {}
        }
    };
    timeout(LONG, both).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn a_refused_route_is_left_out_and_asked_for_again() {
    let authority = Authority::new();
    let allowed = Arc::new(AtomicBool::new(false));
    let now_allowed = Arc::clone(&allowed);
    let registry = Scripted::start(&authority, move |seen| {
        let refused = seen.method == Method::PUT && hosts(seen).contains('b');
        match refused && !allowed.load(Relaxed) {
            true => Reply::problem(403, "outside-zones", Some("b.example.org")),
            false => willing(seen),
        }
    })
    .await;
    let ((_one, first), (_two, second)) = (endpoint().await, endpoint().await);
    let routes = vec![wanted("a", first), wanted("b", second)];
    let running = Running::with(loaded(&authority, &[&registry], routes));
    let seen = registry.wait_for(|seen| seen.len() >= 8).await;
    let hosts: Vec<_> = seen.iter().map(hosts).collect();
    assert_eq!(hosts[..2], ["a b", "a"]);
    // A renewal and a question per period, and a renewal after the refusal where there was none.
    let asked = hosts.iter().filter(|hosts| **hosts == "a b").count();
    assert!((2..=4).contains(&asked), "{hosts:?}");
    let took = seen[7].at - seen[0].at;
    assert!(took >= RENEW.mul_f64(0.85 * 2.0), "{took:?}");
    now_allowed.store(true, Relaxed);
    registry
        .wait_for(|seen| {
            seen[seen.len() - 2..]
                .iter()
                .all(|it| self::hosts(it) == "a b")
        })
        .await;
    running.stop().await;
}

#[tokio::test]
async fn a_file_that_changes_takes_effect_and_a_bad_one_does_not() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, willing).await;
    let ((_one, first), (_two, second)) = (endpoint().await, endpoint().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registrar.yaml");
    let text = |instance: &str, routes: &[(&str, SocketAddr)]| {
        let mut text = format!(
            "tenant: acme\ninstance: {instance}\nregistries: [\"{}\"]\nca: {}\n\
             credentials: {{token: {}}}\nrenew: 1s\nroutes:\n",
            registry.url(),
            authority.ca().display(),
            authority.folder.path().join("token").display(),
        );
        for (name, endpoint) in routes {
            text += &format!(
                "- {{host: {name}.example.org, endpoint: \"{endpoint}\", check: {{kind: tcp}}}}\n"
            );
        }
        text
    };
    authority.token();
    let write = |text: &str| {
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &file).unwrap();
    };
    write(&text("w1", &[("a", first)]));
    let running = Running::start(file.clone(), load(&file).unwrap());
    registry.wait_for(last_is("a")).await;
    write("tenant: acme\n");
    // Long enough for several looks.
    let so_far = registry.seen().len();
    registry.wait_for(|seen| seen.len() >= so_far + 2).await;
    assert!(last_is("a")(&registry.seen()));
    write(&text("w1", &[("b", second), ("a", first)]));
    registry.wait_for(last_is("b a")).await;
    // Another name: the old one is withdrawn.
    let of = |instance: &'static str, method: Method| {
        move |seen: &[Seen]| {
            let path = format!("/v1/tenants/acme/instances/{instance}");
            seen.iter()
                .any(|seen| seen.path == path && seen.method == method)
        }
    };
    write(&text("w2", &[("a", first)]));
    registry.wait_for(of("w2", Method::PUT)).await;
    let seen = registry.wait_for(of("w1", Method::DELETE)).await;
    running.stop().await;
    let withdrawn = seen.iter().position(|seen| seen.method == Method::DELETE);
    let before = &seen[..withdrawn.unwrap()];
    assert!(of("w2", Method::PUT)(before), "not for a moment: {seen:#?}");
    assert!(of("w2", Method::DELETE)(&registry.seen()));
}

#[tokio::test]
async fn a_check_that_is_mended_withdraws_nothing() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, willing).await;
    let ((_one, first), (_two, second)) = (endpoint().await, endpoint().await);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registrar.yaml");
    authority.token();
    let write = |check: &str| {
        let text = format!(
            "tenant: acme\ninstance: w1\nregistries: [\"{}\"]\nca: {}\n\
             credentials: {{token: {}}}\nrenew: 1s\nroutes:\n\
             - {{host: a.example.org, endpoint: \"{first}\", check: {{kind: tcp}}}}\n\
             - {{host: b.example.org, endpoint: \"{second}\", check: {check}}}\n",
            registry.url(),
            authority.ca().display(),
            authority.folder.path().join("token").display(),
        );
        let new = file.with_extension("new");
        fs::write(&new, text).unwrap();
        fs::rename(new, &file).unwrap();
    };
    write("{kind: tcp}");
    let running = Running::start(file.clone(), load(&file).unwrap());
    registry.wait_for(last_is("a b")).await;
    // Its first result takes longer than anybody waits, and it has failed once before.
    write("{kind: script, command: [/bin/sleep, \"60\"], interval: 40s, timeout: 30s}");
    let so_far = registry.seen().len();
    let seen = registry.wait_for(|seen| seen.len() >= so_far + 3).await;
    running.stop().await;
    for request in &seen[so_far..] {
        assert_eq!(hosts(request), "a b");
    }
}

#[tokio::test]
async fn a_new_token_is_used_at_once() {
    let authority = Authority::new();
    let tokens = Arc::new(Mutex::new(Vec::new()));
    let seen_tokens = Arc::clone(&tokens);
    let registry = Scripted::start(&authority, move |seen| {
        let bearer = seen.fields["authorization"].to_str().unwrap().to_owned();
        tokens.lock().unwrap().push(bearer);
        willing(seen)
    })
    .await;
    let (_one, address) = endpoint().await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("registrar.yaml");
    authority.token();
    let token = authority.folder.path().join("token");
    let text = format!(
        "tenant: acme\ninstance: w1\nregistries: [\"{}\"]\nca: {}\ncredentials: {{token: {}}}\n\
         routes:\n- {{host: a.example.org, endpoint: \"{address}\", check: {{kind: tcp}}}}\n",
        registry.url(),
        authority.ca().display(),
        token.display(),
    );
    fs::write(&file, text).unwrap();
    let running = Running::start(file.clone(), load(&file).unwrap());
    registry.wait_for(last_is("a")).await;
    // Renewals are 20 s apart. The first look at the files does not count as a change.
    for number in 2.. {
        let new = authority.secret("new", &crate::registry::client::scripted::token(number));
        fs::rename(new, &token).unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        if registry.seen().len() > 1 {
            break;
        }
        assert!(number < 20, "nothing happens");
    }
    let tokens = seen_tokens.lock().unwrap().clone();
    assert_ne!(tokens[0], tokens[1]);
    running.stop().await;
}

#[tokio::test]
async fn once_tells_what_happened_to_every_route() {
    let authority = Authority::new();
    let mut first = Scripted::start(&authority, willing).await;
    let second = Scripted::start(&authority, |seen| {
        match seen.method == Method::PUT && hosts(seen).contains('b') {
            true => Reply::problem(403, "outside-zones", Some("b.example.org")),
            false => willing(seen),
        }
    })
    .await;
    let ((_one, one), (_two, two), (three, closed)) =
        (endpoint().await, endpoint().await, endpoint().await);
    drop(three);
    let routes = vec![wanted("a", one), wanted("b", two), wanted("c", closed)];
    let loaded = loaded(&authority, &[&first, &second], routes);
    first.kill().await;
    let report = once(&loaded).await;
    assert!(!report.ok);
    assert_eq!(report.registry.as_deref(), Some(&*second.url()));
    assert!(report.errors[0].starts_with(&first.url()), "{report:?}");
    let told: Vec<_> = report
        .routes
        .iter()
        .map(|route| (route.healthy, route.announced, route.reason.is_some()))
        .collect();
    assert_eq!(
        told,
        [
            (true, true, false),
            (true, false, true),
            (false, false, true)
        ]
    );
    assert_eq!(
        second.seen().iter().map(hosts).collect::<Vec<_>>(),
        ["a b", "a"]
    );
    second.wait_for(last_is("a")).await;
}
