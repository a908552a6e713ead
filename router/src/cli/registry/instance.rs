//! `router registry instance`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::ConnectionArgs;
use super::session::{Session, name};
use crate::cli::OK;
use crate::cli::table::table;
use crate::registry::api::types::Instance;
use crate::registry::client::DEADLINE;

#[derive(Debug, Subcommand)]
pub(super) enum InstanceCommand {
    /// List the instances whose registrars announce something, and with which credential
    List(ListArgs),
    /// Withdraw everything that an instance announced, at once
    ///
    /// Its registrar announces it again if it still runs and its credential still counts.
    Withdraw(WithdrawArgs),
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this tenant's
    #[arg(long, value_name = "NAME", value_parser = name)]
    tenant: Option<String>,
}

#[derive(Debug, Args)]
pub(super) struct WithdrawArgs {
    /// Whose it is
    #[arg(value_parser = name)]
    tenant: String,
    /// As `list` shows it
    #[arg(value_parser = name)]
    instance: String,
}

pub(super) fn run(command: &InstanceCommand, connection: &ConnectionArgs) -> anyhow::Result<u8> {
    let session = Session::open(connection)?;
    match command {
        InstanceCommand::List(args) => {
            let tenant = args.tenant.as_deref();
            let instances = session.ask(async |client| client.instances(tenant).await)?;
            session.print(&instances, || listed(&instances))?;
        }
        InstanceCommand::Withdraw(WithdrawArgs { tenant, instance }) => {
            session.ask(async |client| client.withdraw(tenant, instance, DEADLINE).await)?;
            let withdrawn = json!({"tenant": tenant, "withdrawn": instance});
            session.print(&withdrawn, || {
                format!("everything of instance {instance} of {tenant} is withdrawn\n")
            })?;
        }
    }
    Ok(OK)
}

fn listed(instances: &[Instance]) -> String {
    let row = |instance: &Instance| {
        [
            instance.tenant.clone(),
            instance.instance.clone(),
            format!("{} s", instance.ttl),
            instance.credential.clone(),
            instance.hosts.join(","),
        ]
    };
    table(
        ["TENANT", "INSTANCE", "TTL", "CREDENTIAL", "HOSTS"],
        instances.iter().map(row),
    )
}
