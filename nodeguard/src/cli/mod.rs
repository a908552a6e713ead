//! The command line: what can be asked of the `nodeguard` program.

mod boot;
mod check;
mod explain;
mod reload;
mod render;
mod run;
mod status;
mod teardown;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use daemon::output;

/// Everything went well.
const OK: u8 = 0;
/// Refused, failed, or isolated ports are open. clap itself ends with 2 on bad usage.
const FAILED: u8 = 1;
/// Isolated ports are shut, but something is missing.
const DEGRADED: u8 = 3;

const ABOUT: &str = "\
Isolates a node of a tenant's cluster: its isolated ports answer to the cluster's own nodes and to \
the routers, and to nobody else.

    master  2379 2380 8443 10251 10252 10257 10259
    worker  10250 10256 31380 31390        (a single node has both)
    and UDP 8472 where flannel is the network; TCP, UDP and SCTP, IPv4 and IPv6

nftables is the authority; BPF drops the same packets earlier and cheaper. Nothing but these ports \
is touched, SSH above all. Stopping or killing the daemon opens nothing: `teardown` alone does.

    # /etc/nodeguard/nodeguard.yaml
    cluster: acme-7
    node: worker-1
    role: worker
    addresses: [10.0.7.21]
    pods: {ranges: [10.244.0.0/16]}

    # /etc/nodeguard/peers.d/cluster.yaml; every *.yaml in there counts
    cluster: acme-7
    nodes:
      - {name: master-1, role: master, addresses: [10.0.7.11]}
      - {name: worker-1, role: worker, addresses: [10.0.7.21]}
    routers:
      - {name: edge-1, addresses: [10.0.0.11]}";

const EXAMPLES: &str = "\
Examples:
  nodeguard check
      Everything that is wrong with any file, and what a safeguard would object to.
  nodeguard explain 198.51.100.7 10.0.7.21 10250
      What becomes of such a packet on this node, and why.
  nodeguard status --json
      Whether everything is enforced, what is missing and why, what was dropped.
  nodeguard reload --force
      Follow the files although most peers have gone from them.

Exit codes: 0 well, 1 refused, failed, or isolated ports are open, 2 wrong usage, 3 isolated ports \
are shut but something is missing (status).";

/// The command line.
#[derive(Debug, Parser)]
#[command(
    name = "nodeguard",
    version,
    about = "Tenant isolation on a node: shuts its isolated ports to strangers"
)]
#[command(long_about = ABOUT, after_help = EXAMPLES, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Enforce, follow the files, mend what others break
    ///
    /// Reloads when a file changes and on SIGHUP; what is refused changes nothing and is logged
    /// with the reason. Ends on SIGTERM and SIGINT, and leaves everything enforced as it is.
    Run(run::RunArgs),
    /// Enforce the last good policy and end: for the boot, before there is a network
    ///
    /// Without one, everything isolated is shut but to the node itself.
    Boot(boot::BootArgs),
    /// Tell everything that is wrong with the files
    ///
    /// Reads what `run` would read and changes nothing. Ends with 1 if `run` would refuse it.
    Check(check::CheckArgs),
    /// Write down the ruleset that the files ask for
    Render(render::RenderArgs),
    /// Tell whether everything is enforced, and what was dropped
    ///
    /// Asks the daemon, or the kernel where none answers.
    Status(status::StatusArgs),
    /// Tell what becomes of a packet on this node, and why
    ///
    /// Calls the function that both planes are tested against.
    Explain(explain::ExplainArgs),
    /// Tell the daemon to read its files now
    Reload(reload::ReloadArgs),
    /// Remove all enforcement from this node
    ///
    /// The only way to open the ports again. The daemon must be stopped first. What was stored stays:
    /// the boot unit will enforce it again.
    Teardown(teardown::TeardownArgs),
}

/// Which configuration.
#[derive(Debug, Args)]
struct ConfigArgs {
    /// The configuration; relative paths in it start at its folder
    #[arg(
        long,
        short,
        value_name = "FILE",
        default_value = "/etc/nodeguard/nodeguard.yaml"
    )]
    config: PathBuf,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Boot(args) => boot::boot(&args),
        Command::Check(args) => check::check(&args),
        Command::Render(args) => render::render(&args),
        Command::Status(args) => status::status(&args),
        Command::Explain(args) => explain::explain(&args),
        Command::Reload(args) => reload::reload(&args),
        Command::Teardown(args) => teardown::teardown(&args),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output::complain(&format!("nodeguard: {error:#}\n"));
            ExitCode::from(FAILED)
        }
    }
}

/// Which daemon.
#[derive(Debug, Args)]
struct DaemonArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// The daemon's runtime folder, where the configuration cannot say [default: as the
    /// configuration says, else /run/nodeguard]
    #[arg(long, value_name = "FOLDER")]
    runtime: Option<PathBuf>,
}

impl DaemonArgs {
    /// Its runtime folder. Asking a daemon must be possible while its file is broken.
    fn runtime(&self) -> PathBuf {
        self.runtime.clone().unwrap_or_else(|| {
            crate::load::load_config(&self.config.config)
                .map_or_else(|_| PathBuf::from(crate::RUNTIME), |config| config.runtime)
        })
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
            &["nodeguard"][..],
            &["nodeguard", "start"],
            &["nodeguard", "explain", "10.0.0.1", "10.0.0.2"],
            &["nodeguard", "explain", "10.0.0.1", "10.0.0.2", "70000"],
            &["nodeguard", "render", "--format", "xml"],
        ] {
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line:?}");
        }
    }

    #[test]
    fn the_examples_of_help_parse() {
        let lines = EXAMPLES
            .lines()
            .filter(|line| line.starts_with("  nodeguard "));
        let mut count = 0;
        for line in lines {
            Cli::try_parse_from(line.split_whitespace()).unwrap();
            count += 1;
        }
        assert_eq!(count, 4);
    }
}
