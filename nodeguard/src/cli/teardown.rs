//! `nodeguard teardown`: the only way to open the ports again.

use anyhow::{Context as _, bail};
use clap::Args;
use daemon::output;

use super::{DaemonArgs, OK};
use crate::control::{Question, ask};
use crate::nft::Nft;

#[derive(Debug, Args)]
pub(super) struct TeardownArgs {
    #[command(flatten)]
    daemon: DaemonArgs,
}

pub(super) fn teardown(args: &TeardownArgs) -> anyhow::Result<u8> {
    let runtime = args.daemon.runtime();
    if ask(&runtime, Question::Status).is_ok_and(|answer| answer.is_some()) {
        bail!("a daemon runs and would mend it: stop it first (systemctl stop nodeguard)");
    }
    // The authority goes last: while anything is left to remove, everything is still shut.
    crate::bpf::teardown(&runtime.join("bpf")).context("BPF")?;
    Nft::open()?.remove().context("nftables")?;
    output::print("all enforcement is removed: the isolated ports of this node are open\n")?;
    Ok(OK)
}
