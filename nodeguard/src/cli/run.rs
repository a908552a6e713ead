//! `nodeguard run`: the daemon.

use anyhow::Context as _;
use clap::Args;
use daemon::logging::{self, LogFormat};

use super::{ConfigArgs, OK};
use crate::guard::{Guard, Last, hold_if_open};
use crate::lock::LockError;
use crate::nft::NftError;
use crate::service::serve;

#[derive(Debug, Args)]
pub(super) struct RunArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Follow the files at the start although a safeguard objects: no peers, less than half of
    /// them, this node or every master missing
    #[arg(long)]
    force: bool,
    /// How log lines are written; auto is text on a terminal and JSON elsewhere
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged, as in RUST_LOG, for example info,nodeguard::guard=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub(super) fn run(args: &RunArgs) -> anyhow::Result<u8> {
    let logs = logging::start(args.log_format, args.log.as_deref(), None)?;
    let result = start(args);
    logs.finish();
    result.map(|()| OK)
}

fn start(args: &RunArgs) -> anyhow::Result<()> {
    match Guard::start(&args.config.config, args.force) {
        Ok(guard) => serve(guard),
        Err(error) => {
            // Another daemon enforces, and sees to what is to be enforced.
            if !is_another_daemon(&error) {
                // Without a file there is nothing to follow, but nothing may be open either.
                match hold_if_open() {
                    Ok(None) => tracing::error!("cannot start: what is enforced stays enforced"),
                    Ok(Some(Last { origin, damage, .. })) => {
                        if let Some(error) = damage {
                            tracing::error!(%error, "the last good policy cannot be read");
                        }
                        let policy = origin.as_str();
                        tracing::error!(policy, "cannot start: this is enforced meanwhile");
                    }
                    Err(held) => tracing::error!(error = %held, "nothing can be enforced"),
                }
            }
            Err(error).with_context(|| format!("{}", args.config.config.display()))
        }
    }
}

fn is_another_daemon(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(LockError::AnotherDaemon { .. }))
        || matches!(error.downcast_ref(), Some(NftError::OwnedByAnother { .. }))
}
