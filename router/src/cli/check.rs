//! `router check`.

use std::time::SystemTime;

use clap::Args;
use config::ConfigErrors;
use config::error::InvalidValue;
use daemon::output;
use serde_json::json;

use super::{ConfigArgs, FAILED, OK};
use crate::control::build::{Built, build_once};
use crate::observe::timestamp::date;
use crate::registry;

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Write JSON: ok, errors with file, line, column, field, message and help, warnings, counts
    #[arg(long)]
    json: bool,
}

pub(super) fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let file = &args.config.config;
    let result = build_once(file, SystemTime::now()).and_then(|built| {
        let Some(config) = &built.router.registry else {
            return Ok(built);
        };
        match registry::check::check(config) {
            Ok(()) => Ok(built),
            Err(error) => {
                let reason = InvalidValue::new(error.to_string());
                Err(ConfigErrors::whole_file(file, reason))
            }
        }
    });
    let code = if result.is_ok() { OK } else { FAILED };
    match (&result, args.json) {
        (Ok(built), false) => {
            for warning in &built.warnings {
                output::complain(&format!("warning: {warning}\n"));
            }
            output::print(&summary(built))?;
        }
        (Err(errors), false) => output::complain(&errors.report()),
        (result, true) => output::print(&format!("{:#}\n", as_json(result)))?,
    }
    Ok(code)
}

fn summary(built: &Built) -> String {
    let size = built.size();
    let counted = |count: usize, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let expiry = match size.soonest_expiry {
        Some(end) => format!(" (the first expires on {})", date(end)),
        None => String::new(),
    };
    format!(
        "ok: {} of {} in {}, {}, {}{expiry}\n",
        counted(built.snapshot.routes.len(), "route"),
        counted(built.tenants(), "tenant"),
        counted(built.route_files(), "file"),
        counted(built.upstreams(), "upstream"),
        counted(built.snapshot.certificates.len(), "certificate"),
    )
}

fn as_json(result: &Result<Built, ConfigErrors>) -> serde_json::Value {
    match result {
        Ok(built) => json!({
            "ok": true,
            "errors": [],
            "warnings": built.warnings,
            "counts": {
                "route_files": built.route_files(),
                "tenants": built.tenants(),
                "routes": built.snapshot.routes.len(),
                "upstreams": built.upstreams(),
                "certificates": built.snapshot.certificates.len(),
            },
        }),
        Err(errors) => json!({ "ok": false, "errors": errors.to_json() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Files;

    #[test]
    fn a_summary_counts() {
        let built = build_once(&Files::new().config(), SystemTime::now()).unwrap();
        let text = summary(&built);
        let expected = "ok: 1 route of 1 tenant in 1 file, 1 upstream, 1 certificate (the first";
        assert!(text.starts_with(expected), "{text}");
        assert_eq!(as_json(&Ok(built))["counts"]["routes"], 1);
    }

    #[test]
    fn errors_show_the_line_and_are_counted() {
        let files = Files::new();
        files.router("workers: many\n");
        let errors = build_once(&files.config(), SystemTime::now())
            .err()
            .unwrap();
        let text = errors.report();
        assert!(text.contains("router.yaml:4:10: workers: "), "{text}");
        assert!(
            text.contains("4 | workers: many") && text.ends_with("\n1 error\n"),
            "{text}"
        );
        let json = as_json(&Err(errors));
        assert_eq!(
            (&json["ok"], &json["errors"][0]["line"]),
            (&json!(false), &json!(4))
        );
    }
}
