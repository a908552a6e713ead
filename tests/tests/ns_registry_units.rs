//! The router's and the registrar's units on a real host, as an administrator installs them.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::path::Path;

use harness::ca::{Ca, KeyKind};
use harness::namespace::Network;
use harness::real_host::{RealHost, Root};
use harness::{program, wait};

const ETC: &str = "/etc/gatehouse";
const AUDIT_LOG: &str = "/var/log/gatehouse/audit.jsonl";
const UNITS: [&str; 2] = ["gatehouse-router.service", "gatehouse-registrar.service"];

/// Needs the network, other processes, netlink, and memory to compile into: what a sandbox takes
/// away first.
const SCRIPT: &str = "#!/bin/sh\n\
    set -e\n\
    test \"$(id -un)\" = gatehouse\n\
    ss -Hltn | grep -q ':22 '\n\
    ip -brief address show lo | grep -q 127.0.0.1\n\
    getent hosts localhost >/dev/null\n\
    echo x >/tmp/health-of-the-registrar\n\
    if echo x >/var/tmp/../../etc/written 2>/dev/null; then exit 9; fi\n\
    test -r /proc/1/comm\n";

fn install(host: &RealHost) {
    let systemd = Path::new(env!("CARGO_MANIFEST_DIR")).join("../router/systemd");
    let router = program::binary("router").unwrap();
    host.copy_in(&router, "/usr/local/bin/router", 0o755)
        .unwrap();
    for unit in UNITS {
        let place = format!("/etc/systemd/system/{unit}");
        host.copy_in(&systemd.join(unit), &place, 0o644).unwrap();
        host.enable(unit).unwrap();
    }
    let users = systemd.join("gatehouse.sysusers.conf");
    host.copy_in(&users, "/usr/lib/sysusers.d/gatehouse.conf", 0o644)
        .unwrap();

    let ca = Ca::new("throw-away authority of the units").unwrap();
    let etc = |name: &str, text: &str, mode| {
        host.write(&format!("{ETC}/{name}"), text.as_bytes(), mode)
            .unwrap();
    };
    let ip = host.host().v4;
    let api = ca.issue(&[&ip.to_string()], KeyKind::Ecdsa).unwrap();
    let shop = ca.issue(&["*.acme.example.org"], KeyKind::Ecdsa).unwrap();
    etc("ca.pem", ca.pem(), 0o644);
    for (name, leaf) in [("registry", api), ("certs/acme", shop)] {
        etc(&format!("{name}.crt"), &leaf.chain, 0o644);
        etc(&format!("{name}.key"), &leaf.key, 0o600);
    }
    etc(
        "router.yaml",
        &format!(
            "http: {{addresses: [\"{ip}:80\"]}}\nhttps: {{addresses: [\"{ip}:443\"]}}\n\
             certificates: {{directory: certs}}\nroutes: []\nworkers: 1\n\
             registry:\n  state: /var/lib/gatehouse/router\n  api:\n    addresses: [\"{ip}:8444\"]\n\
             \x20   certificate: registry.crt\n    key: registry.key\n    operators: operators\n\
             \x20   audit_log: {AUDIT_LOG}\n"
        ),
        0o644,
    );
    etc(
        "registrar.yaml",
        &format!(
            "tenant: acme\nregistries: [\"https://{ip}:8444\"]\nca: ca.pem\n\
             credentials: {{token: acme.token}}\nroutes:\n\
             - host: shop.acme.example.org\n  endpoint: \"{ip}:22\"\n\
             \x20 check: {{kind: script, command: [/usr/local/bin/healthy], interval: 1s, timeout: 1s}}\n"
        ),
        0o644,
    );
    host.write("/usr/local/bin/healthy", SCRIPT.as_bytes(), 0o755)
        .unwrap();
}

/// `router registry` on the host, as the operator.
fn registry(host: &RealHost, arguments: &[&str]) -> harness::tool::Output {
    let api = format!("https://{}:8444", host.host().v4);
    let mut line = vec!["router", "registry"];
    line.extend(arguments);
    line.extend(["--registry", &api, "--ca", "/etc/gatehouse/ca.pem"]);
    line.extend(["--token-file", "/etc/gatehouse/me.token"]);
    host.run(&line).unwrap()
}

#[test]
fn both_units_work_as_they_are_installed() {
    let root = Root::get().unwrap();
    let mut network = Network::new().unwrap();
    let mut host = RealHost::new(&root, network.host("w1").unwrap()).unwrap();
    install(&host);
    // They fail until there are a user and a token, and come up by themselves then.
    host.switch_on().unwrap();
    wait::until_true("systemd to answer", || {
        host.run(&["systemctl", "is-active", "sysinit.target"])
            .is_ok_and(|it| it.status.success())
    })
    .unwrap();
    host.succeed(&["systemd-sysusers"]).unwrap();
    let create = ["router", "registry", "token", "create", "--operator", "me"];
    let files = [
        "--file",
        "/etc/gatehouse/operators",
        "--output",
        "/etc/gatehouse/me.token",
    ];
    host.succeed(&[&create[..], &files].concat()).unwrap();
    host.succeed(&["chown", "-R", "gatehouse:", ETC]).unwrap();
    let units = UNITS.map(|unit| format!("/etc/systemd/system/{unit}"));
    let verified = host
        .run(&["systemd-analyze", "verify", &units[0], &units[1]])
        .unwrap();
    assert!(
        verified.status.success() && verified.stderr.is_empty(),
        "{verified:?}"
    );

    host.succeed(&["systemctl", "restart", UNITS[0]]).unwrap();
    let zone = ["zone", "add", "acme", "*.acme.example.org", "--address"];
    let address = host.host().v4.to_string();
    wait::until_true("the registry", || {
        registry(&host, &[&zone[..], &[&address]].concat())
            .status
            .success()
    })
    .unwrap();
    let token = [
        "token",
        "create",
        "--tenant",
        "acme",
        "--output",
        "/etc/gatehouse/acme.token",
    ];
    assert!(registry(&host, &token).status.success());
    host.succeed(&["chown", "gatehouse:", "/etc/gatehouse/acme.token"])
        .unwrap();
    host.succeed(&["systemctl", "restart", UNITS[1]]).unwrap();
    let listed = || registry(&host, &["instance", "list", "--json"]).stdout;
    let journal = || host.journal(UNITS[1]).unwrap();
    wait::until_true("the announcement", || {
        listed().contains("shop.acme.example.org")
    })
    .unwrap_or_else(|error| panic!("{error}: {}", journal()));
    // Named after its host.
    assert!(listed().contains("\"w1\""), "{}", listed());
    let show = |property: &str| {
        let property = format!("--property={property}");
        host.succeed(&["systemctl", "show", "--value", &property, UNITS[1]])
            .unwrap()
    };
    assert!(
        show("StatusText").starts_with("1 of 1 routes announced"),
        "{}",
        show("StatusText")
    );
    host.succeed(&["systemctl", "reload", UNITS[1]]).unwrap();
    wait::until_true("the reload", || journal().contains("configuration loaded")).unwrap();
    assert!(listed().contains("shop.acme.example.org"));
    // The unit's folders are there, for nobody else's eyes, and an administrator may ask.
    let check = "router check --config /etc/gatehouse/router.yaml";
    host.succeed(&["runuser", "-u", "gatehouse", "--", "sh", "-c", check])
        .unwrap();
    let audit = host.succeed(&["cat", AUDIT_LOG]).unwrap();
    assert!(
        audit.contains("shop.acme.example.org") || audit.contains("\"w1\""),
        "{audit}"
    );
    let modes = host.succeed(&["stat", "--format=%a %U", "/var/log/gatehouse", AUDIT_LOG]);
    assert_eq!(modes.unwrap().trim(), "700 gatehouse\n600 gatehouse");
    // It withdraws before it has stopped.
    host.succeed(&["systemctl", "stop", UNITS[1]]).unwrap();
    assert_eq!(listed().trim(), "[]");
    assert_eq!(show("Result").trim(), "success");
    host.succeed(&["systemctl", "stop", UNITS[0]]).unwrap();
    host.shutdown().unwrap();
}
