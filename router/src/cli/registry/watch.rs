//! `router registry route watch`.

use std::io::{self, Write};
use std::time::Duration;

use clap::Args;
use daemon::output;
use serde_json::{Value, json};

use super::route::{addresses, spoken};
use super::session::{Session, name, stale};
use crate::announce::schedule::{LONGEST_PAUSE, pause};
use crate::cli::OK;
use crate::registry::api::types::Route;
use crate::registry::client::{ClientError, ServerEvent};

#[derive(Debug, Args)]
pub(super) struct WatchArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

/// Why watching is over.
enum End {
    /// Whoever reads has seen enough.
    Reader,
    /// The stream; another may go on.
    Stream(Option<ClientError>),
}

pub(super) fn watch(args: &WatchArgs, session: &Session) -> anyhow::Result<u8> {
    let mut last_event: Option<String> = None;
    let mut failures = 0_u32;
    let mut connected = false;
    let count = session.clients.len();
    session.runtime.block_on(async {
        for client in session.clients.iter().cycle() {
            let watching = client.watch(args.tenant.as_deref(), last_event.as_deref());
            let end = match watching.await {
                Ok(mut events) => {
                    (connected, failures) = (true, 0);
                    loop {
                        let event = match events.next().await {
                            Ok(Some(event)) => event,
                            Ok(None) => break End::Stream(None),
                            Err(error) => break End::Stream(Some(error)),
                        };
                        if event.kind == "stale" {
                            let seconds = seconds(&event.data);
                            output::complain(&stale(client.address(), seconds));
                        }
                        if !write(&told(&event, session.is_json()))? {
                            break End::Reader;
                        }
                        last_event = event.id.or(last_event);
                    }
                }
                Err(error) if !error.is_worth_another_registry() => return Err(error.into()),
                Err(error) => End::Stream(Some(error)),
            };
            let error = match end {
                End::Reader => return Ok(OK),
                End::Stream(None) => format!("{} ended the stream", client.address()),
                End::Stream(Some(error)) => error.to_string(),
            };
            failures += 1;
            if !connected && failures as usize >= count {
                anyhow::bail!(error);
            }
            output::complain(&format!("router: {error}; goes on\n"));
            let rounds = failures / u32::try_from(count).unwrap_or(u32::MAX);
            // No jitter: a person watches, not a fleet. After a stream that ended there is a moment,
            // so that one that ends at once is not asked in a loop.
            tokio::time::sleep(pause(rounds, LONGEST_PAUSE, 1.0).max(Duration::from_millis(200)))
                .await;
        }
        unreachable!("there is a registry, or the session would not be open")
    })
}

/// What an event `stale` says.
fn seconds(data: &str) -> u64 {
    let data: Value = serde_json::from_str(data).unwrap_or(Value::Null);
    data["seconds"].as_u64().unwrap_or_default()
}

/// Writes a line; tells whether anybody reads.
fn write(line: &str) -> io::Result<bool> {
    let mut stdout = io::stdout().lock();
    match stdout
        .write_all(line.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true),
    }
}

/// The line for an event.
pub(super) fn told(event: &ServerEvent, as_json: bool) -> String {
    let data: Value = serde_json::from_str(&event.data).unwrap_or(Value::Null);
    if as_json {
        let line = json!({"event": event.kind, "id": event.id, "data": data});
        return format!("{line}\n");
    }
    let route = serde_json::from_value::<Route>(data.clone());
    match (&*event.kind, route) {
        ("route", Ok(route)) => format!(
            "route   {}  {}  {}  {}\n",
            route.host,
            route.tenant,
            spoken(&route),
            addresses(&route.endpoints)
        ),
        ("gone", _) => format!("gone    {}\n", data["host"].as_str().unwrap_or("?")),
        (kind, _) => format!("{kind}\n"),
    }
}
