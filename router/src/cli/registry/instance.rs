//! `router registry instance`.

use clap::{Args, Subcommand};

use super::ConnectionArgs;
use super::session::{Session, name};
use crate::cli::OK;
use crate::cli::table::table;
use crate::registry::api::types::Instance;

#[derive(Debug, Subcommand)]
pub(super) enum InstanceCommand {
    /// List the instances whose registrars announce something
    List(ListArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

pub(super) fn run(command: &InstanceCommand, connection: &ConnectionArgs) -> anyhow::Result<u8> {
    let InstanceCommand::List(args) = command;
    let session = Session::open(connection)?;
    let tenant = args.tenant.as_deref();
    let instances = session.ask(async |client| client.instances(tenant).await)?;
    session.print(&instances, || listed(&instances))?;
    Ok(OK)
}

fn listed(instances: &[Instance]) -> String {
    let row = |instance: &Instance| {
        [
            instance.tenant.clone(),
            instance.instance.clone(),
            format!("{} s", instance.ttl),
            instance.hosts.join(","),
        ]
    };
    table(
        ["TENANT", "INSTANCE", "TTL", "HOSTS"],
        instances.iter().map(row),
    )
}
