//! `nodeguard render`: the ruleset in words.

use clap::{Args, ValueEnum};
use daemon::output;

use super::{ConfigArgs, FAILED, OK};
use crate::compile::compile;
use crate::load::load;
use crate::nft;

#[derive(Debug, Args)]
pub(super) struct RenderArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// `text` for people and `nft -f`, `json` for `nft -j -f`
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

pub(super) fn render(args: &RenderArgs) -> anyhow::Result<u8> {
    let loaded = match load(&args.config.config) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&errors.report());
            return Ok(FAILED);
        }
    };
    let ruleset = compile(&loaded.policy());
    let rendered = match args.format {
        Format::Text => nft::text::text(&ruleset),
        Format::Json => format!("{:#}\n", nft::json::json(&ruleset)),
    };
    output::print(&rendered)?;
    Ok(OK)
}
