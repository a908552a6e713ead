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
    ] {
        assert!(shown.contains(word), "{word:?} is not in:\n{shown}");
    }
    before.assert_unchanged().unwrap();
}

#[test]
fn the_demo_runs_without_root_on_loopback() {
    let _alone = MACHINE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let before = MachineState::capture().unwrap();
    let shown = demo().args(["--loopback"]).succeed().unwrap();
    for word in ["no root", "127.", "0 failed", "nothing is left"] {
        assert!(shown.contains(word), "{word:?} is not in:\n{shown}");
    }
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
