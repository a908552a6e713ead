//! Routes of the registry: in force, replaced, gone, and what they share with what was before.

use std::sync::Arc;

use config::route::{HostMatch, UpstreamProtocol};

use super::{Files, upstream};
use crate::control::{Control, LeftOutReason, RegistryUpdate};
use crate::observe::metrics::Registry;
use crate::registry::record::{Tls, Trust};
use crate::registry::route::{RegistryEndpoint, RegistryRoute, RouteChange};
use crate::route::{Host, Origin};
use crate::snapshot::Snapshot;

pub(super) fn host(text: &str) -> HostMatch {
    HostMatch::parse(text).unwrap()
}

pub(super) fn route(tenant: &str, name: &str, endpoints: &[&str]) -> RegistryRoute {
    RegistryRoute {
        host: host(name),
        tenant: tenant.into(),
        shared: false,
        protocol: UpstreamProtocol::Http1,
        endpoints: endpoints.iter().map(|it| endpoint(it, None)).collect(),
        check: None,
    }
}

fn endpoint(address: &str, tls: Option<Tls>) -> RegistryEndpoint {
    RegistryEndpoint {
        address: address.parse().unwrap(),
        tls: tls.map(Arc::new),
    }
}

fn tls(trust: Trust) -> Tls {
    Tls {
        server_name: "ingress.test".to_owned(),
        trust,
    }
}

pub(super) fn set(control: &Control, route: RegistryRoute) {
    let change = RouteChange::Set(Arc::new(route));
    control.apply_registry(RegistryUpdate::Changes(vec![change]));
}

pub(super) fn gone(control: &Control, name: &str) {
    let change = RouteChange::Gone(host(name));
    control.apply_registry(RegistryUpdate::Changes(vec![change]));
}

fn reset(control: &Control, routes: impl IntoIterator<Item = RegistryRoute>) {
    let routes = routes.into_iter().map(Arc::new).collect();
    control.apply_registry(RegistryUpdate::Reset(routes));
}

fn published(control: &Control) -> Arc<Snapshot> {
    control.published().load_full()
}

/// In force, left out.
pub(super) fn counts(control: &Control) -> (usize, usize) {
    let status = control.registry_status(0);
    (status.routes, status.left_out)
}

#[test]
fn a_route_comes_is_replaced_and_goes() {
    let files = Files::new();
    let control = files.control();
    let first = published(&control);
    set(
        &control,
        route("globex", "shop.example.org", &["10.0.0.1:80"]),
    );
    let made = upstream(&control, "shop.example.org").unwrap();
    assert_eq!((&*made.tenant, &*made.name), ("globex", "registry"));
    assert_eq!(made.endpoints[0].address, "10.0.0.1:80".parse().unwrap());
    let second = published(&control);
    assert_eq!((first.generation, second.generation), (1, 2));
    assert!(Arc::ptr_eq(&first.certificates, &second.certificates));
    assert!(Arc::ptr_eq(&first.settings, &second.settings));
    let shop = Host::parse("shop.example.org").unwrap();
    assert!(
        first.routes.lookup(&shop).is_none(),
        "a request keeps the snapshot that it began with"
    );
    let target = second.routes.lookup(&shop).unwrap();
    assert_eq!(target.origin, Origin::Registry);

    set(
        &control,
        route("globex", "shop.example.org", &["10.0.0.2:80"]),
    );
    let replaced = upstream(&control, "shop.example.org").unwrap();
    assert_ne!(made.id, replaced.id);
    assert!(made.retired.get() && made.endpoints[0].retired.get());
    assert!(!replaced.retired.get());
    assert_eq!(counts(&control), (1, 0));

    gone(&control, "shop.example.org");
    assert!(upstream(&control, "shop.example.org").is_none());
    assert!(replaced.retired.get());
    assert_eq!(counts(&control), (0, 0));
    assert!(upstream(&control, "www.example.org").is_some());
}

#[test]
fn what_says_the_same_publishes_nothing() {
    let files = Files::new();
    let control = files.control();
    let routes = || {
        (0..50).map(|at| {
            route(
                "globex",
                &format!("shop-{at}.example.org"),
                &["10.0.0.1:80", "10.0.0.2:80"],
            )
        })
    };
    reset(&control, routes());
    let before = published(&control);
    reset(&control, routes());
    for route in routes() {
        set(&control, route);
    }
    gone(&control, "nobody.example.org");
    gone(&control, "www.example.org");
    assert!(Arc::ptr_eq(&before, &published(&control)));
    assert!(!control.reload().unwrap().changed);
    assert!(Arc::ptr_eq(&before, &published(&control)));
    // A check is the router's own business, and no reason to route otherwise.
    assert_eq!(counts(&control), (50, 0));
}

#[test]
fn a_reset_leaves_what_it_names_and_nothing_else() {
    let files = Files::new();
    let control = files.control();
    let named = |name: &str| route("globex", name, &["10.0.0.1:80"]);
    reset(&control, ["a.example.org", "b.example.org"].map(named));
    let a = upstream(&control, "a.example.org").unwrap();
    reset(&control, ["b.example.org", "*.c.example.org"].map(named));
    assert!(upstream(&control, "a.example.org").is_none());
    assert!(upstream(&control, "x.c.example.org").is_some());
    // The same endpoints for another name: nothing that a worker knows of was touched.
    assert!(Arc::ptr_eq(
        &a,
        &upstream(&control, "b.example.org").unwrap()
    ));
    reset(&control, []);
    assert_eq!(counts(&control), (0, 0));
    assert!(a.retired.get());
    assert!(upstream(&control, "www.example.org").is_some());
}

#[test]
fn the_last_change_of_a_batch_counts() {
    let files = Files::new();
    let control = files.control();
    let shop =
        |address| RouteChange::Set(Arc::new(route("globex", "shop.example.org", &[address])));
    control.apply_registry(RegistryUpdate::Changes(vec![
        shop("10.0.0.1:80"),
        RouteChange::Gone(host("shop.example.org")),
        shop("10.0.0.2:80"),
        shop("10.0.0.3:80"),
    ]));
    let made = upstream(&control, "shop.example.org").unwrap();
    assert_eq!(made.endpoints[0].address, "10.0.0.3:80".parse().unwrap());
    assert_eq!(published(&control).generation, 2, "one snapshot per batch");
    control.apply_registry(RegistryUpdate::Changes(vec![
        RouteChange::Gone(host("shop.example.org")),
        shop("10.0.0.3:80"),
    ]));
    let again = upstream(&control, "shop.example.org").unwrap();
    assert!(!again.retired.get() && !again.endpoints[0].retired.get());
}

#[test]
fn endpoints_are_one_object_for_all_names_of_a_tenant_and_for_no_other() {
    let files = Files::new();
    let control = files.control();
    set(
        &control,
        route("globex", "a.example.org", &["10.0.0.1:80", "10.0.0.2:80"]),
    );
    set(&control, route("globex", "b.example.org", &["10.0.0.1:80"]));
    set(&control, route("other", "c.example.org", &["10.0.0.1:80"]));
    let mut http2 = route("globex", "d.example.org", &["10.0.0.1:80"]);
    http2.protocol = UpstreamProtocol::Http2;
    set(&control, http2);
    let of = |name| Arc::clone(&upstream(&control, name).unwrap().endpoints[0]);
    assert!(Arc::ptr_eq(&of("a.example.org"), &of("b.example.org")));
    assert_ne!(of("a.example.org").id, of("c.example.org").id);
    assert_ne!(of("a.example.org").id, of("d.example.org").id);
    // Others of the same route come and go: it stays what it is.
    let before = of("a.example.org");
    set(
        &control,
        route("globex", "a.example.org", &["10.0.0.1:80", "10.0.0.3:80"]),
    );
    assert!(Arc::ptr_eq(&before, &of("a.example.org")));
    gone(&control, "a.example.org");
    assert!(!before.retired.get(), "b still leads to it");
    gone(&control, "b.example.org");
    assert!(before.retired.get());
}

#[test]
fn files_and_the_registry_share_endpoints_of_a_tenant() {
    let files = Files::new();
    let control = files.control();
    let of_file = Arc::clone(&upstream(&control, "www.example.org").unwrap().endpoints[0]);
    set(
        &control,
        route("acme", "shop.example.org", &["127.0.0.1:1"]),
    );
    let of_registry = Arc::clone(&upstream(&control, "shop.example.org").unwrap().endpoints[0]);
    assert!(Arc::ptr_eq(&of_file, &of_registry));
    files.write(
        "routes.d/acme.yaml",
        "tenant: acme\nupstreams: {}\nroutes: []\n",
    );
    control.reload().unwrap();
    assert!(!of_file.retired.get());
    gone(&control, "shop.example.org");
    assert!(of_file.retired.get());
}

#[test]
fn tls_is_one_configuration_per_tenant_and_content() {
    let files = Files::new();
    let control = files.control();
    let authority = || {
        let made = rcgen::generate_simple_self_signed(["ca".to_owned()]);
        made.unwrap().cert.pem()
    };
    let (pem, other_pem) = (authority(), authority());
    let with = |tenant, name, pem: &str| {
        let mut route = route(tenant, name, &[]);
        let tls = tls(Trust::CaPem(pem.to_owned()));
        route.endpoints = vec![endpoint("10.0.0.1:443", Some(tls))];
        route
    };
    set(&control, with("globex", "a.example.org", &pem));
    set(&control, with("globex", "b.example.org", &pem));
    set(&control, with("globex", "c.example.org", &other_pem));
    set(&control, with("other", "d.example.org", &pem));
    let tls = |name| {
        upstream(&control, name).unwrap().endpoints[0]
            .tls
            .clone()
            .unwrap()
    };
    assert!(Arc::ptr_eq(&tls("a.example.org"), &tls("b.example.org")));
    assert!(!Arc::ptr_eq(&tls("a.example.org"), &tls("c.example.org")));
    assert!(!Arc::ptr_eq(&tls("a.example.org"), &tls("d.example.org")));
    assert!(upstream(&control, "a.example.org").unwrap().is_tls());
}

#[test]
fn an_endpoint_whose_authorities_cannot_be_read_is_left_out_and_told_of() {
    let files = Files::new();
    let control = files.control();
    let bad = endpoint(
        "10.0.0.1:443",
        Some(tls(Trust::CaPem("rubbish".to_owned()))),
    );
    let mut mixed = route("globex", "shop.example.org", &["10.0.0.2:80"]);
    mixed.endpoints.insert(0, bad.clone());
    set(&control, mixed.clone());
    let made = upstream(&control, "shop.example.org").unwrap();
    let addresses: Vec<_> = made.endpoints.iter().map(|it| it.address).collect();
    assert_eq!(addresses, ["10.0.0.2:80".parse().unwrap()]);
    let status = control.registry_status(10);
    assert_eq!((status.routes, status.left_out), (1, 0));
    let LeftOutReason::Endpoints(unusable) = &status.shown[0].why else {
        panic!("{status:?}");
    };
    assert_eq!(unusable[0].address, bad.address);
    assert!(
        unusable[0].reason.contains("holds no certificate"),
        "{unusable:?}"
    );

    // Without a usable one, the route is out of force, and comes back with one.
    let mut useless = mixed.clone();
    useless.endpoints.truncate(1);
    set(&control, useless);
    assert!(upstream(&control, "shop.example.org").is_none());
    assert!(made.retired.get());
    assert_eq!(counts(&control), (0, 1));
    let text = control.registry_status(10).shown[0].why.to_string();
    assert!(
        text.starts_with("no endpoint can be used: 10.0.0.1:443: certificate authorities"),
        "{text}"
    );
    let mut mended = mixed;
    mended.endpoints.remove(0);
    set(&control, mended);
    assert_eq!(counts(&control), (1, 0));
    assert!(control.registry_status(10).shown.is_empty());
}

#[test]
fn old_snapshots_are_kept_until_nobody_has_them() {
    let files = Files::new();
    let control = files.control();
    let held = published(&control);
    for at in 0..100 {
        set(
            &control,
            route("globex", &format!("a{at}.example.org"), &["10.0.0.1:80"]),
        );
    }
    assert!(control.superseded() < 10, "{}", control.superseded());
    control.drop_superseded();
    assert_eq!(control.superseded(), 1);
    assert!(
        Arc::strong_count(&held) == 2,
        "the control plane and this test"
    );
    drop(held);
    control.drop_superseded();
    assert_eq!(control.superseded(), 0);
}

#[test]
fn metrics_count_routes_and_changes() {
    let files = Files::new();
    let metrics = Arc::new(Registry::new(std::time::SystemTime::now()));
    let control = Control::start(&files.config(), Arc::clone(&metrics)).unwrap();
    let named = |name: &str| route("globex", name, &["10.0.0.1:80"]);
    reset(
        &control,
        ["a.example.org", "b.example.org", "www.example.org"].map(named),
    );
    reset(&control, ["b.example.org", "www.example.org"].map(named));
    gone(&control, "b.example.org");
    gone(&control, "nobody.example.org");
    let text = metrics.render();
    for line in [
        "router_snapshot_generation 4",
        "router_routes 1",
        "router_upstreams 2",
        "router_registry_routes 0",
        "router_registry_left_out 1",
        "router_registry_batches_total 4",
        "router_registry_changes_total 5",
    ] {
        assert!(
            text.contains(&format!("\n{line}\n")),
            "{line} is not in\n{text}"
        );
    }
}

#[test]
fn many_routes_then_many_changes_leave_nothing_behind() {
    let files = Files::new();
    let control = files.control();
    let name = |at: usize| format!("*-apps-{at}.k8s.example.org");
    let address = |at: usize| format!("10.{}.{}.{}:80", at >> 16, at >> 8 & 255, at & 255);
    let one = |at: usize| route("globex", &name(at), &[&address(at)]);
    reset(&control, (0..100_000).map(one));
    assert_eq!(counts(&control), (100_000, 0));
    let sizes = control.sizes();
    let untouched = upstream(&control, "x-apps-99999.k8s.example.org").unwrap();
    for round in 0..1_000 {
        let at = round * 7 % 1_000;
        // Goes elsewhere and comes back, or goes and comes back.
        if round % 2 == 0 {
            set(&control, route("globex", &name(at), &["172.16.0.1:80"]));
        } else {
            gone(&control, &name(at));
        }
        set(&control, one(at));
    }
    control.drop_superseded();
    assert_eq!(control.superseded(), 0);
    assert_eq!(control.sizes(), sizes);
    assert_eq!(counts(&control), (100_000, 0));
    assert!(Arc::ptr_eq(
        &untouched,
        &upstream(&control, "x-apps-99999.k8s.example.org").unwrap()
    ));
    assert!(!untouched.retired.get());
}
