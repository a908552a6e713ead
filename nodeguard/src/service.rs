//! The daemon: waits until something may have happened, and has the guard look.
//!
//! One thread. Whatever the guard does takes milliseconds, so nothing here needs another one but
//! the looks at files, which may hang on a network file system.

#[allow(
    unsafe_code,
    reason = "tokio cannot check that a descriptor stays open; each call says why it does"
)]
mod announced;

use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use daemon::notify::{READY, STOPPING, notify};
use daemon::page;
use daemon::watch::{WatchOptions, Watcher};
use http::StatusCode;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::control::{self, Answer, MAX_LINE, Question};
use crate::guard::Guard;

/// How often the guard looks without being told to. What nobody announces, such as a detached BPF
/// link, is mended within this time; it promises a second.
const LOOK: Duration = Duration::from_millis(400);

/// How often devices are looked at without being told to: an announcement may be lost, and what
/// refused BPF (somebody else's XDP program, say) may be gone.
const DEVICE_LOOK: Duration = Duration::from_secs(10);

/// Announcements within this time are looked at together: kube-proxy rewrites its rules in bursts.
const GATHER: Duration = Duration::from_millis(50);

/// How long a client of the control socket may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Questions that wait for the loop.
const QUESTIONS: usize = 16;

const INDEX: &str = "Gatehouse node guard\n\n/metrics  numbers, in the Prometheus text format\n\
                     /healthz  200 while isolated ports are shut\n/status   what `nodeguard status --json` shows\n";

type Asked = (Question, oneshot::Sender<Answer>);

/// Serves until SIGTERM or SIGINT. Everything stays enforced when it returns.
///
/// # Errors
/// If the control socket or the metrics page cannot be had.
pub fn serve(guard: Guard) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("no runtime")?;
    runtime.block_on(run(guard))
}

async fn run(guard: Guard) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = signal(SignalKind::hangup())?;
    let mut ruleset_changes = announced::ruleset()?;
    let device_changes = announced::devices()?;
    let (sources, metrics, folder) = {
        let config = guard.config();
        (guard.sources(), config.metrics, config.runtime.clone())
    };
    let guard = Arc::new(Mutex::new(guard));
    let mut watcher = Watcher::new(hangup, WatchOptions::default(), sources);
    let (ask, mut questions) = mpsc::channel(QUESTIONS);
    let listener = listen(&folder)?;
    tokio::spawn(answer_questions(listener, ask));
    if let Some(address) = metrics {
        let listener = page::bind(address)
            .with_context(|| format!("metrics page: cannot listen on {address}"))?;
        let guard = Arc::clone(&guard);
        tokio::spawn(async move {
            if let Err(error) = page::serve(listener, move |request| show(&guard, request)).await {
                tracing::error!(%error, "the metrics page does not work");
            }
        });
    }
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first look comes at once: anything may have changed between the guard's own and the
    // monitors' beginning.
    let mut device_looks = interval(DEVICE_LOOK);
    device_looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    notify(READY);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "started");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = looks.tick() => {
                let mut guard = lock(&guard);
                guard.mend_nftables();
                guard.mend_bpf();
                guard.log_events();
            }
            _ = device_looks.tick() => lock(&guard).refresh_devices(),
            ready = ruleset_changes.readable_mut() => {
                let mut ready = ready?;
                ready.get_inner_mut().drain()?;
                ready.clear_ready();
                lock(&guard).mend_nftables();
                tokio::time::sleep(GATHER).await;
            }
            ready = device_changes.readable() => {
                let mut ready = ready?;
                ready.get_inner().drain();
                ready.clear_ready();
                lock(&guard).refresh_devices();
                tokio::time::sleep(GATHER).await;
            }
            _ = watcher.changed() => {
                let mut guard = lock(&guard);
                // What came of it is in the log and in the status.
                let _ = guard.reload(false);
                watcher.loaded(guard.sources());
            }
            Some((question, reply)) = questions.recv() => {
                let mut guard = lock(&guard);
                // Whoever asked may have gone away.
                let _ = reply.send(answer(&mut guard, question));
                if let Question::Reload { .. } = question {
                    watcher.loaded(guard.sources());
                }
            }
        }
    }
    notify(STOPPING);
    // Best effort: the next daemon removes it, too.
    let _ = fs::remove_file(control::path(&folder));
    tracing::info!("stopped; everything stays enforced");
    Ok(())
}

/// A panic under the lock is a defect, and no reason to stop guarding.
fn lock(guard: &Mutex<Guard>) -> MutexGuard<'_, Guard> {
    guard.lock().unwrap_or_else(PoisonError::into_inner)
}

fn answer(guard: &mut Guard, question: Question) -> Answer {
    match question {
        Question::Status => Answer::Status(Box::new(guard.status())),
        Question::Reload { force } => match guard.reload(force) {
            Ok(()) => Answer::Reloaded {
                summary: guard.summary(),
            },
            Err(refused) => Answer::Refused { reasons: refused.0 },
        },
    }
}

fn show(guard: &Mutex<Guard>, request: &page::Request) -> page::Response {
    let mut guard = lock(guard);
    match request.uri().path() {
        "/" => page::answer(StatusCode::OK, page::TEXT, INDEX),
        "/metrics" => page::answer(StatusCode::OK, page::METRICS, guard.metrics()),
        "/healthz" if guard.is_enforcing() => page::answer(StatusCode::OK, page::TEXT, "ok\n"),
        "/healthz" => page::answer(StatusCode::SERVICE_UNAVAILABLE, page::TEXT, "open\n"),
        "/status" => page::json(&serde_json::json!(guard.status())),
        _ => page::answer(StatusCode::NOT_FOUND, page::TEXT, "404 Not Found\n"),
    }
}

/// The control socket, in a folder that is for root alone.
fn listen(folder: &Path) -> anyhow::Result<UnixListener> {
    let path = control::path(folder);
    let what = || format!("control socket {}", path.display());
    // The folder is this daemon's alone, so whoever left one is gone.
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(what);
        }
        _ => {}
    }
    UnixListener::bind(&path).with_context(what)
}

async fn answer_questions(listener: UnixListener, ask: mpsc::Sender<Asked>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let ask = ask.clone();
                tokio::spawn(async move {
                    if let Err(error) = converse(stream, ask).await {
                        tracing::debug!(%error, "a client of the control socket");
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: trying again at once would spin.
                tracing::warn!(%error, "control socket: cannot accept");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, ask: mpsc::Sender<Asked>) -> anyhow::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = Vec::new();
    let mut reader = BufReader::new(reader.take(MAX_LINE));
    timeout(PATIENCE, reader.read_until(b'\n', &mut line)).await??;
    let answer = match serde_json::from_slice(&line) {
        Ok(question) => {
            let (reply, answer) = oneshot::channel();
            ask.send((question, reply)).await?;
            answer.await?
        }
        Err(error) => Answer::Refused {
            reasons: vec![format!("not a question: {error}")],
        },
    };
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    timeout(PATIENCE, writer.write_all(&line)).await??;
    Ok(())
}
