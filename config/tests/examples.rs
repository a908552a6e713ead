//! Every file under `examples/` is accepted by its parser and by its schema, and the committed
//! schemas are those of the parser.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use config::cluster::ClusterSpec;
use config::guard::{GuardConfig, PeerFile};
use config::registrar::RegistrarConfig;
use config::roles::Role;
use config::route::{HostMatch, RouteFile, UpstreamTrust};
use config::router::RouterConfig;
use config::{ConfigErrors, document};
use serde_json::Value;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_under(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_under(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn examples() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files_under(&root().join("examples"), &mut found);
    found.sort();
    found
}

/// The kind of a file by its name; a file of unknown kind is a mistake in this folder.
fn kind(path: &Path) -> &'static str {
    let name = path
        .strip_prefix(root().join("examples"))
        .unwrap()
        .to_str()
        .unwrap();
    match name {
        "router.yaml" | "router-minimal.yaml" | "router-registry.yaml" => "router",
        "nodeguard.yaml" => "nodeguard",
        "registrar.yaml" => "registrar",
        "cluster.yaml" | "cluster-single.yaml" => "cluster",
        _ if name.starts_with("routes.d/") => "routes",
        _ if name.starts_with("peers.d/") => "peers",
        _ => panic!("examples/{name} is of no known kind"),
    }
}

fn check(kind: &str, text: &str, file: &Path) -> Result<(), ConfigErrors> {
    match kind {
        "router" => RouterConfig::parse(text, file).map(drop),
        "routes" => RouteFile::parse(text, file).map(drop),
        "nodeguard" => GuardConfig::parse(text, file).map(drop),
        "peers" => PeerFile::parse(text, file).map(drop),
        "registrar" => RegistrarConfig::parse(text, file).map(drop),
        "cluster" => ClusterSpec::parse(text, file).map(drop),
        _ => panic!("no parser for {kind}"),
    }
}

fn schemas() -> BTreeMap<&'static str, Value> {
    config::schema::all().into_iter().collect()
}

#[test]
fn every_example_is_accepted_by_parser_and_schema() {
    let mut seen = BTreeMap::new();
    for path in examples() {
        let text = fs::read_to_string(&path).unwrap();
        let kind = kind(&path);
        *seen.entry(kind).or_insert(0) += 1;
        if let Err(errors) = check(kind, &text, &path) {
            panic!("{}", errors.render());
        }
        let tree = document::parse(&text).root.unwrap().to_json();
        let validator = jsonschema::validator_for(&schemas()[kind]).unwrap();
        let faults: Vec<String> = validator
            .iter_errors(&tree)
            .map(|error| format!("{}: {}: {error}", path.display(), error.instance_path()))
            .collect();
        assert!(faults.is_empty(), "{}", faults.join("\n"));
    }
    let kinds: Vec<_> = schemas().into_keys().collect();
    assert_eq!(
        seen.into_keys().collect::<Vec<_>>(),
        kinds,
        "each kind of file has an example"
    );
}

#[test]
fn the_committed_schemas_are_those_of_the_parser() {
    let folder = root().join("schemas");
    let update = std::env::var_os("UPDATE_SCHEMAS").is_some_and(|value| value == "1");
    let mut names = Vec::new();
    for (name, schema) in config::schema::all() {
        let path = folder.join(format!("{name}.json"));
        if update {
            let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
            fs::write(&path, text).unwrap();
        }
        let committed = fs::read_to_string(&path).unwrap_or_default();
        let committed: Value = serde_json::from_str(&committed).unwrap_or_default();
        assert!(
            committed == schema,
            "{} is stale: run UPDATE_SCHEMAS=1 cargo test -p gatehouse-config --test examples",
            path.display()
        );
        names.push(path);
    }
    let mut found = Vec::new();
    files_under(&folder, &mut found);
    found.sort();
    names.sort();
    assert_eq!(found, names, "a schema of no known kind");
}

/// Every example, damaged at one place in turn, is refused by the schema too where the damage is
/// an unknown field: the schema is as strict as the parser about names.
#[test]
fn parser_and_schema_both_refuse_unknown_fields() {
    for path in examples() {
        let text = fs::read_to_string(&path).unwrap() + "surprise: 1\n";
        let kind = kind(&path);
        let errors = check(kind, &text, &path).unwrap_err();
        assert_eq!(errors.errors().len(), 1, "{errors}");
        assert_eq!(errors.errors()[0].position.line, text.lines().count());
        assert!(
            errors.errors()[0]
                .message
                .contains("unknown field `surprise`")
        );
        let tree = document::parse(&text).root.unwrap().to_json();
        assert!(!jsonschema::is_valid(&schemas()[kind], &tree));
    }
}

/// A comment in the example of everything promises that what it shows is the default.
#[test]
fn the_full_router_example_shows_the_defaults() {
    let read = |name: &str| {
        let path = root().join("examples").join(name);
        RouterConfig::parse(&fs::read_to_string(&path).unwrap(), &path).unwrap()
    };
    let (full, minimal) = (read("router.yaml"), read("router-minimal.yaml"));
    assert_eq!(full.http, minimal.http);
    assert_eq!(full.https, minimal.https);
    assert_eq!(full.timeouts, minimal.timeouts);
    assert_eq!(full.limits, minimal.limits);
    assert_eq!(full.upgrades, minimal.upgrades);
    assert_eq!(full.access_log, minimal.access_log);
    assert_eq!(minimal.admin, None);
    assert_eq!(minimal.workers, None);
    assert!(minimal.trusted_proxies.is_empty());
    assert_eq!(minimal.registry, None);

    let text = "certificates: {directory: certs}\nroutes: []\nregistry:\n  api: {addresses: \
                [\"10.0.0.1:8444\"], certificate: a.crt, key: a.key, client_ca: ca.pem}\n";
    let least = RouterConfig::parse(text, Path::new("router.yaml")).unwrap();
    let (full, least) = (full.registry.unwrap(), least.registry.unwrap());
    assert_eq!(full.store, least.store);
    assert_eq!(full.state, least.state);
    assert_eq!(full.batch, least.batch);
    assert_eq!(full.ticket_rotation, least.ticket_rotation);
    let (full, least) = (full.api.unwrap(), least.api.unwrap());
    assert_eq!(full.requests_per_second, least.requests_per_second);
    assert_eq!(full.routes_per_tenant, least.routes_per_tenant);
    assert_eq!(full.instances_per_tenant, least.instances_per_tenant);
    assert_eq!(full.bytes_per_tenant, least.bytes_per_tenant);
    assert_eq!((least.operators, least.audit_log), (None, None));
}

#[test]
fn the_examples_mean_what_they_say() {
    let text = |name: &str| fs::read_to_string(root().join("examples").join(name)).unwrap();
    let file = Path::new("/etc/gatehouse/routes.d/acme.yaml");
    let acme = RouteFile::parse(&text("routes.d/acme.yaml"), file).unwrap();
    assert_eq!(
        acme.routes[0].host,
        HostMatch::Suffix("-apps-7.k8s.example.org".into())
    );
    assert_eq!(
        acme.upstreams[0].tls.as_ref().unwrap().trust,
        UpstreamTrust::Ca("/etc/gatehouse/routes.d/../ca/acme-7.pem".into())
    );
    let guard = GuardConfig::parse(&text("nodeguard.yaml"), Path::new("nodeguard.yaml")).unwrap();
    let extra: Vec<u16> = guard.extra_ports.iter().map(|extra| extra.port).collect();
    assert_eq!(extra, [9100, 8472]);
    let cluster = ClusterSpec::parse(&text("cluster-single.yaml"), file).unwrap();
    let roles: Vec<Role> = cluster.hosts().map(|(role, _)| role).collect();
    assert_eq!(roles, [Role::Single]);
    assert!(cluster.tolerates_no_master_loss());
}
