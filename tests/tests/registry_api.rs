//! The registry's API, asked by somebody who has read its OpenAPI document: schemathesis
//! (<https://schemathesis.readthedocs.io>) makes requests from it, right and wrong ones, alone and in
//! sequence, and compares the answers with what the document promises.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::collections::BTreeMap;

use harness::ca::KeyKind;
use harness::edge::Edge;
use harness::router;
use harness::tool::Tool;
use serde_json::Value;

/// What is asked per call and phase, at most.
const EXAMPLES: &str = "25";

/// Zones in which the document's examples lie.
const ZONES: [&str; 2] = ["*.acme.example.org", "*.k8s.example.org"];

/// Every change that the API can make.
const ACTIONS: [&str; 8] = [
    "put-route",
    "delete-route",
    "announce",
    "withdraw",
    "lease-zone",
    "take-zone-back",
    "create-token",
    "revoke-token",
];

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
    for pattern in ZONES {
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
    assert!(
        sequences(&output.stdout) > 0,
        "no sequence of calls was made: {}",
        output.stdout
    );
    // What promises nothing but refusals is kept by refusing everything.
    let page = router.admin("/metrics").unwrap();
    for code in ["200", "201", "204"] {
        let begins = format!("router_registry_requests_total{{code=\"{code}\"}} ");
        let count = page.lines().find_map(|line| line.strip_prefix(&begins));
        println!("answered with {code}: {count:?}");
        let count: f64 = count.map_or(0.0, |count| count.parse().unwrap());
        assert!(count > 0.0, "nothing was answered with {code}: {page}");
    }
    let audit = std::fs::read_to_string(folder.join("audit.jsonl")).unwrap();
    let done: BTreeMap<String, usize> = audit
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        // The zones before it are not schemathesis's.
        .skip(ZONES.len())
        .filter(|line| line["outcome"] == "done")
        .fold(BTreeMap::new(), |mut done, line| {
            *done
                .entry(line["action"].as_str().unwrap().to_owned())
                .or_default() += 1;
            done
        });
    println!("changes that were made: {done:?}");
    for action in ACTIONS {
        assert!(done.contains_key(action), "{action}: {done:?}");
    }
    let log = router.log();
    for word in ["panicked", "a mistake", "ERROR"] {
        assert!(!log.contains(word), "{log}");
    }
    assert!(!log.contains(token), "no token in the log");
    router.terminate();
}

/// How many sequences of calls went well in the stateful phase; 0 if there was none.
fn sequences(report: &str) -> u32 {
    let phase = report.split_once("Stateful (in").map(|(_, rest)| rest);
    let lines = phase.into_iter().flat_map(str::lines).map(str::trim);
    let count = lines.filter_map(|line| line.split_once(" passed")).next();
    let count = count.map(|(count, _)| count.rsplit(' ').next().unwrap_or(""));
    count.map_or(0, |count| count.parse().unwrap())
}
