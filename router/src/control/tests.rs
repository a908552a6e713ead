//! Loading, interning, publishing and watching, with real files.

mod checks;
mod registry;
mod registry_beside_files;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use daemon::watch::WatchOptions;
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use super::build::build_once;
use super::watch::watch;
use super::{Control, Outcome};
use crate::observe::metrics::Registry;
use crate::route::Host;
use crate::upstream::Upstream;

/// A folder with `router.yaml`, one route file and one certificate.
pub(crate) struct Files(TempDir);

impl Files {
    pub(crate) fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        fs::create_dir(files.path("certs")).unwrap();
        fs::create_dir(files.path("routes.d")).unwrap();
        files.certificate("site", &["www.example.org", "*.acme.example.org"]);
        files.router("");
        files.write(
            "routes.d/acme.yaml",
            &routes("acme", "www.example.org", "127.0.0.1:1"),
        );
        files
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("router.yaml")
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        // As editors and deployments do: a reader never sees half of it.
        let (new, file) = (self.path("written.tmp"), self.path(name));
        fs::write(&new, text).unwrap();
        fs::rename(new, file).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Writes `router.yaml`, with more lines at its end.
    pub(crate) fn router(&self, more: &str) {
        let text = format!("certificates:\n  directory: certs\nroutes: [routes.d]\n{more}");
        self.write("router.yaml", &text);
    }

    pub(crate) fn certificate(&self, pair: &str, names: &[&str]) {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        self.write(
            &format!("certs/{pair}.key"),
            &made.signing_key.serialize_pem(),
        );
        let key = self.path(&format!("certs/{pair}.key"));
        fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
        self.write(&format!("certs/{pair}.crt"), &made.cert.pem());
    }

    fn control(&self) -> Control {
        let registry = Arc::new(Registry::new(SystemTime::now()));
        Control::start(&self.config(), registry).unwrap()
    }
}

pub(crate) fn routes(tenant: &str, host: &str, endpoint: &str) -> String {
    format!(
        "tenant: {tenant}\nupstreams:\n  web:\n    endpoints: [\"{endpoint}\"]\n\
         routes:\n  - host: \"{host}\"\n    upstream: web\n"
    )
}

fn upstream(control: &Control, host: &str) -> Option<Arc<Upstream>> {
    let snapshot = control.published().load();
    let target = snapshot.routes.lookup(&Host::parse(host).unwrap())?;
    Some(Arc::clone(&target.upstream))
}

#[test]
fn the_errors_of_all_files_come_at_once() {
    let files = Files::new();
    files.write("routes.d/bad.yaml", "tenant: x\nroutez: []\n");
    files.write(
        "routes.d/twice.yaml",
        &routes("other", "www.example.org", "127.0.0.1:1"),
    );
    let tls = "\"]\n    tls:\n      server_name: x.example\n      ca: ../nowhere.pem\n";
    let text = routes("third", "third.example.org", "127.0.0.1:1").replace("\"]\n", tls);
    files.write("routes.d/ca.yaml", &text);
    fs::set_permissions(
        files.path("certs/site.key"),
        fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let errors = build_once(&files.config(), SystemTime::now())
        .err()
        .unwrap();
    let text = errors.to_string();
    for part in [
        "bad.yaml:2:1: unknown field `routez`",
        "twice.yaml:6:",
        "ca.yaml:1:1: upstreams.web.tls.ca: ",
        "nowhere.pem cannot be read",
        "site.key",
        "www.example.org is already owned by tenant acme",
    ] {
        assert!(text.contains(part), "{part:?} is missing in\n{text}");
    }
}

#[test]
fn a_missing_router_yaml_is_one_clear_error() {
    let file = Path::new("/nonexistent/router.yaml");
    let errors = build_once(file, SystemTime::now()).err().unwrap();
    assert_eq!(errors.errors().len(), 1);
    assert!(
        errors
            .to_string()
            .starts_with("/nonexistent/router.yaml:1:1: cannot be read")
    );
}

#[test]
fn a_file_named_twice_is_read_once_and_other_files_are_left_alone() {
    let files = Files::new();
    files.router("");
    files.write(
        "router.yaml",
        "certificates:\n  directory: certs\nroutes: [routes.d, routes.d/acme.yaml]\n",
    );
    files.write("routes.d/.hidden.yaml", "}");
    files.write("routes.d/README", "}");
    let built = build_once(&files.config(), SystemTime::now()).unwrap();
    assert_eq!((built.route_files(), built.tenants()), (1, 1));
    assert_eq!(built.snapshot.routes.len(), 1);
}

#[test]
fn upstreams_without_routes_and_certificates_that_end_soon_are_warnings() {
    let files = Files::new();
    let unused = "  spare:\n    endpoints: [\"127.0.0.1:2\"]\nroutes:";
    let text = routes("acme", "www.example.org", "127.0.0.1:1").replace("routes:", unused);
    files.write("routes.d/acme.yaml", &text);
    let end = build_once(&files.config(), SystemTime::now())
        .unwrap()
        .size()
        .soonest_expiry
        .unwrap();
    let built = build_once(&files.config(), end - Duration::from_secs(3600)).unwrap();
    let warnings = built.warnings.join("\n");
    assert!(
        warnings.contains("upstreams.spare: no route leads to it"),
        "{warnings}"
    );
    assert!(warnings.contains("site.crt: expires on"), "{warnings}");
}

#[test]
fn an_unchanged_load_publishes_nothing() {
    let files = Files::new();
    let control = files.control();
    let before = control.published().load_full();
    let report = control.reload().unwrap();
    assert!(!report.changed);
    assert!(Arc::ptr_eq(&before, &control.published().load()));
}

#[test]
fn what_did_not_change_keeps_its_id_and_what_did_gets_a_new_one() {
    let files = Files::new();
    files.write(
        "routes.d/globex.yaml",
        &routes("globex", "globex.example.org", "127.0.0.1:1"),
    );
    let control = files.control();
    let acme = upstream(&control, "www.example.org").unwrap();
    let globex = upstream(&control, "globex.example.org").unwrap();
    assert_ne!(
        acme.endpoints[0].id, globex.endpoints[0].id,
        "tenants share no endpoint"
    );

    // One more endpoint: another upstream, but the endpoint that stayed keeps its connections.
    let more = routes(
        "globex",
        "globex.example.org",
        "127.0.0.1:1\", \"127.0.0.1:2",
    );
    files.write("routes.d/globex.yaml", &more);
    assert!(control.reload().unwrap().changed);
    let grown = upstream(&control, "globex.example.org").unwrap();
    assert!(Arc::ptr_eq(
        &acme,
        &upstream(&control, "www.example.org").unwrap()
    ));
    assert_ne!(globex.id, grown.id);
    assert!(Arc::ptr_eq(&globex.endpoints[0], &grown.endpoints[0]));

    // Another protocol: nothing of it may be used again.
    let http2 = more.replace("    endpoints", "    protocol: http2\n    endpoints");
    files.write("routes.d/globex.yaml", &http2);
    control.reload().unwrap();
    let changed = upstream(&control, "globex.example.org").unwrap();
    assert_ne!(changed.endpoints[0].id, grown.endpoints[0].id);
    assert_ne!(changed.endpoints[1].id, grown.endpoints[1].id);

    // Ids are not used again, either.
    files.write(
        "routes.d/globex.yaml",
        &routes("globex", "globex.example.org", "127.0.0.1:1"),
    );
    control.reload().unwrap();
    let back = upstream(&control, "globex.example.org").unwrap();
    assert!(back.id > changed.id);
}

#[test]
fn new_authorities_in_the_same_file_are_another_upstream() {
    let files = Files::new();
    let authority = || {
        rcgen::generate_simple_self_signed(["ca".to_owned()])
            .unwrap()
            .cert
            .pem()
    };
    files.write("ca.pem", &authority());
    let tls = "\"]\n    tls:\n      server_name: ingress.example\n      ca: ../ca.pem\n";
    let text = routes("acme", "www.example.org", "127.0.0.1:1").replace("\"]\n", tls);
    files.write("routes.d/acme.yaml", &text);
    let control = files.control();
    let before = upstream(&control, "www.example.org").unwrap();
    assert!(!control.reload().unwrap().changed);
    files.write("ca.pem", &authority());
    assert!(control.reload().unwrap().changed);
    let after = upstream(&control, "www.example.org").unwrap();
    assert_ne!(before.endpoints[0].id, after.endpoints[0].id);
    assert!(
        control
            .sources()
            .iter()
            .any(|source| source.ends_with("ca.pem"))
    );
}

#[test]
fn a_bad_reload_leaves_everything_as_it_was_and_says_why() {
    let files = Files::new();
    let control = files.control();
    let before = control.published().load_full();
    for (file, text) in [
        ("routes.d/acme.yaml", "tenant: acme\nroutes: {\n"),
        ("router.yaml", "certificates: 7\n"),
        ("certs/site.crt", "rubbish"),
    ] {
        let good = fs::read_to_string(files.path(file)).unwrap();
        files.write(file, text);
        let errors = control.reload().unwrap_err();
        assert!(
            errors
                .to_string()
                .contains(file.rsplit('/').next().unwrap()),
            "{errors}"
        );
        assert!(Arc::ptr_eq(&before, &control.published().load()), "{file}");
        assert!(matches!(control.status().outcome, Outcome::Refused(_)));
        files.write(file, &good);
        assert!(!control.reload().unwrap().changed, "{file}");
    }
}

#[test]
fn settings_of_sockets_and_threads_need_a_restart_and_the_rest_does_not() {
    let files = Files::new();
    let control = files.control();
    files.router(
        "workers: 3\nadmin: 127.0.0.1:9180\naccess_log: false\nhttp:\n  redirect: 301\nregistry: {}\n",
    );
    let report = control.reload().unwrap();
    assert_eq!(report.needs_restart, ["workers", "admin", "registry"]);
    assert!(report.changed);
    assert!(!control.published().load().settings.access_log);
}

/// Runs the watcher, changes files, and waits until a predicate holds.
fn watched(files: &Files, poll: Duration, change: impl FnOnce(), done: impl Fn(&Control) -> bool) {
    let control = Arc::new(files.control());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let options = WatchOptions {
        debounce: Duration::from_millis(20),
        poll,
    };
    runtime.block_on(async {
        let hangup = signal(SignalKind::hangup()).unwrap();
        let task = tokio::spawn(watch(Arc::clone(&control), hangup, options));
        // Let it set its watches.
        tokio::time::sleep(Duration::from_millis(50)).await;
        change();
        let end = Instant::now() + Duration::from_secs(20);
        while !done(&control) {
            assert!(Instant::now() < end, "not noticed: {:?}", control.status());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        task.abort();
    });
}

const NEVER: Duration = Duration::from_secs(3600);

#[test]
fn a_renamed_file_is_noticed_by_notification() {
    let files = Files::new();
    let change = || {
        files.write(
            "routes.d/new.yaml",
            &routes("new", "new.example.org", "127.0.0.1:1"),
        );
    };
    watched(&files, NEVER, change, |control| {
        upstream(control, "new.example.org").is_some()
    });
}

#[test]
fn a_file_that_is_refused_and_mended_is_loaded() {
    let files = Files::new();
    let change = || {
        files.write("routes.d/new.yaml", "tenant: [");
        std::thread::sleep(Duration::from_millis(200));
        files.write(
            "routes.d/new.yaml",
            &routes("new", "new.example.org", "127.0.0.1:1"),
        );
    };
    watched(&files, NEVER, change, |control| {
        upstream(control, "new.example.org").is_some()
    });
}

#[test]
fn a_swapped_link_is_noticed_as_kubernetes_swaps_it() {
    for poll in [NEVER, Duration::from_millis(50)] {
        let files = Files::new();
        let mount = files.path("routes.d");
        fs::remove_file(mount.join("acme.yaml")).unwrap();
        for (version, host) in [("..1", "one.example.org"), ("..2", "two.example.org")] {
            fs::create_dir(mount.join(version)).unwrap();
            let text = routes("acme", host, "127.0.0.1:1");
            fs::write(mount.join(version).join("acme.yaml"), text).unwrap();
        }
        symlink("..1", mount.join("..data")).unwrap();
        symlink("..data/acme.yaml", mount.join("acme.yaml")).unwrap();
        let change = || {
            symlink("..2", mount.join("..data_tmp")).unwrap();
            fs::rename(mount.join("..data_tmp"), mount.join("..data")).unwrap();
        };
        watched(&files, poll, change, |control| {
            upstream(control, "two.example.org").is_some()
        });
    }
}

#[test]
fn a_change_behind_a_link_is_noticed_by_polling() {
    let files = Files::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let file = elsewhere.path().join("acme.yaml");
    fs::write(&file, routes("acme", "one.example.org", "127.0.0.1:1")).unwrap();
    fs::remove_file(files.path("routes.d/acme.yaml")).unwrap();
    symlink(&file, files.path("routes.d/acme.yaml")).unwrap();
    let change = || fs::write(&file, routes("acme", "two.example.org", "127.0.0.1:1")).unwrap();
    watched(&files, Duration::from_millis(100), change, |control| {
        upstream(control, "two.example.org").is_some()
    });
}
