//! `router registry`: what operators and tenants ask of the route registry.

mod instance;
mod operator;
mod route;
mod session;
#[cfg(test)]
mod tests;
mod token;
mod watch;
mod zone;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::registry::client::Address;

pub(super) use session::WrongUsage;

pub(super) const ABOUT: &str = "\
Asks the route registry, the HTTPS API of the routers, as an operator or a tenant. The registries, \
whom to trust and the credential stand in options or in the environment:

    export GATEHOUSE_REGISTRY=https://edge-1.example.org:8444,https://edge-2.example.org:8444
    export GATEHOUSE_CA=registry-ca.crt
    export GATEHOUSE_TOKEN_FILE=me.token

One registry after the other is asked until one answers. A token stands in a file that only its \
owner can read, never in an argument, which every process of the machine can see.";

pub(super) const EXAMPLES: &str = "\
Examples:
  router registry token create --operator me --file operators.tokens --output me.token
      On a router: makes an operator's token; operators.tokens gets its digest alone.
  router registry zone add acme '*.acme.example.org' --address 10.0.7.0/24
      Leases names to a tenant, and the addresses that its endpoints may have.
  router registry zone extend acme '*.acme.example.org' --address 10.0.8.0/24
      More addresses for the same names.
  router registry token create --tenant acme --note workers --output acme.token
      Makes a token for the tenant's registrars.
  router registry route list --tenant acme
  router registry route get www.acme.example.org --json
  router registry route add www.acme.example.org --tenant acme --endpoint 10.0.7.21:8080
      Puts a route that stays until it is deleted; add --ttl 1h to let it go by itself.
  router registry route watch --json
      One JSON object per change, until it is stopped.
  router registry instance list
      Which registrars announce what, and with which credential.
  router registry token revoke 0123456789abcdef --withdraw
      A token has leaked: makes it invalid, and takes away what was made with it.

Exit codes: 0 well, 1 refused or failed, 2 wrong usage.";

#[derive(Debug, Args)]
#[command(long_about = ABOUT, after_help = EXAMPLES)]
pub(super) struct RegistryArgs {
    #[command(flatten)]
    connection: ConnectionArgs,
    #[command(subcommand)]
    object: Object,
}

/// Whom to ask, and as whom.
#[derive(Debug, Args)]
struct ConnectionArgs {
    /// A registry, such as https://edge-1.example.org:8444; may be repeated, or list several with
    /// commas
    #[arg(
        long,
        value_name = "URL",
        global = true,
        env = "GATEHOUSE_REGISTRY",
        value_delimiter = ','
    )]
    registry: Vec<Address>,
    /// PEM file of the authorities that sign the registries' certificates [default: the system's]
    #[arg(long, value_name = "FILE", global = true, env = "GATEHOUSE_CA")]
    ca: Option<PathBuf>,
    /// PEM file of a client certificate; goes before a token
    #[arg(long, value_name = "FILE", global = true)]
    certificate: Option<PathBuf>,
    /// PEM file of its private key
    #[arg(long, value_name = "FILE", global = true)]
    key: Option<PathBuf>,
    /// File that holds a bearer token, which only its owner can read
    #[arg(long, value_name = "FILE", global = true, env = "GATEHOUSE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Write JSON
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Object {
    /// Routes: list, get, add, delete, watch
    #[command(subcommand)]
    Route(route::RouteCommand),
    /// Instances, which announce routes: list, withdraw
    #[command(subcommand)]
    Instance(instance::InstanceCommand),
    /// Tokens, which prove a tenant or an operator: create, list, revoke
    #[command(subcommand)]
    Token(token::TokenCommand),
    /// Zones, the names leased to a tenant: list, get, add, extend, delete
    #[command(subcommand)]
    Zone(zone::ZoneCommand),
}

pub(super) fn registry(args: &RegistryArgs) -> anyhow::Result<u8> {
    let connection = &args.connection;
    match &args.object {
        Object::Route(command) => route::run(command, connection),
        Object::Instance(command) => instance::run(command, connection),
        Object::Token(command) => token::run(command, connection),
        Object::Zone(command) => zone::run(command, connection),
    }
}
