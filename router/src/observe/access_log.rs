//! The access log: one line of JSON per request, formatted off the request path.
//!
//! A worker fills a [`Record`], pushes it to its own [`Logger`] and goes on. Full batches go through
//! a bounded queue to one log thread, which emits them as tracing events of the target `access`.
//! When the log cannot keep up, records are dropped and counted; requests never wait for it.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, SystemTime};

use super::metrics::{ClientProtocol, Shard};
use super::timestamp::rfc3339;

/// Target of the tracing events, and so the value of `target` in each line.
pub const TARGET: &str = "access";

/// Bytes of a method, a host, a path and a user agent that are kept.
const METHOD_LIMIT: usize = 32;
const HOST_LIMIT: usize = 255;
const PATH_LIMIT: usize = 2048;
const AGENT_LIMIT: usize = 256;
/// Bytes of a tenant's and an upstream's name that are kept.
const NAME_LIMIT: usize = 255;

/// A batch is handed over when it holds this many records, or this many bytes of text.
const BATCH_RECORDS: usize = 64;
const BATCH_TEXT: usize = 64 * 1024;
/// Batches that may wait for the log thread, all workers together.
const QUEUE: usize = 256;
/// How long the log thread rests after it found the queue empty. While it rests, no worker has to
/// wake it; [`QUEUE`] holds what 500,000 requests a second leave in that time.
const REST: Duration = Duration::from_millis(20);

/// What is known of one request when it is over.
///
/// Begin it when the head is read and hold it until the answer's last byte: it copies what it needs,
/// in one allocation.
#[derive(Clone, Debug)]
pub struct Record {
    /// When the request's first byte came.
    pub time: SystemTime,
    /// The client's address, as the listener saw it.
    pub client: SocketAddr,
    /// What the client speaks.
    pub protocol: ClientProtocol,
    /// The client's TLS session; `None` on the plain-HTTP listener.
    pub tls: Option<Tls>,
    /// Status of the answer; 0 if the client left before there was one.
    pub status: u16,
    /// Payload bytes of the request's body.
    pub request_bytes: u64,
    /// Payload bytes of the answer's body.
    pub response_bytes: u64,
    /// From the request's first byte to the answer's last.
    pub duration: Duration,
    /// Endpoint that answered, or was tried last.
    pub endpoint: Option<SocketAddr>,
    /// Whether the upstream connection came out of the pool.
    pub reused: bool,
    /// How many times the request was sent once more.
    pub retries: u8,
    /// Why the router itself refused or failed it, kebab-case.
    pub reason: Option<&'static str>,
    text: Vec<u8>,
    parts: Parts,
    truncated: bool,
}

/// What the access log tells of a client's TLS session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls {
    /// `1.2` or `1.3`.
    pub version: &'static str,
    /// Whether the client named a server (SNI).
    pub sni: bool,
    /// Whether the handshake resumed a session.
    pub resumed: bool,
}

/// What the client wrote, as it wrote it; any bytes.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestLine<'a> {
    /// The method.
    pub method: &'a [u8],
    /// Host or `:authority`; empty if there is none.
    pub host: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
    /// `User-Agent`; empty if there is none.
    pub user_agent: &'a [u8],
}

/// Where the strings of a record lie in its text. Limits above keep every sum below `u16::MAX`.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    method: Part,
    host: Part,
    path: Part,
    user_agent: Part,
    tenant: Part,
    upstream: Part,
}

#[derive(Clone, Copy, Debug, Default)]
struct Part {
    start: u16,
    length: u16,
}

impl Part {
    fn append(text: &mut Vec<u8>, bytes: &[u8], limit: usize, truncated: &mut bool) -> Self {
        let kept = &bytes[..bytes.len().min(limit)];
        *truncated |= kept.len() < bytes.len();
        let part = Self {
            start: text.len() as u16,
            length: kept.len() as u16,
        };
        text.extend_from_slice(kept);
        part
    }

    /// The string in `text`; `None` if it is empty. Bytes that are not UTF-8 become U+FFFD.
    fn of(self, text: &[u8]) -> Option<Cow<'_, str>> {
        let start = usize::from(self.start);
        let bytes = &text[start..start + usize::from(self.length)];
        (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes))
    }
}

impl Record {
    /// A record of a request that begins. Long strings are cut, and the line says so.
    pub fn new(
        time: SystemTime,
        client: SocketAddr,
        protocol: ClientProtocol,
        tls: Option<Tls>,
        line: RequestLine<'_>,
    ) -> Self {
        let RequestLine {
            method,
            host,
            path,
            user_agent,
        } = line;
        // Room for the names of tenant and upstream too, so that there is one allocation.
        let length = method.len() + host.len() + path.len() + user_agent.len();
        let limit = METHOD_LIMIT + HOST_LIMIT + PATH_LIMIT + AGENT_LIMIT;
        let mut text = Vec::with_capacity(length.min(limit) + 64);
        let mut truncated = false;
        let cut = &mut truncated;
        let parts = Parts {
            method: Part::append(&mut text, method, METHOD_LIMIT, cut),
            host: Part::append(&mut text, host, HOST_LIMIT, cut),
            path: Part::append(&mut text, path, PATH_LIMIT, cut),
            user_agent: Part::append(&mut text, user_agent, AGENT_LIMIT, cut),
            ..Parts::default()
        };
        Self {
            time,
            client,
            protocol,
            tls,
            status: 0,
            request_bytes: 0,
            response_bytes: 0,
            duration: Duration::ZERO,
            endpoint: None,
            reused: false,
            retries: 0,
            reason: None,
            text,
            parts,
            truncated,
        }
    }

    /// Notes which route the request took. Only the first call counts.
    ///
    /// The names are copied: sharing them would be a counter that every worker's core writes.
    pub fn routed(&mut self, tenant: &str, upstream: &str) {
        if self.parts.tenant.length != 0 {
            return;
        }
        let cut = &mut self.truncated;
        self.parts.tenant = Part::append(&mut self.text, tenant.as_bytes(), NAME_LIMIT, cut);
        self.parts.upstream = Part::append(&mut self.text, upstream.as_bytes(), NAME_LIMIT, cut);
    }

    /// Emits the record as a tracing event; `text` holds its strings.
    fn emit(&self, text: &[u8]) {
        let part = |part: Part| part.of(text);
        let (method, host, path) = (
            part(self.parts.method),
            part(self.parts.host),
            part(self.parts.path),
        );
        let (tenant, upstream) = (part(self.parts.tenant), part(self.parts.upstream));
        let user_agent = part(self.parts.user_agent);
        let time = rfc3339(self.time);
        let microseconds = u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX);
        tracing::info!(
            target: TARGET,
            time = time.as_str(),
            client = %self.client,
            protocol = self.protocol.label(),
            tls = self.tls.map(|tls| tls.version),
            sni = self.tls.map(|tls| tls.sni),
            resumed = self.tls.map(|tls| tls.resumed),
            method = method.as_deref(),
            host = host.as_deref(),
            path = path.as_deref(),
            status = self.status,
            reason = self.reason,
            request_bytes = self.request_bytes,
            response_bytes = self.response_bytes,
            duration_us = microseconds,
            tenant = tenant.as_deref(),
            upstream = upstream.as_deref(),
            endpoint = self.endpoint.map(tracing::field::display),
            reused = self.endpoint.map(|_| self.reused),
            retries = (self.retries != 0).then_some(self.retries),
            user_agent = user_agent.as_deref(),
            truncated = self.truncated.then_some(true),
        );
    }
}

/// Records of one worker, on their way to the log thread.
#[derive(Debug)]
struct Batch {
    /// Each with where its text begins in `text`; its own text is empty.
    records: Vec<(u32, Record)>,
    text: Vec<u8>,
}

impl Batch {
    fn new() -> Self {
        Self {
            records: Vec::with_capacity(BATCH_RECORDS),
            text: Vec::with_capacity(BATCH_RECORDS * 128),
        }
    }

    fn emit(&self) {
        for (start, record) in &self.records {
            record.emit(&self.text[*start as usize..]);
        }
    }
}

enum Message {
    Batch(Batch),
    Finish,
}

/// Makes the workers' [`Logger`]s; cheap to clone and to send.
#[derive(Clone)]
pub struct LogSender(SyncSender<Message>);

impl LogSender {
    /// The logger of the worker that writes `shard`, where dropped records are counted.
    pub fn logger(&self, shard: Arc<Shard>) -> Logger {
        Logger {
            queue: self.0.clone(),
            shard,
            batch: None,
        }
    }
}

/// One worker's end of the access log. What is left in it is handed over when it is dropped.
pub struct Logger {
    queue: SyncSender<Message>,
    shard: Arc<Shard>,
    batch: Option<Batch>,
}

impl Logger {
    /// Takes a record; hands the batch over when it is full. Never waits.
    pub fn push(&mut self, mut record: Record) {
        let batch = self.batch.get_or_insert_with(Batch::new);
        // The text moves into the batch's own, so that what the log thread frees is one buffer per
        // batch and not one per record.
        let text = std::mem::take(&mut record.text);
        let start = batch.text.len() as u32;
        batch.text.extend_from_slice(&text);
        batch.records.push((start, record));
        if batch.records.len() >= BATCH_RECORDS || batch.text.len() >= BATCH_TEXT {
            self.flush();
        }
    }

    /// Whether there is nothing to [`Logger::flush`].
    pub fn is_empty(&self) -> bool {
        self.batch.is_none()
    }

    /// Hands over what there is, for an idle tick. Never waits.
    pub fn flush(&mut self) {
        if let Some(batch) = self.batch.take() {
            let records = batch.records.len() as u64;
            if self.queue.try_send(Message::Batch(batch)).is_err() {
                self.shard.access_log_dropped.add(records);
            }
        }
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        self.flush();
    }
}

/// The log thread.
pub struct AccessLog {
    queue: SyncSender<Message>,
    ended: Receiver<()>,
}

impl AccessLog {
    /// Starts the log thread. `written` is called after each run of batches, to flush the output.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(written: impl FnMut() + Send + 'static) -> std::io::Result<Self> {
        let (queue, batches) = sync_channel(QUEUE);
        let (alive, ended) = sync_channel(1);
        std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || {
                run(&batches, written);
                drop(alive);
            })?;
        Ok(Self { queue, ended })
    }

    /// The workers' way in.
    pub fn sender(&self) -> LogSender {
        LogSender(self.queue.clone())
    }

    /// Writes what was handed over so far and ends the thread; waits for at most `patience`.
    pub fn finish(self, patience: Duration) {
        // A full queue is a log that does not keep up; waiting for room in it could take forever.
        for _ in 0..10 {
            if self.queue.try_send(Message::Finish).is_ok() {
                break;
            }
            std::thread::sleep(patience / 20);
        }
        // Nothing is ever sent; the end shows as a closed channel.
        let _ = self.ended.recv_timeout(patience / 2);
    }
}

fn run(queue: &Receiver<Message>, mut written: impl FnMut()) {
    while let Ok(first) = queue.recv() {
        let mut next = Ok(first);
        loop {
            match next {
                Ok(Message::Batch(batch)) => batch.emit(),
                Err(TryRecvError::Empty) => break,
                Ok(Message::Finish) | Err(TryRecvError::Disconnected) => return written(),
            }
            next = queue.try_recv();
            if matches!(next, Err(TryRecvError::Empty)) {
                written();
                std::thread::sleep(REST);
                next = queue.try_recv();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    use crate::observe::logging::{Output, access_layer};
    use daemon::logging::LogFormat;
    use tracing_subscriber::layer::SubscriberExt as _;

    fn record(line: RequestLine<'_>) -> Record {
        Record::new(
            UNIX_EPOCH + Duration::new(1_795_465_673, 123_456_789),
            "192.0.2.7:4711".parse().unwrap(),
            ClientProtocol::Http2,
            Some(Tls {
                version: "1.3",
                sni: true,
                resumed: false,
            }),
            line,
        )
    }

    /// What the log thread would write for the records.
    fn written(records: Vec<Record>) -> Vec<serde_json::Value> {
        let output = Output::memory();
        let layer = access_layer(LogFormat::Json, output.clone());
        let subscriber = tracing_subscriber::registry().with(layer);
        let (queue, batches) = sync_channel(QUEUE);
        let mut logger = LogSender(queue).logger(Arc::default());
        records.into_iter().for_each(|record| logger.push(record));
        drop(logger);
        tracing::subscriber::with_default(subscriber, || run(&batches, || {}));
        let text = String::from_utf8(output.contents()).expect("JSON is UTF-8");
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    #[test]
    fn a_record_becomes_one_flat_json_object() {
        let mut record = record(RequestLine {
            method: b"GET",
            host: b"a.example.org",
            path: b"/x?y=1",
            user_agent: b"curl/8",
        });
        record.status = 200;
        record.response_bytes = 12;
        record.duration = Duration::from_micros(1500);
        record.endpoint = Some("10.0.0.1:31380".parse().unwrap());
        record.reused = true;
        record.routed("acme", "web");
        let lines = written(vec![record]);
        let expected = serde_json::json!({
            "target": "access", "time": "2026-11-23T20:27:53.123456Z",
            "client": "192.0.2.7:4711", "protocol": "h2", "tls": "1.3", "sni": true,
            "resumed": false, "method": "GET", "host": "a.example.org", "path": "/x?y=1",
            "status": 200, "request_bytes": 0, "response_bytes": 12, "duration_us": 1500,
            "tenant": "acme", "upstream": "web", "endpoint": "10.0.0.1:31380", "reused": true,
            "user_agent": "curl/8",
        });
        assert_eq!(lines, [expected]);
    }

    #[test]
    fn what_clients_write_cannot_break_out_of_its_string() {
        let path = b"/\"},{\"status\":200}\n{\"a\":\"\x00\x1b[31m\r\\\xff\xfe\xc3\x28";
        let lines = written(vec![record(RequestLine {
            method: b"G\nET",
            path,
            ..RequestLine::default()
        })]);
        assert_eq!(lines.len(), 1, "one request is one line");
        assert_eq!(lines[0]["path"], String::from_utf8_lossy(path).as_ref());
        assert_eq!(lines[0]["method"], "G\nET");
        assert_eq!(lines[0]["status"], 0);
        assert!(lines[0].get("host").is_none());
    }

    #[test]
    fn long_strings_are_cut_and_marked() {
        let path = vec![b'a'; 100_000];
        let cut = record(RequestLine {
            path: &path,
            host: &path,
            method: &path,
            user_agent: &path,
        });
        let whole = record(RequestLine {
            path: &path[..PATH_LIMIT],
            ..RequestLine::default()
        });
        let lines = written(vec![cut, whole]);
        assert_eq!(lines[0]["path"].as_str().unwrap().len(), PATH_LIMIT);
        assert_eq!(lines[0]["method"].as_str().unwrap().len(), METHOD_LIMIT);
        assert_eq!(lines[0]["truncated"], true);
        assert!(lines[1].get("truncated").is_none());
    }

    #[test]
    fn records_are_handed_over_in_batches_and_keep_their_own_text() {
        let (queue, batches) = sync_channel(QUEUE);
        let mut logger = LogSender(queue).logger(Arc::default());
        for n in 0..BATCH_RECORDS {
            assert!(batches.try_recv().is_err(), "handed over after {n}");
            let path = format!("/{n}");
            logger.push(record(RequestLine {
                path: path.as_bytes(),
                ..RequestLine::default()
            }));
        }
        assert!(logger.is_empty());
        let Ok(Message::Batch(batch)) = batches.try_recv() else {
            panic!("a full batch is handed over at once");
        };
        for (n, (start, record)) in batch.records.iter().enumerate() {
            let path = record.parts.path.of(&batch.text[*start as usize..]);
            assert_eq!(path.unwrap(), format!("/{n}"));
        }
    }

    #[test]
    fn a_full_queue_drops_and_counts() {
        let (queue, batches) = sync_channel(1);
        let shard = Arc::<Shard>::default();
        let mut logger = LogSender(queue).logger(Arc::clone(&shard));
        for _ in 0..3 * BATCH_RECORDS + 5 {
            logger.push(record(RequestLine::default()));
        }
        drop(logger);
        let dropped = 2 * BATCH_RECORDS as u64 + 5;
        assert_eq!(shard.access_log_dropped.value(), dropped);
        assert_eq!(batches.try_iter().count(), 1);
    }

    #[test]
    fn finish_writes_what_was_handed_over() {
        let (sent, count) = sync_channel(8);
        let log = AccessLog::start(move || sent.try_send(()).unwrap_or(())).unwrap();
        let mut logger = log.sender().logger(Arc::default());
        logger.push(record(RequestLine::default()));
        logger.flush();
        log.finish(Duration::from_secs(10));
        assert!(count.try_recv().is_ok());
    }
}
