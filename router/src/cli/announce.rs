//! `router announce`: the registrar.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use daemon::logging::{self, LogFormat};
use daemon::output;

use super::table::table;
use super::{FAILED, OK};
use crate::announce::daemon::serve;
use crate::announce::load::load;
use crate::announce::once::{Report, once};
use crate::registry::client::ClientRuntime;

#[derive(Debug, Args)]
pub(super) struct AnnounceArgs {
    /// What is announced, and to whom; relative paths in it start at its folder
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/gatehouse/registrar.yaml"
    )]
    config: PathBuf,
    /// Check and announce a single time, print what happened, and end; with 1 unless every route is
    /// announced. Nobody renews it: it goes after its time to live
    #[arg(long)]
    once: bool,
    /// With --once: write JSON
    #[arg(long, requires = "once")]
    json: bool,
    /// How log lines are written; auto is text on a terminal and JSON elsewhere
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged, as in RUST_LOG, for example info,router::announce=debug
    #[arg(long, value_name = "FILTER")]
    log: Option<String>,
}

pub(super) fn announce(args: &AnnounceArgs) -> anyhow::Result<u8> {
    // What happens once is in the report.
    let filter = args.log.as_deref().or(args.once.then_some("off"));
    let logs = logging::start(args.log_format, filter, None)?;
    let result = run(args);
    logs.finish();
    result
}

fn run(args: &AnnounceArgs) -> anyhow::Result<u8> {
    let loaded = match load(&args.config) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&errors.report());
            return Ok(FAILED);
        }
    };
    if !args.once {
        return serve(&args.config, loaded).map(|()| OK);
    }
    let runtime = ClientRuntime::new().context("no runtime")?;
    let report = runtime.block_on(once(&loaded));
    output::print(&if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        told(&report)
    })?;
    Ok(if report.ok { OK } else { FAILED })
}

fn told(report: &Report) -> String {
    let word = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let rows = report.routes.iter().map(|route| {
        [
            route.host.clone(),
            route.endpoint.to_string(),
            word(route.healthy),
            word(route.announced),
            route.reason.clone().unwrap_or_default(),
        ]
    });
    let head = ["HOST", "ENDPOINT", "HEALTHY", "ANNOUNCED", "WHY NOT"];
    let mut text = table(head, rows);
    let (tenant, instance) = (&report.tenant, &report.instance);
    for error in &report.errors {
        text.push_str(&format!("failed: {error}\n"));
    }
    let announced = report.routes.iter().any(|route| route.announced);
    text.push_str(&match &report.registry {
        Some(registry) if announced => {
            let ttl = report.ttl;
            format!("announced as {instance} of {tenant} by {registry}, for {ttl} s\n")
        }
        Some(registry) => format!("nothing is announced as {instance} of {tenant}: {registry}\n"),
        None => format!("nothing was announced as {instance} of {tenant}\n"),
    });
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announce::once::ReportedRoute;

    #[test]
    fn a_report_tells_each_route_and_by_whom() {
        let route = |name: &str, healthy, announced, reason: Option<&str>| ReportedRoute {
            host: format!("{name}.example.org"),
            endpoint: "10.0.7.21:443".parse().unwrap(),
            healthy,
            announced,
            reason: reason.map(str::to_owned),
        };
        let report = Report {
            ok: false,
            tenant: "acme".into(),
            instance: "w1".into(),
            registry: Some("https://edge-2:443".into()),
            ttl: 60,
            errors: vec!["https://edge-1:443: closed".into()],
            routes: vec![
                route("a", true, true, None),
                route("b", false, false, Some("closed")),
                route("c", true, false, Some("not yours (outside-zones)")),
            ],
        };
        let expected = "\
HOST           ENDPOINT       HEALTHY  ANNOUNCED  WHY NOT
a.example.org  10.0.7.21:443  yes      yes
b.example.org  10.0.7.21:443  no       no         closed
c.example.org  10.0.7.21:443  yes      no         not yours (outside-zones)
failed: https://edge-1:443: closed
announced as w1 of acme by https://edge-2:443, for 60 s
";
        assert_eq!(told(&report), expected);
    }
}
