//! `router announce` and `router registry` as an operator and a tenant use them, on a real router
//! with its embedded store.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use harness::backend::{Backend, OK};
use harness::ca::KeyKind;
use harness::edge::Edge;
use harness::process::Process;
use harness::router::Router;
use harness::tool::{Output, Tool};
use harness::{folder, program, wait};
use nix::sys::signal::Signal;
use serde_json::Value;

const HOST: &str = "shop.acme.example.org";
const RULE: &str = "*.acme.example.org";
const API: u16 = 8444;
const WEB: u16 = 9001;

/// A router with a registry, whose operator has leased [`RULE`] to the tenant acme and made a token
/// for its registrars, by the command line alone.
struct Scene {
    edge: Edge,
    router: Router,
}

impl Scene {
    fn new(label: &str) -> Self {
        let mut edge = Edge::new(label).unwrap();
        edge.certificate("acme", &[RULE], KeyKind::Ecdsa).unwrap();
        let api = edge.port(API);
        let leaf = edge
            .ca
            .issue(&[&api.ip().to_string()], KeyKind::Ecdsa)
            .unwrap();
        leaf.write(edge.folder(), "registry").unwrap();
        folder::write(&edge.folder().join("ca.pem"), edge.ca.pem()).unwrap();
        edge.more = format!(
            "registry:\n  state: state\n  api:\n    addresses: [\"{api}\"]\n    \
             certificate: registry.crt\n    key: registry.key\n    operators: operators\n"
        );
        let file = |name: &str| edge.folder().join(name).to_string_lossy().into_owned();
        let (operators, me) = (file("operators"), file("me.token"));
        Tool::new(&program::binary("router").unwrap().to_string_lossy())
            .args(["registry", "token", "create", "--operator", "me"])
            .args(["--file", &operators, "--output", &me])
            .succeed()
            .unwrap();
        let router = edge.start().unwrap();
        let scene = Self { edge, router };
        wait::until_true("the registry's API", || {
            scene.ask(&["zone", "list"]).status.success()
        })
        .unwrap();
        scene.succeed(&["zone", "add", "acme", RULE, "--address", "127.0.0.0/8"]);
        let token = scene.file("acme.token");
        let token = token.to_string_lossy();
        scene.succeed(&["token", "create", "--tenant", "acme", "--output", &token]);
        scene
    }

    fn file(&self, name: &str) -> PathBuf {
        self.edge.folder().join(name)
    }

    /// `router registry`, as the operator.
    fn ask(&self, arguments: &[&str]) -> Output {
        let path = |name: &str| self.file(name).to_string_lossy().into_owned();
        Tool::new(&program::binary("router").unwrap().to_string_lossy())
            .args(["registry"])
            .args(arguments)
            .environment(
                "GATEHOUSE_REGISTRY",
                &format!("https://{}", self.edge.port(API)),
            )
            .environment("GATEHOUSE_CA", &path("ca.pem"))
            .environment("GATEHOUSE_TOKEN_FILE", &path("me.token"))
            .run()
            .unwrap()
    }

    fn succeed(&self, arguments: &[&str]) -> String {
        let output = self.ask(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        output.stdout
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.succeed(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// The endpoints of [`RULE`] in the registry.
    fn endpoints(&self) -> Vec<String> {
        let output = self.ask(&["route", "get", RULE, "--json"]);
        if !output.status.success() {
            assert!(output.stderr.contains("(404 not-found)"), "{output:?}");
            return Vec::new();
        }
        let route: Value = serde_json::from_str(&output.stdout).unwrap();
        let endpoints = route["endpoints"].as_array().unwrap().iter();
        endpoints
            .map(|it| it.as_str().unwrap().to_owned())
            .collect()
    }

    fn is_announced(&self) -> bool {
        self.endpoints() == [self.edge.port(WEB).to_string()]
    }

    /// What a client gets.
    fn status(&self) -> u16 {
        let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        let mut connection = self.edge.connect(HOST).unwrap();
        connection.exchange(request).unwrap().status
    }

    /// `registrar.yaml` of the instance w1, with routes for these endpoints.
    fn write(&self, registries: &[SocketAddr], routes: &[(&str, SocketAddr, &str)]) {
        let registries: Vec<_> = registries
            .iter()
            .map(|it| format!("\"https://{it}\""))
            .collect();
        let mut text = format!(
            "tenant: acme\ninstance: w1\nregistries: [{}]\nca: ca.pem\n\
             credentials: {{token: acme.token}}\nttl: 5s\nrenew: 1s\nroutes:\n",
            registries.join(", ")
        );
        for (host, endpoint, check) in routes {
            text += &format!("- host: \"{host}\"\n  endpoint: \"{endpoint}\"\n  check: {check}\n");
        }
        folder::write(&self.file("registrar.yaml"), text).unwrap();
    }

    /// The same with the web server's route alone.
    fn write_plain(&self) {
        let (api, web) = (self.edge.port(API), self.edge.port(WEB));
        let check =
            format!("{{kind: http, url: \"http://{web}/\", interval: 200ms, timeout: 200ms}}");
        self.write(&[api], &[(RULE, web, &check)]);
    }

    fn announce(&self) -> Command {
        let mut command = Command::new(program::binary("router").unwrap());
        command
            .arg("announce")
            .arg("--config")
            .arg(self.file("registrar.yaml"));
        command
    }

    fn start(&self) -> Process {
        Process::start("registrar", self.announce(), None, self.edge.folder()).unwrap()
    }

    fn wait_until_announced(&self, announced: bool) {
        let what = if announced {
            "the route"
        } else {
            "the route to go"
        };
        wait::until_true(what, || self.is_announced() == announced).unwrap();
        let expected = if announced { 200 } else { 404 };
        wait::until_true("the router to follow", || self.status() == expected).unwrap();
    }
}

#[test]
fn a_route_comes_with_health_and_goes_without_and_with_sigterm() {
    let scene = Scene::new("registrar-life");
    let web = scene.edge.port(WEB);
    scene.write_plain();
    let mut registrar = scene.start();
    // Its web server is not there yet.
    wait::until_true("the first check", || {
        registrar.log().contains("not healthy")
    })
    .unwrap();
    assert_eq!(scene.status(), 404);
    let backend = Backend::answering(web, OK).unwrap();
    scene.wait_until_announced(true);
    let instances = scene.json(&["instance", "list"]);
    assert_eq!(
        (&instances[0]["instance"], &instances[0]["hosts"][0]),
        (&"w1".into(), &RULE.into())
    );
    // Longer than its time to live: it is renewed.
    let until = Instant::now() + Duration::from_secs(6);
    while Instant::now() < until {
        assert_eq!(scene.status(), 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(backend);
    scene.wait_until_announced(false);
    let _backend = Backend::answering(web, OK).unwrap();
    scene.wait_until_announced(true);
    registrar.signal(Signal::SIGTERM);
    let status = registrar.wait(Duration::from_secs(5)).unwrap();
    assert!(status.success(), "{status}");
    // Not in a while, as after a crash: it was withdrawn before the process ended.
    assert_eq!(scene.endpoints(), [""; 0]);
}

#[test]
fn a_killed_registrar_is_outlived_by_its_time_to_live_and_no_longer() {
    let scene = Scene::new("registrar-killed");
    let _backend = Backend::answering(scene.edge.port(WEB), OK).unwrap();
    scene.write_plain();
    let mut registrar = scene.start();
    scene.wait_until_announced(true);
    registrar.crash();
    let since = Instant::now();
    wait::until_true("the route to go", || scene.status() == 404).unwrap();
    let took = since.elapsed();
    // Renewed every second, to live for five; and one for the registry.
    assert!(
        took >= Duration::from_secs(3) && took < Duration::from_secs(7),
        "{took:?}"
    );
}

#[test]
fn the_file_is_followed_and_a_bad_one_changes_nothing() {
    let scene = Scene::new("registrar-reload");
    let web = scene.edge.port(WEB);
    let _backend = Backend::answering(web, OK).unwrap();
    scene.write_plain();
    let mut registrar = scene.start();
    scene.wait_until_announced(true);
    folder::write(&scene.file("registrar.yaml"), "tenant: acme\n").unwrap();
    registrar.signal(Signal::SIGHUP);
    wait::until_true("the refusal", || {
        registrar.log().contains("the configuration is refused")
    })
    .unwrap();
    assert!(scene.is_announced());
    let other = "other.acme.example.org";
    scene.write(&[scene.edge.port(API)], &[(other, web, "{kind: tcp}")]);
    registrar.signal(Signal::SIGHUP);
    wait::until_true("the other route instead", || {
        scene.succeed(&["route", "list"]).contains(other) && !scene.is_announced()
    })
    .unwrap();
}

#[test]
fn a_dead_registry_and_a_refused_route_do_not_hold_up_the_rest() {
    let scene = Scene::new("registrar-refused");
    let (web, dead) = (scene.edge.port(WEB), scene.edge.port(1));
    let _backend = Backend::answering(web, OK).unwrap();
    let foreign = "shop.other.example.org";
    scene.write(
        &[dead, scene.edge.port(API)],
        &[
            (foreign, web, "{kind: tcp}"),
            (RULE, web, "{kind: tcp}"),
            (
                "x.acme.example.org",
                web,
                "{kind: script, command: [/bin/false]}",
            ),
        ],
    );
    let mut command = Tool::new(&program::binary("router").unwrap().to_string_lossy());
    let file = scene.file("registrar.yaml");
    command = command
        .args(["announce", "--once", "--json", "--config"])
        .args([&file]);
    let output = command.run().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    let routes = report["routes"].as_array().unwrap();
    let announced: Vec<_> = routes
        .iter()
        .map(|it| it["announced"].as_bool().unwrap())
        .collect();
    assert_eq!(announced, [false, true, false], "{report}");
    assert!(
        routes[0]["reason"]
            .as_str()
            .unwrap()
            .contains("outside-zones"),
        "{report}"
    );
    assert!(
        report["errors"][0]
            .as_str()
            .unwrap()
            .contains(&dead.to_string()),
        "{report}"
    );
    let registrar = scene.start();
    scene.wait_until_announced(true);
    // The operator thinks again; nobody has to touch the registrar.
    scene.succeed(&["zone", "add", "acme", foreign, "--address", "127.0.0.0/8"]);
    wait::until_true("the other route", || {
        scene.succeed(&["route", "list"]).contains(foreign)
    })
    .unwrap();
    assert!(registrar.log().contains("outside-zones"));
}

#[test]
fn a_token_that_is_revoked_counts_no_more_and_a_new_one_at_once() {
    let scene = Scene::new("registrar-token");
    let _backend = Backend::answering(scene.edge.port(WEB), OK).unwrap();
    scene.write_plain();
    let registrar = scene.start();
    scene.wait_until_announced(true);
    let id = scene.json(&["token", "list"])[0]["id"].clone();
    scene.succeed(&["token", "revoke", id.as_str().unwrap()]);
    wait::until_true("the refusal", || {
        registrar.log().contains("unauthenticated")
    })
    .unwrap();
    scene.wait_until_announced(false);
    let token = scene.file("acme.token");
    let token = token.to_string_lossy();
    scene.succeed(&["token", "create", "--tenant", "acme", "--output", &token]);
    scene.wait_until_announced(true);
    // Secrets are in nobody's log.
    let secret = std::fs::read_to_string(&*token).unwrap();
    let logs = registrar.log() + &scene.router.log();
    assert!(!logs.contains(secret.trim().rsplit('_').next().unwrap()));
}

#[test]
fn the_service_manager_is_told() {
    let scene = Scene::new("registrar-notify");
    let _backend = Backend::answering(scene.edge.port(WEB), OK).unwrap();
    scene.write_plain();
    let socket = scene.file("notify");
    let manager = UnixDatagram::bind(&socket).unwrap();
    manager.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let next = || {
        let mut buffer = [0; 1024];
        let length = manager.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    let mut command = scene.announce();
    command.env("NOTIFY_SOCKET", &socket);
    let mut registrar = Process::start("registrar", command, None, scene.edge.folder()).unwrap();
    assert_eq!(next(), "READY=1");
    let announced = format!(
        "STATUS=1 of 1 routes announced by https://{}",
        scene.edge.port(API)
    );
    while next() != announced {}
    registrar.signal(Signal::SIGTERM);
    while next() != "STOPPING=1" {}
}

#[test]
fn a_watch_tells_of_each_change_in_a_line() {
    let scene = Scene::new("registrar-watch");
    let mut command = Command::new(program::binary("router").unwrap());
    command
        .args(["registry", "route", "watch", "--json"])
        .args([
            "--registry",
            &format!("https://{}", scene.edge.port(API)),
            "--ca",
        ])
        .arg(scene.file("ca.pem"))
        .arg("--token-file")
        .arg(scene.file("me.token"));
    let watch = Process::start("watch", command, None, scene.edge.folder()).unwrap();
    let events = || -> Vec<(String, Value)> {
        let log = watch.log();
        let whole = log.rsplit_once('\n').map_or("", |(lines, _)| lines);
        let lines = whole
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let event = |line: Value| {
            let kind = line["event"].as_str().unwrap().to_owned();
            (kind, line["data"]["host"].clone())
        };
        lines.map(event).collect()
    };
    let seen = |kind: &str, host: &str| {
        let wanted = (kind.to_owned(), Value::from(host));
        events().contains(&wanted)
    };
    wait::until_true("everything so far", || {
        events().iter().any(|(kind, _)| kind == "synced")
    })
    .unwrap();
    let endpoint = scene.edge.port(WEB).to_string();
    let add = [
        "route",
        "add",
        HOST,
        "--tenant",
        "acme",
        "--endpoint",
        &endpoint,
    ];
    let added = scene.json(&add);
    wait::until_true("the new route", || seen("route", HOST)).unwrap();
    // A version that is not the route's any more deletes nothing.
    let changed = scene.succeed(&[&add[..], &["--check"]].concat());
    assert!(changed.contains("is replaced, version "), "{changed}");
    let version = added["version"].as_str().unwrap();
    let stale = scene.ask(&["route", "delete", HOST, "--if-match", version]);
    assert_eq!(stale.status.code(), Some(1));
    assert!(stale.stderr.contains("(412 changed)"), "{}", stale.stderr);
    scene.succeed(&["route", "delete", HOST]);
    wait::until_true("its end", || seen("gone", HOST)).unwrap();
}
