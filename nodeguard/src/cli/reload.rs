//! `nodeguard reload`: a daemon reads its files now, and says what came of it.

use anyhow::bail;
use clap::Args;
use daemon::output;

use super::{DaemonArgs, FAILED, OK};
use crate::control::{Answer, Question, ask};

#[derive(Debug, Args)]
pub(super) struct ReloadArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
    /// Follow the files although a safeguard objects: no peers, less than half of them, this node
    /// or every master missing
    #[arg(long)]
    force: bool,
}

pub(super) fn reload(args: &ReloadArgs) -> anyhow::Result<u8> {
    let runtime = args.daemon.runtime();
    let question = Question::Reload { force: args.force };
    match ask(&runtime, question)? {
        None => bail!("no daemon answers at {}", runtime.display()),
        Some(Answer::Reloaded { summary }) => {
            output::print(&format!("ok: {summary}\n"))?;
            Ok(OK)
        }
        Some(Answer::Refused { reasons }) => {
            for reason in reasons {
                output::complain(&format!("{}\n", reason.trim_end()));
            }
            output::complain("nothing has changed\n");
            Ok(FAILED)
        }
        Some(Answer::Status(_)) => bail!("the daemon answered another question"),
    }
}
