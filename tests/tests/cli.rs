//! The router's command line: check, routes, explain, and what goes wrong.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::edge::{Edge, HOST, Upstream, route_file};
use harness::folder;
use harness::router;
use harness::tool::Output;

fn run(arguments: &[&str]) -> Output {
    router::tool(arguments).unwrap().run().unwrap()
}

/// Runs a command on an edge's files.
fn on(edge: &Edge, command: &str, rest: &[&str]) -> Output {
    let configuration = edge.configuration().to_string_lossy().into_owned();
    let mut arguments = vec![command, "--config", &configuration];
    arguments.extend(rest);
    run(&arguments)
}

fn edge(label: &str) -> Edge {
    let edge = Edge::with_backend(label, 9001).unwrap();
    edge.write_settings().unwrap();
    edge
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn check_says_yes_to_good_files() {
    let edge = edge("cli-check");
    let output = on(&edge, "check", &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
}

#[test]
fn check_names_every_fault_with_its_place() {
    let edge = edge("cli-faults");
    let bad = route_file(
        "acme",
        &[Upstream::plain("workers", &[edge.port(9001)])],
        &[(HOST, "workers")],
    )
    .replace("protocol: http1", "protocol: http3")
    .replace("upstream: workers", "upstraem: workers");
    edge.routes("acme", &bad).unwrap();
    folder::write(
        &edge.configuration(),
        edge.settings().replace("workers: 1", "wrokers: 1"),
    )
    .unwrap();
    let output = on(&edge, "check", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    // The nearest known key is offered.
    for word in ["router.yaml", "wrokers", "workers"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
    // Faults of one file come in one go.
    edge.write_settings().unwrap();
    let output = on(&edge, "check", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    for word in ["acme.yaml", "http3", "upstraem", "upstream"] {
        assert!(said.contains(word), "{word} is not in: {said}");
    }
}

#[test]
fn check_looks_into_certificates_too() {
    let edge = edge("cli-certificates");
    folder::write(
        &edge.folder().join("certs/acme.crt"),
        "this is no certificate",
    )
    .unwrap();
    let output = on(&edge, "check", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        format!("{}{}", output.stdout, output.stderr).contains("acme.crt"),
        "{output:?}"
    );
}

#[test]
fn routes_lists_every_rule() {
    let edge = edge("cli-routes");
    let globex = route_file(
        "globex",
        &[Upstream::plain(
            "masters",
            &[edge.port(9002), edge.port(9003)],
        )],
        &[
            ("*-apps-7.k8s.example.org", "masters"),
            ("api-7.k8s.example.org", "masters"),
        ],
    );
    edge.routes("globex", &globex).unwrap();
    let output = on(&edge, "routes", &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for word in [
        HOST,
        "*-apps-7.k8s.example.org",
        "api-7.k8s.example.org",
        "acme",
        "globex",
        "masters",
    ] {
        assert!(
            output.stdout.contains(word),
            "{word} is not in: {}",
            output.stdout
        );
    }
    let output = on(&edge, "routes", &["--json"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = json(&output).to_string();
    for word in [HOST, "*-apps-7.k8s.example.org", "globex"] {
        assert!(text.contains(word), "{word} is not in: {text}");
    }
}

#[test]
fn explain_says_what_would_happen_and_why() {
    let edge = edge("cli-explain");
    let endpoint = edge.port(9001).to_string();
    let output = on(&edge, "explain", &[&format!("https://{HOST}/a?b")]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for word in [
        "*.acme.example.org",
        HOST,
        "acme",
        "workers",
        &endpoint,
        "X-Forwarded-For",
    ] {
        let said = output.stdout.to_lowercase();
        assert!(
            said.contains(&word.to_lowercase()),
            "{word} is not in: {}",
            output.stdout
        );
    }
    let output = on(
        &edge,
        "explain",
        &["--json", &format!("https://{HOST}/a?b")],
    );
    assert!(json(&output).to_string().contains(&endpoint), "{output:?}");

    for (url, word) in [
        ("https://nobody.acme.example.org/", "404"),
        ("https://nobody.example.net/", "certificate"),
        (&*format!("http://{HOST}/a?b"), "308"),
    ] {
        let output = on(&edge, "explain", &[url]);
        let said = format!("{}{}", output.stdout, output.stderr).to_lowercase();
        assert!(said.contains(word), "{url}: {word} is not in: {said}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for command in ["run", "check", "routes"] {
        let output = run(&[command, "--config", "/nowhere/router.yaml"]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stderr.contains("/nowhere/router.yaml"), "{output:?}");
    }
}

#[test]
fn run_refuses_bad_files_before_it_listens() {
    let edge = edge("cli-run");
    folder::write(
        &edge.configuration(),
        edge.settings().replace("workers: 1", "workers: 0"),
    )
    .unwrap();
    let output = on(&edge, "run", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(
        said.contains("router.yaml") && said.contains("workers"),
        "{said}"
    );
}

#[test]
fn an_address_in_use_is_named() {
    let edge = edge("cli-address");
    let _taken = std::net::TcpListener::bind(edge.https[0]).unwrap();
    let output = on(&edge, "run", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = format!("{}{}", output.stdout, output.stderr);
    assert!(said.contains(&edge.https[0].to_string()), "{said}");
}

#[test]
fn unknown_options_and_commands_are_errors_of_use() {
    for arguments in [
        &["--frobnicate"][..],
        &["frobnicate"],
        &["run", "--frobnicate"],
        &["explain"],
        &[],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("Usage"), "{arguments:?}: {output:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    let output = run(&["--help"]);
    assert_eq!(output.status.code(), Some(0));
    for command in ["run", "check", "routes", "explain"] {
        assert!(
            output.stdout.contains(command),
            "{command} is not in: {}",
            output.stdout
        );
    }
    for command in ["run", "check", "routes", "explain"] {
        let output = run(&[command, "--help"]);
        assert!(
            output.status.success() && output.stdout.contains("--config"),
            "{command}: {output:?}"
        );
    }
    assert!(run(&["--version"]).status.success());
}
