//! `router.yaml`: what is accepted, what it means, and what is refused.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::router::{RedirectStatus, RouterConfig, TlsVersion};
use config::{ConfigError, ConfigErrors};

const MINIMAL: &str = "certificates:\n  directory: certs\nroutes: [routes.d]\n";

fn parse(text: &str) -> Result<RouterConfig, ConfigErrors> {
    RouterConfig::parse(text, Path::new("/etc/gatehouse/router.yaml"))
}

/// The minimal file with more in front of it: the added text begins in line 1.
fn with(more: &str) -> Result<RouterConfig, ConfigErrors> {
    parse(&format!("{more}\n{MINIMAL}"))
}

/// The added text must be refused with exactly one error.
#[track_caller]
fn refused(more: &str) -> ConfigError {
    let errors = with(more).unwrap_err();
    assert_eq!(errors.errors().len(), 1, "{errors}");
    errors.errors()[0].clone()
}

#[track_caller]
fn refused_as(more: &str, line: usize, column: usize, field: &str, says: &str) {
    let error = refused(more);
    assert!(error.to_string().contains(says), "{error}");
    assert_eq!(
        (error.position.line, error.position.column),
        (line, column),
        "{error}"
    );
    assert_eq!(error.field, field);
}

fn addresses(list: &[&str]) -> Vec<SocketAddr> {
    list.iter()
        .map(|address| address.parse().unwrap())
        .collect()
}

#[test]
fn three_lines_are_enough_and_the_rest_has_defaults() {
    let router = parse(MINIMAL).unwrap();
    assert_eq!(router.http.addresses, addresses(&["0.0.0.0:80", "[::]:80"]));
    assert_eq!(router.http.redirect, RedirectStatus::PermanentRedirect);
    assert_eq!(router.http.https_port, 443);
    assert_eq!(
        router.https.addresses,
        addresses(&["0.0.0.0:443", "[::]:443"])
    );
    assert_eq!(router.https.minimum_tls, TlsVersion::V1_2);
    assert!(router.https.http2);
    assert_eq!(router.certificates.default, None);
    let seconds = Duration::from_secs;
    assert_eq!(router.timeouts.handshake, seconds(10));
    assert_eq!(router.timeouts.request_head, seconds(10));
    assert_eq!(router.timeouts.client_idle, seconds(60));
    assert_eq!(router.timeouts.body_idle, seconds(60));
    assert_eq!(router.timeouts.response_head, Duration::ZERO);
    assert_eq!(router.timeouts.connect, seconds(3));
    assert_eq!(router.timeouts.upstream_idle, seconds(55));
    assert_eq!(router.timeouts.upgraded_idle, seconds(3600));
    assert_eq!(router.timeouts.endpoint_rest, seconds(5));
    assert_eq!(router.timeouts.drain_delay, Duration::ZERO);
    assert_eq!(router.timeouts.drain, seconds(30));
    assert_eq!(router.limits.head_bytes, 32 * 1024);
    assert_eq!(router.limits.head_fields, 100);
    assert_eq!(router.limits.connections, 20_000);
    assert_eq!(router.limits.idle_per_endpoint, 256);
    assert_eq!(router.limits.h2_streams, 128);
    assert_eq!(router.upgrades, ["websocket", "SPDY/3.1"]);
    assert!(router.access_log);
}

#[test]
fn relative_paths_start_at_the_files_folder() {
    let router =
        parse("certificates: {directory: certs}\nroutes: [a.yaml, /srv/b.yaml]\n").unwrap();
    assert_eq!(
        router.certificates.directory,
        PathBuf::from("/etc/gatehouse/certs")
    );
    assert_eq!(
        router.routes,
        [
            PathBuf::from("/etc/gatehouse/a.yaml"),
            PathBuf::from("/srv/b.yaml")
        ]
    );
}

#[test]
fn all_errors_come_in_one_go_sorted_with_place_field_and_advice() {
    let text = "\
http:
  adresses: [\"0.0.0.0:80\"]
  redirect: 302
https:
  addresses:
    - \"0.0.0.0:443\"
    - 10.0.0.1
  minimum_tls: 1.3
  http2: yes
certificates: {}
timeouts: {connect: 3}
limits: {head_fields: 257}
surprise: true
";
    let errors = parse(text).unwrap_err();
    let expected = "\
/etc/gatehouse/router.yaml:1:1: missing field `routes`; route files: paths, or folders whose *.yaml are all read
/etc/gatehouse/router.yaml:2:3: http: unknown field `adresses`; did you mean `addresses`?
/etc/gatehouse/router.yaml:3:13: http.redirect: expected one of the numbers 301, 308, found the number `302`
/etc/gatehouse/router.yaml:7:7: https.addresses[1]: `10.0.0.1` is not an address with a port; add the port: `10.0.0.1:443`, or \"[fd00::1]:443\" for IPv6
/etc/gatehouse/router.yaml:8:16: https.minimum_tls: expected one of `1.2`, `1.3`, found the number `1.3`; put quotes around it: \"1.3\"
/etc/gatehouse/router.yaml:9:10: https.http2: expected `true` or `false`, found the text `yes`; write `true`, without quotes
/etc/gatehouse/router.yaml:10:15: certificates: missing field `directory`; folder that holds NAME.crt (chain) and NAME.key (private key) pairs
/etc/gatehouse/router.yaml:11:21: timeouts.connect: a duration needs a unit, found the number 3; write `3s` or `3ms`
/etc/gatehouse/router.yaml:12:23: limits.head_fields: must be from 1 to 256, found 257
/etc/gatehouse/router.yaml:13:1: unknown field `surprise`; known here: `http`, `https`, `certificates`, `routes`, `trusted_proxies`, `workers`, `admin`, `timeouts`, `limits`, `upgrades`, `access_log`, `registry`";
    assert_eq!(errors.to_string(), expected);
}

#[test]
fn errors_as_json_and_with_the_source_line() {
    let errors = with("https:\n  adresses: []").unwrap_err();
    assert_eq!(
        errors.to_json(),
        serde_json::json!([{
            "file": "/etc/gatehouse/router.yaml", "line": 2, "column": 3, "field": "https",
            "message": "unknown field `adresses`", "help": "did you mean `addresses`?",
        }])
    );
    let rendered = errors.render();
    assert!(
        rendered.ends_with("\n  2 |   adresses: []\n    |   ^\n"),
        "{rendered}"
    );
}

#[test]
fn what_a_file_quotes_cannot_break_a_message() {
    let errors = with(&format!("\"a\\u001b[31m\\n{}\": 1", "x".repeat(10_000))).unwrap_err();
    let text = errors.to_string();
    assert!(
        !text.contains('\u{1b}') && text.lines().count() == 1 && text.len() < 600,
        "{text}"
    );
}

#[test]
fn a_file_full_of_errors_gets_a_list_with_an_end() {
    let text: String = (0..20_000)
        .map(|index| format!("unknown{index}: 1\n"))
        .collect();
    let errors = parse(&text).unwrap_err();
    assert_eq!(errors.errors().len(), config::error::MAX_ERRORS + 1);
    assert!(
        errors
            .errors()
            .last()
            .unwrap()
            .message
            .contains("more errors are not listed")
    );
}

#[test]
fn listeners() {
    refused_as(
        "https: {addresses: []}",
        1,
        20,
        "https.addresses",
        "needs 1 to 64 items, found 0",
    );
    assert!(
        with("http: {addresses: []}")
            .unwrap()
            .http
            .addresses
            .is_empty()
    );
    refused_as(
        "http: {addresses: [\"10.0.0.1:443\"]}\nhttps: {addresses: [\"0.0.0.0:443\"]}",
        2,
        21,
        "https.addresses[0]",
        "overlaps 10.0.0.1:443 (http.addresses[0] in line 1)",
    );
    refused_as(
        "https: {addresses: [\"10.0.0.1:443\", \"10.0.0.1:443\"]}",
        1,
        37,
        "https.addresses[1]",
        "overlaps",
    );
    refused_as(
        "admin: 127.0.0.1:443",
        1,
        8,
        "admin",
        "overlaps 0.0.0.0:443",
    );
    // [::] takes no IPv4, so both can be listened on.
    assert!(with("https: {addresses: [\"0.0.0.0:443\", \"[::]:443\"]}").is_ok());
    refused_as(
        "https: {addresses: [\"0.0.0.0:0\"]}",
        1,
        21,
        "https.addresses[0]",
        "port 0",
    );
    refused_as(
        "https: {addresses: [\"localhost:443\"]}",
        1,
        21,
        "https.addresses[0]",
        "not a name",
    );
    refused_as(
        "http: {https_port: 65536}",
        1,
        20,
        "http.https_port",
        "from 1 to 65535",
    );
}

#[test]
fn admin_is_loopback_only() {
    refused_as(
        "admin: 0.0.0.0:9180",
        1,
        8,
        "admin",
        "not a loopback address",
    );
    refused_as(
        "admin: 192.0.2.1:9180",
        1,
        8,
        "admin",
        "not a loopback address",
    );
    assert!(with("admin: \"[::1]:9180\"").is_ok());
    assert!(with("admin: \"[::ffff:127.0.0.1]:9180\"").is_ok());
}

#[test]
fn timeouts() {
    refused_as(
        "timeouts: {connect: 0}",
        1,
        21,
        "timeouts.connect",
        "must be from 1ms to 24h",
    );
    refused_as(
        "timeouts: {drain: 25h}",
        1,
        19,
        "timeouts.drain",
        "to 24h, found 25h",
    );
    refused_as(
        "timeouts: {response_head: 25h}",
        1,
        27,
        "timeouts.response_head",
        "or 0 for none",
    );
    refused_as(
        "timeouts: {connect: soon}",
        1,
        21,
        "timeouts.connect",
        "not a duration",
    );
    let closed = "the ingress closes an unused connection after 75s";
    refused_as(
        "timeouts: {upstream_idle: 75s}",
        1,
        27,
        "timeouts.upstream_idle",
        closed,
    );
    let timeouts = with("timeouts: {upstream_idle: 74s999ms, response_head: 1m30s}")
        .unwrap()
        .timeouts;
    assert_eq!(timeouts.upstream_idle, Duration::from_millis(74_999));
    assert_eq!(timeouts.response_head, Duration::from_secs(90));
    assert_eq!(
        with("timeouts: {drain_delay: 5m}")
            .unwrap()
            .timeouts
            .drain_delay,
        Duration::from_secs(300)
    );
    assert!(
        refused("timeouts: {drain_delay: 5m1s}")
            .to_string()
            .contains("must be from 1ms to 5m, or 0 for none")
    );
}

#[test]
fn limits() {
    refused_as(
        "limits: {head_bytes: 4095B}",
        1,
        22,
        "limits.head_bytes",
        "from 4096B",
    );
    refused_as(
        "limits: {head_bytes: 1025KiB}",
        1,
        22,
        "limits.head_bytes",
        "to 1048576B",
    );
    refused_as(
        "limits: {head_bytes: 32768}",
        1,
        22,
        "limits.head_bytes",
        "needs a unit",
    );
    refused_as(
        "limits: {head_bytes: 32KB}",
        1,
        22,
        "limits.head_bytes",
        "not a size",
    );
    refused_as(
        "limits: {head_fields: 0}",
        1,
        23,
        "limits.head_fields",
        "from 1 to 256",
    );
    refused_as(
        "limits: {connections: -1}",
        1,
        23,
        "limits.connections",
        "found -1",
    );
    refused_as(
        "limits: {h2_streams: 1.5}",
        1,
        22,
        "limits.h2_streams",
        "found the number `1.5`",
    );
    refused_as("workers: 0", 1, 10, "workers", "from 1 to 1024");
    assert_eq!(
        with("limits: {head_bytes: 1MiB}")
            .unwrap()
            .limits
            .head_bytes,
        1 << 20
    );
}

#[test]
fn upgrades() {
    for wrong in ["h2c", "H2C", "h2", "HTTP/2.0"] {
        let error = refused(&format!("upgrades: [{wrong}]"));
        assert!(error.message.contains("is refused"), "{error}");
    }
    refused_as(
        "upgrades: [websocket, WebSocket]",
        1,
        23,
        "upgrades[1]",
        "stands twice",
    );
    refused_as(
        "upgrades: [\"a b\"]",
        1,
        12,
        "upgrades[0]",
        "not a protocol name",
    );
    refused_as(
        "upgrades: [\"a/\"]",
        1,
        12,
        "upgrades[0]",
        "not a protocol name",
    );
    assert!(with("upgrades: []").unwrap().upgrades.is_empty());
}

#[test]
fn certificates_and_routes() {
    let error = |text: &str| parse(text).unwrap_err().to_string();
    let ending = error("certificates: {directory: c, default: a.crt}\nroutes: [r]\n");
    assert!(
        ending.contains("1:39: certificates.default: `a.crt` has an ending; write `a`"),
        "{ending}"
    );
    assert!(
        error("certificates: {directory: c, default: a/b}\nroutes: [r]\n")
            .contains("name of a pair")
    );
    let none = error("certificates: {directory: c}\nroutes: []\n");
    let says = "2:9: routes: needs at least 1 item, found 0; only a `registry` has other routes";
    assert!(none.contains(says), "{none}");
    assert!(
        error("certificates: {directory: c}\nroutes: [r, r]\n").contains("this path stands twice")
    );
    assert!(error("certificates: {directory: c}\nroutes: r\n").contains("expected a list"));
    assert!(
        error("certificates: {directory: 7}\nroutes: [r]\n")
            .contains("put quotes around it: \"7\"")
    );
    assert!(error("certificates:\nroutes: [r]\n").contains("1:1: certificates: has no value"));
}

#[test]
fn trusted_proxies() {
    let router = with("trusted_proxies: [10.0.0.0/8, \"::1\"]").unwrap();
    assert!(router.trusted_proxies[0].contains("::ffff:10.1.2.3".parse().unwrap()));
    let bits = "write `10.0.0.0/8`, or `10.0.0.1` for the one address";
    refused_as(
        "trusted_proxies: [10.0.0.1/8]",
        1,
        19,
        "trusted_proxies[0]",
        bits,
    );
    refused_as(
        "trusted_proxies: [edge.example]",
        1,
        19,
        "trusted_proxies[0]",
        "not an address or range",
    );
}

#[test]
fn a_file_that_is_no_mapping() {
    let error = parse("- a\n- b\n").unwrap_err().to_string();
    assert_eq!(
        error,
        "/etc/gatehouse/router.yaml:1:1: expected a mapping of fields, found a list"
    );
}

/// A fault of YAML does not hide the faults of meaning beside it, nor cause more of them.
#[test]
fn faults_of_yaml_and_of_meaning_together() {
    let errors =
        with("access_log: &x true\naccess_log: false\nworkers: !!int 2\nadmn: 1").unwrap_err();
    let fields: Vec<_> = errors
        .errors()
        .iter()
        .map(|error| error.position.line)
        .collect();
    assert_eq!(fields, [1, 2, 3, 4], "{errors}");
}
