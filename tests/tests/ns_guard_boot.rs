//! nodeguard on real hosts: from the first moment of the network on, through reboots, loss of power
//! and the end of the daemon, nothing of a stranger reaches an isolated port. Needs root.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]
#![allow(clippy::print_stdout, reason = "the counts are what a reader wants")]

use std::sync::{Mutex, PoisonError};

use harness::guard_host::{
    Counts, GuardHost, Knocker, OPEN_PORT, Onslaught, answers, isolated_ports, watch_answers,
};
use harness::namespace::{Host, Network};
use harness::real_host::{End, Root};
use harness::results::Rows;
use harness::wait;
use serde_json::{Value, json};

/// Frames that each phase of a test takes at least, so that the file's come to more than a million.
const FRAMES: u64 = 60_000;

/// What `nodeguard status` ends with.
const OK: i32 = 0;
const OPEN: i32 = 1;
const DEGRADED: i32 = 3;

/// What was counted so far.
static RESULTS: Mutex<Rows> = Mutex::new(Rows::new(
    "nodeguard-boot",
    &[
        "phase",
        "frames at the device",
        "dropped by BPF",
        "dropped by nftables",
        "stranger's through",
        "answers to the stranger",
        "peer's through",
        "to open ports",
    ],
));

const DAMAGED: &str = "cluster: [damaged\n";

/// The isolated port that clients try: kubelet's.
const PORT: u16 = 10250;

struct Scene {
    guarded: GuardHost,
    stranger: Host,
    peer: Host,
    /// Answers that the stranger had before the phase that counts.
    answers_before: u64,
    _network: Network,
}

impl Scene {
    /// A host that is off and has no policy, and two others.
    fn new() -> Self {
        let root = Root::get().unwrap();
        let mut network = Network::new().unwrap();
        let host = network.host("guarded").unwrap();
        let stranger = network.host("stranger").unwrap();
        let peer = network.host("peer").unwrap();
        watch_answers(&stranger, &host).unwrap();
        let guarded = GuardHost::new(&root, host, &stranger, &peer).unwrap();
        Self {
            guarded,
            stranger,
            peer,
            answers_before: 0,
            _network: network,
        }
    }

    /// The same with a policy: it has run, followed its files, and is on.
    fn with_policy() -> Self {
        let mut scene = Self::new();
        scene.guarded.write_peers().unwrap();
        let _flood = scene.flood(&scene.stranger);
        scene.guarded.real.boot().unwrap();
        scene.guarded.wait_for_status(OK).unwrap();
        scene
    }

    fn flood(&self, from: &Host) -> Onslaught {
        Onslaught::begin(from, self.guarded.real.host()).unwrap()
    }

    fn knocks(&self, from: &Host, port: u16) -> Knocker {
        Knocker::begin(from, self.guarded.real.host(), port).unwrap()
    }

    /// What the stranger has got, whatever the host's own counters say.
    fn answers(&self) -> u64 {
        answers(&self.stranger).unwrap() - self.answers_before
    }

    fn counts(&self) -> Counts {
        self.guarded.counts().unwrap()
    }

    fn systemctl(&self, arguments: &[&str]) {
        let command = [&["systemctl"], arguments].concat();
        self.guarded.real.succeed(&command).unwrap();
    }

    /// Waits for more of a flood that runs, and insists that nothing of it came through.
    fn endure(&self, what: &str) {
        self.guarded.wait_for_frames(FRAMES).unwrap();
        let counts = self.counts();
        println!("{what}: {}", told(&counts, self));
        self.publish(what, &counts);
        self.assert_shut(&counts);
    }

    fn publish(&self, what: &str, counts: &Counts) {
        let (_, status) = self.guarded.status().unwrap();
        let row = json!({
            "phase": what,
            "frames at the device": counts.frames,
            "dropped by BPF": drops(&status, "bpf"),
            "dropped by nftables": drops(&status, "nftables"),
            "stranger's through": counts.stranger_through,
            "answers to the stranger": self.answers(),
            "peer's through": counts.peer_through,
            "to open ports": counts.open_through,
        });
        let mut rows = RESULTS.lock().unwrap_or_else(PoisonError::into_inner);
        rows.add(row).unwrap();
    }

    fn assert_shut(&self, counts: &Counts) {
        assert!(
            counts.open_through > 0,
            "the flood is a live one: {counts:?}"
        );
        assert_eq!(counts.stranger_through, 0, "{counts:?}");
        assert_eq!(self.answers(), 0, "answers to the stranger");
    }
}

/// Counts in one line.
fn told(counts: &Counts, scene: &Scene) -> String {
    let (_, status) = scene.guarded.status().unwrap();
    let dropped = |plane: &str| drops(&status, plane);
    format!(
        "{} frames came to the device; nftables saw {} of the stranger and {} of the peer; \
         dropped {} (nftables) and {} (bpf); through: {} of the stranger, {} of the peer, {} to \
         open ports; answers to the stranger: {}",
        counts.frames,
        counts.stranger_arrived,
        counts.peer_arrived,
        dropped("nftables"),
        dropped("bpf"),
        counts.stranger_through,
        counts.peer_through,
        counts.open_through,
        scene.answers(),
    )
}

fn drops(status: &Value, plane: &str) -> u64 {
    let drops = status["drops"].as_array().unwrap().iter();
    drops
        .filter(|it| it["plane"] == plane)
        .map(|it| it["packets"].as_u64().unwrap())
        .sum()
}

fn problems(status: &Value) -> String {
    status["problems"].to_string()
}

#[test]
fn a_first_boot_shuts_everything_until_the_peers_are_known() {
    let mut scene = Scene::new();
    let floods = [&scene.stranger, &scene.peer].map(|from| scene.flood(from));
    let isolated = [&scene.stranger, &scene.peer].map(|from| scene.knocks(from, PORT));
    let open = scene.knocks(&scene.stranger, OPEN_PORT);
    let took = scene.guarded.real.boot().unwrap();
    println!("running after {} ms", took.as_millis());

    // While the boot unit alone was there.
    let first = scene.guarded.counts_under_fire().unwrap();
    println!("before the daemon: {first:?}");
    assert!(first.stranger_arrived > 0 && first.peer_arrived > 0);
    assert_eq!((first.stranger_through, first.peer_through), (0, 0));
    let (code, status) = scene.guarded.status().unwrap();
    assert_eq!(code, DEGRADED, "{status:#}");
    assert!(problems(&status).contains("there is no policy yet"));

    scene.endure("first boot: shut");
    assert_eq!(scene.counts().peer_through, 0);
    let open = open.end();
    println!("to an open port: {open:?}");
    assert!(open.answered > 0);
    for knocker in isolated {
        let knocks = knocker.end();
        assert!(knocks.tried > 0 && knocks.answered == 0, "{knocks:?}");
    }
    let ssh = scene
        .guarded
        .real
        .ssh(&scene.stranger.namespace, "hostname");
    assert_eq!(ssh.unwrap().stdout, "guarded\n");
    for port in isolated_ports() {
        scene.guarded.reaches_itself(port).unwrap();
    }

    let [of_stranger, of_peer] = floods;
    println!("the peer has sent {}", of_peer.end().unwrap());
    scene.guarded.write_peers().unwrap();
    scene.guarded.wait_for_status(OK).unwrap();
    for port in isolated_ports() {
        assert!(scene.guarded.answers(&scene.peer, port), "{port}");
        assert!(!scene.guarded.answers(&scene.stranger, port), "{port}");
    }
    assert!(scene.counts().peer_through > 0);
    scene.endure("first boot: peers known later");
    println!("the stranger has sent {}", of_stranger.end().unwrap());
}

#[test]
fn a_reboot_enforces_the_last_good_policy_before_there_is_a_network() {
    let mut scene = Scene::with_policy();
    let flood = scene.flood(&scene.stranger);
    // From here on, whatever is enforced after a boot is the boot unit's doing.
    scene.systemctl(&["disable", "--quiet", "nodeguard.service"]);
    let config = "/etc/nodeguard/nodeguard.yaml";
    let stored = "/var/lib/nodeguard/policy.json";

    reboot(&mut scene, "as it was", true);

    scene.guarded.write_config_as(DAMAGED).unwrap();
    reboot(&mut scene, "with nodeguard.yaml damaged", true);
    let log = scene
        .guarded
        .real
        .journal("nodeguard-boot.service")
        .unwrap();
    assert!(log.contains(config), "it is told: {log}");
    scene.guarded.write_config("").unwrap();

    // Debian's own configuration, which flushes everything at its start and at its end.
    scene.systemctl(&["unmask", "--quiet", "nftables.service"]);
    scene.systemctl(&["enable", "--quiet", "nftables.service"]);
    let text = scene.guarded.real.succeed(&["cat", "/etc/nftables.conf"]);
    assert!(text.unwrap().contains("flush ruleset"));
    reboot(&mut scene, "with nftables.service", true);
    let tables = scene.guarded.real.succeed(&["nft", "list", "tables"]);
    assert!(tables.unwrap().contains("table inet filter"), "it has run");

    let cut = ["truncate", "--size", "100", stored];
    scene.guarded.real.succeed(&cut).unwrap();
    reboot(&mut scene, "with the stored policy damaged", false);
    let log = scene
        .guarded
        .real
        .journal("nodeguard-boot.service")
        .unwrap();
    assert!(log.contains(stored), "it is told: {log}");

    // The files are as they should be, and so is everything once the daemon reads them.
    scene.systemctl(&["start", "nodeguard.service"]);
    scene.guarded.wait_for_status(OK).unwrap();
    assert!(scene.guarded.answers(&scene.peer, PORT));
    scene.endure("damaged policy: with the daemon");

    // A daemon that cannot start enforces the last good policy before it gives up, each time.
    scene.guarded.write_config_as(DAMAGED).unwrap();
    scene.systemctl(&["restart", "--no-block", "nodeguard.service"]);
    scene.guarded.wait_for_status(DEGRADED).unwrap();
    scene.endure("damaged policy: with a daemon that cannot start");
    assert!(scene.guarded.answers(&scene.peer, PORT));
    scene.guarded.write_config("").unwrap();
    scene.guarded.wait_for_status(OK).unwrap();
    println!("sent: {}", flood.end().unwrap());
}

/// A reboot under a flood that runs. The daemon is disabled.
fn reboot(scene: &mut Scene, what: &str, lets_peers_in: bool) {
    let real = &mut scene.guarded.real;
    real.run(&["systemctl", "--no-block", "reboot"]).unwrap();
    assert_eq!(real.wait_for_end().unwrap(), End::Reboot);
    // Without the daemon nobody keeps nftables.service from flushing everything at its end.
    scene.answers_before += scene.answers();
    let (stranger, peer) = [&scene.stranger, &scene.peer]
        .map(|from| scene.knocks(from, PORT))
        .into();
    let took = scene.guarded.real.boot().unwrap();
    println!("{what}: running after {} ms", took.as_millis());
    let first = scene.guarded.counts_under_fire().unwrap();
    assert!(first.stranger_arrived > 0, "{first:?}");
    assert_eq!(first.stranger_through, 0, "{first:?}");
    if lets_peers_in {
        let answered = || scene.guarded.answers(&scene.peer, PORT);
        wait::until_true("the peer to be let in", answered).unwrap();
    }
    let (stranger, peer) = (stranger.end(), peer.end());
    println!("{what}: a stranger's {stranger:?}; a peer's {peer:?}");
    assert_eq!(stranger.answered, 0);
    assert_eq!(peer.answered > 0, lets_peers_in);
    let (code, status) = scene.guarded.status().unwrap();
    assert_eq!(code, DEGRADED, "{status:#}");
    assert!(problems(&status).contains("no daemon answers"));
    scene.endure(what);
}

#[test]
fn a_loss_of_power_changes_nothing_of_that() {
    let mut scene = Scene::with_policy();
    let flood = scene.flood(&scene.stranger);
    scene.endure("power loss: before");
    scene.guarded.real.kill().unwrap();
    let knocks = [&scene.stranger, &scene.peer].map(|from| scene.knocks(from, PORT));
    let took = scene.guarded.real.boot().unwrap();
    println!("running after {} ms", took.as_millis());
    let first = scene.guarded.counts_under_fire().unwrap();
    println!("before the daemon: {first:?}");
    assert!(first.stranger_arrived > 0, "{first:?}");
    assert_eq!(first.stranger_through, 0, "{first:?}");
    comes_up(&scene, "power loss: after", knocks, flood);
}

#[test]
fn a_shutdown_opens_nothing_although_nftables_service_flushes_everything() {
    let mut scene = Scene::with_policy();
    // nftables alone, since BPF would hide the hole.
    scene.guarded.write_config("bpf: off\n").unwrap();
    scene.systemctl(&["restart", "nodeguard.service"]);
    scene.guarded.wait_for_status(OK).unwrap();
    scene.systemctl(&["unmask", "--quiet", "nftables.service"]);
    let enable = ["enable", "--quiet", "--now", "nftables.service"];
    scene.systemctl(&enable);
    let tables = scene
        .guarded
        .real
        .succeed(&["nft", "list", "tables"])
        .unwrap();
    assert!(
        tables.contains("inet filter") && !tables.contains("witness"),
        "{tables}"
    );
    assert!(tables.contains("inet nodeguard"), "{tables}");

    let flood = scene.flood(&scene.stranger);
    let knocks = [&scene.stranger, &scene.peer].map(|from| scene.knocks(from, PORT));
    let took = scene.guarded.real.reboot().unwrap();
    println!("running after {} ms", took.as_millis());
    // From before it was told to reboot until it ran again, as seen from outside.
    assert_eq!(scene.answers(), 0);
    let last = ["journalctl", "--boot=-1", "--unit=nftables.service"];
    let log = scene.guarded.real.succeed(&last).unwrap();
    assert!(
        log.contains("Stopped nftables.service"),
        "it has flushed: {log}"
    );
    comes_up(&scene, "shutdown and boot: after", knocks, flood);
}

/// The end of a boot with a policy: everything is well, and of the stranger and the peer, who tried
/// to connect all the while under this flood, the peer alone was answered.
fn comes_up(scene: &Scene, what: &str, knocks: [Knocker; 2], flood: Onslaught) {
    scene.guarded.wait_for_status(OK).unwrap();
    scene.endure(what);
    let [stranger, peer] = knocks.map(Knocker::end);
    println!("a stranger's {stranger:?}; a peer's {peer:?}");
    assert_eq!(stranger.answered, 0);
    assert!(peer.answered > 0);
    println!("sent: {}", flood.end().unwrap());
}

#[test]
fn the_end_of_the_daemon_opens_nothing_and_teardown_alone_does() {
    let scene = Scene::with_policy();
    let flood = scene.flood(&scene.stranger);
    let guarded = &scene.guarded;
    let pid = || guarded.wait_for_status(OK).unwrap()["daemon"]["pid"].clone();
    let pins = || {
        guarded
            .real
            .run(&["ls", "/run/nodeguard/bpf/links"])
            .unwrap()
    };

    let first = pid();
    assert!(!pins().stdout.is_empty(), "{:?}", pins());
    scene.systemctl(&["kill", "--signal", "KILL", "nodeguard.service"]);
    scene.endure("daemon: killed");
    wait::until_true("another daemon", || {
        guarded
            .status()
            .is_ok_and(|(code, status)| code == OK && status["daemon"]["pid"] != first)
    })
    .unwrap();

    scene.systemctl(&["stop", "nodeguard.service"]);
    let status = guarded.wait_for_status(DEGRADED).unwrap();
    assert!(problems(&status).contains("no daemon answers"));
    assert!(
        !pins().stdout.is_empty(),
        "what was pinned is gone: {:?}",
        pins()
    );
    let before = scene.counts();
    scene.endure("daemon: stopped");
    let after = scene.counts();
    println!(
        "of which BPF without a daemon let {} pass",
        after.stranger_arrived - before.stranger_arrived
    );
    assert_eq!(
        after.stranger_arrived, before.stranger_arrived,
        "BPF still drops"
    );
    assert!(guarded.answers(&scene.peer, PORT));

    // A foreign flush: no daemon is there to mend it, but BPF is.
    guarded.flush_ruleset().unwrap();
    let status = guarded.wait_for_status(OPEN).unwrap();
    assert!(problems(&status).contains("nftables: "), "{status:#}");
    scene.endure("daemon: stopped and flushed, BPF alone");
    scene.systemctl(&["start", "nodeguard.service"]);
    guarded.wait_for_status(OK).unwrap();

    // The same without BPF.
    guarded.write_config("bpf: off\n").unwrap();
    scene.systemctl(&["restart", "nodeguard.service"]);
    guarded.wait_for_status(OK).unwrap();
    assert!(!pins().status.success(), "BPF is gone: {:?}", pins());
    scene.endure("nftables alone");
    guarded.flush_ruleset().unwrap();
    scene.endure("nftables alone: flushed while the daemon runs");
    guarded.wait_for_status(OK).unwrap();
    scene.systemctl(&["stop", "nodeguard.service"]);
    scene.endure("nftables alone: stopped");
    guarded.flush_ruleset().unwrap();
    wait_for_a_hole(&scene);
    guarded.wait_for_status(OPEN).unwrap();
    scene.systemctl(&["start", "nodeguard.service"]);
    guarded.wait_for_status(OK).unwrap();
    let mended = scene.counts().stranger_through;
    guarded.wait_for_frames(FRAMES).unwrap();
    assert_eq!(scene.counts().stranger_through, mended, "mended");

    // With everything in place again, the one command that opens.
    guarded.write_config("").unwrap();
    scene.systemctl(&["restart", "nodeguard.service"]);
    guarded.wait_for_status(OK).unwrap();
    let refused = guarded.real.run(&["nodeguard", "teardown"]).unwrap();
    assert!(refused.stderr.contains("a daemon runs"), "{refused:?}");
    assert_eq!(refused.status.code(), Some(1));
    let still = scene.counts().stranger_through;
    guarded.wait_for_frames(FRAMES).unwrap();
    assert_eq!(scene.counts().stranger_through, still);
    scene.systemctl(&["stop", "nodeguard.service"]);
    guarded.real.succeed(&["nodeguard", "teardown"]).unwrap();
    wait_for_a_hole(&scene);
    assert!(guarded.answers(&scene.stranger, PORT));
    guarded.wait_for_status(OPEN).unwrap();
    assert!(!pins().status.success(), "{:?}", pins());
    scene.systemctl(&["start", "nodeguard.service"]);
    guarded.wait_for_status(OK).unwrap();
    assert!(!guarded.answers(&scene.stranger, PORT));
    println!("sent: {}", flood.end().unwrap());
}

/// The proof that what counts would see one.
fn wait_for_a_hole(scene: &Scene) {
    let (counts, answers) = (scene.counts(), scene.answers());
    wait::until_true("the stranger to get through", || {
        scene.counts().stranger_through > counts.stranger_through + 1000
            && scene.answers() > answers
    })
    .unwrap();
    println!("open: {}", told(&scene.counts(), scene));
}

#[test]
fn the_status_tells_what_is_missing() {
    let mut scene = Scene::new();
    let flood = scene.flood(&scene.stranger);
    let guarded = &mut scene.guarded;
    guarded.real.boot().unwrap();
    let status = guarded.wait_for_status(DEGRADED).unwrap();
    assert_eq!(status["policy"]["origin"], "shut");
    assert!(problems(&status).contains("the peer files name no node"));

    guarded.write_peers().unwrap();
    let status = guarded.wait_for_status(OK).unwrap();
    assert_eq!(status["health"], "ok");
    assert_eq!(
        status["problems"].as_array().unwrap().len(),
        0,
        "{status:#}"
    );
    assert_eq!(status["policy"]["origin"], "files");
    assert_eq!(status["nftables"]["owned"], true);
    let eth0 = &status["bpf"]["devices"][0];
    assert_eq!(
        (&eth0["name"], &eth0["attached"]),
        (&"eth0".into(), &"tcx".into())
    );
    guarded.wait_for_frames(FRAMES).unwrap();
    let (_, status) = guarded.status().unwrap();
    assert!(
        drops(&status, "bpf") > 0 && drops(&status, "nftables") > 0,
        "{status:#}"
    );

    guarded.write_config("no_such_field: true\n").unwrap();
    let status = guarded.wait_for_status(DEGRADED).unwrap();
    assert!(problems(&status).contains("no_such_field"), "{status:#}");
    guarded.write_config("").unwrap();
    guarded.wait_for_status(OK).unwrap();

    guarded
        .write_config("interfaces: [{name: eth0}, {name: eth7}]\n")
        .unwrap();
    let status = guarded.wait_for_status(DEGRADED).unwrap();
    assert!(problems(&status).contains("bpf on eth7"), "{status:#}");
    guarded.write_config("").unwrap();
    guarded.wait_for_status(OK).unwrap();

    let stop = ["systemctl", "stop", "nodeguard.service"];
    guarded.real.succeed(&stop).unwrap();
    let status = guarded.wait_for_status(DEGRADED).unwrap();
    assert!(problems(&status).contains("no daemon answers"));
    assert_eq!(status["nftables"]["enforcing"], true);
    guarded.real.succeed(&["nodeguard", "teardown"]).unwrap();
    let status = guarded.wait_for_status(OPEN).unwrap();
    assert_eq!(status["health"], "open");
    assert_eq!(status["nftables"]["enforcing"], false);
    println!("sent: {}", flood.end().unwrap());
}
