//! `nodeguard boot`: the last good policy, before there is a network.

use clap::Args;
use daemon::output;

use super::{ConfigArgs, OK};
use crate::guard::{Last, Origin, hold};
use crate::load::load_config;
use crate::nft::NftError;

#[derive(Debug, Args)]
pub(super) struct BootArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

pub(super) fn boot(args: &BootArgs) -> anyhow::Result<u8> {
    let config = load_config(&args.config.config);
    if let Err(errors) = &config {
        // It names the folder and the role; without it the default folder counts, and both roles.
        output::complain(&errors.report());
    }
    match hold(config.as_ref().ok()) {
        Ok(Last {
            policy,
            origin,
            damage,
        }) => {
            if let Some(error) = damage {
                output::complain(&format!("the last good policy cannot be read: {error}\n"));
            }
            output::print(&match origin {
                Origin::Shut => format!(
                    "no policy: everything isolated on a {} is shut, but to the node itself\n",
                    policy.role
                ),
                _ => format!("the last good policy: {}\n", policy.summary()),
            })?;
        }
        Err(NftError::OwnedByAnother { .. }) => {
            output::print("a daemon runs and enforces: nothing to do\n")?;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(OK)
}
