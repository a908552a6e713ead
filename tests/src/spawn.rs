//! Starts child processes; the one file of the harness that needs `unsafe`.
//!
//! All children are started by one thread that lives as long as we do: the kernel sends the
//! signal of `PR_SET_PDEATHSIG` when the *thread* that forked ends, and a test's thread ends long
//! before the children of a fixture that others share.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid, setpgid};

type Job = Box<dyn FnOnce() + Send>;

/// Starts `command` in a network namespace (`None`: ours), in a process group of its own so that
/// Ctrl-C reaches us alone, and bound to our life.
pub(crate) fn spawn(mut command: Command, namespace: Option<Arc<File>>) -> io::Result<Child> {
    let parent = getpid();
    // SAFETY: between fork and exec only async-signal-safe calls may run. The closure makes four
    // plain system calls (setns, setpgid, prctl, getppid), allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(move || {
            if let Some(namespace) = &namespace {
                setns(namespace, CloneFlags::CLONE_NEWNET)?;
            }
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
            set_pdeathsig(Signal::SIGKILL)?;
            // We may have died before the line above took effect.
            if getppid() != parent {
                return Err(io::ErrorKind::Interrupted.into());
            }
            Ok(())
        });
    }
    let (done, child) = channel();
    let job: Job = Box::new(move || {
        let _ = done.send(command.spawn());
    });
    spawner().send(job).expect("the spawner thread never ends");
    child.recv().expect("the spawner answers every job")
}

fn spawner() -> &'static Sender<Job> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::Builder::new()
            .name("spawner".into())
            .spawn(move || jobs.into_iter().for_each(|job| job()))
            .expect("a thread can be started");
        sender
    })
}
