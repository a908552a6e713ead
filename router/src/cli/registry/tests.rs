//! What is asked, and what is shown.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use clap::Parser as _;
use http::Method;
use serde_json::json;

use super::route::{RouteCommand, listed, spec};
use super::session::Session;
use super::watch::told;
use super::*;
use crate::cli::{Cli, Command};
use crate::registry::api::types::{Route, SourceTls, SourceTrust};
use crate::registry::client::ServerEvent;
use crate::registry::client::scripted::{Authority, Reply, Scripted, token};
use crate::registry::record::{Check, Trust};

fn parse(words: &[&str]) -> RegistryArgs {
    let words = ["router", "registry"].iter().chain(words);
    match Cli::try_parse_from(words).unwrap().command {
        Command::Registry(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn route() -> Route {
    serde_json::from_value(json!({
        "host": "*-7.example.org", "tenant": "acme", "protocol": "http2", "shared": false,
        "endpoints": ["10.0.7.21:443", "10.0.7.22:443"], "revision": 7,
        "sources": [
            {"source": "@api", "endpoints": ["10.0.7.22:443"], "protocol": "http2"},
            {"source": "w1", "endpoints": ["10.0.7.21:443"], "protocol": "http2", "ttl": 60,
             "tls": {"server_name": "k8s", "trust": "system"}},
        ],
    }))
    .unwrap()
}

/// Runs a command line as `main` does, beside the runtime that serves the registry.
async fn run(words: Vec<String>) -> anyhow::Result<u8> {
    let blocking = tokio::task::spawn_blocking(move || {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        registry(&parse(&words))
    });
    blocking.await.unwrap()
}

/// Options that lead to registries, after the words of a command.
fn with(words: &[&str], authority: &Authority, registries: &[&Scripted]) -> Vec<String> {
    let mut all: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    for registry in registries {
        all.extend(["--registry".to_owned(), registry.url()]);
    }
    let file = authority.secret("me.token", &token(1));
    for (option, file) in [("--ca", authority.ca()), ("--token-file", file)] {
        all.extend([option.to_owned(), file.display().to_string()]);
    }
    all
}

#[test]
fn a_route_is_what_the_arguments_say() {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    let made = rcgen::generate_simple_self_signed(["ca".to_owned()]).unwrap();
    let pem = made.cert.pem().replace("\r\n", "\n");
    fs::write(&ca, &pem).unwrap();
    let spec_of = |more: &[&str]| {
        let words = ["route", "add", "a.example.org", "--endpoint", "10.0.0.1:1"];
        let args = parse(&[&words, more].concat());
        match args.object {
            Object::Route(RouteCommand::Add(args)) => spec(&args),
            other => panic!("{other:?}"),
        }
    };
    let plain = spec_of(&["[fd00::1]:2"]).unwrap();
    let expected = json!({
        "endpoints": ["10.0.0.1:1", "[fd00::1]:2"], "protocol": "http1", "shared": false,
    });
    assert_eq!(serde_json::to_value(&plain).unwrap(), expected);
    let tls = ["--tls-server-name", "k8s"];
    let of_tls = |more: &[&str]| spec_of(&[&tls, more].concat()).unwrap().tls.unwrap().trust;
    assert_eq!(of_tls(&[]), Trust::System);
    assert_eq!(
        of_tls(&["--tls-ca", ca.to_str().unwrap()]),
        Trust::CaPem(pem)
    );
    let any = "--tls-insecure-accept-any-certificate";
    assert_eq!(of_tls(&[any]), Trust::InsecureAcceptAnyCertificate);
    let more = [
        "--protocol",
        "http2",
        "--ttl",
        "1h",
        "--shared",
        "--check-path",
        "/healthz",
    ];
    let full = spec_of(&more).unwrap();
    let check = Check {
        path: Some("/healthz".into()),
        interval: 5,
        timeout: 2,
        failures: 2,
    };
    assert_eq!(
        (full.ttl, full.shared, full.check),
        (Some(3600), true, Some(check))
    );
    assert_eq!(spec_of(&["--check"]).unwrap().check.unwrap().path, None);
    let missing = spec_of(&["--tls-server-name", "k8s", "--tls-ca", "/nowhere"]);
    assert!(missing.unwrap_err().to_string().contains("/nowhere"));
}

#[test]
fn routes_are_listed_in_columns() {
    let expected = "\
HOST             TENANT  PROTOCOL   ENDPOINTS                    SOURCES
*-7.example.org  acme    http2+tls  10.0.7.21:443,10.0.7.22:443  @api,w1
";
    assert_eq!(listed(&[route()]), expected);
    let tls = route().sources[1].tls.clone();
    assert!(matches!(
        tls,
        Some(SourceTls {
            trust: SourceTrust::System,
            ..
        })
    ));
}

#[test]
fn each_event_is_one_line() {
    let event = |kind: &str, data: serde_json::Value| ServerEvent {
        id: Some("12".into()),
        kind: kind.into(),
        data: data.to_string(),
    };
    let gone = event("gone", json!({"host": "a.example.org"}));
    let route = event("route", json!(route()));
    for (event, line) in [
        (&gone, "gone    a.example.org\n"),
        (
            &route,
            "route   *-7.example.org  acme  http2+tls  10.0.7.21:443,10.0.7.22:443\n",
        ),
        (&event("synced", json!({})), "synced\n"),
        (&event("reset", json!({})), "reset\n"),
    ] {
        assert_eq!(told(event, false), line);
    }
    let line = told(&gone, true);
    assert_eq!(line.lines().count(), 1);
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = json!({"event": "gone", "id": "12", "data": {"host": "a.example.org"}});
    assert_eq!(line, expected);
}

#[test]
fn whom_to_ask_and_as_whom_must_be_said() {
    let session = |words: &[&str]| {
        let args = parse(&[&["route", "list"], words].concat());
        let mut connection = args.connection;
        // Whoever runs the tests may have set them.
        if !words.contains(&"--registry") {
            connection.registry.clear();
        }
        if !words.contains(&"--token-file") {
            connection.token_file = None;
        }
        Session::open(&connection).map(|session| session.clients.len())
    };
    let registry = ["--registry", "https://a.example,https://b.example"];
    for (words, what) in [
        (&[][..], "which registry?"),
        (&registry, "who asks?"),
        (
            &[&registry[..], &["--key", "k"]].concat(),
            "belong together",
        ),
    ] {
        let error = session(words).unwrap_err();
        assert!(
            error.is::<WrongUsage>() && error.to_string().contains(what),
            "{error}"
        );
    }
    let words = [&registry[..], &["--token-file", "t"]].concat();
    assert_eq!(session(&words).unwrap(), 2);
}

#[tokio::test]
async fn the_next_registry_is_asked_unless_the_answer_would_be_the_same() {
    let authority = Authority::new();
    let mut dead = Scripted::start(&authority, |_| Reply::Hang).await;
    dead.kill().await;
    let without_store = Scripted::start(&authority, |_| {
        Reply::problem(503, "store-unreachable", None)
    })
    .await;
    let works = Scripted::start(&authority, |_| Reply::status(204)).await;
    let refuses = Scripted::start(&authority, |_| Reply::problem(404, "not-found", None)).await;
    let delete = ["route", "delete", "a.example.org", "--if-match", "7"];
    let words = with(&delete, &authority, &[&dead, &without_store, &works]);
    assert_eq!(run(words).await.unwrap(), 0);
    let seen = works.seen();
    assert_eq!(
        (&seen[0].method, &*seen[0].path),
        (&Method::DELETE, "/v1/routes/a.example.org")
    );
    assert_eq!(seen[0].fields["if-match"], "\"7\"");
    let words = with(&delete, &authority, &[&without_store, &refuses, &works]);
    let error = run(words).await.unwrap_err().to_string();
    for part in ["(503 store-unreachable); ", "(404 not-found)"] {
        assert!(error.contains(part), "{error}");
    }
    assert_eq!(works.seen().len(), 1);
}

#[tokio::test]
async fn a_new_token_goes_into_a_file_for_its_owner_alone() {
    let authority = Authority::new();
    let registry = Scripted::start(&authority, |seen| {
        let expected = json!({"tenant": "acme", "note": "workers", "expires_in": 86_400});
        match seen.json() == expected {
            true => Reply::json(201, &json!({"id": "0", "token": token(9)})),
            false => Reply::problem(422, "invalid", None),
        }
    })
    .await;
    let file = authority.folder.path().join("acme.token");
    let create = |output: &str| {
        let words = ["token", "create", "--tenant", "acme", "--note", "workers"];
        let more = ["--expires-in", "1d", "--output", output];
        with(&[&words[..], &more[..]].concat(), &authority, &[&registry])
    };
    assert_eq!(run(create(file.to_str().unwrap())).await.unwrap(), 0);
    assert_eq!(
        fs::read_to_string(&file).unwrap(),
        format!("{}\n", token(9))
    );
    assert_eq!(
        fs::metadata(&file).unwrap().permissions().mode() & 0o7777,
        0o600
    );
    // Where it cannot be written, none is made.
    run(create("/nowhere/acme.token")).await.unwrap_err();
    assert_eq!(registry.seen().len(), 1);
}
