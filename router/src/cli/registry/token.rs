//! `router registry token`.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use config::net::IpRange;
use daemon::files::Replacement;
use daemon::output;
use serde_json::json;

use super::ConnectionArgs;
use super::operator::create_operator;
use super::session::{Session, WrongUsage, name, seconds};
use crate::cli::OK;
use crate::cli::table::table;
use crate::observe::timestamp::date;
use crate::registry::api::types::{Token, TokenSpec};
use crate::registry::record::{Pattern, Scope};

#[derive(Debug, Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token: the only time that it is shown
    ///
    /// A tenant's is made by a registry. An operator's is made on the spot, without any: its digest
    /// goes into the file that `registry.api.operators` of router.yaml names.
    Create(CreateArgs),
    /// List tenants' tokens, without their secrets
    List(ListArgs),
    /// Make a tenant's token invalid
    ///
    /// What was announced or put with it stays until its time is up, unless --withdraw takes it away
    /// as well. An operator's is revoked by deleting its line from the operators' file; --withdraw
    /// with its id takes away what was made with it.
    Revoke(RevokeArgs),
}

#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// For the registrars of this tenant
    #[arg(
        long,
        value_name = "NAME",
        value_parser = name,
        required_unless_present = "operator",
        conflicts_with = "operator"
    )]
    tenant: Option<String>,
    /// For an operator of this name
    #[arg(long, value_name = "NAME", value_parser = name, requires = "file")]
    operator: Option<String>,
    /// The operators' file, which gets a line; it is made if it is not there, by root for the owner
    /// of its folder
    #[arg(long, value_name = "FILE", requires = "operator")]
    file: Option<PathBuf>,
    /// What it is for, to be seen in lists
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        conflicts_with = "operator"
    )]
    note: String,
    /// It stops being valid after this time [default: never]
    #[arg(long, value_name = "DURATION", value_parser = seconds, conflicts_with = "operator")]
    expires_in: Option<u32>,
    /// It announces as this instance only, and puts no routes
    #[arg(long, value_name = "NAME", value_parser = name, conflicts_with = "operator")]
    instance: Option<String>,
    /// It is good for these names only, a part of the tenant's zones; several times
    #[arg(long, value_name = "PATTERN", value_parser = pattern, conflicts_with = "operator")]
    pattern: Vec<Pattern>,
    /// Its endpoints have these addresses or ranges only; several times
    #[arg(long, value_name = "RANGE", value_parser = range, conflicts_with = "operator")]
    address: Vec<IpRange>,
    /// Write the token into this file, which only its owner can read, and not to stdout
    ///
    /// A file that is there is replaced, and keeps its owner. A new one that root makes gets the
    /// owner of its folder.
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// As `list` shows it
    id: String,
    /// Withdraw at once whatever instances announced with it last, and delete the routes that were
    /// put with it
    #[arg(long)]
    withdraw: bool,
}

pub(super) fn run(command: &TokenCommand, connection: &ConnectionArgs) -> anyhow::Result<u8> {
    match command {
        TokenCommand::Create(args) => match (&args.operator, &args.file) {
            (Some(operator), Some(file)) => {
                let destination = destination(args.output.as_deref())?;
                let (id, token) = create_operator(operator, file)?;
                deliver(&id, token, destination, connection.json)?;
            }
            _ => create(args, connection)?,
        },
        TokenCommand::List(args) => {
            let session = Session::open(connection)?;
            let tenant = args.tenant.as_deref();
            let tokens = session.ask(async |client| client.tokens(tenant).await)?;
            session.print(&tokens, || listed(&tokens))?;
        }
        TokenCommand::Revoke(args) => {
            let session = Session::open(connection)?;
            let (id, withdraw) = (&args.id, args.withdraw);
            let revoked = session.ask(async |client| client.revoke_token(id, withdraw).await)?;
            let (instances, routes) = (revoked.instances, revoked.routes);
            let told = json!({"revoked": id, "instances": instances, "routes": routes});
            session.print(&told, || {
                if withdraw {
                    format!("{id} is revoked; withdrawn with it: {instances} instances, {routes} routes that were put\n")
                } else {
                    format!("{id} is revoked\n")
                }
            })?;
        }
    }
    Ok(OK)
}

fn create(args: &CreateArgs, connection: &ConnectionArgs) -> anyhow::Result<()> {
    let tenant = args
        .tenant
        .clone()
        .ok_or(WrongUsage("whose token? Give --tenant NAME"))?;
    let session = Session::open(connection)?;
    // Before there is a token that could be lost.
    let destination = destination(args.output.as_deref())?;
    let scope = Scope {
        instance: args.instance.clone(),
        patterns: args.pattern.clone(),
        addresses: args.address.clone(),
    };
    let spec = TokenSpec {
        tenant,
        note: args.note.clone(),
        expires_in: args.expires_in,
        scope: (scope != Scope::default()).then_some(scope),
    };
    let new = session.ask(async |client| client.create_token(&spec).await)?;
    deliver(&new.id, new.token, destination, session.is_json())
}

fn pattern(text: &str) -> Result<Pattern, String> {
    Pattern::try_from(text.to_owned()).map_err(|wrong| wrong.to_string())
}

fn range(text: &str) -> Result<IpRange, String> {
    IpRange::parse(text).map_err(|wrong| wrong.to_string())
}

fn destination(file: Option<&Path>) -> anyhow::Result<Option<Replacement>> {
    let open = |file: &Path| {
        Replacement::begin_owners(file).with_context(|| format!("cannot write {}", file.display()))
    };
    file.map(open).transpose()
}

/// Hands the token out, once.
fn deliver(
    id: &str,
    token: String,
    destination: Option<Replacement>,
    as_json: bool,
) -> anyhow::Result<()> {
    let mut told = json!({ "id": id });
    let text = match destination {
        Some(mut destination) => {
            let file = destination.place().to_owned();
            destination.write_all(format!("{token}\n").as_bytes())?;
            destination.finish()?;
            told["file"] = file.display().to_string().into();
            format!("token {id} is in {}\n", file.display())
        }
        None => {
            let text = format!("{token}\n");
            told["token"] = token.into();
            text
        }
    };
    Ok(output::print(&if as_json {
        format!("{told:#}\n")
    } else {
        text
    })?)
}

fn listed(tokens: &[Token]) -> String {
    let day = |seconds: u64| date(UNIX_EPOCH + Duration::from_secs(seconds));
    let row = |token: &Token| {
        [
            token.id.clone(),
            token.tenant.clone(),
            day(token.created),
            token.expires.map_or_else(|| "never".to_owned(), day),
            token.note.clone(),
        ]
    };
    table(
        ["ID", "TENANT", "MADE", "EXPIRES", "NOTE"],
        tokens.iter().map(row),
    )
}
