//! `router routes`.

use std::time::SystemTime;

use clap::Args;
use daemon::output;

use super::table::table;
use super::{ConfigArgs, FAILED, OK, mention_registry};
use crate::control::build::build_once;
use crate::control::listing::{self, ListedRoute};

#[derive(Debug, Args)]
pub(super) struct RoutesArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Only the rules of one tenant
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Write a JSON array
    #[arg(long)]
    json: bool,
}

pub(super) fn routes(args: &RoutesArgs) -> anyhow::Result<u8> {
    let built = match build_once(&args.config.config, SystemTime::now()) {
        Ok(built) => built,
        Err(errors) => {
            output::complain(&errors.report());
            return Ok(FAILED);
        }
    };
    let mut routes = listing::routes(&built.snapshot);
    if let Some(tenant) = &args.tenant {
        routes.retain(|route| route.tenant == *tenant);
        if routes.is_empty() {
            anyhow::bail!("no tenant {tenant:?} owns a route");
        }
    }
    output::print(&if args.json {
        serde_json::to_string_pretty(&routes)? + "\n"
    } else {
        listed(&routes)
    })?;
    mention_registry(&built);
    Ok(OK)
}

fn listed(routes: &[ListedRoute]) -> String {
    let head = [
        "HOST",
        "TENANT",
        "UPSTREAM",
        "PROTOCOL",
        "ENDPOINTS",
        "FROM",
    ];
    table(head, routes.iter().map(row))
}

fn row(route: &ListedRoute) -> [String; 6] {
    let endpoints: Vec<_> = route.endpoints.iter().map(ToString::to_string).collect();
    let security = if route.tls { "+tls" } else { "" };
    let from = match (&route.file, route.line) {
        (Some(file), Some(line)) => format!("{}:{line}", file.display()),
        _ => route.source.to_owned(),
    };
    [
        route.host.clone(),
        route.tenant.clone(),
        route.upstream.clone(),
        format!("{}{security}", route.protocol),
        endpoints.join(","),
        from,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let route = |host: &str, tls| ListedRoute {
            host: host.into(),
            tenant: "acme".into(),
            upstream: "web".into(),
            protocol: "http1",
            tls,
            endpoints: vec!["127.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()],
            source: "file",
            file: Some("routes.d/acme.yaml".into()),
            line: Some(6),
        };
        let text = listed(&[
            route("a.example.org", true),
            route("*.longer.example.org", false),
        ]);
        let expected = "\
HOST                  TENANT  UPSTREAM  PROTOCOL   ENDPOINTS            FROM
a.example.org         acme    web       http1+tls  127.0.0.1:1,[::1]:2  routes.d/acme.yaml:6
*.longer.example.org  acme    web       http1      127.0.0.1:1,[::1]:2  routes.d/acme.yaml:6
";
        assert_eq!(text, expected);
    }
}
