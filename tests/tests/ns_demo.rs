//! The demo, run as a newcomer runs it: needs root, for network namespaces.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::process::Command;
use std::sync::Mutex;

use harness::folder::Folder;
use harness::machine::MachineState;
use harness::process::Process;
use harness::program::{binary, variable};
use harness::tool::Tool;
use harness::wait;
use nix::sys::signal::Signal;

/// What both ways to run it show of routes that announce themselves.
const ANNOUNCEMENTS: [&str; 9] = [
    "*.acme.example.org is leased to acme",
    "shop.acme.example.org: the first answer after",
    "a1,a2",
    "a1 is withdrawn by its registrar after",
    "a2 leaves after",
    "a2 is announced again after",
    "\u{2713} withdrawn after",
    "(403 outside-zones)",
    "(403 address-outside-zones)",
];

/// Rows of the table that count GETs.
const ROWS: [&str; 6] = [
    "announced",
    "a1's NGINX stops, and is back",
    "a2's registrar dies, and is back",
    "both withdrawn and back",
    "a1 is killed",
    "globex meanwhile",
];

/// One at a time: each compares the whole machine before and after.
static MACHINE: Mutex<()> = Mutex::new(());

fn demo() -> Tool {
    ["router", "nodeguard"].into_iter().fold(
        Tool::new(env!("CARGO_BIN_EXE_demo")),
        |demo, program| {
            let binary = binary(program).unwrap();
            demo.environment(&variable(program), &binary.to_string_lossy())
        },
    )
}

/// Every GET of the table has been answered, by both workers of a tenant.
fn assert_all_answered(shown: &str) {
    for what in ROWS {
        let begin = format!("  GET, {what} ");
        let row = shown.lines().find_map(|line| line.strip_prefix(&begin));
        let row = row.unwrap_or_else(|| panic!("{what:?} is not counted in:\n{shown}"));
        let words: Vec<&str> = row.split_whitespace().collect();
        let [requests, failed, one, _, other, _] = words[..] else {
            panic!("{what}: {row}");
        };
        assert!(requests.parse::<usize>().unwrap() >= 1_000, "{what}: {row}");
        assert_eq!(failed, "0", "{what}: {row}");
        let both = [["a1", "a2"], ["g1", "g2"]];
        assert!(both.contains(&[one, other]), "{what}: {row}");
    }
    for secret in ["ghr_", "gho_"] {
        assert!(!shown.contains(secret), "a token is shown in:\n{shown}");
    }
}

#[test]
fn the_demo_shows_what_it_promises_and_leaves_nothing() {
    let _alone = MACHINE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = MachineState::capture().unwrap();
    let shown = demo().succeed().unwrap();
    for word in [
        "308 -> https://",
        "HTTP/2 200",
        "HTTP/1.1 200",
        "came back",
        "is dead",
        "0 failed",
        "DROP  10.77.0.4 -> 10.77.0.1, tcp 2379 (etcd-client)",
        "stranger               22              0              0             22",
        "router                 22             22             22             22",
        "nothing is left",
    ]
    .into_iter()
    .chain(ANNOUNCEMENTS)
    {
        assert!(shown.contains(word), "{word:?} is not in:\n{shown}");
    }
    assert_all_answered(&shown);
    before.assert_unchanged().unwrap();
}

#[test]
fn the_demo_runs_without_root_on_loopback() {
    let _alone = MACHINE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = MachineState::capture().unwrap();
    let shown = demo().args(["--loopback"]).succeed().unwrap();
    for word in ["no root", "127.", "0 failed", "nothing is left"]
        .into_iter()
        .chain(ANNOUNCEMENTS)
    {
        assert!(shown.contains(word), "{word:?} is not in:\n{shown}");
    }
    assert_all_answered(&shown);
    before.assert_unchanged().unwrap();
}

#[test]
fn an_interrupted_demo_leaves_nothing() {
    let _alone = MACHINE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = MachineState::capture().unwrap();
    for (signal, when) in [
        (Signal::SIGINT, "every host is"),
        (Signal::SIGTERM, "router announce"),
        (Signal::SIGINT, "A registrar is killed"),
        (Signal::SIGINT, "Under load"),
        (Signal::SIGTERM, "is dead"),
    ] {
        let folder = Folder::new("interrupt").unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
        command.env(variable("router"), binary("router").unwrap());
        let mut process = Process::start("demo", command, None, folder.path()).unwrap();
        wait::until_true(&format!("the demo to print {when:?}"), || {
            process.log().contains(when)
        })
        .unwrap();
        process.signal(signal);
        let status = process.wait(wait::PATIENCE).unwrap();
        assert_eq!(status.code(), Some(130), "{}", process.log());
        assert!(
            process.log().contains("everything was cleaned up"),
            "{}",
            process.log()
        );
        drop(process);
        drop(folder);
        before.assert_unchanged().unwrap();
    }
}
