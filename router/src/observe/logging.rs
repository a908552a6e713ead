//! Sets up logging: diagnostics on stderr, as in every program of the house, and the access log on
//! stdout.
//!
//! Both are written by threads of their own, so that a reader that does not read (a full pipe)
//! cannot stop a worker.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use daemon::logging::{self, Apart, LogFormat, LoggingError};
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::access_log::{self, AccessLog, LogSender};

/// The running log threads.
pub struct Logs {
    access: AccessLog,
    diagnostics: logging::Logs,
}

/// Sets up tracing for the process and starts the log threads; see [`daemon::logging::start`]. The
/// filter does not touch the access log.
///
/// # Errors
/// A bad filter, no threads, or tracing that is already set up.
pub fn start(format: LogFormat, filter: Option<&str>) -> Result<Logs, LoggingError> {
    let output = Output::stdout();
    let layer = access_layer(format, output.clone());
    let apart = Apart {
        target: access_log::TARGET,
        layer,
    };
    let diagnostics = logging::start(format, filter, Some(apart))?;
    // Whoever reads the access log may go away; the router stays.
    let access = AccessLog::start(move || drop(output.lock().flush()))?;
    Ok(Logs {
        access,
        diagnostics,
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
        self.diagnostics.finish();
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
