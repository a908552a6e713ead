//! Sets up tracing: diagnostics on stderr.
//!
//! They are written by a thread of their own, so that a reader that does not read (a full pipe)
//! cannot stop the program. Lines that do not fit are dropped and counted.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::Subscriber;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry};

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
    /// Whether lines are JSON, given whether they go to a terminal.
    #[must_use]
    pub fn is_json(self, terminal: bool) -> bool {
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

/// Events of one target that are no diagnostics, such as an access log, and the layer that writes
/// them.
pub struct Apart {
    /// The target; diagnostics leave it out.
    pub target: &'static str,
    /// What writes it. Other events have to be kept out by a filter of its own.
    pub layer: AnyLayer,
}

/// A layer of whatever kind on the registry, as `Layer::boxed` makes it.
pub type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// The running log thread.
pub struct Logs {
    lines: SyncSender<Line>,
    ended: Receiver<()>,
}

/// Sets up tracing for the process and starts the log thread.
///
/// `filter` is in the syntax of `RUST_LOG` (`info,router::control=debug`); without it the
/// environment's `RUST_LOG` counts, then `info`. It does not touch what is kept `apart`.
///
/// # Errors
/// A bad filter, no thread, or tracing that is already set up.
pub fn start(
    format: LogFormat,
    filter: Option<&str>,
    apart: Option<Apart>,
) -> Result<Logs, LoggingError> {
    let environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let filter = filter.or(environment.as_deref()).unwrap_or("info");
    let filter = parse_filter(filter, apart.as_ref().map(|apart| apart.target))?;

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
    let diagnostics = diagnostics_layer(format, diagnostics).with_filter(filter);
    subscriber(diagnostics.boxed(), apart).try_init()?;
    Ok(Logs { lines, ended })
}

impl Logs {
    /// Writes what is left and ends the thread; waits for a second, not for ever.
    pub fn finish(self) {
        if self.lines.try_send(Line::Finish).is_ok() {
            // Nothing is ever sent; the end shows as a closed channel.
            let _ = self.ended.recv_timeout(Duration::from_secs(1));
        }
    }
}

fn subscriber(diagnostics: AnyLayer, apart: Option<Apart>) -> impl Subscriber + Send + Sync {
    let layers: Vec<_> = [Some(diagnostics), apart.map(|apart| apart.layer)]
        .into_iter()
        .flatten()
        .collect();
    tracing_subscriber::registry().with(layers)
}

fn parse_filter(filter: &str, apart: Option<&str>) -> Result<EnvFilter, LoggingError> {
    let wrong = |source| LoggingError::Filter {
        filter: filter.to_owned(),
        source,
    };
    let parsed = EnvFilter::builder().parse(filter).map_err(wrong)?;
    Ok(match apart {
        None => parsed,
        // It has an output of its own.
        Some(target) => parsed.add_directive(format!("{target}=off").parse().map_err(wrong)?),
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;
    use tracing_subscriber::filter::Targets;

    fn queue(length: usize) -> (LineQueue, Receiver<Line>) {
        let (lines, queue) = sync_channel(length);
        let dropped = Arc::default();
        (LineQueue { lines, dropped }, queue)
    }

    #[test]
    fn diagnostics_pass_the_filter_and_what_is_kept_apart_stays_out() {
        let (lines, queue) = queue(8);
        let filter = parse_filter("warn,router::control=debug", Some("access")).unwrap();
        let layer = diagnostics_layer(LogFormat::Json, lines).with_filter(filter);
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("not of interest");
            tracing::debug!(target: "router::control", file = "a\nb", "loaded");
            tracing::info!(target: "access", "a request");
        });
        let mut written = Vec::new();
        write_lines(&queue, &mut written);
        let line: serde_json::Value = serde_json::from_slice(&written).expect("one line of JSON");
        assert_eq!(line["message"], "loaded");
        assert_eq!(line["file"], "a\nb");
    }

    #[test]
    fn what_is_kept_apart_is_written_by_its_own_layer_whatever_the_filter() {
        let ((lines, diagnostics), (apart, kept)) = (queue(8), queue(8));
        let filter = parse_filter("off,noisy=debug", Some("access")).unwrap();
        let layer = diagnostics_layer(LogFormat::Text, lines).with_filter(filter);
        let only = Targets::new().with_target("access", Level::INFO);
        let access = Apart {
            target: "access",
            layer: fmt::layer().with_writer(apart).with_filter(only).boxed(),
        };
        tracing::subscriber::with_default(subscriber(layer.boxed(), Some(access)), || {
            tracing::info!(target: "access", "a request");
            tracing::debug!(target: "noisy", "a diagnostic");
        });
        for (queue, message) in [(kept, "a request"), (diagnostics, "a diagnostic")] {
            let mut written = Vec::new();
            write_lines(&queue, &mut written);
            let written = String::from_utf8(written).unwrap();
            assert!(written.contains(message), "{written}");
            assert_eq!(written.lines().count(), 1, "{written}");
        }
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
        let error = parse_filter("router=loud", None).unwrap_err();
        assert!(error.to_string().contains("router=loud"), "{error}");
    }
}
