//! The command line: what can be asked of the `router` program.

mod announce;
mod check;
mod explain;
mod registry;
mod routes;
mod run;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use daemon::output;

use crate::control::build::Built;

/// Everything went well.
const OK: u8 = 0;
/// The files are refused, or the router failed.
const FAILED: u8 = 1;
/// Wrong usage; clap itself ends with the same.
const USAGE: u8 = 2;

const ABOUT: &str = "\
The HTTPS edge of many tenant clusters: ends TLS, finds the owner of each request's host, forwards \
it to one of the owner's endpoints.

A configuration is one file, router.yaml. It names a folder of certificates (NAME.crt, NAME.key) \
and the route files, one per tenant:

    certificates:
      directory: certs
    routes:
      - routes.d

    # routes.d/acme.yaml
    tenant: acme
    upstreams:
      workers:
        endpoints: [\"10.0.7.21:31380\", \"10.0.7.22:31380\"]
    routes:
      - host: \"*.acme.example.org\"
        upstream: workers";

const EXAMPLES: &str = "\
Examples:
  router check --config router.yaml
      Everything that is wrong with any file, at once.
  router run --config router.yaml
      Serve. SIGHUP or a changed file reloads, SIGTERM drains.
  router explain https://shop.acme.example.org/cart --config router.yaml
      Which certificate, which rule, which endpoints, which fields, and why.
  router announce --config registrar.yaml
      On an instance: announce its routes to the route registry while they are healthy.
  router registry route list
      Ask the route registry; `router registry --help` teaches how.

Exit codes: 0 well, 1 refused or failed, 2 wrong usage.";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "router",
    version,
    about = "The HTTPS edge of many tenant clusters"
)]
#[command(long_about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until told to stop
    ///
    /// Reloads on SIGHUP and when a file changes, without cutting a connection; a file that is
    /// refused changes nothing and is logged with the reason. SIGTERM and SIGINT drain: no new
    /// connections, each old one ends with the request it is in, at the latest after
    /// timeouts.drain. Before that the router serves for timeouts.drain_delay and says that it is
    /// not ready. A second signal ends at once. The log goes to stderr, the access log to
    /// stdout.
    Run(run::RunArgs),
    /// Tell everything that is wrong with a configuration
    ///
    /// Reads what `run` would read, certificates included, and asks whether it may write where `run`
    /// would write; serves and changes nothing. Ends with 1 if `run` would refuse it: ask as the user
    /// that the router runs as.
    Check(check::CheckArgs),
    /// List the rules in the order of matching
    Routes(routes::RoutesArgs),
    /// Tell what happens to a URL, and why
    ///
    /// Calls the same functions as the running router. Without a scheme the URL is https.
    Explain(explain::ExplainArgs),
    /// Announce an instance's routes to the route registry while they are healthy: the registrar
    ///
    /// Checks each route, announces at once what is healthy, renews it, withdraws at once what is not.
    /// Tries every registry. Reloads on SIGHUP and when a file changes; a file that is refused changes
    /// nothing and is logged with the reason. SIGTERM and SIGINT withdraw everything.
    Announce(announce::AnnounceArgs),
    /// Ask the route registry: routes, instances, tokens, zones
    Registry(Box<registry::RegistryArgs>),
}

/// Which configuration.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration; relative paths in it start at its folder
    #[arg(long, short, value_name = "FILE", default_value = "router.yaml")]
    config: PathBuf,
}

/// Says that a command which reads files has not seen all there is.
fn mention_registry(built: &Built) {
    let Some(_) = &built.router.registry else {
        return;
    };
    let ask = match built.router.admin {
        Some(admin) => {
            format!("a running router tells of them at http://{admin}/routes and /explain?url=URL")
        }
        None => "`router registry route list` tells of them".to_owned(),
    };
    output::complain(&format!(
        "note: routes of the registry are not among these; {ask}\n"
    ));
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    // Fails if there is one already; then somebody chose another on purpose.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Check(args) => check::check(&args),
        Command::Routes(args) => routes::routes(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Announce(args) => announce::announce(&args),
        Command::Registry(args) => registry::registry(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&format!("router: {error:#}\n"));
            ExitCode::from(if error.is::<registry::WrongUsage>() {
                USAGE
            } else {
                FAILED
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn wrong_usage_ends_with_2() {
        for line in [
            &["router"][..],
            &["router", "serve"],
            &["router", "explain"],
            &["router", "run", "--log-format", "xml"],
            &["router", "explain", "a.example", "--client", "here"],
            &["router", "announce", "--json"],
            &["router", "registry", "route"],
            &["router", "registry", "route", "get", "a..b"],
            &["router", "registry", "route", "add", "a.example.org"],
            &[
                "router",
                "registry",
                "route",
                "list",
                "--registry",
                "http://a",
            ],
            &["router", "registry", "token", "create"],
            &["router", "registry", "token", "create", "--operator", "me"],
            &[
                "router",
                "registry",
                "zone",
                "add",
                "acme",
                "*.a.example.org",
            ],
        ] {
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn help_teaches_with_examples() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("router explain https://") && help.contains("tenant: acme"));
    }

    #[test]
    fn the_examples_of_help_parse() {
        let lines = [EXAMPLES, registry::EXAMPLES]
            .into_iter()
            .flat_map(str::lines)
            .filter_map(|line| line.strip_prefix("  router "));
        let mut count = 0;
        for line in lines {
            // No word of them holds a blank.
            let words = line.split(' ').map(|word| word.trim_matches('\''));
            Cli::try_parse_from(std::iter::once("router").chain(words)).unwrap();
            count += 1;
        }
        assert_eq!(count, 15);
    }
}
