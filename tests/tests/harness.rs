//! The harness's own check: it must notice what is left behind.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::process::Command;

use harness::folder::Folder;
use harness::machine::MachineState;
use harness::process::Process;

// One test, since it looks at everything that this process does.
#[test]
fn a_folder_and_a_process_are_noticed_until_they_are_gone() {
    let before = MachineState::capture().unwrap();
    let folder = Folder::new("noticed").unwrap();
    let with_folder = MachineState::capture().unwrap();
    let differences = before.differences(&with_folder);
    assert_eq!(differences.len(), 1, "{differences:?}");
    assert!(differences[0].contains("-noticed-"), "{differences:?}");

    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let process = Process::start("sleep", sleep, None, folder.path()).unwrap();
    let differences = with_folder.differences(&MachineState::capture().unwrap());
    assert!(
        differences.iter().any(|it| it.contains("sleep")),
        "{differences:?}"
    );

    drop(process);
    with_folder.assert_unchanged().unwrap();
    drop(folder);
    before.assert_unchanged().unwrap();
}
