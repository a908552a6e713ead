//! The layout of the maps: keys, values, limits and the numbers of counters.

/// Map of isolated ports: one [`PortEntry`] per [`port_index`].
pub const PORTS: &str = "PORTS";
/// Map of IPv4 destinations: four bytes to classes.
pub const DESTINATIONS4: &str = "DESTINATIONS4";
/// Map of IPv6 destinations: sixteen bytes to classes.
pub const DESTINATIONS6: &str = "DESTINATIONS6";
/// Map of single IPv4 sources: four bytes to flags.
pub const HOSTS4: &str = "HOSTS4";
/// Map of single IPv6 sources: sixteen bytes to flags.
pub const HOSTS6: &str = "HOSTS6";
/// Map of ranges of IPv4 sources: longest prefix to flags.
pub const RANGES4: &str = "RANGES4";
/// Map of ranges of IPv6 sources: longest prefix to flags.
pub const RANGES6: &str = "RANGES6";
/// Map of one word: [`HAS_RANGES4`] and [`HAS_RANGES6`].
pub const CONFIG: &str = "CONFIG";
/// Map of counters, one set per CPU: see [`drop_index`], [`unparsed_index`] and [`LOST_EVENTS`].
pub const STATS: &str = "STATS";
/// Ring buffer of [`crate::event::Event`].
pub const EVENTS: &str = "EVENTS";
/// How many events each CPU has sent in the current second.
pub const BUDGET: &str = "BUDGET";

/// Ports of the three transports.
pub const MOST_PORTS: u32 = 3 * 65_536;
/// Destinations of each family.
pub const MOST_DESTINATIONS: u32 = 16_384;
/// Single sources of each family.
pub const MOST_HOSTS: u32 = 65_536;
/// Ranges of each family.
pub const MOST_RANGES: u32 = 16_384;
/// Ports with counters of their own: numbers 1 to 255. What is dropped whatever its port counts
/// under 0.
pub const MOST_SLOTS: u32 = 256;
/// Events that one CPU may send in a second. A flood is told by the counters, not by events.
pub const EVENTS_PER_SECOND: u32 = 64;
/// Size of the ring buffer: a multiple of every page size in use.
pub const EVENT_BYTES: u32 = 65_536;

/// Bit of the configuration word: there is an IPv4 range.
pub const HAS_RANGES4: u32 = 1;
/// Bit of the configuration word: there is an IPv6 range.
pub const HAS_RANGES6: u32 = 2;

/// Class of a destination: an address of this node.
pub const CLASS_OWN: u8 = 1;
/// Class of a destination: a master.
pub const CLASS_MASTER: u8 = 2;
/// Class of a destination: a worker.
pub const CLASS_WORKER: u8 = 4;
/// Class of a destination: any node of the cluster.
pub const CLASS_NODE: u8 = 8;

/// Flag of a source: a node of the cluster or a router.
pub const FLAG_PEER: u8 = 1;
/// Flag of a source: a pod of the cluster.
pub const FLAG_POD: u8 = 2;
/// Flag of a source: an address of this node, which never comes in from outside.
pub const FLAG_OWN: u8 = 4;

/// IP version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 0,
    /// IPv6.
    V6 = 1,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// A protocol with ports, or none of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Transport {
    /// TCP.
    Tcp = 0,
    /// UDP.
    Udp = 1,
    /// SCTP.
    Sctp = 2,
    /// Anything else, and what has no ports.
    Other = 3,
}

impl Transport {
    /// By its number in an IP header.
    #[inline(always)]
    #[must_use]
    pub const fn numbered(protocol: u8) -> Self {
        match protocol {
            6 => Self::Tcp,
            17 => Self::Udp,
            132 => Self::Sctp,
            _ => Self::Other,
        }
    }
}

/// Why a packet is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// The source is neither a peer nor a pod.
    Stranger = 0,
    /// The source is a pod, and pods may not reach this port.
    Pod = 1,
    /// The source is an address of this node.
    Spoofed = 2,
    /// The destination is in 127.0.0.0/8.
    Loopback = 3,
}

impl Reason {
    /// Each of them.
    pub const ALL: [Self; 4] = [Self::Stranger, Self::Pod, Self::Spoofed, Self::Loopback];
}

/// Why a frame is left to nftables without a judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Unparsed {
    /// Neither IPv4 nor IPv6: ARP, LLDP and the like. Nobody counts these.
    NotIp = 0,
    /// It belongs to a VLAN, whose device has its own hooks.
    Vlan = 1,
    /// More VLAN tags than are looked behind.
    Tags = 2,
    /// More IPv6 extension headers, or longer ones, than are looked behind.
    Headers = 3,
    /// It ends within a header.
    Truncated = 4,
    /// An IP header contradicts itself.
    Malformed = 5,
}

impl Unparsed {
    /// Those that are counted.
    pub const COUNTED: [Self; 5] = [
        Self::Vlan,
        Self::Tags,
        Self::Headers,
        Self::Truncated,
        Self::Malformed,
    ];
}

/// An isolated port in the map: whom it concerns, and where it counts. 0 is a port that is not
/// isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct PortEntry(pub u32);

impl PortEntry {
    /// A port isolated at destinations of these classes, counting under `slot`.
    #[must_use]
    pub const fn new(classes: u8, pods_may: bool, slot: u8) -> Self {
        Self(classes as u32 | (pods_may as u32) << 8 | (slot as u32) << 16)
    }

    /// Classes of destinations at which the port is isolated.
    #[inline(always)]
    #[must_use]
    pub const fn classes(self) -> u8 {
        self.0 as u8
    }

    /// Whether the cluster's pods may reach the port.
    #[inline(always)]
    #[must_use]
    pub const fn pods_may(self) -> bool {
        self.0 & 0x100 != 0
    }

    /// Number of its counters.
    #[inline(always)]
    #[must_use]
    pub const fn slot(self) -> u8 {
        (self.0 >> 16) as u8
    }
}

/// Where a port stands in the map of ports.
#[inline(always)]
#[must_use]
pub const fn port_index(transport: Transport, port: u16) -> u32 {
    (transport as u32) << 16 | port as u32
}

/// Where drops are counted.
#[inline(always)]
#[must_use]
pub const fn drop_index(reason: Reason, family: Family, slot: u8) -> u32 {
    (reason as u32 * 2 + family as u32) * MOST_SLOTS + slot as u32
}

const DROPS: u32 = 4 * 2 * MOST_SLOTS;

/// Where frames are counted that were left to nftables.
#[inline(always)]
#[must_use]
pub const fn unparsed_index(why: Unparsed) -> u32 {
    DROPS + why as u32
}

/// Where events are counted that were not sent: over budget, or nobody reads them.
pub const LOST_EVENTS: u32 = DROPS + 8;

/// Number of counters.
pub const MOST_COUNTERS: u32 = DROPS + 16;
