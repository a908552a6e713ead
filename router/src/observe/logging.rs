//! Sets up tracing: diagnostics on stderr, the access log on stdout.
//!
//! Both are written by threads of their own, so that a reader that does not read (a full pipe)
//! cannot stop a worker. Lines that do not fit are dropped and counted.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::{Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer};

use super::access_log::{self, AccessLog, LogSender};

/// Diagnostic lines that may wait to be written.
const LINES: usize = 1024;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One JSON object per line.
    Json,
    /// For people.
    Text,
}

impl LogFormat {
    fn is_json(self, terminal: bool) -> bool {
        match self {
            Self::Auto => !terminal,
            Self::Json => true,
            Self::Text => false,
        }
    }
}

/// Logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter is not in the syntax of `RUST_LOG`.
    #[error("log filter {filter:?}: {source}")]
    Filter {
        /// The filter as given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// A thread cannot be started.
    #[error("cannot start a log thread: {0}")]
    Thread(#[from] io::Error),
    /// Somebody else has set up tracing in this process.
    #[error("tracing is already set up: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// The running log threads.
pub struct Logs {
    access: AccessLog,
    lines: SyncSender<Line>,
    ended: Receiver<()>,
}

/// Sets up tracing for the process and starts the log threads.
///
/// `filter` is in the syntax of `RUST_LOG` (`info,router::control=debug`); without it the
/// environment's `RUST_LOG` counts, then `info`. It does not touch the access log.
///
/// # Errors
/// A bad filter, no threads, or tracing that is already set up.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<Logs, LoggingError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = filter.or(environment.as_deref()).unwrap_or("info");
    let filter = parse_filter(filter)?;

    let (lines, queue) = sync_channel(LINES);
    let (alive, ended) = sync_channel(1);
    std::thread::Builder::new()
        .name("log".to_owned())
        .spawn(move || {
            write_lines(&queue, &mut io::stderr());
            drop(alive);
        })?;
    let diagnostics = LineQueue {
        lines: lines.clone(),
        dropped: Arc::default(),
    };
    let output = Output::stdout();
    let access = AccessLog::start({
        let output = output.clone();
        // Whoever reads the access log may go away; the router stays.
        move || drop(output.lock().flush())
    })?;
    tracing_subscriber::registry()
        .with(diagnostics_layer(format, diagnostics).with_filter(filter))
        .with(access_layer(format, output))
        .try_init()?;
    Ok(Logs {
        access,
        lines,
        ended,
    })
}

impl Logs {
    /// The workers' way into the access log.
    pub fn sender(&self) -> LogSender {
        self.access.sender()
    }

    /// Writes what is left and ends the threads; waits for a second or two, not for ever.
    pub fn finish(self) {
        self.access.finish(Duration::from_secs(1));
        if self.lines.try_send(Line::Finish).is_ok() {
            // Nothing is ever sent; the end shows as a closed channel.
            let _ = self.ended.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn parse_filter(filter: &str) -> Result<EnvFilter, LoggingError> {
    let wrong = |source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    };
    // The access log has an output of its own.
    let not_access = format!("{}=off", access_log::TARGET);
    Ok(EnvFilter::builder()
        .parse(filter)
        .map_err(wrong)?
        .add_directive(not_access.parse().map_err(wrong)?))
}

fn diagnostics_layer<S>(format: LogFormat, lines: LineQueue) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = io::stderr().is_terminal();
    let layer = fmt::layer().with_writer(lines).with_ansi(terminal);
    if format.is_json(terminal) {
        layer
            .json()
            .flatten_event(true)
            .with_span_list(false)
            .boxed()
    } else {
        layer.boxed()
    }
}

/// The layer that writes events of the access log, and only them.
pub(super) fn access_layer<S>(format: LogFormat, output: Output) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let terminal = io::stdout().is_terminal();
    let layer = fmt::layer()
        .with_writer(output)
        .with_ansi(terminal)
        .with_level(false)
        .without_time();
    let layer = if format.is_json(terminal) {
        let json = layer.json().flatten_event(true);
        json.with_current_span(false).with_span_list(false).boxed()
    } else {
        layer.boxed()
    };
    let only = Targets::new().with_target(access_log::TARGET, Level::INFO);
    layer.with_filter(only).boxed()
}

enum Line {
    Text(Vec<u8>),
    Finish,
}

/// Hands lines to the thread that writes them; never waits.
#[derive(Clone)]
struct LineQueue {
    lines: SyncSender<Line>,
    dropped: Arc<AtomicU64>,
}

/// One line, handed over when it is complete.
struct LineWriter<'a> {
    queue: &'a LineQueue,
    text: Vec<u8>,
}

impl<'a> MakeWriter<'a> for LineQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter {
            queue: self,
            text: Vec::new(),
        }
    }
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        let mut text = std::mem::take(&mut self.text);
        let dropped = self.queue.dropped.swap(0, Relaxed);
        if dropped != 0 {
            text.extend_from_slice(format!("({dropped} lines were dropped before)\n").as_bytes());
        }
        if self.queue.lines.try_send(Line::Text(text)).is_err() {
            self.queue.dropped.fetch_add(dropped + 1, Relaxed);
        }
    }
}

fn write_lines(queue: &Receiver<Line>, output: &mut impl Write) {
    while let Ok(Line::Text(text)) = queue.recv() {
        // There is nowhere to report a stderr that is gone.
        let _ = output.write_all(&text);
    }
}

/// A buffered output that the access log's layer writes and its thread flushes.
#[derive(Clone)]
pub(super) struct Output(Arc<Mutex<BufWriter<Sink>>>);

enum Sink {
    Stdout(io::Stdout),
    #[cfg(test)]
    Memory(Vec<u8>),
}

impl Output {
    fn stdout() -> Self {
        Self::new(Sink::Stdout(io::stdout()))
    }

    fn new(sink: Sink) -> Self {
        Self(Arc::new(Mutex::new(BufWriter::with_capacity(
            64 * 1024,
            sink,
        ))))
    }

    fn lock(&self) -> MutexGuard<'_, BufWriter<Sink>> {
        // A torn line is the worst that a panic within a write can leave.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn memory() -> Self {
        Self::new(Sink::Memory(Vec::new()))
    }

    #[cfg(test)]
    pub(super) fn contents(&self) -> Vec<u8> {
        let mut writer = self.lock();
        writer.flush().unwrap();
        match writer.get_ref() {
            Sink::Memory(bytes) => bytes.clone(),
            Sink::Stdout(_) => Vec::new(),
        }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(stdout) => stdout.write(bytes),
            #[cfg(test)]
            Self::Memory(memory) => memory.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(stdout) => stdout.flush(),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }
}

/// One event's hold of the output.
pub(super) struct OutputGuard<'a>(MutexGuard<'a, BufWriter<Sink>>);

impl Write for OutputGuard<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        // The log thread flushes after a run of batches; a system call per line is what the
        // buffer is there to avoid.
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Output {
    type Writer = OutputGuard<'a>;

    fn make_writer(&'a self) -> OutputGuard<'a> {
        OutputGuard(self.lock())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue(length: usize) -> (LineQueue, Receiver<Line>) {
        let (lines, queue) = sync_channel(length);
        let dropped = Arc::default();
        (LineQueue { lines, dropped }, queue)
    }

    #[test]
    fn diagnostics_pass_the_filter_and_the_access_log_stays_out() {
        let (lines, queue) = queue(8);
        let filter = parse_filter("warn,router::control=debug").unwrap();
        let layer = diagnostics_layer(LogFormat::Json, lines).with_filter(filter);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not of interest");
            tracing::debug!(target: "router::control", file = "a\nb", "loaded");
            tracing::info!(target: access_log::TARGET, "a request");
        });
        let mut written = Vec::new();
        write_lines(&queue, &mut written);
        let line: serde_json::Value = serde_json::from_slice(&written).expect("one line of JSON");
        assert_eq!(line["message"], "loaded");
        assert_eq!(line["file"], "a\nb");
    }

    #[test]
    fn lines_that_do_not_fit_are_counted_in_a_later_line() {
        let (lines, queue) = queue(1);
        for text in ["one\n", "two\n", "three\n"] {
            lines.make_writer().write_all(text.as_bytes()).unwrap();
        }
        assert!(matches!(queue.recv(), Ok(Line::Text(text)) if text == b"one\n"));
        lines.make_writer().write_all(b"four\n").unwrap();
        drop(lines);
        let mut written = Vec::new();
        write_lines(&queue, &mut written);
        let written = String::from_utf8(written).unwrap();
        assert_eq!(written, "four\n(2 lines were dropped before)\n");
    }

    #[test]
    fn a_bad_filter_is_named() {
        let error = parse_filter("router=loud").unwrap_err();
        assert!(error.to_string().contains("router=loud"), "{error}");
    }
}
