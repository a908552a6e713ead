//! The places of the matrix and their addresses: which host is who.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use config::roles::Role;
use nodeguard::ruleset::Family;

/// A MAC address.
pub type Mac = [u8; 6];

/// A host or pod. All but the pods share one switch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Master of cluster acme.
    M1,
    /// Worker of acme.
    W1,
    /// Another worker of acme.
    W2,
    /// The only node of cluster solo.
    Solo,
    /// A router that peer files name by address.
    Edge,
    /// A router that falls in a range.
    Edge2,
    /// Somebody else on the same network.
    Stranger,
    /// A node of a third cluster, whose pods have the same range as acme's.
    F1,
    /// A pod on w1.
    P1,
    /// A pod on w2.
    P2,
    /// A pod on solo.
    Sp,
    /// A pod on f1.
    Fp,
}

use Place::{Edge, Edge2, F1, Fp, M1, P1, P2, Solo, Sp, Stranger, W1, W2};

impl Place {
    /// All of them.
    pub const ALL: [Self; 12] = [M1, W1, W2, Solo, Edge, Edge2, Stranger, F1, P1, P2, Sp, Fp];
    /// Who is on the switch.
    pub const WIRED: [Self; 8] = [M1, W1, W2, Solo, Edge, Edge2, Stranger, F1];
    /// Where a guard runs.
    pub const GUARDED: [Self; 4] = [M1, W1, W2, Solo];
    /// The nodes of acme.
    pub const ACME: [Self; 3] = [M1, W1, W2];

    /// Its name in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            M1 => "m1",
            W1 => "w1",
            W2 => "w2",
            Solo => "solo",
            Edge => "edge",
            Edge2 => "edge2",
            Stranger => "stranger",
            F1 => "f1",
            P1 => "p1",
            P2 => "p2",
            Sp => "sp",
            Fp => "fp",
        }
    }

    /// What it is in its cluster; `None` if no guard runs there.
    #[must_use]
    pub fn role(self) -> Option<Role> {
        match self {
            M1 => Some(Role::Master),
            W1 | W2 => Some(Role::Worker),
            Solo => Some(Role::Single),
            _ => None,
        }
    }

    /// The node that a pod runs on.
    #[must_use]
    pub fn home(self) -> Option<Self> {
        match self {
            P1 => Some(W1),
            P2 => Some(W2),
            Sp => Some(Solo),
            Fp => Some(F1),
            _ => None,
        }
    }

    /// The pod that runs on a node.
    #[must_use]
    pub fn pod(self) -> Option<Self> {
        [P1, P2, Sp, Fp]
            .into_iter()
            .find(|pod| pod.home() == Some(self))
    }

    /// Whether it is a node or pod of this node's cluster.
    #[must_use]
    pub fn same_cluster(self, node: Self) -> bool {
        let cluster = |place: Self| match place {
            M1 | W1 | W2 | P1 | P2 => 1,
            Solo | Sp => 2,
            F1 | Fp => 3,
            Edge | Edge2 | Stranger => 4,
        };
        cluster(self) == cluster(node)
    }

    fn number(self) -> u8 {
        match self {
            M1 => 0x11,
            W1 => 0x21,
            W2 => 0x22,
            Solo => 0x41,
            Edge => 0x31,
            Edge2 => 0x85,
            Stranger => 0x66,
            F1 => 0x51,
            P1 => 0x12,
            P2 => 0x13,
            Sp => 0x15,
            Fp => 0x77,
        }
    }

    /// The third byte of its pod network. f1 has taken the same one as w1.
    #[must_use]
    pub fn pod_subnet(self) -> u8 {
        match self.home().unwrap_or(self) {
            W1 | F1 => 1,
            W2 => 2,
            Solo => 5,
            _ => 0,
        }
    }

    /// Its main IPv4 address.
    #[must_use]
    pub fn v4(self) -> Ipv4Addr {
        match self {
            Edge2 => Ipv4Addr::new(10, 77, 8, 5),
            P1 | P2 | Sp | Fp => Ipv4Addr::new(10, 244, self.pod_subnet(), self.number()),
            _ => Ipv4Addr::new(10, 77, 0, self.number()),
        }
    }

    /// Its main IPv6 address.
    #[must_use]
    pub fn v6(self) -> Ipv6Addr {
        match self {
            Edge2 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 8, 5),
            P1 | P2 | Sp | Fp => pod_v6(self.pod_subnet(), u16::from(self.number())),
            _ => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(self.number())),
        }
    }

    /// Its main address of a family.
    #[must_use]
    pub fn address(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.v4().into(),
            Family::V6 => self.v6().into(),
        }
    }

    /// MAC address of its `eth0`.
    #[must_use]
    pub fn mac(self) -> Mac {
        [2, 0x77, 0, 0, 0, self.number()]
    }

    /// MAC address of a node's `cni0`, its pods' first hop.
    #[must_use]
    pub fn bridge_mac(self) -> Mac {
        [2, 0x44, 0, 0, 0, self.number()]
    }

    /// MAC address of a node's `flannel.1`.
    #[must_use]
    pub fn vtep_mac(self) -> Mac {
        [2, 0xf1, 0, 0, 0, self.number()]
    }

    /// A node's address on `cni0`, its pods' gateway.
    #[must_use]
    pub fn bridge(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 244, self.pod_subnet(), 1).into(),
            Family::V6 => pod_v6(self.pod_subnet(), 1).into(),
        }
    }

    /// A node's address on `flannel.1`: the first of its pod network, as flannel takes it.
    #[must_use]
    pub fn overlay(self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 244, self.pod_subnet(), 0).into(),
            Family::V6 => pod_v6(self.pod_subnet(), 0).into(),
        }
    }

    /// Whether an address is one of its own.
    #[must_use]
    pub fn is_at(self, address: IpAddr) -> bool {
        let has = |family| {
            let mut own = vec![self.address(family)];
            if self.role().is_some() {
                own.extend([self.bridge(family), self.overlay(family)]);
            }
            if self == W1 {
                own.push(unlisted(family));
            }
            own.contains(&address)
        };
        let link_local = [self.link_local(), link_local(self.bridge_mac())];
        has(Family::V4) || has(Family::V6) || link_local.map(IpAddr::from).contains(&address)
    }

    /// The link-local address of its `eth0`, made of the MAC address (RFC 4291, appendix A).
    #[must_use]
    pub fn link_local(self) -> Ipv6Addr {
        link_local(self.mac())
    }
}

/// Link-local address of a device with this MAC address.
#[must_use]
pub fn link_local(mac: Mac) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        ((a ^ 2) << 8) | b,
        (c << 8) | 0xff,
        0xfe00 | d,
        (e << 8) | f,
    )
}

/// A second address of w1 that no peer file lists.
#[must_use]
pub fn unlisted(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 77, 0, 210).into(),
        Family::V6 => Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0x210).into(),
    }
}

/// An address of the foreign pod that its node does not masquerade; in w1's pod network too.
#[must_use]
pub fn unmasqueraded(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, 1, 0x78).into(),
        Family::V6 => pod_v6(1, 0x78).into(),
    }
}

/// An address in acme's pod range, in a part that no node of acme has.
#[must_use]
pub fn nobodys_pod(family: Family) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::new(10, 244, 9, 9).into(),
        Family::V6 => pod_v6(9, 9).into(),
    }
}

/// An address of pods.
#[must_use]
pub fn pod_v6(subnet: u8, host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0xfd44, 0, 0, u16::from(subnet), 0, 0, 0, host)
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A MAC address as `ip` takes it.
#[must_use]
pub fn mac_text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_places_share_an_address() {
        for (index, one) in Place::ALL.into_iter().enumerate() {
            for other in &Place::ALL[..index] {
                assert_ne!(one.v4(), other.v4(), "{one} {other}");
                assert_ne!(one.v6(), other.v6(), "{one} {other}");
                assert_ne!(one.mac(), other.mac(), "{one} {other}");
            }
        }
    }

    #[test]
    fn a_link_local_address_is_made_of_the_mac_address() {
        assert_eq!(Place::W1.link_local().to_string(), "fe80::77:ff:fe00:21");
    }
}
