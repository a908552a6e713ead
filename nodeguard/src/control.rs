//! The daemon's control socket: one question and one answer, each a line of JSON.
//!
//! Only root may connect: the socket stands in a folder of mode 0700.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::status::Status;

/// The socket in the runtime folder.
const SOCKET: &str = "control.sock";

/// Nobody's question is longer, and no answer either.
pub const MAX_LINE: u64 = 16 << 20;

/// How long a daemon may take to answer. It answers within milliseconds unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A question to the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask", deny_unknown_fields)]
pub enum Question {
    /// How it is doing.
    Status,
    /// To read the files again, now.
    Reload {
        /// Whether to follow them although a safeguard objects.
        force: bool,
    },
}

/// The daemon's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    /// How it is doing.
    Status(Box<Status>),
    /// The files are in force.
    Reloaded {
        /// What is in force now.
        summary: String,
    },
    /// The files are not in force, or the question was not understood.
    Refused {
        /// Everything that was wrong.
        reasons: Vec<String>,
    },
}

/// Where the socket is.
#[must_use]
pub fn path(runtime: &Path) -> PathBuf {
    runtime.join(SOCKET)
}

/// Asks the daemon; `None` if there is none.
///
/// # Errors
/// If there is one that does not answer as it should.
pub fn ask(runtime: &Path, question: Question) -> io::Result<Option<Answer>> {
    let mut stream = match UnixStream::connect(path(runtime)) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(&question)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_LINE)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(serde_json::from_slice(&answer)?))
}
