//! Outcomes of `router explain`, each with the files an operator would have.

use std::time::SystemTime;

use super::{Explanation, InvalidQuestion, Outcome, Question, explain};
use crate::control::build::build_once;
use crate::control::tests::{Files, routes};

fn files() -> Files {
    let files = Files::new();
    files.certificate("wild", &["*.k8s.example.org", "*.acme.example.org"]);
    let apps = routes("seven", "*-apps-7.k8s.example.org", "127.0.0.1:31380");
    files.write("routes.d/seven.yaml", &apps);
    let zone = routes("zone", "*.k8s.example.org", "127.0.0.1:31390");
    let zone = zone + "    shared: true\n";
    files.write("routes.d/zone.yaml", &zone);
    files
}

fn ask(files: &Files, url: &str, change: impl FnOnce(&mut Question)) -> Explanation {
    let built = build_once(&files.config(), SystemTime::now()).unwrap();
    let mut question = Question::new(url).unwrap();
    change(&mut question);
    explain(&built.snapshot, &question, SystemTime::now())
}

#[test]
fn the_longest_match_wins_and_the_others_are_named() {
    let answer = ask(
        &files(),
        "https://shop-apps-7.k8s.example.org/cart?x=1",
        |_| {},
    );
    assert_eq!(answer.outcome, Outcome::Forwarded { upgrade: None });
    let rule = answer.rule.as_ref().unwrap();
    assert_eq!(
        (&*rule.host, &*rule.tenant),
        ("*-apps-7.k8s.example.org", "seven")
    );
    assert_eq!((rule.source, rule.line), ("file", Some(6)));
    let tried: Vec<_> = answer
        .candidates
        .iter()
        .map(|it| (it.host.as_str(), it.tenant.as_deref()))
        .collect();
    let expected = [
        ("shop-apps-7.k8s.example.org", None),
        ("*-apps-7.k8s.example.org", Some("seven")),
        ("*-7.k8s.example.org", None),
        ("*.k8s.example.org", Some("zone")),
    ];
    assert_eq!(tried, expected);
    let upstream = answer.upstream.as_ref().unwrap();
    assert_eq!(upstream.endpoints, ["127.0.0.1:31380".parse().unwrap()]);
    let text = answer.to_string();
    assert!(text.contains("first match, so it wins") && text.contains("shorter, so it loses"));
}

#[test]
fn the_first_candidate_that_exists_is_the_one_that_lookup_takes() {
    for host in [
        "www.example.org",
        "a-b-apps-7.k8s.example.org",
        "x.k8s.example.org",
    ] {
        let answer = ask(&files(), host, |_| {});
        let first = answer.candidates.iter().find(|it| it.tenant.is_some());
        assert_eq!(answer.rule.unwrap().host, first.unwrap().host, "{host}");
    }
}

#[test]
fn plain_http_is_redirected() {
    let files = files();
    files.router("http:\n  https_port: 8443\n  redirect: 301\n");
    let answer = ask(&files, "http://unknown.example/a?b", |_| {});
    let location = "https://unknown.example:8443/a?b".to_owned();
    assert_eq!(
        answer.outcome,
        Outcome::Redirected {
            status: 301,
            location
        }
    );
    assert!(answer.certificate.is_none());
}

#[test]
fn a_name_without_certificate_is_refused_in_the_handshake() {
    let answer = ask(&files(), "https://unknown.example/", |_| {});
    assert!(
        matches!(&answer.outcome, Outcome::HandshakeRefused { why } if why.contains("unknown.example"))
    );
    let answer = ask(&files(), "https://192.0.2.9/", |_| {});
    assert!(
        matches!(answer.outcome, Outcome::HandshakeRefused { .. }),
        "no SNI"
    );
}

#[test]
fn another_name_than_the_certificates_is_421_and_an_unknown_one_404() {
    let status = |answer: Explanation| match answer.outcome {
        Outcome::Refused { status, .. } => status,
        other => panic!("{other:?}"),
    };
    let shared = ask(&files(), "https://x.k8s.example.org/", |question| {
        question.sni = Some("www.example.org".to_owned());
    });
    assert_eq!(status(shared), 421);
    let unknown = ask(&files(), "https://nobody.acme.example.org/", |_| {});
    assert!(unknown.certificate.is_some());
    assert_eq!(status(unknown), 404);
}

#[test]
fn what_http1_refuses_is_refused_here() {
    let answer = ask(&files(), "https://www.example.org/", |question| {
        question.field("Content-Length: 1").unwrap();
        question.field("Transfer-Encoding: chunked").unwrap();
    });
    assert!(
        matches!(answer.outcome, Outcome::Refused { status: 400, .. }),
        "{answer}"
    );
    assert!(answer.rule.is_none());
}

#[test]
fn forwarding_fields_are_dropped_or_kept_by_the_clients_address() {
    let files = files();
    files.router("trusted_proxies: [198.51.100.0/24]\n");
    let forged = |question: &mut Question| {
        question.field("X-Forwarded-For: 203.0.113.9").unwrap();
        question.field("X-Mine: 1").unwrap();
    };
    let answer = ask(&files, "https://www.example.org/", forged);
    let fields = answer.fields.unwrap();
    assert!(!fields.client_is_trusted);
    assert!(
        fields
            .removed
            .contains(&"X-Forwarded-For: 203.0.113.9".to_owned()),
        "{fields:?}"
    );
    let added = fields.added.join("\n").to_ascii_lowercase();
    assert!(added.contains("x-forwarded-for: 192.0.2.1"), "{added}");
    assert!(added.contains("x-forwarded-proto: https"), "{added}");
    assert!(!added.contains("x-mine") && !fields.removed.join("").contains("X-Mine"));

    let answer = ask(&files, "https://www.example.org/", |question| {
        forged(question);
        question.client = "198.51.100.7".parse().unwrap();
    });
    let fields = answer.fields.unwrap();
    assert!(fields.client_is_trusted);
    let added = fields.added.join("\n").to_ascii_lowercase();
    assert!(added.contains("198.51.100.7"), "{added}");
}

#[test]
fn an_upgrade_is_passed_on_if_it_is_listed() {
    let websocket = |question: &mut Question| {
        question.field("Connection: upgrade").unwrap();
        question.field("Upgrade: websocket").unwrap();
    };
    let files = files();
    let answer = ask(&files, "https://www.example.org/", websocket);
    let upgrade = Some("websocket".to_owned());
    assert_eq!(answer.outcome, Outcome::Forwarded { upgrade });
    files.router("upgrades: [other]\n");
    let answer = ask(&files, "https://www.example.org/", websocket);
    assert_eq!(answer.outcome, Outcome::Forwarded { upgrade: None });
    let removed = answer.fields.unwrap().removed;
    assert!(
        removed.contains(&"Upgrade: websocket".to_owned()),
        "{removed:?}"
    );
}

#[test]
fn urls_are_read_as_a_browser_would() {
    let question = Question::new("www.example.org:8443/a#b").unwrap();
    assert!(question.https);
    assert_eq!((question.port, &*question.path), (8443, "/a"));
    assert_eq!(question.sni.as_deref(), Some("www.example.org"));
    for (url, error) in [
        ("ftp://a/", InvalidQuestion::Scheme("ftp://a/".into())),
        ("https://", InvalidQuestion::Url("https://".into())),
        ("https://a b/", InvalidQuestion::Url("https://a b/".into())),
        ("https://u@a/", InvalidQuestion::Url("https://u@a/".into())),
    ] {
        assert_eq!(Question::new(url), Err(error));
    }
    let mut question = question;
    assert!(question.field("no colon").is_err());
}
