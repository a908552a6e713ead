//! The plans that clusters are offered in, and the sizes of their hosts.

use std::fmt;
use std::ops::RangeInclusive;

/// How many hosts a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Plan {
    /// One host with both roles.
    Single,
    /// Masters and workers apart.
    Clustered,
}

impl Plan {
    /// The plan's name in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::Clustered => "clustered",
        }
    }

    /// How many masters the plan allows. Two are allowed for the time between one and three:
    /// they survive the loss of neither.
    #[must_use]
    pub fn masters(self) -> RangeInclusive<usize> {
        match self {
            Self::Single => 1..=1,
            Self::Clustered => 1..=3,
        }
    }

    /// How many workers the plan allows, besides a single host that is its own.
    #[must_use]
    pub fn workers(self) -> RangeInclusive<usize> {
        match self {
            Self::Single => 0..=0,
            Self::Clustered => 1..=5,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The size of a host: what it must have at least.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Size {
    /// 2 CPUs, 4 GiB.
    Small,
    /// 4 CPUs, 8 GiB.
    Medium,
    /// 8 CPUs, 16 GiB.
    Large,
}

impl Size {
    /// The size's name in files.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// CPUs.
    #[must_use]
    pub fn cpus(self) -> u32 {
        match self {
            Self::Small => 2,
            Self::Medium => 4,
            Self::Large => 8,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
