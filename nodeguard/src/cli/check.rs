//! `nodeguard check`: what `run` would say to the files.

use clap::Args;
use config::ConfigErrors;
use daemon::output;
use serde_json::json;

use super::{ConfigArgs, FAILED, OK};
use crate::load::{Loaded, load};
use crate::safeguard::{Objection, objections};
use crate::state::Store;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Do not ask the safeguards, as `reload --force` does not
    #[arg(long)]
    force: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let loaded = load(&args.config.config);
    let against = match &loaded {
        Ok(loaded) if !args.force => {
            let before = Store::new(&loaded.config.state).load()?;
            objections(&loaded.policy(), &loaded.config.addresses, before.as_ref())
        }
        _ => Vec::new(),
    };
    let is_good = loaded.is_ok() && against.is_empty();
    if args.json {
        output::print(&format!("{:#}\n", as_json(&loaded, &against)))?;
    } else {
        match &loaded {
            Err(errors) => output::complain(&errors.report()),
            Ok(loaded) => {
                for objection in &against {
                    output::complain(&format!("refused: {objection}\n"));
                }
                if against.is_empty() {
                    output::print(&format!("ok: {}\n", loaded.policy().summary()))?;
                } else {
                    output::complain("`nodeguard reload --force` follows the files all the same\n");
                }
            }
        }
    }
    Ok(if is_good { OK } else { FAILED })
}

fn as_json(loaded: &Result<Loaded, ConfigErrors>, against: &[Objection]) -> serde_json::Value {
    let objections: Vec<String> = against.iter().map(ToString::to_string).collect();
    match loaded {
        Ok(loaded) => json!({
            "ok": against.is_empty(),
            "errors": [],
            "objections": objections,
            "policy": loaded.policy(),
        }),
        Err(errors) => json!({ "ok": false, "errors": errors.to_json(), "objections": [] }),
    }
}
