//! What happens in a real host stays there. Needs root.
//!
//! Files of one test each look at everything that their process does, so this one is apart from
//! the other tests of hosts.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs;
use std::process::Command;
use std::time::Duration;

use harness::folder::Folder;
use harness::machine::MachineState;
use harness::namespace::{Network, processes_of};
use harness::process::Process;
use harness::real_host::{RealHost, Root, cgroup};
use harness::wait;
use nix::sys::signal::Signal;

/// What root does in a host, and that it took effect there.
const HARM: &str = "
    set -e
    chmod 600 /dev/null
    chown daemon /dev/zero
    rm /dev/full
    mknod /dev/gatehouse-node c 1 3
    echo harm >/tmp/gatehouse-harm
    echo harm >/etc/gatehouse-harm
    nft add table inet harm
    ip link add name harm type bridge
    ip netns add harm
    mount -t tmpfs harm /mnt
    hostname harm
    echo 1 >/proc/sys/net/ipv4/ip_forward
    mkdir /sys/fs/cgroup/unified/harm 2>/dev/null || mkdir /sys/fs/cgroup/harm
    mkdir -p /run/nodeguard/bpf
    mount -t bpf bpf /run/nodeguard/bpf
    mkdir /run/nodeguard/bpf/harm /sys/fs/bpf/harm
    setsid sleep 600 &
    stat -c %a /dev/null
    nft list tables
";

/// What it is not let do, each of which would reach the whole machine.
const REFUSED: [&str; 3] = [
    "echo 1 >/proc/sys/vm/drop_caches",
    "echo h >/proc/sysrq-trigger",
    "echo 1 >/sys/kernel/profiling",
];

// One test, since it looks at everything that this process does.
#[test]
fn the_machine_is_as_before_when_a_host_has_ended() {
    let names = [
        "/tmp/gatehouse-harm",
        "/etc/gatehouse-harm",
        "/sys/fs/bpf/harm",
    ];
    let settings = [
        "kernel/hostname",
        "net/ipv4/ip_forward",
        "kernel/panic",
        "kernel/pid_max",
    ];
    let read = || settings.map(|it| fs::read_to_string(format!("/proc/sys/{it}")).unwrap());
    let (before, settings_before) = (MachineState::capture().unwrap(), read());
    let root = Root::get().unwrap();
    let mut network = Network::new().unwrap();
    let mut host = RealHost::new(&root, network.host("one").unwrap()).unwrap();
    let inode = host.host().namespace.inode().unwrap();
    host.boot().unwrap();

    let done = host.succeed(&["sh", "-c", HARM]).unwrap();
    assert_eq!(done, "600\ntable inet harm\n");
    host.succeed(&["sh", "-c", "echo 7 >/proc/sys/kernel/panic"])
        .unwrap();
    for line in REFUSED {
        let tried = host.run(&["sh", "-c", line]).unwrap();
        assert!(!tried.status.success(), "{line}");
    }
    assert!(processes_of(inode).len() > 5);
    let during: Vec<String> = before
        .differences(&MachineState::capture().unwrap())
        .into_iter()
        .filter(|it| !it.starts_with("temporary folder came: gatehouse-"))
        .filter(|it| !it.starts_with("cgroup came: ") && !it.ends_with("(boot-host)"))
        .collect();
    assert_eq!(during, Vec::<String>::new());
    let cgroups = cgroup::named(&cgroup::prefix_of(std::process::id()).unwrap()).unwrap();
    assert!(!cgroups.is_empty());
    assert!(
        cgroups.iter().all(|it| it.contains("-host-one-")),
        "{cgroups:?}"
    );

    drop(host);
    drop(network);
    assert!(processes_of(inode).is_empty());
    before.assert_unchanged().unwrap();
    assert_eq!(read(), settings_before);
    for name in names {
        assert!(fs::symlink_metadata(name).is_err(), "{name}");
    }

    after_a_panic_nothing_is_left(&root);
    before.assert_unchanged().unwrap();
    after_sigkill_nothing_is_left();
    before.assert_unchanged().unwrap();
}

fn after_a_panic_nothing_is_left(root: &Root) {
    let thread = std::thread::scope(|scope| {
        let doomed = scope.spawn(|| {
            let mut network = Network::new().unwrap();
            let mut host = RealHost::new(root, network.host("two").unwrap()).unwrap();
            host.boot().unwrap();
            panic!("as a failed test does");
        });
        doomed.join()
    });
    assert!(thread.is_err());
}

/// The harness itself is killed: a process of its own that holds a host.
fn after_sigkill_nothing_is_left() {
    let folder = Folder::new("hold").unwrap();
    let own = std::env::current_exe().unwrap();
    let mut command = Command::new(own.ancestors().nth(2).unwrap().join("boot-host"));
    command.args(["hold", "three"]);
    let mut harness = Process::start("hold", command, None, folder.path()).unwrap();
    let pid = harness.pid();
    let prefix = cgroup::prefix_of(pid).unwrap();
    let inode = wait::until("a host to run", Duration::from_secs(60), || {
        assert!(harness.ended().is_none(), "{}", harness.log());
        let log = harness.log();
        log.split("network namespace ")
            .nth(1)?
            .strip_suffix('\n')?
            .parse()
            .ok()
    })
    .unwrap();
    let traces = || {
        let temporary = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        let folders = temporary
            .map(|it| it.file_name().to_string_lossy().into_owned())
            .filter(|it| it.starts_with(&format!("gatehouse-{pid}-")));
        let processes = processes_of(inode).into_iter().map(|it| it.to_string());
        let mut found: Vec<String> = cgroup::named(&prefix).unwrap();
        found.extend(folders.chain(processes));
        found
    };
    assert!(traces().len() > 5, "{:?}", traces());
    harness.signal(Signal::SIGKILL);
    let gone = wait::until("all of it to go", Duration::from_secs(20), || {
        traces().is_empty().then_some(())
    });
    assert!(gone.is_ok(), "{:?}", traces());
}
