//! What the control plane has checked, and where the answers go.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::registry::{gone, host, route, set};
use super::{Files, upstream};
use crate::control::Control;
use crate::observe::metrics::Registry;
use crate::registry::record::{Check, Tls, Trust};
use crate::registry::route::RegistryRoute;
use crate::upstream::health::{self, CheckedRoute, HealthUpdate};

const A: &str = "a.example.org";
const B: &str = "b.example.org";

fn checked(name: &str, endpoints: &[&str], path: &str) -> RegistryRoute {
    let check = Check {
        path: Some(path.to_owned()),
        interval: 5,
        timeout: 2,
        failures: 2,
    };
    RegistryRoute {
        check: Some(check),
        ..route("globex", name, endpoints)
    }
}

fn scene() -> (Files, Control, UnboundedReceiver<HealthUpdate>) {
    let files = Files::new();
    let control = files.control();
    let (sender, orders) = unbounded_channel();
    control.report_checks_to(sender);
    (files, control, orders)
}

/// The one order that has come, which is to check something.
#[track_caller]
fn order(orders: &mut UnboundedReceiver<HealthUpdate>) -> CheckedRoute {
    let Ok(HealthUpdate::Set(route)) = orders.try_recv() else {
        panic!("no order to check");
    };
    assert!(orders.is_empty());
    route
}

#[track_caller]
fn order_to_stop(orders: &mut UnboundedReceiver<HealthUpdate>) -> String {
    let Ok(HealthUpdate::Gone(host)) = orders.try_recv() else {
        panic!("no order to stop");
    };
    assert!(orders.is_empty());
    host.to_string()
}

#[test]
fn routes_that_ask_for_it_are_checked_until_they_do_not() {
    let (_files, control, mut orders) = scene();
    set(&control, route("globex", B, &["10.0.0.1:80"]));
    gone(&control, B);
    assert!(orders.is_empty(), "nobody asked for a check");

    set(&control, checked(A, &["10.0.0.1:80", "10.0.0.2:80"], "/"));
    let first = order(&mut orders);
    let in_force = upstream(&control, A).unwrap();
    assert_eq!(first.host, host(A));
    assert!(Arc::ptr_eq(
        &first.unhealthy,
        in_force.unhealthy.get().unwrap()
    ));
    assert!(Arc::ptr_eq(&first.endpoints[1], &in_force.endpoints[1]));

    // Other endpoints: the order is about what is in force now.
    set(&control, checked(A, &["10.0.0.2:80"], "/"));
    let second = order(&mut orders);
    let in_force = upstream(&control, A).unwrap();
    assert!(Arc::ptr_eq(
        &second.unhealthy,
        in_force.unhealthy.get().unwrap()
    ));
    assert!(Arc::ptr_eq(&second.endpoints[0], &first.endpoints[1]));
    // Another check of the same endpoints.
    set(&control, checked(A, &["10.0.0.2:80"], "/ready"));
    assert_eq!(order(&mut orders).check.path.as_deref(), Some("/ready"));

    set(&control, route("globex", A, &["10.0.0.2:80"]));
    assert_eq!(order_to_stop(&mut orders), A);
    assert!(upstream(&control, A).unwrap().unhealthy.get().is_none());
    set(&control, checked(A, &["10.0.0.2:80"], "/"));
    order(&mut orders);
    gone(&control, A);
    assert_eq!(order_to_stop(&mut orders), A);
}

#[test]
fn a_route_without_an_endpoint_that_can_be_used_is_not_checked() {
    let (_files, control, mut orders) = scene();
    let good = checked(A, &["10.0.0.1:443"], "/");
    let mut bad = good.clone();
    bad.endpoints[0].tls = Some(Arc::new(Tls {
        server_name: "a.example.org".to_owned(),
        trust: Trust::CaPem("rubbish".to_owned()),
    }));
    set(&control, bad.clone());
    assert!(orders.is_empty());
    set(&control, good);
    order(&mut orders);
    set(&control, bad);
    assert_eq!(order_to_stop(&mut orders), A);
}

#[test]
fn what_is_said_of_one_route_is_not_said_of_another() {
    let (_files, control, mut orders) = scene();
    let same = ["10.0.0.1:80", "10.0.0.2:80"];
    set(&control, checked(A, &same, "/a"));
    let a = order(&mut orders);
    set(&control, checked(B, &same, "/b"));
    let b = order(&mut orders);
    assert!(!Arc::ptr_eq(&a.unhealthy, &b.unhealthy));
    // Connections are shared all the same.
    assert!(Arc::ptr_eq(&a.endpoints[0], &b.endpoints[0]));
}

#[test]
fn a_route_that_a_file_keeps_out_is_known_when_there_is_room() {
    let (files, control, mut orders) = scene();
    let file = "routes.d/globex.yaml";
    files.write(file, &super::routes("globex", A, "10.9.9.9:80"));
    control.reload().unwrap();
    set(&control, checked(A, &["10.0.0.1:80"], "/"));
    let kept_out = order(&mut orders);
    assert!(upstream(&control, A).unwrap().unhealthy.get().is_none());
    files.remove(file);
    control.reload().unwrap();
    let in_force = upstream(&control, A).unwrap();
    assert!(Arc::ptr_eq(
        &kept_out.unhealthy,
        in_force.unhealthy.get().unwrap()
    ));
}

#[tokio::test]
async fn an_endpoint_that_nobody_listens_on_is_flagged_where_workers_look() {
    let files = Files::new();
    let control = files.control();
    let metrics = Arc::new(Registry::new(SystemTime::now()));
    let (orders, checking) = health::checks(Arc::clone(&metrics));
    control.report_checks_to(orders);
    tokio::spawn(checking);
    let bound = [(); 2].map(|()| std::net::TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [&bound[0], &bound[1]].map(|it| it.local_addr().unwrap().to_string());
    let [listening, silent] = bound;
    drop(silent);
    let mut route = checked(A, &[&addresses[0], &addresses[1]], "/");
    route.check = Some(Check {
        path: None,
        interval: 1,
        timeout: 1,
        failures: 2,
    });
    set(&control, route);
    let upstream = upstream(&control, A).unwrap();
    let silent = |index: usize| upstream.endpoints[index].address.to_string() == addresses[1];
    let flagged = async {
        while (0..2).any(|index| upstream.is_unhealthy(index) != silent(index))
            || !metrics
                .render()
                .contains("\nrouter_endpoints_unhealthy 1\n")
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(20), flagged).await;
    in_time.expect("flagged");
    drop(listening);
}
