//! The audit log: one event per change that somebody who is known has tried, made or refused.
//!
//! Every event is an event of tracing (target `router::audit`) and, if a file is configured, a line
//! of JSON there. The line is in the file before the change is answered. It survives the death of
//! the process, not that of the machine: nothing is synced.
//!
//! A file that cannot be written to does **not** stop changes. Registrars renew their routes through
//! the same calls, and a full disk must not take every tenant off the air; the process's log still
//! has the event. The failure is logged, and `router_registry_audit_failures_total` counts the
//! lines that are missing: alert on it.
//!
//! Not here: renewals that change nothing, calls that were turned away for lack of a credential or
//! by a limit, and those that are no calls of the API at all: unknown paths, methods and types of
//! bodies (the log and the metrics count those). Whoever has no credential cannot fill a disk, and
//! whoever has one not by being refused: see [`refusals`](super::refusals).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime};

use serde::Serialize;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::observe::metrics::Registry;
use crate::observe::timestamp::rfc3339;
use crate::registry::store::Revision;

/// Bytes of an object that are recorded: a path may be of any length.
const LONGEST_OBJECT: usize = 300;
/// Lines that may wait to be written.
const LINES: usize = 1024;
/// How long an answer waits for its line: a disk may hang.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a handler says about the change that it made or refused; it hands it over among its
/// answer's extensions (`axum::Extension(Change { .. })`). Without it, the event has the call's
/// method and path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whose things it touches, if that is not the caller.
    pub tenant: Option<Arc<str>>,
    /// What was done, such as `announce`; the method otherwise.
    pub action: Option<&'static str>,
    /// What it was done to: a host rule, an instance, the id of a token. The path otherwise.
    pub object: Option<String>,
    /// Every name that it is about, if the object is none.
    pub hosts: Vec<String>,
    /// Where requests go after it.
    pub endpoints: Vec<SocketAddr>,
    /// The store's revision that made it.
    pub revision: Option<Revision>,
}

/// Among an answer's extensions: the call changed nothing, a renewal for one. It is not recorded.
#[derive(Clone, Copy, Debug)]
pub struct Unchanged;

/// Among an answer's extensions: what else the change did, such as routes that went with a zone.
/// Each is an event of its own, after the change's; with the same revision, which tells the cause.
#[derive(Clone, Debug, Default)]
pub struct Consequences(pub Vec<Change>);

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditEvent {
    /// When it was answered.
    pub time: SystemTime,
    /// The credential, without its secret.
    pub caller: Arc<str>,
    /// What the credential stands for: `tenant acme`, `operator jane`.
    pub role: String,
    /// Where the call came from.
    pub peer: SocketAddr,
    /// Whose things it touches.
    pub tenant: Option<Arc<str>>,
    /// What was to be done.
    pub action: String,
    /// What it was to be done to; a long one is cut and ends in `…`.
    pub object: String,
    /// Every name that it is about, if the object is none: at most as many as may be announced.
    pub hosts: Vec<String>,
    /// Where requests go after it: at most as many as a route may have.
    pub endpoints: Vec<SocketAddr>,
    /// `done`, or the reason of the refusal.
    pub outcome: &'static str,
    /// The answer's status.
    pub status: u16,
    /// The store's revision that made it.
    pub revision: Option<Revision>,
    /// How many refusals the line stands for, if there were too many to write each: this is the
    /// last of them.
    pub refusals: Option<u64>,
}

/// An event as a line of the file.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    caller: &'a str,
    role: &'a str,
    peer: SocketAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a str>,
    action: &'a str,
    object: &'a str,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    hosts: &'a [String],
    #[serde(skip_serializing_if = "<[SocketAddr]>::is_empty")]
    endpoints: &'a [SocketAddr],
    outcome: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refusals: Option<u64>,
}

impl AuditEvent {
    /// As it stands in the file, with its end. JSON escapes whatever could end a line early.
    #[must_use]
    pub fn line(&self) -> Vec<u8> {
        let line = Line {
            time: rfc3339(self.time),
            caller: &self.caller,
            role: &self.role,
            peer: self.peer,
            tenant: self.tenant.as_deref(),
            action: &self.action,
            object: &self.object,
            hosts: &self.hosts,
            endpoints: &self.endpoints,
            outcome: self.outcome,
            status: self.status,
            revision: self.revision.map(|Revision(revision)| revision),
            refusals: self.refusals,
        };
        let mut line = serde_json::to_vec(&line).expect("texts and numbers are JSON");
        line.push(b'\n');
        line
    }
}

/// An object as it is recorded.
#[must_use]
pub fn shortened(mut object: String) -> String {
    if object.len() > LONGEST_OBJECT {
        object.truncate(object.floor_char_boundary(LONGEST_OBJECT));
        object.push('…');
    }
    object
}

/// Records events.
pub struct AuditLog {
    file: Option<Queue>,
    metrics: Arc<Registry>,
}

/// The way to the thread that writes the file, so that a disk that hangs stops no call but for
/// [`PATIENCE`].
struct Queue {
    lines: SyncSender<(Vec<u8>, oneshot::Sender<io::Result<()>>)>,
    path: PathBuf,
    /// The last line is missing, and that was logged.
    failing: AtomicBool,
}

impl AuditLog {
    /// Opens the file, if there is to be one; it is made with mode 0600.
    ///
    /// # Errors
    /// It cannot be appended to, or is no regular file; or there is no thread.
    pub fn open(file: Option<&Path>, metrics: Arc<Registry>) -> io::Result<Self> {
        let file = match file {
            None => None,
            Some(path) => Some(Queue::start(AuditFile::open(path)?)?),
        };
        Ok(Self { file, metrics })
    }

    /// Records an event; waits until its line is written, for a second at most.
    pub async fn record(&self, event: &AuditEvent) {
        tracing::info!(
            target: "router::audit",
            caller = %event.caller,
            role = %event.role,
            peer = %event.peer,
            tenant = event.tenant.as_deref(),
            action = %event.action,
            object = ?event.object,
            hosts = (!event.hosts.is_empty()).then(|| debug(&event.hosts)),
            endpoints = (!event.endpoints.is_empty()).then(|| debug(&event.endpoints)),
            outcome = event.outcome,
            status = event.status,
            revision = event.revision.map(|Revision(revision)| revision),
            refusals = event.refusals,
            "change"
        );
        let Some(queue) = &self.file else {
            return;
        };
        match queue.write(event.line()).await {
            Ok(()) => {
                if queue.failing.swap(false, Relaxed) {
                    tracing::info!(file = %queue.path.display(), "the audit log is written again");
                }
            }
            Err(error) => {
                self.metrics.api.audit_failed();
                if !queue.failing.swap(true, Relaxed) {
                    tracing::error!(
                        file = %queue.path.display(), %error,
                        "the audit log cannot be written; changes go on"
                    );
                }
            }
        }
    }
}

impl Queue {
    fn start(file: AuditFile) -> io::Result<Self> {
        let (lines, queue) = sync_channel(LINES);
        let path = file.path.clone();
        // Ends with the sender.
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || write_lines(file, &queue))?;
        Ok(Self {
            lines,
            path,
            failing: AtomicBool::new(false),
        })
    }

    async fn write(&self, line: Vec<u8>) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        self.lines
            .try_send((line, done))
            .map_err(|_| io::Error::other("too many lines wait to be written"))?;
        match timeout(PATIENCE, written).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(io::Error::other("the thread that writes it has ended")),
            Err(_) => Err(io::Error::other("it takes longer than a second")),
        }
    }
}

fn write_lines(mut file: AuditFile, queue: &Receiver<(Vec<u8>, oneshot::Sender<io::Result<()>>)>) {
    while let Ok((line, done)) = queue.recv() {
        // Whoever lost patience does not hear of it.
        let _ = done.send(file.append(&line));
    }
}

/// The open file, and where it should be.
struct AuditFile {
    path: PathBuf,
    file: File,
    /// The last write failed, perhaps in the middle of a line.
    torn: bool,
}

impl AuditFile {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: append_to(path)?,
            torn: false,
        })
    }

    /// Appends a line; to a new file if the old one was moved away, as logrotate does.
    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.is_in_place() {
            self.file = append_to(&self.path)?;
            self.torn = false;
        }
        // What follows half a line is no line either.
        let written = if self.torn {
            self.file.write_all(&[b"\n", line].concat())
        } else {
            self.file.write_all(line)
        };
        self.torn = written.is_err();
        written
    }

    fn is_in_place(&self) -> bool {
        let place = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let there = fs::metadata(&self.path).map(place);
        matches!((there, self.file.metadata().map(place)), (Ok(there), Ok(open)) if there == open)
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    // Asked before opening, since opening a pipe would wait for a reader.
    if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
        return Err(io::Error::other("it is no regular file"));
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::time::UNIX_EPOCH;

    fn event(object: &str) -> AuditEvent {
        AuditEvent {
            time: UNIX_EPOCH,
            caller: "token:0123456789abcdef".into(),
            role: "tenant acme".to_owned(),
            peer: "192.0.2.1:5".parse().unwrap(),
            tenant: Some("acme".into()),
            action: "put".to_owned(),
            object: object.to_owned(),
            hosts: vec!["www.example.org".to_owned()],
            endpoints: vec!["10.0.0.1:80".parse().unwrap()],
            outcome: "done",
            status: 201,
            revision: Some(Revision(7)),
            refusals: None,
        }
    }

    #[test]
    fn a_long_object_is_cut_between_characters() {
        assert_eq!(shortened("x".repeat(300)), "x".repeat(300));
        let cut = shortened(format!("x{}", "é".repeat(8000)));
        assert_eq!(cut, format!("x{}…", "é".repeat(149)));
    }

    fn metrics() -> Arc<Registry> {
        Arc::new(Registry::new(UNIX_EPOCH))
    }

    fn lines(path: &Path) -> Vec<Value> {
        let text = fs::read_to_string(path).unwrap();
        assert!(text.ends_with('\n'));
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let line = event("a\nb\u{2028}\"").line();
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let line: Value = serde_json::from_slice(&line).unwrap();
        let expected = json!({
            "time": "1970-01-01T00:00:00.000000Z",
            "caller": "token:0123456789abcdef",
            "role": "tenant acme",
            "peer": "192.0.2.1:5",
            "tenant": "acme",
            "action": "put",
            "object": "a\nb\u{2028}\"",
            "hosts": ["www.example.org"],
            "endpoints": ["10.0.0.1:80"],
            "outcome": "done",
            "status": 201,
            "revision": 7,
        });
        assert_eq!(line, expected);
    }

    #[tokio::test]
    async fn lines_are_there_at_once_and_follow_the_name_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("audit"), folder.path().join("audit.1"));
        let metrics = metrics();
        let log = AuditLog::open(Some(&path), Arc::clone(&metrics)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        log.record(&event("one")).await;
        log.record(&event("two")).await;
        assert_eq!(lines(&path).len(), 2);
        fs::rename(&path, &old).unwrap();
        log.record(&event("three")).await;
        assert_eq!((lines(&old).len(), lines(&path).len()), (2, 1));
        assert_eq!(lines(&path)[0]["object"], "three");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(
            metrics
                .render()
                .contains("router_registry_audit_failures_total 0")
        );
        drop(log);
        let log = AuditLog::open(Some(&path), metrics).unwrap();
        log.record(&event("four")).await;
        assert_eq!(lines(&path).len(), 2, "a restart appends");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_counted_and_stops_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("logs");
        fs::create_dir(&inner).unwrap();
        let path = inner.join("audit");
        let metrics = metrics();
        let log = AuditLog::open(Some(&path), Arc::clone(&metrics)).unwrap();
        fs::remove_dir_all(&inner).unwrap();
        log.record(&event("one")).await;
        log.record(&event("two")).await;
        assert!(
            metrics
                .render()
                .contains("router_registry_audit_failures_total 2")
        );
        fs::create_dir(&inner).unwrap();
        log.record(&event("three")).await;
        assert_eq!(lines(&path)[0]["object"], "three");
        assert!(AuditLog::open(Some(&inner), metrics).is_err(), "a folder");
    }

    #[test]
    fn what_follows_half_a_line_is_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit");
        let mut file = AuditFile::open(&path).unwrap();
        file.file.write_all(b"{\"half").unwrap();
        // As after a write that failed because the disk was full.
        file.torn = true;
        file.append(b"{}\n").unwrap();
        file.append(b"{}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\n{}\n{}\n");
    }
}
