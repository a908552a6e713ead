//! `nodeguard explain`: what becomes of a packet, and why.

use std::collections::BTreeSet;
use std::net::IpAddr;

use clap::{Args, ValueEnum};
use config::guard::Protocol;
use daemon::output;

use super::{ConfigArgs, FAILED, OK};
use crate::devices::Devices;
use crate::explain::{Question, explain as answer};
use crate::load::load;

#[derive(Debug, Args)]
pub(super) struct ExplainArgs {
    /// Who sends it: an address
    source: IpAddr,
    /// Whom it is for: an address
    destination: IpAddr,
    /// To which port
    port: u16,
    /// Above IP
    #[arg(long, value_enum, default_value_t)]
    protocol: ProtocolArg,
    /// As if it came by another device than the one that an answer would leave by
    #[arg(long)]
    by_another_device: bool,
    #[command(flatten)]
    config: ConfigArgs,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum ProtocolArg {
    #[default]
    Tcp,
    Udp,
    Sctp,
}

impl From<ProtocolArg> for Protocol {
    fn from(argument: ProtocolArg) -> Self {
        match argument {
            ProtocolArg::Tcp => Self::Tcp,
            ProtocolArg::Udp => Self::Udp,
            ProtocolArg::Sctp => Self::Sctp,
        }
    }
}

pub(super) fn explain(args: &ExplainArgs) -> anyhow::Result<u8> {
    let loaded = match load(&args.config.config) {
        Ok(loaded) => loaded,
        Err(errors) => {
            output::complain(&errors.report());
            return Ok(FAILED);
        }
    };
    let policy = loaded.policy();
    let question = Question {
        source: args.source.to_canonical(),
        destination: args.destination.to_canonical(),
        protocol: args.protocol.into(),
        port: args.port,
        by_another_device: args.by_another_device,
    };
    // The addresses of the file, in case this is not the node itself; and those it has besides.
    let mut own: BTreeSet<IpAddr> = loaded.config.addresses.iter().copied().collect();
    if let Ok(devices) = Devices::list()
        && loaded
            .config
            .addresses
            .iter()
            .any(|it| devices.addresses.contains(it))
    {
        own.extend(devices.addresses);
    }
    let explanation = answer(&policy, &own, question);
    if args.json {
        let json = serde_json::to_string_pretty(&explanation)?;
        output::print(&format!("{json}\n"))?;
    } else {
        output::print(&explanation.text(&policy))?;
    }
    Ok(OK)
}
