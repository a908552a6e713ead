//! `router announce`: the registrar.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use daemon::logging::{self, LogFormat};
use daemon::output;
use serde::Serialize;

use super::table::table;
use super::{FAILED, OK};
use crate::announce::daemon::serve;
use crate::announce::load::load;
use crate::announce::once::{Report, once};
use crate::announce::trial::{Trial, try_out};
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
    /// Announce nothing: make every check once, ask every registry for its health and whether it
    /// takes the credential, print what was found, and end; with 1 unless all is well
    #[arg(long, group = "single")]
    check: bool,
    /// Check and announce a single time, print what happened, and end; with 1 unless every route is
    /// announced. It takes the place of what a registrar that runs in the same name has announced:
    /// what is not healthy now is withdrawn. Nobody renews it: it goes after its time to live
    #[arg(long, group = "single")]
    once: bool,
    /// With --check or --once: write JSON
    #[arg(long, requires = "single")]
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
    let single = args.once || args.check;
    let filter = args.log.as_deref().or(single.then_some("off"));
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
    if !args.once && !args.check {
        return serve(&args.config, loaded).map(|()| OK);
    }
    let runtime = ClientRuntime::new().context("no runtime")?;
    let (ok, text) = if args.check {
        let trial = runtime.block_on(try_out(&loaded));
        (trial.ok, written(args, &trial, found)?)
    } else {
        let report = runtime.block_on(once(&loaded));
        (report.ok, written(args, &report, told)?)
    };
    output::print(&text)?;
    Ok(if ok { OK } else { FAILED })
}

fn written<T: Serialize>(
    args: &AnnounceArgs,
    value: &T,
    for_people: fn(&T) -> String,
) -> anyhow::Result<String> {
    Ok(if args.json {
        serde_json::to_string_pretty(value)? + "\n"
    } else {
        for_people(value)
    })
}

fn yes_or_no(yes: bool) -> String {
    if yes { "yes" } else { "no" }.to_owned()
}

fn found(trial: &Trial) -> String {
    let routes = trial.routes.iter().map(|route| {
        [
            route.host.clone(),
            route.endpoint.to_string(),
            yes_or_no(route.healthy),
            route.reason.clone().unwrap_or_default(),
        ]
    });
    let registries = trial.registries.iter().map(|registry| {
        [
            registry.registry.clone(),
            yes_or_no(registry.ok),
            registry.reason.clone().unwrap_or_default(),
        ]
    });
    let mut text = table(["HOST", "ENDPOINT", "HEALTHY", "WHY NOT"], routes);
    text.push('\n');
    text += &table(["REGISTRY", "READY", "WHY NOT"], registries);
    let (tenant, instance) = (&trial.tenant, &trial.instance);
    text += &format!("\nnothing was announced; it would be as {instance} of {tenant}\n");
    text
}

fn told(report: &Report) -> String {
    let rows = report.routes.iter().map(|route| {
        [
            route.host.clone(),
            route.endpoint.to_string(),
            yes_or_no(route.healthy),
            yes_or_no(route.announced),
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
    use crate::announce::trial::{TriedRegistry, TriedRoute};

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

    #[test]
    fn a_trial_tells_of_each_route_and_registry() {
        let trial = Trial {
            ok: false,
            tenant: "acme".into(),
            instance: "w1".into(),
            routes: vec![TriedRoute {
                host: "a.example.org".into(),
                endpoint: "10.0.7.21:443".parse().unwrap(),
                healthy: true,
                reason: None,
            }],
            registries: vec![TriedRegistry {
                registry: "https://edge-1:8444".into(),
                ok: false,
                reason: Some("closed".into()),
            }],
        };
        let expected = "\
HOST           ENDPOINT       HEALTHY  WHY NOT
a.example.org  10.0.7.21:443  yes

REGISTRY             READY  WHY NOT
https://edge-1:8444  no     closed

nothing was announced; it would be as w1 of acme
";
        assert_eq!(found(&trial), expected);
    }
}
