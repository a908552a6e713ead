//! The guards of a topology's nodes: which planes are in force, and what they count.

use std::collections::BTreeMap;
use std::fmt;

use config::guard::Protocol;
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::case::{Case, Drop, Expectation, Sight, family_name};
use super::place::Place;
use super::services::protocol_name;

/// Which planes are in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// None.
    Off,
    /// nftables alone.
    Nft,
    /// BPF alone, at tcx ingress of every device.
    Tcx,
    /// BPF alone, in the drivers of veth devices.
    Xdp,
    /// nftables, and BPF at tcx.
    Both,
}

/// A plane that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plane {
    /// nftables.
    Nft,
    /// BPF.
    Bpf,
}

/// A counter of the guards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Counter {
    /// Whose.
    pub node: Place,
    /// Of which plane.
    pub plane: Plane,
    /// Why it drops.
    pub reason: Reason,
    /// Of what; the loopback counter does not tell.
    pub of: Option<(Family, Protocol, u16)>,
}

/// What counters read.
pub type Counted = BTreeMap<Counter, u64>;

/// What a mode has to make of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// It comes out.
    Open,
    /// It does not, and this counter rises by one.
    Counted(Counter),
    /// It does not, and nobody counts it.
    Silent,
    /// Nothing: this mode cannot know.
    Anything,
}

impl Mode {
    /// All modes, in the order of the results' columns.
    pub const ALL: [Self; 5] = [Self::Off, Self::Nft, Self::Tcx, Self::Xdp, Self::Both];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Nft => "nft",
            Self::Tcx => "tcx",
            Self::Xdp => "xdp",
            Self::Both => "both",
        }
    }

    /// What it has to make of a case.
    #[must_use]
    pub fn due(self, case: &Case) -> Due {
        let drop = match case.expectation {
            Expectation::Open => return Due::Open,
            Expectation::Kernel(_) => return Due::Silent,
            Expectation::Dropped(_) if self == Self::Off => return Due::Open,
            Expectation::Dropped(drop) => drop,
        };
        let plane = match self {
            Self::Off | Self::Nft => Plane::Nft,
            _ if is_seen(drop.sight) => Plane::Bpf,
            Self::Both => Plane::Nft,
            Self::Tcx | Self::Xdp => return Due::Anything,
        };
        Due::Counted(counter(drop, plane))
    }
}

/// Whether the BPF plane can tell.
fn is_seen(sight: Sight) -> bool {
    match sight {
        Sight::Wire | Sight::Overlay => true,
        Sight::Bridge | Sight::Later | Sight::Routing | Sight::Everybody | Sight::Unreadable => {
            false
        }
    }
}

fn counter(drop: Drop, plane: Plane) -> Counter {
    let of = (drop.family, drop.protocol, drop.port);
    let reason = match (plane, drop.reason) {
        // BPF knows sources and no ways.
        (Plane::Bpf, Reason::Relayed) => Reason::Stranger,
        (_, reason) => reason,
    };
    Counter {
        node: drop.node,
        plane,
        reason,
        of: (reason != Reason::Loopback).then_some(of),
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plane = match self.plane {
            Plane::Nft => "nft",
            Plane::Bpf => "bpf",
        };
        write!(f, "{}'s {plane} counter `{}`", self.node, self.reason)?;
        if let Some((family, protocol, port)) = self.of {
            let (protocol, family) = (protocol_name(protocol), family_name(family));
            write!(f, " {protocol} {port} {family}")?;
        }
        Ok(())
    }
}
