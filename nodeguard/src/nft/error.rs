//! What can go wrong between us and the kernel's nftables.

use std::io;

use super::attributes::Malformed;

/// A failure of nftables.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// The machine gives us no netlink socket.
    #[error("no netlink socket to nftables: {0}")]
    Socket(#[source] io::Error),
    /// A message could not be sent or its answer not be read.
    #[error("nftables cannot be talked to: {0}")]
    Io(#[source] io::Error),
    /// The kernel refuses a message, and with it the whole transaction: nothing has changed.
    #[error("nftables refuses {object}: {error}{}", in_brackets(.text.as_deref()))]
    Refused {
        /// What the message was about, such as `rule isolated-port of prerouting`.
        object: String,
        /// The kernel's error.
        error: io::Error,
        /// The kernel's own words, where it has any.
        text: Option<String>,
    },
    /// The table belongs to another living process (`NFT_TABLE_F_OWNER`).
    #[error("table inet nodeguard belongs to another process: netlink port {port}{}", on_ports(*.port))]
    OwnedByAnother {
        /// Port of its netlink socket: as a rule the process's pid.
        port: u32,
    },
    /// No answer came, neither good nor bad. What became of the transaction is unknown.
    #[error("nftables does not answer")]
    Unanswered,
    /// Answers were lost because there was no room for them (`ENOBUFS`).
    #[error("answers of nftables were lost for want of room")]
    Lost,
    /// An answer is longer than the kernel ever makes one.
    #[error("an answer of nftables is longer than {0} bytes")]
    TooLong(usize),
    /// An answer makes no sense.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// The ruleset changed whenever it was looked at.
    #[error("the ruleset changes faster than it can be read")]
    Unsteady,
    /// The `nft` program failed or cannot be started.
    #[error("the nft program: {0}")]
    Program(String),
}

fn in_brackets(text: Option<&str>) -> String {
    text.map_or_else(String::new, |text| format!(" ({text})"))
}

fn on_ports(port: u32) -> &'static str {
    // Ports above the largest pid are chosen at random (`netlink_autobind`).
    if port > 4 * 1024 * 1024 {
        " (not a pid)"
    } else {
        ""
    }
}
