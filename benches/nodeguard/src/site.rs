//! Where it happens: a sender, and a node for each contender of each group, each on a wire of its
//! own, all in network namespaces that have no name and nothing to do with the machine's network.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use harness::namespace::Namespace;
use harness::tool::Tool;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, SockFilter, Socket, Type};

use crate::cell::{Cell, Family, Group, OTHER_PORT, Scenario};
use crate::contender::{Contender, Hold, KUBE_PROXY, feed};
use crate::frames::{
    GATEWAY4, GATEWAY6, NODE_MAC, NODE4, NODE6, SENDER_MAC, SENDER_PORT, Template, address,
    sources, template,
};
use crate::kernel::Program;
use crate::program;

/// All of it.
#[derive(Debug)]
pub(crate) struct Site {
    /// Where the frames come from.
    pub(crate) sender: Namespace,
    pub(crate) nodes: Vec<Node>,
}

/// A contender's node.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) group: Group,
    pub(crate) contender: Contender,
    pub(crate) namespace: Namespace,
    /// What sends the frames of each cell.
    pub(crate) senders: Vec<(Cell, Program, Template)>,
    pub(crate) hold: Hold,
    _sinks: Vec<Socket>,
}

/// What a node has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Frames that came out of the wire.
    pub(crate) arrived: u64,
    /// Packets that came as far as a socket.
    pub(crate) passed: u64,
    /// Packets whose UDP checksum was wrong.
    pub(crate) damaged: u64,
}

impl Site {
    /// Builds everything. Programs that keep running run on core `core`.
    pub(crate) fn new(
        groups: &[Group],
        contenders: &[Contender],
        core: &'static str,
    ) -> Result<Self> {
        let sender = Namespace::new()?;
        sender.run(|| {
            // Its ends of the wires need no addresses, and are to say nothing of their own.
            sysctl("ipv6/conf/all/disable_ipv6", 1)?;
            sysctl("ipv6/conf/default/disable_ipv6", 1)
        })?;
        let mut site = Self {
            sender,
            nodes: Vec::new(),
        };
        for &group in groups {
            for &contender in contenders {
                let node = site
                    .node(group, contender, core)
                    .with_context(|| format!("{}, {}", group.name(), contender.name()))?;
                site.nodes.push(node);
            }
        }
        Ok(site)
    }

    /// The node of a contender.
    pub(crate) fn find(&self, group: Group, contender: Contender) -> Option<&Node> {
        let mut nodes = self.nodes.iter();
        nodes.find(|it| it.group == group && it.contender == contender)
    }

    fn node(&self, group: Group, contender: Contender, core: &'static str) -> Result<Node> {
        let namespace = Namespace::new()?;
        let wire = format!("wire{}", self.nodes.len());
        self.connect(&namespace, &wire)?;
        if group.role().is_worker() {
            feed(&namespace, "nft", &["-f", "-"], KUBE_PROXY)?;
        }
        let device = namespace.run(|| if_nametoindex("eth0"))?;
        let hold = contender.install(group, &namespace, device, core)?;
        let wire = self.sender.run(|| if_nametoindex(wire.as_str()))?;
        let mut senders = Vec::new();
        for cell in Cell::all(&[group]) {
            let template = template(&cell);
            let code = program::sender(wire, &template, 1, sources(&cell));
            senders.push((cell, Program::load(&code)?, template));
        }
        let sinks = namespace.run(|| sinks(group))?;
        Ok(Node {
            group,
            contender,
            namespace,
            senders,
            hold,
            _sinks: sinks,
        })
    }

    fn connect(&self, node: &Namespace, wire: &str) -> Result<()> {
        node.run(|| {
            sysctl("ipv6/conf/default/accept_ra", 0)?;
            sysctl("ipv6/conf/default/accept_dad", 0)?;
            // A run takes minutes, and nobody is to be forgotten in it.
            for name in [
                "nf_conntrack_udp_timeout",
                "nf_conntrack_udp_timeout_stream",
            ] {
                sysctl(&format!("netfilter/{name}"), 7_200)?;
            }
            anyhow::Ok(())
        })?;
        let (near, far, inside) = (mac(SENDER_MAC), mac(NODE_MAC), node.path());
        lines(
            "ip",
            &self.sender,
            &format!(
                "link add name {wire} address {near} type veth peer name eth0 address {far} netns {inside}
link set {wire} up
"
            ),
        )?;
        lines(
            "ip",
            node,
            &format!(
                "address add {NODE4}/24 dev eth0
address add {NODE6}/64 dev eth0 nodad
link set eth0 up
neighbour replace {GATEWAY4} lladdr {near} dev eth0 nud permanent
neighbour replace {GATEWAY6} lladdr {near} dev eth0 nud permanent
route add 0.0.0.0/0 via {GATEWAY4}
route add ::/0 via {GATEWAY6} dev eth0
"
            ),
        )?;
        // Otherwise the wire takes no frames without a program behind it.
        let on = Tool::new("ethtool").args(["-K", "eth0", "gro", "on"]);
        on.namespace(Some(node)).succeed().map(drop)
    }
}

impl Node {
    pub(crate) fn seen(&self) -> Result<Seen> {
        self.namespace.run(|| {
            let read =
                |name: &str| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
            let (v4, v6, devices) = (read("snmp")?, read("snmp6")?, read("dev")?);
            Ok(Seen {
                arrived: arrived(&devices).context("eth0 has no counter")?,
                passed: udp4(&v4, "InErrors")? + udp6(&v6, "Udp6InErrors")?,
                damaged: udp4(&v4, "InCsumErrors")? + udp6(&v6, "Udp6InCsumErrors")?,
            })
        })
    }
}

/// Sockets that take every packet and throw it away: the end of the way of those that pass.
///
/// Each has sent something to everybody who will talk to it, so that to whoever tracks connections
/// they are established.
fn sinks(group: Group) -> Result<Vec<Socket>> {
    // BPF_RET | BPF_K, 0: of no packet are any bytes kept.
    let nothing = [SockFilter::new(6, 0, 0, 0)];
    let mut sinks = Vec::new();
    for family in Family::ALL {
        let (domain, own): (_, IpAddr) = match family {
            Family::V4 => (Domain::IPV4, NODE4.into()),
            Family::V6 => (Domain::IPV6, NODE6.into()),
        };
        for (port, scenario) in [
            (group.isolated_port(), Scenario::PassPeer),
            (OTHER_PORT, Scenario::PassOther),
        ] {
            let socket = Socket::new(domain, Type::DGRAM, None)?;
            socket.bind(&SocketAddr::new(own, port).into())?;
            socket.attach_filter(&nothing)?;
            let cell = Cell {
                group,
                scenario,
                family,
            };
            for number in 1..=sources(&cell) {
                let to = SocketAddr::new(address(scenario, family, number), SENDER_PORT);
                socket
                    .send_to(b"hello", &to.into())
                    .with_context(|| format!("send to {to}"))?;
            }
            sinks.push(socket);
        }
    }
    Ok(sinks)
}

/// Frames received by `eth0`, from `/proc/net/dev`.
fn arrived(devices: &str) -> Option<u64> {
    let line = devices
        .lines()
        .find_map(|it| it.trim().strip_prefix("eth0:"))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// A field of the `Udp:` lines of `/proc/net/snmp`.
fn udp4(text: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines().filter(|line| line.starts_with("Udp:"));
    let names = lines.next().unwrap_or_default().split(' ');
    let values = lines.next().unwrap_or_default().split(' ');
    let mut found = names.zip(values).filter(|(it, _)| *it == name);
    let (_, value) = found
        .next()
        .with_context(|| format!("no UDP counter {name}"))?;
    Ok(value.parse()?)
}

/// A line of `/proc/net/snmp6`.
fn udp6(text: &str, name: &str) -> Result<u64> {
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let value = lines.find_map(|mut words| (words.next() == Some(name)).then(|| words.next())?);
    Ok(value
        .with_context(|| format!("no UDP counter {name}"))?
        .parse()?)
}

fn mac(bytes: [u8; 6]) -> String {
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// Sets a network parameter of the namespace of this thread.
fn sysctl(name: &str, value: u32) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value.to_string()).with_context(|| format!("write {path}"))
}

fn lines(program: &str, namespace: &Namespace, text: &str) -> Result<()> {
    let tool = Tool::new(program).args(["-batch", "-"]);
    let done = tool.namespace(Some(namespace)).input(text).succeed();
    done.map(drop).with_context(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_found_by_name() {
        let snmp = "Ip: A\nIp: 1\nUdp: InDatagrams NoPorts InErrors\nUdp: 5 6 7\n";
        assert_eq!(udp4(snmp, "InErrors").unwrap(), 7);
        assert!(udp4(snmp, "Nothing").is_err());
        assert_eq!(
            udp6("Udp6NoPorts   \t3\nUdp6InErrors\t9\n", "Udp6InErrors").unwrap(),
            9
        );
        let devices = "Inter-| Receive\n  eth0:  600  10 0 0\n    lo: 1 2\n";
        assert_eq!(arrived(devices), Some(10));
    }
}
