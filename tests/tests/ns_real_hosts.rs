//! Real hosts: systemd as pid 1, apart from the machine and from each other. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::net::TcpStream;
use std::path::Path;
use std::time::Duration;

use harness::namespace::{Host, Network, processes_of};
use harness::real_host::{End, RealHost, Root};
use harness::tool::Tool;
use harness::wait;

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

#[test]
fn two_hosts_reach_each_others_sshd_and_have_nothing_in_common() {
    let (_network, [mut one, mut two]) = hosts(["one", "two"]);
    one.boot().unwrap();
    two.boot().unwrap();
    for (from, to) in [(&one, &two), (&two, &one)] {
        for address in [to.host().v4, to.host().v6] {
            // By the real network of `from`: what answers there proves to be `to` by its key.
            let address = address.to_string();
            let scan = from.succeed(&["ssh-keyscan", "-t", "ed25519", &address]);
            let found = scan.unwrap();
            assert_eq!(found.trim(), format!("{address} {}", to.host_key()));
        }
        let answer = to.ssh(&from.host().namespace, "hostname; id -u").unwrap();
        assert_eq!(
            answer.stdout,
            format!("{}\n0\n", to.host().name),
            "{answer:?}"
        );
    }
    assert_ne!(one.host_key(), two.host_key());
    for file in ["/etc/machine-id", "/proc/sys/kernel/random/boot_id"] {
        let own = [&one, &two].map(|it| it.succeed(&["cat", file]).unwrap());
        assert!(own[0].trim().len() >= 32, "{file}: {own:?}");
        assert_ne!(own[0], own[1], "{file}");
    }
}

#[test]
fn a_reboot_keeps_the_disk_and_nothing_of_the_network_but_the_cable() {
    let (mut network, [mut host]) = hosts(["one"]);
    let other = network.host("other").unwrap();
    host.boot().unwrap();
    let read = |host: &RealHost, file: &str| host.succeed(&["cat", file]).unwrap();
    let files = [
        "/etc/machine-id",
        "/proc/sys/kernel/random/boot_id",
        "/sys/class/net/eth0/address",
    ];
    let before = files.map(|file| read(&host, file));
    let namespace = host.host().namespace.clone();
    host.write("/var/lib/kept", b"kept", 0o600).unwrap();
    host.write("/run/lost", b"lost", 0o600).unwrap();
    host.succeed(&["nft", "add", "table", "inet", "lost"])
        .unwrap();
    host.succeed(&["ip", "address", "add", "10.77.0.200/24", "dev", "eth0"])
        .unwrap();

    host.run(&["systemctl", "--no-block", "reboot"]).unwrap();
    assert_eq!(host.wait_for_end().unwrap(), End::Reboot);
    assert!(namespace.processes().is_empty());
    let off = addresses(&host);
    assert!(off.contains("state DOWN") && !off.contains("inet"), "{off}");
    assert!(reach(&other, &host).is_err());

    let took = host.boot().unwrap();
    println!("running again after {} ms", took.as_millis());
    assert_ne!(
        host.host().namespace.inode().unwrap(),
        namespace.inode().unwrap()
    );
    assert_eq!(read(&host, "/var/lib/kept"), "kept");
    assert!(host.succeed(&["cat", "/run/lost"]).is_err());
    assert_eq!(host.succeed(&["nft", "list", "ruleset"]).unwrap(), "");
    assert!(!addresses(&host).contains("10.77.0.200"));
    wait::until_true("an answer", || reach(&other, &host).is_ok()).unwrap();
    let after = files.map(|file| read(&host, file));
    assert_eq!((&before[0], &before[2]), (&after[0], &after[2]));
    assert_ne!(before[1], after[1], "a boot has a number of its own");
    // The same in one word, for those who do not look at the time between.
    host.reboot().unwrap();
    wait::until_true("an answer", || reach(&other, &host).is_ok()).unwrap();
}

#[test]
fn the_network_comes_up_only_after_what_guards_it() {
    let (_network, [mut host]) = hosts(["one"]);
    // It takes a second, in which a network that does not wait for it would come up.
    host.write(
        "/etc/systemd/system/guard.service",
        b"[Unit]\nDefaultDependencies=no\nBefore=network-pre.target\nWants=network-pre.target\n\
          [Service]\nType=oneshot\nRemainAfterExit=yes\n\
          ExecStart=/bin/sleep 1\n\
          ExecStart=/bin/sh -c 'ip address show eth0 | tee /var/lib/seen'\n\
          [Install]\nWantedBy=multi-user.target\n",
        0o644,
    )
    .unwrap();
    host.enable("guard.service").unwrap();
    host.boot().unwrap();
    host.reboot().unwrap();
    let seen = host.succeed(&["cat", "/var/lib/seen"]).unwrap();
    assert!(
        seen.contains("state DOWN") && !seen.contains("inet"),
        "{seen}"
    );
    assert!(addresses(&host).contains(&host.host().v6.to_string()));
    assert!(
        host.journal("guard.service")
            .unwrap()
            .contains("state DOWN")
    );
}

#[test]
fn a_host_that_lost_power_boots_again() {
    let (_network, [mut host]) = hosts(["one"]);
    host.write("/usr/local/bin/tool", b"#!/bin/sh\necho works\n", 0o755)
        .unwrap();
    host.boot().unwrap();
    assert_eq!(host.succeed(&["tool"]).unwrap(), "works\n");
    host.copy_in(Path::new("/etc/os-release"), "/var/lib/a/copy", 0o640)
        .unwrap();
    let inode = host.host().namespace.inode().unwrap();
    host.kill().unwrap();
    assert!(processes_of(inode).is_empty());
    assert!(
        host.run(&["true"])
            .unwrap_err()
            .to_string()
            .contains("is off")
    );
    assert!(host.kill().is_err(), "it is off");

    host.write("/var/lib/while-off", b"written", 0o644).unwrap();
    host.boot().unwrap();
    let mode = host
        .succeed(&["stat", "-c", "%a", "/var/lib/a/copy"])
        .unwrap();
    assert_eq!(mode, "640\n");
    assert_eq!(
        host.succeed(&["cat", "/var/lib/while-off"]).unwrap(),
        "written"
    );
    host.shutdown().unwrap();
    let log = host.journal("ssh.service").unwrap();
    assert!(log.contains("Stopped ssh.service"), "{log}");
}

#[test]
fn a_volume_carries_overlays_and_outlives_a_reboot() {
    let (_network, [mut host]) = hosts(["one"]);
    host.add_volume("/var/lib/containers").unwrap();
    assert!(host.add_volume("/var/run/containers").is_err(), "a symlink");
    host.boot().unwrap();
    let script = "cd /var/lib/containers && mkdir lower upper work merged &&
        mount -t overlay none -o lowerdir=lower,upperdir=upper,workdir=work merged &&
        echo kept >merged/file";
    host.succeed(&["sh", "-c", script]).unwrap();
    host.reboot().unwrap();
    let kept = host.succeed(&["cat", "/var/lib/containers/upper/file"]);
    assert_eq!(kept.unwrap(), "kept\n");
}

#[test]
fn a_failing_unit_is_named_with_the_end_of_the_journal() {
    let (_network, [mut host]) = hosts(["one"]);
    host.write(
        "/etc/systemd/system/broken.service",
        b"[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo because of this; exit 1'\n\
          [Install]\nWantedBy=multi-user.target\n",
        0o644,
    )
    .unwrap();
    host.enable("broken.service").unwrap();
    let error = host.boot().unwrap_err().to_string();
    for part in ["`degraded`", "broken.service", "because of this"] {
        assert!(error.contains(part), "{part}: {error}");
    }
}

#[test]
fn systemd_is_not_executed_in_a_root_that_is_not_a_hosts() {
    let program = std::env::current_exe().unwrap();
    let visible = program.ancestors().nth(2).unwrap().join("boot-host");
    for (path, reason) in [
        ("/gatehouse-host-root", "does not bear the marker"),
        (visible.to_str().unwrap(), "of the machine is visible"),
    ] {
        let (_network, [mut host]) = hosts(["one"]);
        let inode = host.host().namespace.inode().unwrap();
        host.write(path, b"not what is made by the recipe", 0o644)
            .unwrap();
        let error = host.boot().unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
        assert!(processes_of(inode).is_empty());
        // systemd would have begun one.
        assert!(
            host.journal("init.scope")
                .unwrap_err()
                .to_string()
                .contains("mount")
        );
    }
}

fn addresses(host: &RealHost) -> String {
    Tool::new("ip")
        .args(["address", "show", "dev", "eth0"])
        .namespace(Some(&host.host().namespace))
        .succeed()
        .unwrap()
}

/// One attempt to reach its sshd; a host that is down is known by the silence.
fn reach(from: &Host, to: &RealHost) -> std::io::Result<()> {
    let address = (to.host().v4, 22).into();
    from.namespace
        .run(|| TcpStream::connect_timeout(&address, Duration::from_secs(2)).map(drop))
}
