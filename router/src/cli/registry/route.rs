//! `router registry route`.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::{Args, Subcommand, ValueEnum};
use config::route::HostMatch;
use serde::Serialize;
use serde_json::json;

use super::ConnectionArgs;
use super::session::{Session, name, seconds};
use super::watch::{WatchArgs, watch};
use crate::announce::load::certificates;
use crate::cli::OK;
use crate::cli::table::table;
use crate::registry::api::types::{Route, RouteSpec, Source, SourceTls, SourceTrust};
use crate::registry::client::{Precondition, Tagged};
use crate::registry::record::{Check, Protocol, Tls, Trust};

#[derive(Debug, Subcommand)]
pub(super) enum RouteCommand {
    /// List routes
    List(ListArgs),
    /// Show a route: who contributes which endpoints
    Get(GetArgs),
    /// Put a route, in place of one that was put before
    ///
    /// Endpoints that instances announce for the same name add to it.
    Add(Box<AddArgs>),
    /// Delete a route that was put
    ///
    /// What instances announce for the name stays until they withdraw it.
    Delete(DeleteArgs),
    /// Print routes and their changes, one line each, until it is stopped
    ///
    /// First everything there is, then `synced`, then each change. A connection that breaks is made
    /// again, at the next registry if need be, and goes on where it was; `reset` says that what was
    /// printed before is void.
    Watch(WatchArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    /// A name, or a star and a suffix: *.example.org, *-7.example.org
    host: HostMatch,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// A name, or a star and a suffix: *.example.org, *-7.example.org
    host: HostMatch,
    /// Where requests go; may be repeated
    #[arg(long = "endpoint", value_name = "ADDRESS:PORT", required = true, num_args = 1..)]
    endpoints: Vec<SocketAddr>,
    /// Whose it is; operators have to say
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
    /// The HTTP version spoken towards the endpoints
    #[arg(long, value_enum, default_value_t)]
    protocol: SpokenProtocol,
    /// Speak TLS towards the endpoints, with this name
    #[arg(long, value_name = "NAME")]
    tls_server_name: Option<String>,
    /// PEM file of the authorities that sign the endpoints' certificates [default: those of the
    /// routers' system]
    #[arg(long, value_name = "FILE", requires = "tls_server_name")]
    tls_ca: Option<PathBuf>,
    /// Take any certificate: whoever is in between can read and change everything
    #[arg(long, requires = "tls_server_name", conflicts_with = "tls_ca")]
    tls_insecure_accept_any_certificate: bool,
    /// It goes after this time unless it is put again [default: it stays]
    #[arg(long, value_name = "DURATION", value_parser = seconds)]
    ttl: Option<u32>,
    /// Let other tenants hold narrower names beneath a suffix
    #[arg(long)]
    shared: bool,
    /// Have the routers check the endpoints: a connection is enough
    #[arg(long)]
    check: bool,
    /// Have the routers check the endpoints: a GET of this path answered with 200 to 399
    #[arg(long, value_name = "PATH")]
    check_path: Option<String>,
    /// From the start of one check to the start of the next
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "5s")]
    check_interval: u32,
    /// How long a check may take
    #[arg(long, value_name = "DURATION", value_parser = seconds, default_value = "2s")]
    check_timeout: u32,
    /// Failures in a row until an endpoint is left out
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    check_failures: u32,
    /// Only if the route is still this version, as `get` and `add` tell it
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    /// Only if there is no such route
    #[arg(long, conflicts_with = "if_match")]
    new: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// A name, or a star and a suffix
    host: HostMatch,
    /// Only if the route is still this version, as `get` and `add` tell it
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum SpokenProtocol {
    #[default]
    Http1,
    Http2,
}

/// A route with its version.
#[derive(Serialize)]
struct Versioned<'a> {
    #[serde(flatten)]
    route: &'a Route,
    version: Option<&'a str>,
}

pub(super) fn run(command: &RouteCommand, connection: &ConnectionArgs) -> anyhow::Result<u8> {
    let session = Session::open(connection)?;
    match command {
        RouteCommand::List(args) => {
            let routes = session.ask(async |client| client.routes(args.tenant.as_deref()).await)?;
            session.print(&routes, || listed(&routes))?;
        }
        RouteCommand::Get(args) => {
            let host = args.host.to_string();
            let found = session.ask(async |client| client.route(&host).await)?;
            session.print(&versioned(&found), || shown(&found))?;
        }
        RouteCommand::Add(args) => add(args, &session)?,
        RouteCommand::Delete(args) => {
            let host = args.host.to_string();
            let precondition = precondition(args.if_match.as_ref(), false);
            session.ask(async |client| client.delete_route(&host, &precondition).await)?;
            session.print(&json!({"deleted": host}), || format!("{host} is deleted\n"))?;
        }
        RouteCommand::Watch(args) => return watch(args, &session),
    }
    Ok(OK)
}

fn add(args: &AddArgs, session: &Session) -> anyhow::Result<()> {
    let (host, spec) = (args.host.to_string(), spec(args)?);
    let precondition = precondition(args.if_match.as_ref(), args.new);
    let tenant = args.tenant.as_deref();
    let put =
        session.ask(async |client| client.put_route(&host, tenant, &spec, &precondition).await)?;
    let done = if put.created { "added" } else { "replaced" };
    session.print(&versioned(&put), || {
        let version = version(&put).unwrap_or("unknown");
        format!("{host} is {done}, version {version}\n")
    })
}

/// The route that the arguments ask for.
pub(super) fn spec(args: &AddArgs) -> anyhow::Result<RouteSpec> {
    let tls = match &args.tls_server_name {
        None => None,
        Some(server_name) => {
            let trust = match &args.tls_ca {
                Some(file) => {
                    let pem = certificates(file).map_err(|errors| anyhow!("{errors}"))?;
                    Trust::CaPem(pem)
                }
                None if args.tls_insecure_accept_any_certificate => {
                    Trust::InsecureAcceptAnyCertificate
                }
                None => Trust::System,
            };
            Some(Tls {
                server_name: server_name.clone(),
                trust,
            })
        }
    };
    let check = (args.check || args.check_path.is_some()).then(|| Check {
        path: args.check_path.clone(),
        interval: args.check_interval,
        timeout: args.check_timeout,
        failures: args.check_failures,
    });
    Ok(RouteSpec {
        endpoints: args.endpoints.clone(),
        protocol: match args.protocol {
            SpokenProtocol::Http1 => Protocol::Http1,
            SpokenProtocol::Http2 => Protocol::Http2,
        },
        tls,
        shared: args.shared,
        check,
        ttl: args.ttl,
    })
}

fn precondition(version: Option<&String>, new: bool) -> Precondition {
    match version {
        Some(version) if version == "*" => Precondition::Match(version.clone()),
        Some(version) => Precondition::Match(format!("\"{version}\"")),
        None if new => Precondition::Absent,
        None => Precondition::None,
    }
}

/// A tag without its quotes, which shells would take away.
fn version(found: &Tagged<Route>) -> Option<&str> {
    let tag = found.tag.as_deref()?;
    tag.strip_prefix('"')?.strip_suffix('"')
}

fn versioned(found: &Tagged<Route>) -> Versioned<'_> {
    Versioned {
        route: &found.value,
        version: version(found),
    }
}

pub(super) fn listed(routes: &[Route]) -> String {
    let head = ["HOST", "TENANT", "PROTOCOL", "ENDPOINTS", "SOURCES"];
    table(
        head,
        routes.iter().map(|route| {
            let sources = route.sources.iter().map(|source| source.source.as_str());
            [
                route.host.clone(),
                route.tenant.clone(),
                spoken(route),
                addresses(&route.endpoints),
                sources.collect::<Vec<_>>().join(","),
            ]
        }),
    )
}

fn shown(found: &Tagged<Route>) -> String {
    let route = &found.value;
    let mut text = format!("{} of {}, {}", route.host, route.tenant, spoken(route));
    if route.shared {
        text.push_str(", shared");
    }
    if let Some(check) = &route.check {
        let what = check.path.as_deref().unwrap_or("a connection");
        let seconds = check.interval;
        text.push_str(&format!(", routers check {what} every {seconds} s"));
    }
    let version = version(found).unwrap_or("unknown");
    text.push_str(&format!(", version {version}\n"));
    let head = ["SOURCE", "ENDPOINTS", "TLS", "TTL"];
    text.push_str(&table(head, route.sources.iter().map(source)));
    text
}

fn source(source: &Source) -> [String; 4] {
    let trust = |tls: &SourceTls| match tls.trust {
        SourceTrust::CaSha256(_) => "verified by its own authorities",
        SourceTrust::System => "verified by the system's authorities",
        SourceTrust::InsecureAcceptAnyCertificate => "not verified",
    };
    [
        source.source.clone(),
        addresses(&source.endpoints),
        match &source.tls {
            Some(tls) => format!("{}, {}", tls.server_name, trust(tls)),
            None => "no".to_owned(),
        },
        match source.ttl {
            Some(seconds) => format!("{seconds} s"),
            None => "stays".to_owned(),
        },
    ]
}

/// `http1+tls`, as in `router routes`.
pub(super) fn spoken(route: &Route) -> String {
    let protocol = match route.protocol {
        Protocol::Http1 => "http1",
        Protocol::Http2 => "http2",
    };
    let tls = route.sources.iter().any(|source| source.tls.is_some());
    format!("{protocol}{}", if tls { "+tls" } else { "" })
}

pub(super) fn addresses(endpoints: &[SocketAddr]) -> String {
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    endpoints.join(",")
}
