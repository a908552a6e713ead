//! Who is compared, and by which rules each of them enforces the same policy.

use std::fmt::Write;

use anyhow::{Result, bail};
use clap::ValueEnum;
use harness::guard::{Guard, Peer};
use harness::namespace::Namespace;
use harness::tool::Tool;
use serde::{Deserialize, Serialize};

use crate::cell::{Family, Group, Scenario};
use crate::frames::{NODE4, NODE6, address};
use crate::kernel::{Link, Program};
use crate::program;

/// A contender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contender {
    /// Every frame falls at once, in the driver: what the bench itself costs.
    Bare,
    /// Nobody looks at the packets.
    Nobody,
    /// nodeguard with `bpf: off`.
    Nodeguard,
    /// nodeguard with `bpf: tcx`, the default.
    NodeguardTcx,
    /// nodeguard with `bpf: xdp`.
    NodeguardXdp,
    /// iptables-legacy and ipset in `raw`.
    IptablesLegacy,
    /// iptables-nft and ipset in `raw`.
    IptablesNft,
    /// An nftables firewall of the usual kind: `input`, connection tracking.
    NftConntrack,
}

/// What keeps a contender's rules in place, if anything has to.
#[derive(Debug)]
pub(crate) enum Hold {
    Nothing,
    Link { _link: Link },
    Guard(Box<Guard>),
}

/// The ports of a node that packets go to, as a worker and a master isolate them.
const WORKER_PORTS: &str = "10250,10256,31380,31390";
const MASTER_PORTS: &str = "2379,2380,8443,10251,10252,10257,10259";

impl Contender {
    pub(crate) const ALL: [Self; 8] = [
        Self::Bare,
        Self::Nobody,
        Self::Nodeguard,
        Self::NodeguardTcx,
        Self::NodeguardXdp,
        Self::IptablesLegacy,
        Self::IptablesNft,
        Self::NftConntrack,
    ];

    pub(crate) const GUARDS: [Self; 3] = [Self::Nodeguard, Self::NodeguardTcx, Self::NodeguardXdp];

    pub(crate) const PEERS: [Self; 3] =
        [Self::IptablesLegacy, Self::IptablesNft, Self::NftConntrack];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bench itself",
            Self::Nobody => "no guard",
            Self::Nodeguard => "nodeguard, nftables alone",
            Self::NodeguardTcx => "nodeguard, tcx + nftables (default)",
            Self::NodeguardXdp => "nodeguard, XDP + nftables",
            Self::IptablesLegacy => "iptables-legacy raw + ipset",
            Self::IptablesNft => "iptables-nft raw + ipset",
            Self::NftConntrack => "nftables input + conntrack",
        }
    }

    /// Whether a packet of this kind is to come through.
    pub(crate) fn lets_pass(self, scenario: Scenario) -> bool {
        match (self, scenario) {
            (Self::Bare, _) => false,
            (Self::Nobody, _) | (_, Scenario::PassPeer | Scenario::PassOther) => true,
            (_, Scenario::Drop) => false,
        }
    }

    /// Puts it in force in a namespace whose device is number `device`. Programs that keep running
    /// run on core `core`.
    pub(crate) fn install(
        self,
        group: Group,
        namespace: &Namespace,
        device: u32,
        core: &'static str,
    ) -> Result<Hold> {
        match self {
            Self::Nobody => {}
            Self::Bare => {
                let program = Program::load(&program::dropper())?;
                let link = namespace.run(|| program.attach(device))?;
                return Ok(Hold::Link { _link: link });
            }
            Self::Nodeguard | Self::NodeguardTcx | Self::NodeguardXdp => {
                return self.start(group, namespace, core);
            }
            Self::IptablesLegacy | Self::IptablesNft => {
                feed(namespace, "ipset", &["restore"], &ipset(group.peers()))?;
                for family in Family::ALL {
                    let (program, rules) = self.iptables(group, family);
                    feed(namespace, &program, &[], &rules)?;
                }
            }
            Self::NftConntrack => {
                feed(
                    namespace,
                    "nft",
                    &["-f", "-"],
                    &firewall(group, group.peers()),
                )?;
            }
        }
        Ok(Hold::Nothing)
    }

    /// The rules as they are given to the program that takes them, long lists shortened.
    pub(crate) fn rules(self, group: Group) -> String {
        let text = match self {
            Self::Bare => "an XDP program that is nothing but `return XDP_DROP`".to_owned(),
            Self::Nobody => "nothing".to_owned(),
            Self::Nodeguard | Self::NodeguardTcx | Self::NodeguardXdp => format!(
                "role: {}\nbpf: {}\npods: {{ranges: [10.244.0.0/16]}}\nand the peers, each with an IPv4 and an IPv6 address",
                group.role(),
                self.mode()
            ),
            Self::IptablesLegacy | Self::IptablesNft => {
                let (program, rules) = self.iptables(group, Family::V4);
                format!(
                    "# ipset restore\n{}\n# {program}\n{rules}",
                    ipset(group.peers())
                )
            }
            Self::NftConntrack => firewall(group, group.peers()),
        };
        shortened(&text)
    }

    fn mode(self) -> &'static str {
        match self {
            Self::NodeguardTcx => "tcx",
            Self::NodeguardXdp => "xdp",
            _ => "off",
        }
    }

    fn start(self, group: Group, namespace: &Namespace, core: &'static str) -> Result<Hold> {
        let mut guard = guard(group, namespace, self.mode(), core)?;
        guard.write()?;
        guard.start()?;
        let status = guard.status()?;
        let devices = status.bpf.devices.iter().filter(|it| it.name == "eth0");
        let attached: Vec<&str> = devices.map(|it| it.attached.as_str()).collect();
        if attached != [self.mode()] {
            bail!("BPF is not attached as asked for:\n{}", status.text());
        }
        let wanted = 2 * (usize::from(group.peers()) + 1);
        if status.policy.as_ref().is_none_or(|it| it.peers != wanted) {
            bail!("the policy is not in force:\n{}", status.text());
        }
        Ok(Hold::Guard(Box::new(guard)))
    }

    fn iptables(self, group: Group, family: Family) -> (String, String) {
        let (prefix, set) = match family {
            Family::V4 => ("", "peers4"),
            Family::V6 => ("6", "peers6"),
        };
        let variant = if self == Self::IptablesNft {
            "nft"
        } else {
            "legacy"
        };
        let ports = ports(group);
        let mut rules =
            "*raw\n:PREROUTING ACCEPT\n:guard -\n-A PREROUTING -i lo -j ACCEPT\n".to_owned();
        for protocol in ["tcp", "udp", "sctp"] {
            let _ = writeln!(
                rules,
                "-A PREROUTING -p {protocol} -m multiport --dports {ports} -j guard"
            );
        }
        let _ = writeln!(
            rules,
            "-A guard -m set --match-set {set} src -j RETURN\n-A guard -j DROP\nCOMMIT"
        );
        (format!("ip{prefix}tables-{variant}-restore"), rules)
    }
}

/// A guard of this group with files that are not written yet.
pub(crate) fn guard(
    group: Group,
    namespace: &Namespace,
    mode: &'static str,
    core: &'static str,
) -> Result<Guard> {
    let node = Peer {
        name: "node".to_owned(),
        role: group.role().as_str(),
        addresses: vec![NODE4.into(), NODE6.into()],
    };
    let mut guard = Guard::inside(namespace, node, "bench")?;
    guard.wrapper = vec!["taskset", "--cpu-list", core];
    guard.files.bpf = mode;
    guard.files.peers.extend(peers(1, group.peers()));
    Ok(guard)
}

/// Other nodes, from the one of that number on; the first is a master.
pub(crate) fn peers(first: u16, count: u16) -> impl Iterator<Item = Peer> {
    (first..first + count).map(move |number| Peer {
        name: format!("n{number}"),
        role: if number == first { "master" } else { "worker" },
        addresses: Family::ALL
            .map(|family| address(Scenario::PassPeer, family, number))
            .to_vec(),
    })
}

/// Addresses of one family, comma separated.
pub(crate) fn list(family: Family, first: u16, count: u16) -> String {
    let all: Vec<String> = (first..first + count)
        .map(|number| address(Scenario::PassPeer, family, number).to_string())
        .collect();
    all.join(", ")
}

fn ports(group: Group) -> &'static str {
    match group {
        Group::Worker8 | Group::Worker10000 => WORKER_PORTS,
        Group::Master8 => MASTER_PORTS,
    }
}

/// Both sets with all peers, for `ipset restore`.
pub(crate) fn ipset(peers: u16) -> String {
    ipset_sets("") + &ipset_lines("", 1, peers)
}

/// Lines that make both sets.
pub(crate) fn ipset_sets(suffix: &str) -> String {
    let mut text = String::new();
    for (number, family) in [("4", "inet"), ("6", "inet6")] {
        let _ = writeln!(
            text,
            "create peers{number}{suffix} hash:ip family {family} maxelem 65536"
        );
    }
    text
}

/// Lines that add peers to both sets.
pub(crate) fn ipset_lines(suffix: &str, first: u16, count: u16) -> String {
    let mut text = String::new();
    for (number, family) in [("4", Family::V4), ("6", Family::V6)] {
        for peer in first..first + count {
            let peer = address(Scenario::PassPeer, family, peer);
            let _ = writeln!(text, "add peers{number}{suffix} {peer}");
        }
    }
    text
}

/// The table of [`Contender::NftConntrack`], for `nft -f`.
pub(crate) fn firewall(group: Group, peers: u16) -> String {
    let ports = ports(group);
    let (v4, v6) = (list(Family::V4, 1, peers), list(Family::V6, 1, peers));
    format!(
        "table inet firewall {{
  set peers4 {{ type ipv4_addr; elements = {{ {v4} }}; }}
  set peers6 {{ type ipv6_addr; elements = {{ {v6} }}; }}
  chain input {{
    type filter hook input priority filter; policy accept;
    ct state established,related accept
    ct state invalid drop
    iif lo accept
    meta l4proto {{ tcp, udp, sctp }} th dport {{ {ports} }} jump guard
  }}
  chain guard {{
    ip saddr @peers4 accept
    ip6 saddr @peers6 accept
    drop
  }}
}}
"
    )
}

/// The rules of kube-proxy's kind that make a worker track connections, for `nft -f`.
pub(crate) const KUBE_PROXY: &str = "table inet kube-proxy {
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    fib daddr type local tcp dport 30555 dnat ip to 10.244.0.5:80
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ip saddr 10.244.0.0/16 ip daddr != 10.244.0.0/16 masquerade
  }
}
";

/// Hands text to a program inside.
pub(crate) fn feed(
    namespace: &Namespace,
    program: &str,
    arguments: &[&str],
    text: &str,
) -> Result<()> {
    let tool = Tool::new(program)
        .args(arguments)
        .namespace(Some(namespace));
    tool.input(text).succeed().map(drop)
}

/// Long lists cut short.
fn shortened(text: &str) -> String {
    let mut out = String::new();
    let mut adds = 0;
    for line in text.trim_end().lines() {
        adds = if line.starts_with("add ") {
            adds + 1
        } else {
            0
        };
        match adds {
            0..=2 if line.len() <= 160 => out.push_str(line),
            0..=2 => {
                let cut = line.floor_char_boundary(120);
                out.push_str(&line[..cut]);
                out.push_str(" ...");
            }
            3 => out.push_str("..."),
            _ => continue,
        }
        out.push('\n');
    }
    out
}
