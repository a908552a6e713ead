//! The harness's own check: it must notice what is left behind.

#![allow(clippy::unwrap_used, reason = "a test may be blunt")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use harness::folder::Folder;
use harness::machine::MachineState;
use harness::process::Process;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

// One test, since it looks at everything that this process does.
#[test]
fn what_came_is_noticed_until_it_is_gone_and_so_is_a_device_that_changed_hands() {
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
    a_device_that_changed_hands_is_noticed();
}

// On a thread with mounts of its own: it must be seen to fail without harm to the machine's.
fn a_device_that_changed_hands_is_noticed() {
    let differences = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        mount(
            None::<&str>,
            "/dev",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        fs::write("/dev/null", "").unwrap();
        let before = MachineState::capture().unwrap();
        fs::set_permissions("/dev/null", Permissions::from_mode(0o600)).unwrap();
        before.differences(&MachineState::capture().unwrap())
    })
    .join()
    .unwrap();
    assert!(
        differences.contains(&"device came: null 100600 0:0".to_owned()),
        "{differences:?}"
    );
}
