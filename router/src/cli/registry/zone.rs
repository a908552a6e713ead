//! `router registry zone`.

use clap::{Args, Subcommand};
use config::net::IpRange;
use config::route::HostMatch;
use http::StatusCode;
use serde_json::json;

use super::ConnectionArgs;
use super::route::precondition;
use super::session::{Session, name};
use crate::cli::OK;
use crate::cli::table::table;
use crate::registry::api::problem::reason;
use crate::registry::api::types::{Zone, ZonePut, ZoneSpec};
use crate::registry::client::{Client, ClientError, Precondition, Tagged};

/// How often a range is added while others change the zone.
const ATTEMPTS: usize = 5;

#[derive(Debug, Subcommand)]
pub(super) enum ZoneCommand {
    /// List zones
    List(ListArgs),
    /// Show a zone, with its version
    Get(GetArgs),
    /// Lease names to a tenant, and the addresses that its endpoints may have
    ///
    /// Refused if there is a zone of this pattern already: `extend` adds addresses to it, --replace
    /// puts this one in its place.
    Add(AddArgs),
    /// Add addresses to a zone, whatever else is in it
    Extend(ExtendArgs),
    /// Take a zone back
    ///
    /// Routes of the tenant that no other zone allows go with it at once; --evict says that they
    /// may. Asking again ends what was cut short.
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    zone: ZoneArgs,
}

/// Which zone.
#[derive(Debug, Args)]
struct ZoneArgs {
    /// Whom the names are leased to
    #[arg(value_parser = name)]
    tenant: String,
    /// The names: one, or a star and what they end with, however many labels the star stands for
    pattern: HostMatch,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// Where the tenant's endpoints are; may be repeated
    #[arg(long = "address", value_name = "RANGE", required = true, num_args = 1..)]
    addresses: Vec<IpRange>,
    /// Let zones of other tenants overlap with this one; inside, who claims first holds
    #[arg(long)]
    shared: bool,
    /// In place of the zone of this pattern, if there is one
    #[arg(long)]
    replace: bool,
    /// Only if the zone is still this version, as `get` tells it
    #[arg(long, value_name = "VERSION", requires = "replace")]
    if_match: Option<String>,
    /// Let routes go that no zone would allow any more
    #[arg(long, requires = "replace")]
    evict: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExtendArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// Where endpoints may be as well; may be repeated
    #[arg(long = "address", value_name = "RANGE", required = true, num_args = 1..)]
    addresses: Vec<IpRange>,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// Only if the zone is still this version, as `get` tells it
    #[arg(long, value_name = "VERSION")]
    if_match: Option<String>,
    /// Let routes go that no zone would allow any more
    #[arg(long)]
    evict: bool,
}

/// What became of a zone.
enum Added {
    /// It is as it was asked for, and was before.
    Already(Zone),
    Put(Tagged<ZonePut>),
}

pub(super) fn run(command: &ZoneCommand, connection: &ConnectionArgs) -> anyhow::Result<u8> {
    let session = Session::open(connection)?;
    match command {
        ZoneCommand::List(args) => {
            let zones = session.ask(async |client| client.zones(args.tenant.as_deref()).await)?;
            session.print(&zones, || listed(&zones))?;
        }
        ZoneCommand::Get(args) => {
            let (tenant, pattern) = args.zone.named();
            let found = session.ask(async |client| client.zone(tenant, &pattern).await)?;
            session.print(&found.value, || listed(std::slice::from_ref(&found.value)))?;
        }
        ZoneCommand::Add(args) => {
            let added = session.ask(async |client| add(args, client).await)?;
            print_added(&args.zone, &added, &session)?;
        }
        ZoneCommand::Extend(args) => {
            let added = session.ask(async |client| extend(args, client).await)?;
            print_added(&args.zone, &added, &session)?;
        }
        ZoneCommand::Delete(args) => {
            let (tenant, pattern) = args.zone.named();
            let precondition = precondition(args.if_match.as_ref(), false);
            let taken = session.ask(async |client| {
                client
                    .delete_zone(tenant, &pattern, &precondition, args.evict)
                    .await
            })?;
            let evicted = taken.evicted;
            let deleted = json!({"tenant": tenant, "deleted": pattern, "evicted": evicted});
            session.print(&deleted, || {
                let routes = routes(evicted);
                format!("{pattern} is taken back from {tenant}{routes}\n")
            })?;
        }
    }
    Ok(OK)
}

/// Puts a zone where there is none, or in place of the one that there is now.
async fn add(args: &AddArgs, client: &Client) -> Result<Added, ClientError> {
    let (tenant, pattern) = args.zone.named();
    let spec = ZoneSpec {
        addresses: args.addresses.iter().map(ToString::to_string).collect(),
        shared: args.shared,
    };
    let before = match client.zone(tenant, &pattern).await {
        Ok(found) => Some(found),
        Err(error) if is(&error, StatusCode::NOT_FOUND) => None,
        Err(error) => return Err(error),
    };
    let precondition = match (&before, &args.if_match) {
        (_, Some(_)) => precondition(args.if_match.as_ref(), false),
        // Perhaps the answer to an earlier attempt was lost. What a router without its store knows
        // proves nothing.
        (Some(found), None) if same(&found.value, &spec) && client.stale().is_none() => {
            return Ok(Added::Already(found.value.clone()));
        }
        (Some(found), None) if args.replace => match_of(found),
        _ => Precondition::Absent,
    };
    let put = client.put_zone(tenant, &pattern, &spec, &precondition, args.evict);
    put.await.map(Added::Put)
}

/// Adds addresses to a zone; anew while somebody else changes it meanwhile.
async fn extend(args: &ExtendArgs, client: &Client) -> Result<Added, ClientError> {
    let (tenant, pattern) = args.zone.named();
    let mut attempt = 0;
    loop {
        attempt += 1;
        let found = client.zone(tenant, &pattern).await?;
        let mut spec = ZoneSpec {
            addresses: found.value.addresses.clone(),
            shared: found.value.shared,
        };
        for address in args.addresses.iter().map(ToString::to_string) {
            if !spec.addresses.contains(&address) {
                spec.addresses.push(address);
            }
        }
        if spec.addresses.len() == found.value.addresses.len() {
            return Ok(Added::Already(found.value));
        }
        let precondition = match_of(&found);
        match client
            .put_zone(tenant, &pattern, &spec, &precondition, false)
            .await
        {
            Err(error) if attempt < ATTEMPTS && is(&error, StatusCode::PRECONDITION_FAILED) => {}
            put => return put.map(Added::Put),
        }
    }
}

fn print_added(zone: &ZoneArgs, added: &Added, session: &Session) -> anyhow::Result<()> {
    let (tenant, pattern) = zone.named();
    match added {
        Added::Already(zone) => session.print(zone, || {
            format!("{pattern} is leased to {tenant} like that already\n")
        }),
        Added::Put(put) => session.print(&put.value, || {
            let done = if put.created {
                "leased to"
            } else {
                "replaced for"
            };
            let routes = routes(put.value.evicted);
            format!("{pattern} is {done} {tenant}{routes}\n")
        }),
    }
}

impl ZoneArgs {
    fn named(&self) -> (&str, String) {
        (&self.tenant, self.pattern.to_string())
    }
}

fn same(zone: &Zone, spec: &ZoneSpec) -> bool {
    let mut asked = spec.addresses.clone();
    let mut there = zone.addresses.clone();
    asked.sort();
    there.sort();
    (asked, spec.shared) == (there, zone.shared)
}

/// Only if it is still what was found; without a tag it is not for us to overwrite.
fn match_of(found: &Tagged<Zone>) -> Precondition {
    match &found.tag {
        Some(tag) => Precondition::Match(tag.clone()),
        None => Precondition::Absent,
    }
}

fn is(error: &ClientError, status: StatusCode) -> bool {
    let expected = match status {
        StatusCode::NOT_FOUND => reason::NOT_FOUND,
        _ => reason::CHANGED,
    };
    error
        .problem()
        .is_some_and(|it| it.status == status && it.reason.as_deref() == Some(expected))
}

fn routes(evicted: usize) -> String {
    match evicted {
        0 => String::new(),
        1 => "; 1 route went with it".to_owned(),
        more => format!("; {more} routes went with it"),
    }
}

fn listed(zones: &[Zone]) -> String {
    let row = |zone: &Zone| {
        [
            zone.tenant.clone(),
            zone.pattern.clone(),
            zone.addresses.join(","),
            if zone.shared { "yes" } else { "no" }.to_owned(),
            zone.revision.to_string(),
        ]
    };
    table(
        ["TENANT", "PATTERN", "ADDRESSES", "SHARED", "VERSION"],
        zones.iter().map(row),
    )
}
