//! `router registry zone`.

use clap::{Args, Subcommand};
use config::net::IpRange;
use config::route::HostMatch;
use serde_json::json;

use super::ConnectionArgs;
use super::session::{Session, name};
use crate::cli::OK;
use crate::cli::table::table;
use crate::registry::api::types::{Zone, ZoneSpec};

#[derive(Debug, Subcommand)]
pub(super) enum ZoneCommand {
    /// List zones
    List(ListArgs),
    /// Lease names to a tenant, and the addresses that its endpoints may have
    ///
    /// In place of a zone of the same pattern. Routes of the tenant that no zone allows any more go
    /// at once.
    Add(AddArgs),
    /// Take a zone back; routes of the tenant that no other zone allows go at once
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// Whom the names are leased to
    #[arg(value_parser = name)]
    tenant: String,
    /// The names: one, or a star and what they end with, however many labels the star stands for
    pattern: HostMatch,
    /// Where the tenant's endpoints are; may be repeated
    #[arg(long = "address", value_name = "RANGE", required = true, num_args = 1..)]
    addresses: Vec<IpRange>,
    /// Let zones of other tenants overlap with this one; inside, who claims first holds
    #[arg(long)]
    shared: bool,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArgs {
    /// Whom the names are leased to
    #[arg(value_parser = name)]
    tenant: String,
    /// As `list` shows it
    pattern: HostMatch,
}

pub(super) fn run(command: &ZoneCommand, connection: &ConnectionArgs) -> anyhow::Result<u8> {
    let session = Session::open(connection)?;
    match command {
        ZoneCommand::List(args) => {
            let zones = session.ask(async |client| client.zones(args.tenant.as_deref()).await)?;
            session.print(&zones.zones, || listed(&zones.zones))?;
        }
        ZoneCommand::Add(args) => {
            let (tenant, pattern) = (&args.tenant, args.pattern.to_string());
            let spec = ZoneSpec {
                addresses: args.addresses.iter().map(ToString::to_string).collect(),
                shared: args.shared,
            };
            let put = session.ask(async |client| client.put_zone(tenant, &pattern, &spec).await)?;
            let done = if put.created {
                "leased to"
            } else {
                "replaced for"
            };
            session.print(&put.value, || format!("{pattern} is {done} {tenant}\n"))?;
        }
        ZoneCommand::Delete(args) => {
            let (tenant, pattern) = (&args.tenant, args.pattern.to_string());
            session.ask(async |client| client.delete_zone(tenant, &pattern).await)?;
            let deleted = json!({"tenant": tenant, "deleted": pattern});
            session.print(&deleted, || {
                format!("{pattern} is taken back from {tenant}\n")
            })?;
        }
    }
    Ok(OK)
}

fn listed(zones: &[Zone]) -> String {
    let row = |zone: &Zone| {
        [
            zone.tenant.clone(),
            zone.pattern.clone(),
            zone.addresses.join(","),
            if zone.shared { "yes" } else { "no" }.to_owned(),
        ]
    };
    table(
        ["TENANT", "PATTERN", "ADDRESSES", "SHARED"],
        zones.iter().map(row),
    )
}
