//! `router run`: everything is started here, and ended.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::Args;
use daemon::logging::LogFormat;
use daemon::notify::{READY, STOPPING, notify};
use daemon::watch::WatchOptions;
use daemon::{output, page};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use super::{ConfigArgs, FAILED, OK};
use crate::admin::Admin;
use crate::control::watch::watch;
use crate::control::{Control, drop_superseded};
use crate::observe::logging;
use crate::observe::metrics::Registry;
use crate::registry;
use crate::upstream::health;
use crate::worker::{self, Drain, Ends};

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// How log lines are written; auto is text on a terminal and JSON elsewhere
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged, as in RUST_LOG, for example info,router::control=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let logs = logging::start(args.log_format, args.log.as_deref())?;
    let result = serve(args, &logs);
    logs.finish();
    result
}

/// Lets the process open as many descriptors as it may: the usual soft limit of 1,024 is a few
/// hundred clients, each of which takes one here and one towards an endpoint.
fn raise_descriptor_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        Ok((soft, hard))
    });
    match raised {
        Ok((soft, hard)) => tracing::debug!(soft, hard, "limit of open files raised"),
        Err(error) => tracing::warn!(%error, "the limit of open files stays as it was"),
    }
}

fn serve(args: &RunArgs, logs: &logging::Logs) -> anyhow::Result<u8> {
    raise_descriptor_limit();
    let metrics = Arc::new(Registry::new(SystemTime::now()));
    let control = match Control::start(&args.config.config, Arc::clone(&metrics)) {
        Ok(control) => Arc::new(control),
        Err(errors) => {
            output::complain(&errors.report());
            return Ok(FAILED);
        }
    };
    let config = control.started();
    let listener = match config.admin {
        None => None,
        Some(address) => {
            let what = || format!("admin page: cannot listen on {address}");
            Some(page::bind(address).with_context(what)?)
        }
    };
    let (vital, ends) = worker::vital();
    let (orders, checking) = health::checks(Arc::clone(&metrics));
    control.report_checks_to(orders);
    // Before anybody is served: who asks at once is not to be told that there is no such route.
    let routes = match &config.registry {
        None => None,
        Some(section) => Some(registry::start::follow(
            section, &control, &metrics, &vital,
        )?),
    };
    let workers = worker::start(control.published(), config, &metrics, &logs.sender())?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        http = ?config.http.addresses,
        https = ?config.https.addresses,
        admin = config.admin.map(tracing::field::display),
        "started"
    );
    let drain = workers.drain();
    let api = match (&config.registry, &routes) {
        (Some(section), Some(routes)) => {
            registry::start::serve(section, routes, &control, &metrics, &drain)?
        }
        _ => None,
    };
    let admin = Admin {
        control: Arc::clone(&control),
        registry: metrics,
        routes,
    };
    let checked = vital.part("the checks of endpoints");
    let checking = async move {
        let _checked = checked;
        checking.await;
    };
    let failed = Arc::new(AtomicBool::new(false));
    let ending = Ending {
        drain,
        ends,
        failed: Arc::clone(&failed),
    };
    // Ends with the process: it holds nothing that has to be put away.
    std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || control_thread(control, listener, admin, checking, ending))
        .context("cannot start the control thread")?;
    workers.join().context("a worker failed")?;
    if let Some(api) = api {
        api.join()?;
    }
    tracing::info!("stopped");
    Ok(match failed.load(Relaxed) {
        true => FAILED,
        false => OK,
    })
}

/// What ends the process.
struct Ending {
    drain: Drain,
    ends: Ends,
    /// Whether it ends because it cannot go on.
    failed: Arc<AtomicBool>,
}

/// The control runtime: signals, file changes, the admin page, checks of endpoints.
fn control_thread(
    control: Arc<Control>,
    listener: Option<std::net::TcpListener>,
    admin: Admin,
    checking: impl Future<Output = ()> + Send + 'static,
    mut ending: Ending,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "no control runtime: the router stops");
            return ending.drain.begin(Duration::ZERO);
        }
    };
    runtime.block_on(async {
        // Before readiness is told: from then on somebody may send it, and it kills by default.
        match signal(SignalKind::hangup()) {
            Ok(hangup) => {
                let watching = watch(Arc::clone(&control), hangup, WatchOptions::default());
                drop(tokio::spawn(watching));
            }
            Err(error) => tracing::error!(%error, "reloading does not work"),
        }
        drop(tokio::spawn(drop_superseded(Arc::clone(&control))));
        drop(tokio::spawn(checking));
        if let Some(listener) = listener {
            let serving = page::serve(listener, move |request| admin.respond(request));
            tokio::spawn(async move {
                if let Err(error) = serving.await {
                    tracing::error!(%error, "the admin page does not work");
                }
            });
        }
        if let Err(error) = stop_on_signal(&control, &mut ending).await {
            tracing::error!(%error, "signals cannot be listened for: the router stops");
            ending.drain.begin(Duration::ZERO);
        }
        // The admin page tells of the drain until the process ends.
        pending::<()>().await;
    });
}

/// Drains at the first SIGTERM or SIGINT, or when a part has ended that the router cannot do without,
/// after a delay if there is to be one; ends at the second signal.
async fn stop_on_signal(control: &Control, ending: &mut Ending) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // Only now, so that a signal that follows at once is heeded.
    notify(READY);
    let mut wait = async || {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    tokio::select! {
        () = wait() => {}
        part = ending.ends.next() => {
            tracing::error!(part, "the router ends, to be started again");
            ending.failed.store(true, Relaxed);
        }
    }
    let drain = &ending.drain;
    let (delay, patience) = {
        let snapshot = control.published().load();
        let timeouts = &snapshot.settings.timeouts;
        (timeouts.drain_delay, timeouts.drain)
    };
    notify(STOPPING);
    control.begin_drain();
    let served = async {
        if !delay.is_zero() {
            tracing::info!(
                delay_s = delay.as_secs_f64(),
                "going to drain: no longer ready, still serving"
            );
            tokio::time::sleep(delay).await;
        }
        tracing::info!(deadline_s = patience.as_secs_f64(), "draining");
        drain.begin(patience);
        pending::<()>().await;
    };
    tokio::select! {
        () = served => {}
        () = wait() => {}
    }
    tracing::warn!("second signal: ending at once");
    drain.begin(Duration::ZERO);
    Ok(())
}
