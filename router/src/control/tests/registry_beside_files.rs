//! Files beat the registry, both ways round and in any order.

use super::registry::{counts, gone, host, route, set};
use super::{Files, routes, upstream};
use crate::control::{Control, FileConflict, LeftOutReason};

/// Why a route is left out.
fn why(control: &Control, name: &str) -> Option<FileConflict> {
    let shown = control.registry_status(usize::MAX).shown;
    let found = shown.into_iter().find(|it| it.host == host(name))?;
    match found.why {
        LeftOutReason::File(conflict) => Some(conflict),
        other => panic!("{other}"),
    }
}

fn tenant_of(control: &Control, name: &str) -> Option<String> {
    Some(upstream(control, name)?.tenant.to_string())
}

/// A file for a tenant and rules, in place of the one before.
fn write(files: &Files, tenant: &str, rules: &[&str]) {
    let mut text = format!(
        "tenant: {tenant}\nupstreams:\n  web:\n    endpoints: [\"127.0.0.1:1\"]\nroutes:\n"
    );
    for rule in rules {
        let (rule, shared) = match rule.strip_suffix(" shared") {
            Some(rule) => (rule, "    shared: true\n"),
            None => (*rule, ""),
        };
        text += &format!("  - host: \"{rule}\"\n    upstream: web\n{shared}");
    }
    files.write(&format!("routes.d/{tenant}.yaml"), &text);
}

fn announce(control: &Control, tenant: &str, name: &str) {
    set(control, route(tenant, name, &["10.0.0.1:80"]));
}

#[test]
fn a_name_that_stands_in_a_file_is_left_out_whoever_announces_it() {
    let files = Files::new();
    let control = files.control();
    for tenant in ["globex", "acme"] {
        announce(&control, tenant, "www.example.org");
        assert_eq!(tenant_of(&control, "www.example.org").unwrap(), "acme");
        assert_eq!(counts(&control), (0, 1));
        let conflict = why(&control, "www.example.org").unwrap();
        assert!(matches!(&conflict, FileConflict::Same(rule) if rule.line == 6));
        assert!(
            conflict.to_string().starts_with("it stands in a file: "),
            "{conflict}"
        );
        let asked = control.file_conflict(&host("www.example.org"), tenant, false);
        assert_eq!(asked, Some(conflict));
    }
    // The file lets go of it: the registry's comes in force, and the last one that it said.
    write(&files, "acme", &["else.example.org"]);
    control.reload().unwrap();
    assert_eq!(tenant_of(&control, "www.example.org").unwrap(), "acme");
    assert_eq!(
        &*upstream(&control, "www.example.org").unwrap().name,
        "registry"
    );
    assert_eq!(counts(&control), (1, 0));
    assert_eq!(
        control.file_conflict(&host("www.example.org"), "globex", false),
        None
    );
}

#[test]
fn a_route_that_is_left_out_and_goes_does_not_come_back() {
    let files = Files::new();
    let control = files.control();
    announce(&control, "globex", "www.example.org");
    gone(&control, "www.example.org");
    assert_eq!(counts(&control), (0, 0));
    write(&files, "acme", &["else.example.org"]);
    control.reload().unwrap();
    assert!(upstream(&control, "www.example.org").is_none());
}

#[test]
fn within_another_tenants_suffix_of_a_file_only_if_it_is_shared() {
    let files = Files::new();
    write(&files, "acme", &["*.example.org"]);
    let control = files.control();
    announce(&control, "globex", "shop.example.org");
    announce(&control, "globex", "*-7.example.org");
    announce(&control, "globex", "deep.shop.example.org");
    announce(&control, "acme", "own.example.org");
    assert_eq!(counts(&control), (2, 2));
    assert!(matches!(
        why(&control, "shop.example.org"),
        Some(FileConflict::Within(_))
    ));
    assert!(matches!(
        why(&control, "*-7.example.org"),
        Some(FileConflict::Within(_))
    ));
    assert_eq!(tenant_of(&control, "shop.example.org").unwrap(), "acme");

    write(&files, "acme", &["*.example.org shared"]);
    control.reload().unwrap();
    assert_eq!(counts(&control), (4, 0));
    assert_eq!(tenant_of(&control, "shop.example.org").unwrap(), "globex");
    let own = upstream(&control, "own.example.org").unwrap();

    // And back: what is in force goes out of force again, and is still the same when it comes back.
    let shop = upstream(&control, "shop.example.org").unwrap();
    write(&files, "acme", &["*.example.org"]);
    control.reload().unwrap();
    assert_eq!(counts(&control), (2, 2));
    assert_eq!(tenant_of(&control, "shop.example.org").unwrap(), "acme");
    write(&files, "acme", &["*.example.org shared"]);
    control.reload().unwrap();
    assert!(std::sync::Arc::ptr_eq(
        &shop,
        &upstream(&control, "shop.example.org").unwrap()
    ));
    assert!(std::sync::Arc::ptr_eq(
        &own,
        &upstream(&control, "own.example.org").unwrap()
    ));
}

#[test]
fn a_suffix_that_takes_another_tenants_name_in_a_file_only_if_it_is_shared() {
    let files = Files::new();
    let control = files.control();
    let mut suffix = route("globex", "*.example.org", &["10.0.0.1:80"]);
    set(&control, suffix.clone());
    assert_eq!(counts(&control), (0, 1));
    let conflict = why(&control, "*.example.org").unwrap();
    assert!(matches!(&conflict, FileConflict::Above(rule) if &*rule.tenant == "acme"));
    let asked = |shared| control.file_conflict(&host("*.example.org"), "globex", shared);
    assert_eq!((asked(false), asked(true)), (Some(conflict), None));

    suffix.shared = true;
    set(&control, suffix.clone());
    assert_eq!(counts(&control), (1, 0));
    assert_eq!(tenant_of(&control, "www.example.org").unwrap(), "acme");
    assert_eq!(tenant_of(&control, "other.example.org").unwrap(), "globex");

    // The tenant's own names in files are no obstacle, those of a second tenant are.
    suffix.shared = false;
    write(&files, "acme", &["www.example.net"]);
    write(&files, "globex", &["www.example.org"]);
    control.reload().unwrap();
    set(&control, suffix);
    assert_eq!(counts(&control), (1, 0));
    write(&files, "third", &["x.example.org"]);
    control.reload().unwrap();
    assert_eq!(counts(&control), (0, 1));
    assert!(upstream(&control, "other.example.org").is_none());
    files.remove("routes.d/third.yaml");
    control.reload().unwrap();
    assert_eq!(counts(&control), (1, 0));
}

#[test]
fn a_reload_that_brings_a_name_of_the_registry_is_refused_at_its_line() {
    let files = Files::new();
    let control = files.control();
    announce(&control, "globex", "shop.example.org");
    let before = control.published().load_full();
    write(&files, "acme", &["www.example.org", "shop.example.org"]);
    let errors = control.reload().unwrap_err();
    assert_eq!(errors.errors().len(), 1);
    let error = &errors.errors()[0];
    assert_eq!(
        error.message,
        "shop.example.org stands in the registry, announced by tenant globex"
    );
    assert!(error.file.ends_with("routes.d/acme.yaml"));
    assert_eq!(error.position.line, 8);
    assert!(std::sync::Arc::ptr_eq(&before, &control.published().load()));
    assert!(!upstream(&control, "www.example.org").unwrap().retired.get());

    // With the other errors, all at once.
    files.write("routes.d/bad.yaml", "tenant: [\n");
    assert_eq!(control.reload().unwrap_err().errors().len(), 2);
    files.remove("routes.d/bad.yaml");

    // At the first load there is no registry yet; then it is the registry's that is left out.
    let restarted = files.control();
    announce(&restarted, "globex", "shop.example.org");
    assert_eq!(counts(&restarted), (0, 1));

    gone(&control, "shop.example.org");
    assert!(control.reload().unwrap().changed);
    assert_eq!(tenant_of(&control, "shop.example.org").unwrap(), "acme");
}

#[test]
fn a_reload_keeps_the_registrys_objects() {
    let files = Files::new();
    let control = files.control();
    announce(&control, "globex", "shop.example.org");
    let before = control.published().load_full();
    let of = |snapshot: &crate::snapshot::Snapshot| {
        std::sync::Arc::as_ptr(snapshot.routes.get(&host("shop.example.org")).unwrap())
    };
    files.write(
        "routes.d/new.yaml",
        &routes("new", "new.example.net", "127.0.0.1:9"),
    );
    assert!(control.reload().unwrap().changed);
    let after = control.published().load_full();
    assert_eq!(of(&before), of(&after));
    assert_eq!(after.routes.len(), 3);
    // Another setting is no other table.
    files.router("access_log: false\n");
    assert!(control.reload().unwrap().changed);
    assert_eq!(of(&before), of(&control.published().load()));
    assert_eq!(counts(&control), (1, 0));
}
