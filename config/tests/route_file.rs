//! Route files, alone and beside each other.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::time::Instant;

use config::ConfigErrors;
use config::route::{HostMatch, RouteFile, UpstreamProtocol, UpstreamTrust, owners};

const UPSTREAMS: &str = "upstreams:\n  workers: {endpoints: [\"10.0.0.1:31380\"]}\n";

fn parse(text: &str) -> Result<RouteFile, ConfigErrors> {
    RouteFile::parse(text, Path::new("routes.d/acme.yaml"))
}

fn tenant(name: &str, routes: &str) -> RouteFile {
    parse(&format!("tenant: {name}\n{UPSTREAMS}routes:\n{routes}")).unwrap()
}

#[track_caller]
fn refused(text: &str, says: &str) {
    let errors = parse(text).unwrap_err();
    assert_eq!(errors.errors().len(), 1, "{errors}");
    assert!(errors.to_string().contains(says), "{errors}");
}

#[test]
fn what_a_file_means() {
    let file = parse(
        "tenant: acme
upstreams:
  plain: {endpoints: [\"10.0.0.1:31380\", \"[fd00::1]:31380\"]}
  trusted: {protocol: http2, endpoints: [\"10.0.0.1:1\"], tls: {server_name: A.example}}
  pinned: {endpoints: [\"10.0.0.1:2\"], tls: {server_name: b.example, ca: ca.pem}}
  blind: {endpoints: [\"10.0.0.1:3\"], tls: {server_name: c.example, verify: insecure-accept-any-certificate}}
routes:
  - {host: WWW.Example.org., upstream: plain}
  - {host: \"*.example.org\", upstream: pinned, shared: true}
",
    )
    .unwrap();
    let trust = |index: usize| {
        file.upstreams[index]
            .tls
            .as_ref()
            .map(|tls| tls.trust.clone())
    };
    assert_eq!(trust(0), None);
    assert_eq!(trust(1), Some(UpstreamTrust::System));
    assert_eq!(
        trust(2),
        Some(UpstreamTrust::Ca(PathBuf::from("routes.d/ca.pem")))
    );
    assert_eq!(trust(3), Some(UpstreamTrust::InsecureAcceptAny));
    assert_eq!(file.upstreams[1].protocol, UpstreamProtocol::Http2);
    assert_eq!(
        file.upstreams[1].tls.as_ref().unwrap().server_name,
        "a.example"
    );
    assert_eq!(file.routes[0].host.to_string(), "www.example.org");
    assert_eq!(
        file.routes[1].host,
        HostMatch::Suffix(".example.org".into())
    );
    assert!(file.routes[1].shared && !file.routes[0].shared);
    assert_eq!(
        (file.routes[1].position.line, file.routes[1].position.column),
        (9, 12)
    );
    let unused: Vec<_> = file
        .unused_upstreams()
        .map(|upstream| upstream.name.as_str())
        .collect();
    assert_eq!(unused, ["trusted", "blind"]);
}

#[test]
fn host_rules() {
    let rule = HostMatch::parse;
    assert_eq!(
        rule("*-apps-7.K8s.example.org").unwrap(),
        HostMatch::Suffix("-apps-7.k8s.example.org".into())
    );
    for wrong in [
        "",
        "*",
        "*.",
        "*-",
        "*.org",
        "*example.org",
        "**.example.org",
        "a*.example.org",
        "a.*.example.org",
        "*.*.example.org",
        "*-.example.org",
        "*..example.org",
        "*.-a.example.org",
        "*.example.org-",
        "10.0.0.1",
        "*.0.0.1",
        "a_b.example.org",
        "a..b",
        "-a.example.org",
        "http://a.example.org",
        "a.example.org:443",
        "bücher.example.org",
        "a b.example.org",
    ] {
        let reason = rule(wrong).expect_err(wrong).to_string();
        assert!(!reason.contains("`x"), "{reason}");
    }
    let long = format!("*-{}.example.org", "a".repeat(62));
    assert!(rule(&long).unwrap_err().message.contains("longer than 63"));
}

#[test]
fn a_star_takes_a_character_and_no_dot() {
    let rule = HostMatch::parse("*-apps-7.example.org").unwrap();
    assert!(rule.matches("a-apps-7.example.org"));
    assert!(rule.matches("a-b-apps-7.example.org"));
    assert!(!rule.matches("-apps-7.example.org"));
    assert!(!rule.matches("a.b-apps-7.example.org"));
    assert!(!rule.matches("apps-7.example.org"));
    let zone = HostMatch::parse("*.example.org").unwrap();
    assert!(zone.matches("a.example.org"));
    assert!(!zone.matches("a.b.example.org") && !zone.matches("example.org"));
    assert!(!zone.matches(".example.org"));
}

#[test]
fn refusals_within_one_file() {
    let routes = |routes: &str| format!("tenant: acme\n{UPSTREAMS}routes:\n{routes}");
    let unknown = routes("  - {host: a.example, upstream: worker}\n");
    refused(
        &unknown,
        "5:33: routes[0].upstream: unknown upstream `worker`; did you mean `workers`?",
    );
    let twice = routes(
        "  - {host: a.example, upstream: workers}\n  - {host: A.example., upstream: workers}\n",
    );
    refused(
        &twice,
        "6:12: routes[1].host: a.example stands twice; first in line 5",
    );
    let flow =
        routes("  [{host: a.example, upstream: workers}, {host: a.example, upstream: workers}]\n");
    refused(&flow, "stands twice");
    let shared = routes("  - {host: a.example, upstream: workers, shared: true}\n");
    refused(
        &shared,
        "routes[0].shared: an exact name has nothing beneath it",
    );

    let upstream =
        |upstream: &str| format!("tenant: acme\nupstreams: {{{upstream}}}\nroutes: []\n");
    refused(
        &upstream("a: {endpoints: []}"),
        "2:28: upstreams.a.endpoints: needs at least 1 item",
    );
    refused(&upstream("a: {}"), "upstreams.a: missing field `endpoints`");
    refused(
        &upstream("a: {endpoints: [\"10.0.0.1:80\", \"10.0.0.1:80\"]}"),
        "upstreams.a.endpoints[1]: this endpoint stands twice",
    );
    refused(
        &upstream("A_b: {endpoints: [\"10.0.0.1:80\"]}"),
        "`A_b` is not a name",
    );
    refused(
        &upstream("a: {endpoints: [\"10.0.0.1:80\"], protocol: htp1}"),
        "unknown value `htp1`; did you mean `http1`?",
    );
    refused(
        &upstream("a: {endpoints: [\"10.0.0.1:80\"], tls: {}}"),
        "missing field `server_name`",
    );
    refused(
        &upstream("a: {endpoints: [\"10.0.0.1:80\"], tls: {server_name: a, verify: none}}"),
        "unknown value `none`; known here: `insecure-accept-any-certificate`",
    );
    refused(
        &upstream(
            "a: {endpoints: [\"10.0.0.1:80\"], tls: {server_name: a, ca: c, verify: insecure-accept-any-certificate}}",
        ),
        "contradicts `ca`",
    );
    for wrong in ["Acme", "a_b", "-a", "a-", "a.b", "''", "7", "a/b"] {
        refused(
            &format!("tenant: {wrong}\n{UPSTREAMS}routes: []\n"),
            "1:9: tenant: ",
        );
    }
}

fn check(files: &[(&str, RouteFile)]) -> Result<(), ConfigErrors> {
    owners(files.iter().map(|(name, file)| (Path::new(*name), file)))
}

#[test]
fn one_name_with_two_owners_names_both_places() {
    let a = tenant("acme", "  - {host: www.example.org, upstream: workers}\n");
    let b = tenant(
        "globex",
        "  - {host: x.example, upstream: workers}\n  - {host: www.example.org, upstream: workers}\n",
    );
    let errors = check(&[("a.yaml", a.clone()), ("b.yaml", b)]).unwrap_err();
    assert_eq!(
        errors.to_string(),
        "b.yaml:6:12: routes[1].host: www.example.org is already owned by tenant acme (a.yaml:5); this is tenant globex"
    );
    // Also when both files are one tenant's: which of the two would count?
    assert!(check(&[("a.yaml", a.clone()), ("c.yaml", a)]).is_err());
}

#[test]
fn a_narrower_name_of_somebody_else_is_refused_unless_shared() {
    let suffix = |shared: &str| {
        tenant(
            "acme",
            &format!("  - {{host: \"*-7.example.org\", upstream: workers{shared}}}\n"),
        )
    };
    for narrower in [
        "a-7.example.org",
        "*-apps-7.example.org",
        "a-b-7.example.org",
    ] {
        let other = tenant(
            "globex",
            &format!("  - {{host: \"{narrower}\", upstream: workers}}\n"),
        );
        let own = tenant(
            "acme",
            &format!("  - {{host: \"{narrower}\", upstream: workers}}\n"),
        );
        for swap in [false, true] {
            let files = |wide: RouteFile, narrow: &RouteFile| {
                let mut files = vec![("wide.yaml", wide), ("narrow.yaml", narrow.clone())];
                if swap {
                    files.reverse();
                }
                files
            };
            let errors = check(&files(suffix(""), &other)).unwrap_err();
            assert_eq!(errors.errors().len(), 1);
            let text = errors.to_string();
            assert!(
                text.starts_with("narrow.yaml:5:12: routes[0].host: "),
                "{text}"
            );
            assert!(
                text.contains("*-7.example.org, owned by tenant acme (wide.yaml:5)"),
                "{text}"
            );
            assert!(check(&files(suffix(", shared: true"), &other)).is_ok());
            assert!(check(&files(suffix(""), &own)).is_ok());
        }
    }
    let apart = tenant(
        "globex",
        "  - {host: a.b-7.example.org, upstream: workers}\n  - {host: 7.example.org, upstream: workers}\n  - {host: \"*.example.org\", upstream: workers, shared: true}\n",
    );
    assert!(check(&[("wide.yaml", suffix("")), ("apart.yaml", apart)]).is_ok());
}

#[test]
fn a_hundred_thousand_routes_take_no_time() {
    let mut template = tenant("acme", "  - {host: a.example, upstream: workers}\n");
    let route = template.routes.pop().unwrap();
    let files: Vec<(PathBuf, RouteFile)> = (0..100)
        .map(|file| {
            let mut routes = template.clone();
            routes.tenant = format!("tenant-{file}");
            routes.routes = (0..1000)
                .map(|index| {
                    let mut route = route.clone();
                    route.host =
                        HostMatch::parse(&format!("*-apps-{file}-{index}.k8s.example.org"))
                            .unwrap();
                    route
                })
                .collect();
            (PathBuf::from(format!("{file}.yaml")), routes)
        })
        .collect();
    let begin = Instant::now();
    owners(files.iter().map(|(path, file)| (path.as_path(), file))).unwrap();
    let took = begin.elapsed();
    // A debug build on a busy machine; the quadratic check would take minutes.
    assert!(took.as_secs() < 5, "{took:?}");
}

/// Advice is given from a few names only: a hostile file must not buy time with its length.
#[test]
fn many_unknown_upstreams_beside_many_known_ones() {
    let mut text = "tenant: acme\nupstreams:\n".to_owned();
    (0..8_000).for_each(|index| text += &format!(" u{index}: {{endpoints: [\"1.1.1.1:1\"]}}\n"));
    text += "routes:\n";
    (0..8_000).for_each(|index| text += &format!(" - {{host: a{index}.b, upstream: x{index}}}\n"));
    let begin = Instant::now();
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.errors().len(), config::error::MAX_ERRORS + 1);
    assert!(errors.to_string().len() < 500_000);
    let took = begin.elapsed();
    assert!(took.as_secs() < 15, "{took:?}");
}
