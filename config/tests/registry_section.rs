//! `registry:` of `router.yaml`: what is accepted, what it means, and what is refused.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::time::Duration;

use config::ConfigErrors;
use config::router::{EtcdStore, RegistryApi, RegistryConfig, RegistryStore, RouterConfig};

const ETCD: &str = "registry:
  store:
    etcd:
      endpoints: [\"https://10.0.0.1:2379\", \"https://10.0.0.2:2379\"]
      ca: etcd.pem
      certificate: etcd.crt
      key: etcd.key
";

const API: &str = "registry:
  api:
    addresses: [\"10.0.0.11:8444\"]
    certificate: registry.crt
    key: registry.key
    client_ca: tenants.pem
";

fn parse(registry: &str) -> Result<RouterConfig, ConfigErrors> {
    let text = format!("{registry}certificates: {{directory: certs}}\nroutes: []\n");
    RouterConfig::parse(&text, Path::new("/etc/gatehouse/router.yaml"))
}

#[track_caller]
fn read(registry: &str) -> RegistryConfig {
    parse(registry).unwrap().registry.unwrap()
}

/// The text with one stretch replaced must be refused with one error that says this.
#[track_caller]
fn refused(text: &str, (from, to): (&str, &str), says: &str) {
    assert!(text.contains(from), "`{from}` does not stand in the text");
    let errors = parse(&text.replacen(from, to, 1)).unwrap_err();
    assert_eq!(errors.errors().len(), 1, "{errors}");
    assert!(errors.to_string().contains(says), "{errors}");
}

#[test]
fn defaults() {
    let expected = RegistryConfig {
        api: None,
        store: RegistryStore::Embedded,
        state: "/var/lib/gatehouse/router".into(),
        batch: Duration::from_millis(50),
        ticket_rotation: Duration::from_secs(6 * 3600),
    };
    assert_eq!(read("registry: {}\n"), expected);
    assert_eq!(read("registry: {store: embedded}\n"), expected);
    let api = RegistryApi {
        addresses: vec!["10.0.0.11:8444".parse().unwrap()],
        certificate: "/etc/gatehouse/registry.crt".into(),
        key: "/etc/gatehouse/registry.key".into(),
        client_ca: Some("/etc/gatehouse/tenants.pem".into()),
        client_crl: None,
        operators: None,
        audit_log: None,
        requests_per_second: 50,
        routes_per_tenant: 1000,
        instances_per_tenant: 1000,
        bytes_per_tenant: 64 << 20,
    };
    assert_eq!(read(API).api, Some(api));
    let etcd = EtcdStore {
        endpoints: vec![
            "https://10.0.0.1:2379".into(),
            "https://10.0.0.2:2379".into(),
        ],
        ca: "/etc/gatehouse/etcd.pem".into(),
        certificate: "/etc/gatehouse/etcd.crt".into(),
        key: "/etc/gatehouse/etcd.key".into(),
        prefix: "/gatehouse/".into(),
        compaction: Duration::from_secs(600),
    };
    assert_eq!(read(ETCD).store, RegistryStore::Etcd(etcd));
}

#[test]
fn everything_said() {
    let text = format!(
        "{API}    operators: /o\n    audit_log: log/audit\n    requests_per_second: 7\n    \
         routes_per_tenant: 9\n    instances_per_tenant: 8\n    bytes_per_tenant: 1MiB\n  state: s\n  batch: 0\n  ticket_rotation: 1m\n"
    );
    let registry = read(&text);
    let api = registry.api.unwrap();
    assert_eq!(api.operators, Some("/o".into()));
    assert_eq!(api.audit_log, Some("/etc/gatehouse/log/audit".into()));
    assert_eq!((api.requests_per_second, api.routes_per_tenant), (7, 9));
    assert_eq!(
        (api.instances_per_tenant, api.bytes_per_tenant),
        (8, 1 << 20)
    );
    assert_eq!(registry.state, Path::new("/etc/gatehouse/s"));
    assert_eq!(registry.batch, Duration::ZERO);
    assert_eq!(registry.ticket_rotation, Duration::from_secs(60));
}

#[test]
fn listeners_do_not_overlap() {
    refused(
        API,
        ("10.0.0.11:8444", "10.0.0.11:443"),
        "3:17: registry.api.addresses[0]: 10.0.0.11:443 overlaps 0.0.0.0:443",
    );
    refused(
        API,
        ("\"10.0.0.11:8444\"", "\"10.0.0.11:8444\", \"0.0.0.0:8444\""),
        "registry.api.addresses[1]: 0.0.0.0:8444 overlaps 10.0.0.11:8444",
    );
    let text = format!("admin: 127.0.0.1:8444\n{API}");
    refused(
        &text,
        ("10.0.0.11:8444", "0.0.0.0:8444"),
        "registry.api.addresses[0]: 0.0.0.0:8444 overlaps 127.0.0.1:8444 (admin in line 1)",
    );
    assert!(parse(&API.replace("10.0.0.11:8444", "10.0.0.11:8445")).is_ok());
}

#[test]
fn api() {
    refused(
        API,
        ("\"10.0.0.11:8444\"", ""),
        "registry.api.addresses: needs 1 to 64 items",
    );
    refused(
        API,
        ("    key: registry.key\n", ""),
        "3:5: registry.api: missing field `key`; PEM file of its private key",
    );
    refused(
        API,
        ("client_ca: tenants.pem", "requests_per_second: 0"),
        "api.requests_per_second: must be from 1 to 100000",
    );
    let last = "client_ca: tenants.pem";
    refused(
        API,
        (last, "client_ca: t\n    routes_per_tenant: 1000001"),
        "api.routes_per_tenant: must be from 1 to 1000000",
    );
    refused(
        API,
        (last, "client_ca: t\n    instances_per_tenant: 0"),
        "api.instances_per_tenant: must be from 1 to 1000000",
    );
    refused(
        API,
        (last, "client_ca: t\n    bytes_per_tenant: 1KiB"),
        "api.bytes_per_tenant: must be from 1048576B to 1073741824B",
    );
    refused(
        API,
        (last, "operators: o\n    client_crl: t.crl"),
        "api.client_crl: revokes nothing without `client_ca`; name the authorities",
    );
    let revoking = API.replace(last, "client_ca: t\n    client_crl: t.crl");
    let revoking = parse(&revoking).unwrap().registry.unwrap().api.unwrap();
    assert_eq!(revoking.client_crl, Some("/etc/gatehouse/t.crl".into()));
    let nobody = API.replace("    client_ca: tenants.pem\n", "");
    refused(
        &nobody,
        ("registry:", "registry:"),
        "registry.api: lets no operator in; give `client_ca`, `operators` or both",
    );
    // Another router of the cluster may have issued tokens.
    assert!(parse(&format!("{ETCD}{}", &nobody["registry:\n".len()..])).is_ok());
}

#[test]
fn store() {
    let text = "registry: {store: embedded}\n";
    refused(
        text,
        ("embedded", "etcd"),
        "1:19: registry.store: `etcd` needs its endpoints and certificates; write",
    );
    refused(
        text,
        ("embedded", "embeded"),
        "registry.store: unknown value `embeded`; did you mean `embedded`?",
    );
    refused(
        text,
        ("embedded", "[a]"),
        "expected `embedded` or a mapping with `etcd`",
    );
    refused(
        text,
        ("embedded", "{}"),
        "registry.store: missing field `etcd`",
    );
    refused(text, ("embedded", ""), "registry.store: has no value");
    refused(
        ETCD,
        ("https://10.0.0.2", "http://10.0.0.2"),
        "store.etcd.endpoints[1]: `http://10.0.0.2:2379` does not begin with https://",
    );
    refused(
        ETCD,
        ("10.0.0.2", "10.0.0.1"),
        "store.etcd.endpoints[1]: this endpoint stands twice",
    );
    refused(
        ETCD,
        ("      key: etcd.key\n", ""),
        "registry.store.etcd: missing field `key`",
    );
    for wrong in [
        "gatehouse/",
        "/gatehouse",
        "/",
        "//",
        "/a//b/",
        "/ä/",
        "/a b/",
    ] {
        let to = format!("key: k\n      prefix: \"{wrong}\"");
        refused(ETCD, ("key: etcd.key", &to), "is not a prefix of keys");
    }
    refused(
        ETCD,
        ("key: etcd.key", "key: k\n      compaction: 30s"),
        "store.etcd.compaction: ",
    );
    let never = ETCD.replace("key: etcd.key", "key: k\n      compaction: 0");
    let RegistryStore::Etcd(never) = read(&never).store else {
        panic!("it is etcd")
    };
    assert_eq!(never.compaction, Duration::ZERO);
    let nested = ETCD.replace("key: etcd.key", "key: k\n      prefix: /edge/eu-1/");
    assert!(parse(&nested).is_ok());
}

#[test]
fn times() {
    let text = "registry: {batch: 50ms, ticket_rotation: 6h}\n";
    refused(
        text,
        ("50ms", "6s"),
        "registry.batch: must be from 1ms to 5s, or 0 for none",
    );
    refused(
        text,
        ("6h", "59s"),
        "registry.ticket_rotation: must be from 1m to 24h",
    );
    refused(
        text,
        ("6h", "25h"),
        "registry.ticket_rotation: must be from 1m to 24h",
    );
}

#[test]
fn names_are_as_strict_as_elsewhere() {
    refused(
        "registry: {state: s}\n",
        ("state", "stat"),
        "registry: unknown field `stat`; did you mean `state`?",
    );
    refused(
        ETCD,
        ("ca: etcd.pem", "ca: etcd.pem\n      tls: true"),
        "registry.store.etcd: unknown field `tls`",
    );
}
