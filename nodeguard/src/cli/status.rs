//! `nodeguard status`: whether everything is enforced.

use anyhow::bail;
use clap::Args;
use daemon::output;

use super::{DEGRADED, DaemonArgs, FAILED, OK};
use crate::control::{Answer, Question, ask};
use crate::guard::status_without_daemon;
use crate::load::load_config;
use crate::status::Health;

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn status(args: &StatusArgs) -> anyhow::Result<u8> {
    let runtime = args.daemon.runtime();
    let status = match ask(&runtime, Question::Status)? {
        Some(Answer::Status(status)) => *status,
        Some(_) => bail!("the daemon answered another question"),
        None => status_without_daemon(load_config(&args.daemon.config.config).ok().as_ref())?,
    };
    if args.json {
        output::print(&format!("{}\n", serde_json::to_string_pretty(&status)?))?;
    } else {
        output::print(&status.text())?;
    }
    Ok(match status.health {
        Health::Ok => OK,
        Health::Degraded => DEGRADED,
        Health::Open => FAILED,
    })
}
