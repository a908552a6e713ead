//! Real hosts: systemd as pid 1, apart from the machine and from each other. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use harness::machine::MachineState;
use harness::namespace::{Network, processes_of};
use harness::real_host::{End, RealHost, Root, cgroup};

/// What a boot may take: ten times what it takes alone on two cores.
const BOUND: Duration = Duration::from_secs(20);

fn hosts<const N: usize>(names: [&str; N]) -> (Network, [RealHost; N]) {
    let root = Root::get().unwrap();
    let mut network = Network::new().unwrap();
    let hosts = names.map(|name| RealHost::new(&root, network.host(name).unwrap()).unwrap());
    (network, hosts)
}

#[test]
fn a_host_boots_to_running_with_systemd_as_its_first_process() {
    let (_network, [mut host]) = hosts(["one"]);
    let took = host.boot().unwrap();
    println!("running after {} ms", took.as_millis());
    assert!(took < BOUND, "{took:?}");
    assert_eq!(host.systemctl_is_running().unwrap(), "running");
    assert_eq!(host.succeed(&["cat", "/proc/1/comm"]).unwrap(), "systemd\n");
    assert_eq!(host.succeed(&["hostname"]).unwrap(), "one\n");
}
