//! The registry's API, asked by somebody who has read its OpenAPI document: schemathesis
//! (<https://schemathesis.readthedocs.io>) makes requests from it, right and wrong ones, alone and in
//! sequence, and compares the answers with what the document promises.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use harness::ca::KeyKind;
use harness::edge::Edge;
use harness::router;
use harness::tool::Tool;

/// What is asked per call and phase, at most.
const EXAMPLES: &str = "25";

#[test]
fn it_keeps_what_its_document_promises() {
    let mut edge = Edge::new("api").unwrap();
    let api = edge.port(8444);
    let address = api.ip().to_string();
    let leaf = edge.ca.issue(&[&address], KeyKind::Ecdsa).unwrap();
    leaf.write(edge.folder(), "registry").unwrap();
    let folder = edge.folder().to_owned();
    let operators = folder.join("operators.tokens");
    edge.more = format!(
        "registry:\n  state: state\n  api:\n    addresses: [\"{api}\"]\n    certificate: registry.crt\n    \
         key: registry.key\n    operators: operators.tokens\n    audit_log: audit.jsonl\n    \
         requests_per_second: 100000\n"
    );
    let file = operators.to_string_lossy();
    let token = router::tool(&[
        "registry",
        "token",
        "create",
        "--operator",
        "fuzzer",
        "--file",
        &file,
    ])
    .unwrap()
    .succeed()
    .unwrap();
    let token = token.trim();
    let mut router = edge.start().unwrap();
    let ca = folder.join("ca.pem");
    harness::folder::write(&ca, edge.ca.pem()).unwrap();

    // So that the examples of the document are more than refusals.
    let own = folder.join("fuzzer.token");
    harness::folder::write_secret(&own, token).unwrap();
    for pattern in ["*.acme.example.org", "*.k8s.example.org"] {
        router::tool(&[
            "registry",
            "zone",
            "add",
            "acme",
            pattern,
            "--address",
            "10.0.7.0/24",
        ])
        .unwrap()
        .args([
            "--registry",
            &format!("https://{api}"),
            "--ca",
            &ca.to_string_lossy(),
        ])
        .args(["--token-file", &own.to_string_lossy()])
        .succeed()
        .unwrap();
    }
    let document = format!("https://{api}/v1/openapi.json");
    let program = std::env::var("GATEHOUSE_SCHEMATHESIS").unwrap();
    let output = Tool::new(&program)
        .args(["run", &document])
        .args(["--header", &format!("Authorization: Bearer {token}")])
        .args(["--tls-verify", &ca.to_string_lossy()])
        .args(["--phases", "examples,coverage,fuzzing,stateful"])
        .args(["--max-examples", EXAMPLES, "--seed", "20261126"])
        // A watch does not end.
        .args(["--exclude-path", "/v1/watch"])
        // A right schema is not all that a name must meet: it has to lie in a zone, a range must
        // have no bits beyond its prefix. What is refused without a credential is our own test,
        // since ten failures are followed by 429.
        .args([
            "--exclude-checks",
            "positive_data_acceptance,ignored_auth,missing_required_header",
        ])
        .args(["--no-color", "--workers", "1"])
        .environment("PYTHONDONTWRITEBYTECODE", "1")
        .environment("HOME", &folder.to_string_lossy())
        .folder(&folder)
        .run()
        .unwrap();
    assert!(
        output.status.success(),
        "{}\n{}\nthe router's log:\n{}",
        output.stdout,
        output.stderr,
        router.log()
    );
    // "991 generated, 991 passed".
    let counts = output.stdout.lines().find_map(|line| {
        let (generated, rest) = line.trim().split_once(" generated, ")?;
        Some((
            generated.to_owned(),
            rest.strip_suffix(" passed")?.to_owned(),
        ))
    });
    let (generated, passed) = counts.unwrap_or_else(|| panic!("{}", output.stdout));
    println!("schemathesis: {generated} requests, {passed} answered as the document promises");
    assert_eq!(generated, passed);
    assert!(generated.parse::<u32>().unwrap() > 300, "{generated}");
    let log = router.log();
    for word in ["panicked", "a mistake", "ERROR"] {
        assert!(!log.contains(word), "{log}");
    }
    assert!(!log.contains(token), "no token in the log");
    router.terminate();
}
