//! A program that must end with status 0.

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::unix::pipe;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::CheckError;

/// Bytes of a program's output that are logged; the rest is read and dropped, so that it is not
/// held up.
const OUTPUT: usize = 4096;
/// How long to read on after the program has ended: a process that it left behind may hold its
/// output open.
const REST: Duration = Duration::from_millis(50);

/// Runs a program, without a shell, in a process group of its own. Whoever stops waiting kills the
/// whole group.
pub(super) async fn run(command: &[String]) -> Result<(), CheckError> {
    let (program, arguments) = command
        .split_first()
        .expect("the configuration holds no empty command");
    let (mut group, output) = start(program, arguments).map_err(CheckError::Start)?;
    let mut said = Vec::new();
    let status = {
        let mut reading = pin!(read(output, &mut said));
        tokio::select! {
            status = group.0.wait() => {
                let _ = timeout(REST, reading).await;
                status
            }
            () = &mut reading => group.0.wait().await,
        }
    };
    let status = status.map_err(CheckError::Start)?;
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

impl Drop for Group {
    fn drop(&mut self) {
        // Only while the process has not been waited for: until then its number, which is the
        // group's as well, is nobody else's. The runtime waits for it afterwards.
        let Some(leader) = self.0.id().and_then(|id| i32::try_from(id).ok()) else {
            return;
        };
        if let Err(error) = killpg(Pid::from_raw(leader), Signal::SIGKILL) {
            tracing::debug!(%error, leader, "a script's processes cannot be killed");
        }
    }
}
