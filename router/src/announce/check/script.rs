//! A program that must end with status 0.

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::CheckError;

/// Bytes of a program's output that are logged; the rest is read and dropped, so that it is not
/// held up.
const OUTPUT: usize = 4096;
/// How long to read on after the program has ended: a process that has left its group may hold its
/// output open.
const REST: Duration = Duration::from_millis(50);

/// Runs a program, without a shell, in a process group of its own. When it has ended, or when nobody
/// waits for it any more, the whole group is killed: what a check leaves behind would add up.
pub(super) async fn run(command: &[String]) -> Result<(), CheckError> {
    let (program, arguments) = command
        .split_first()
        .expect("the configuration holds no empty command");
    // Before there is a child, so that no end is missed.
    let children = signal(SignalKind::child()).map_err(CheckError::Start)?;
    let (mut group, output) = start(program, arguments).map_err(CheckError::Start)?;
    let mut said = Vec::new();
    {
        let mut reading = pin!(read(output, &mut said));
        let mut ended = pin!(group.ended(children));
        let silent = tokio::select! {
            result = &mut ended => result.map(|()| false),
            () = &mut reading => ended.await.map(|()| true),
        };
        let silent = silent.map_err(CheckError::Start)?;
        group.kill();
        if !silent {
            let _ = timeout(REST, reading).await;
        }
    }
    let status = group.0.wait().await.map_err(CheckError::Start)?;
    let said = String::from_utf8_lossy(&said);
    tracing::debug!(program, %status, output = said.trim_end(), "script ended");
    if status.success() {
        Ok(())
    } else {
        Err(CheckError::Exit(status))
    }
}

fn start(program: &str, arguments: &[String]) -> io::Result<(Group, pipe::Receiver)> {
    let (reader, writer) = io::pipe()?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        // Whether the registrar is ready is not for a script to say.
        .env_remove("NOTIFY_SOCKET")
        .process_group(0);
    let group = Group(command.spawn()?);
    // The command holds the writing end, without which the reading one would never end.
    drop(command);
    Ok((group, pipe::Receiver::from_owned_fd(reader.into())?))
}

/// Reads to the end, and keeps the beginning.
async fn read(mut output: impl AsyncRead + Unpin, said: &mut Vec<u8>) {
    let mut buffer = [0; 1024];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let kept = length.min(OUTPUT - said.len());
                said.extend_from_slice(&buffer[..kept]);
            }
        }
    }
}

/// A process and its group.
struct Group(Child);

impl Group {
    /// Waits until the process has ended, and leaves it unreaped.
    async fn ended(&self, mut children: tokio::signal::unix::Signal) -> io::Result<()> {
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        while waitid(Id::Pid(leader), flags)? == WaitStatus::StillAlive {
            children.recv().await;
        }
        Ok(())
    }

    /// Kills whatever is left of the group, but for processes that have put themselves into another.
    ///
    /// The leader has not been reaped, or it would have no number here. Until then its number, which
    /// is the group's as well, is nobody else's.
    fn kill(&self) {
        let Some(leader) = self.leader() else {
            return;
        };
        if let Err(error) = killpg(leader, Signal::SIGKILL) {
            tracing::debug!(%error, %leader, "a script's processes cannot be killed");
        }
    }

    /// `None` when it has been reaped.
    fn leader(&self) -> Option<Pid> {
        let id = self.0.id().and_then(|id| i32::try_from(id).ok());
        id.map(Pid::from_raw)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The runtime reaps the process afterwards.
        self.kill();
    }
}
