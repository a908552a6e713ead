//! The hosts and pods of the matrix, made of network namespaces; `place` says who is who.
//!
//! The kernel must not do the guard's work here: reverse-path checks are off everywhere, addresses
//! of one's own and of loopback are accepted from outside. Neighbours are entered by hand, so that
//! what is on the wires is what a case put there.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;

use anyhow::{Context, Result, anyhow};
use config::roles::Role;
use nodeguard::ruleset::Family;

use super::place::{Mac, Place, mac_text, nobodys_pod, unlisted, unmasqueraded};
use super::services;
use crate::namespace::Namespace;
use crate::tool::Tool;

const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// All hosts and pods, wired. Nothing of it outlives the value.
#[derive(Debug)]
pub struct Topology {
    /// Holds the bridge that everybody is plugged into.
    _switch: Namespace,
    hosts: BTreeMap<Place, Namespace>,
}

impl Topology {
    /// Makes everything: less than a second where nobody else is busy.
    ///
    /// # Errors
    /// Without root, or if `ip`, `bridge` or `iptables` fail.
    pub fn new() -> Result<Self> {
        let switch = Namespace::new()?;
        // It is a switch, not a host.
        switch.run(|| {
            sysctl("bridge/bridge-nf-call-iptables", 0)?;
            sysctl("bridge/bridge-nf-call-ip6tables", 0)
        })?;
        let mut hosts = BTreeMap::new();
        for place in Place::ALL {
            let namespace = Namespace::new()?;
            namespace.run(|| before_devices(place))?;
            hosts.insert(place, namespace);
        }
        let topology = Self {
            _switch: switch.clone(),
            hosts,
        };
        batch("ip", &switch, &topology.switch_lines())?;
        // Pods are plugged in by their node, so they come after it.
        let (nodes, pods): (Vec<_>, Vec<_>) =
            Place::ALL.into_iter().partition(|it| it.home().is_none());
        for group in [nodes, pods] {
            std::thread::scope(|scope| {
                let topology = &topology;
                let started: Vec<_> = group
                    .into_iter()
                    .map(|place| (place, scope.spawn(move || topology.furnish(place))))
                    .collect();
                for (place, thread) in started {
                    let done = thread.join().map_err(|_| anyhow!("panicked"))?;
                    done.with_context(|| format!("furnish {place}"))?;
                }
                anyhow::Ok(())
            })?;
        }
        Ok(topology)
    }

    /// The namespace of a place.
    ///
    /// # Panics
    /// Never: every place has one.
    #[must_use]
    pub fn at(&self, place: Place) -> &Namespace {
        self.hosts.get(&place).expect("every place has one")
    }

    fn switch_lines(&self) -> String {
        let mut lines =
            String::from("link add name switch type bridge mcast_snooping 0\nlink set switch up\n");
        for place in Place::WIRED {
            veth(
                &mut lines,
                "switch",
                place.name(),
                place.mac(),
                &self.at(place).path(),
            );
        }
        lines
    }

    fn furnish(&self, place: Place) -> Result<()> {
        let namespace = self.at(place);
        let lines = match place.home() {
            Some(node) => pod_lines(place, node),
            None => self.host_lines(place),
        };
        batch("ip", namespace, &lines)?;
        if place.role().is_some() {
            namespace.run(after_devices)?;
            batch("bridge", namespace, &forwarding_lines(place))?;
        }
        // A mere master runs no pods, and so no kube-proxy.
        if place.role().is_some_and(Role::is_worker) {
            for (family, program) in [
                (Family::V4, "iptables-restore"),
                (Family::V6, "ip6tables-restore"),
            ] {
                feed(program, namespace, services::rules(place, family))?;
            }
        }
        if place == Place::F1 {
            for (program, source) in [
                ("iptables-restore", Place::Fp.address(Family::V4)),
                ("ip6tables-restore", Place::Fp.address(Family::V6)),
            ] {
                let rules =
                    format!("*nat\n-A POSTROUTING -s {source} -o eth0 -j MASQUERADE\nCOMMIT\n");
                feed(program, namespace, rules)?;
            }
        }
        Ok(())
    }

    fn host_lines(&self, place: Place) -> String {
        let mut lines = String::new();
        wire(&mut lines, place);
        if let Some(pod) = place.pod() {
            self.bridge(&mut lines, place, pod);
        }
        if Place::ACME.contains(&place) {
            overlay(&mut lines, place);
        } else if place.role() != Some(Role::Single) {
            // How somebody outside reaches what lies behind the workers: by claiming so.
            for (hop, networks) in [
                (Place::W1, ["10.96.0.0/16", "fd96::/48"]),
                (Place::W2, ["192.0.2.0/24", "fd92::/48"]),
            ] {
                route(&mut lines, networks[0], hop.address(Family::V4));
                route(&mut lines, networks[1], hop.address(Family::V6));
            }
        }
        if place == Place::W1 {
            second_addresses(&mut lines, unlisted);
        }
        lines
    }

    fn bridge(&self, lines: &mut String, node: Place, pod: Place) {
        let mac = mac_text(node.bridge_mac());
        let _ = writeln!(
            lines,
            "link add name cni0 address {mac} type bridge mcast_snooping 0\nlink set cni0 up"
        );
        for family in FAMILIES {
            address(lines, node.bridge(family), "cni0");
        }
        veth(lines, "cni0", pod.name(), pod.mac(), &self.at(pod).path());
        // flannel's hairpinMode, so that a pod reaches itself by a Service.
        let _ = writeln!(lines, "link set {pod} type bridge_slave hairpin on");
        let mut addresses: Vec<IpAddr> = FAMILIES.map(|family| pod.address(family)).to_vec();
        if node == Place::F1 {
            for family in FAMILIES {
                addresses.extend([unmasqueraded(family), nobodys_pod(family)]);
            }
        }
        for it in addresses {
            neighbour(lines, it, pod.mac(), "cni0");
        }
    }
}

/// The device that faces the switch.
fn wire(lines: &mut String, place: Place) {
    for family in FAMILIES {
        address(lines, place.address(family), "eth0");
    }
    lines.push_str("link set eth0 up\n");
    for other in Place::WIRED.into_iter().filter(|it| *it != place) {
        for it in [
            other.v4().into(),
            other.v6().into(),
            other.link_local().into(),
        ] {
            neighbour(lines, it, other.mac(), "eth0");
        }
    }
    if place != Place::W1 {
        for family in FAMILIES {
            neighbour(lines, unlisted(family), Place::W1.mac(), "eth0");
        }
    }
    // A default route, as everybody has one. The reverse-path check has to live with it.
    if place != Place::Edge {
        for (all, family) in [("0.0.0.0/0", Family::V4), ("::/0", Family::V6)] {
            route(lines, all, Place::Edge.address(family));
        }
    }
}

/// flannel's VXLAN device, and the routes to the pods of the other nodes.
fn overlay(lines: &mut String, node: Place) {
    let mac = mac_text(node.vtep_mac());
    let local = node.v4();
    let _ = writeln!(
        lines,
        "link add name flannel.1 address {mac} mtu 1450 type vxlan id 1 local {local} dev eth0 \
         dstport 8472 nolearning\nlink set flannel.1 up"
    );
    for family in FAMILIES {
        let host = if family == Family::V4 { 32 } else { 128 };
        let own = node.overlay(family);
        let _ = writeln!(
            lines,
            "address add {own}/{host} dev flannel.1{}",
            nodad(own)
        );
        for other in Place::ACME.into_iter().filter(|it| *it != node) {
            let (via, length) = (
                other.overlay(family),
                if family == Family::V4 { 24 } else { 64 },
            );
            neighbour(lines, via, other.vtep_mac(), "flannel.1");
            let _ = writeln!(
                lines,
                "route add {via}/{length} via {via} dev flannel.1 onlink"
            );
        }
    }
}

fn forwarding_lines(node: Place) -> String {
    let mut lines = String::new();
    if Place::ACME.contains(&node) {
        for other in Place::ACME.into_iter().filter(|it| *it != node) {
            let (mac, address) = (mac_text(other.vtep_mac()), other.v4());
            let _ = writeln!(lines, "fdb append {mac} dev flannel.1 dst {address}");
        }
    }
    lines
}

fn pod_lines(pod: Place, node: Place) -> String {
    let mut lines = String::new();
    for family in FAMILIES {
        address(&mut lines, pod.address(family), "eth0");
    }
    if pod == Place::Fp {
        second_addresses(&mut lines, unmasqueraded);
    }
    lines.push_str("link set eth0 up\n");
    for (family, all) in [(Family::V4, "0.0.0.0/0"), (Family::V6, "::/0")] {
        neighbour(&mut lines, node.bridge(family), node.bridge_mac(), "eth0");
        route(&mut lines, all, node.bridge(family));
    }
    // In the pods' network, but not on their wire: asking for it would take a second or more, and
    // what waited for the answer would be counted to other cases.
    let overlay = node.overlay(Family::V6);
    neighbour(&mut lines, overlay, node.bridge_mac(), "eth0");
    let link_local = super::place::link_local(node.bridge_mac());
    neighbour(&mut lines, link_local.into(), node.bridge_mac(), "eth0");
    lines
}

/// An address with the length of its network.
fn address(lines: &mut String, address: IpAddr, device: &str) {
    let length = match address {
        IpAddr::V4(it) if it.octets()[1] == 77 => 16,
        IpAddr::V4(_) => 24,
        IpAddr::V6(_) => 64,
    };
    let _ = writeln!(
        lines,
        "address add {address}/{length} dev {device}{}",
        nodad(address)
    );
}

/// Addresses that are not chosen as a source unless somebody asks for them.
fn second_addresses(lines: &mut String, of: fn(Family) -> IpAddr) {
    for family in FAMILIES {
        address(lines, of(family), "eth0");
        if family == Family::V6 {
            lines.truncate(lines.trim_end().len());
            lines.push_str(" preferred_lft 0\n");
        }
    }
}

/// Duplicate address detection would keep an address unusable for a second.
fn nodad(address: IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

fn neighbour(lines: &mut String, address: IpAddr, mac: Mac, device: &str) {
    let mac = mac_text(mac);
    let _ = writeln!(
        lines,
        "neighbour replace {address} lladdr {mac} dev {device} nud permanent"
    );
}

fn route(lines: &mut String, network: &str, via: IpAddr) {
    let _ = writeln!(lines, "route add {network} via {via}");
}

fn veth(lines: &mut String, bridge: &str, port: &str, mac: Mac, namespace: &str) {
    let mac = mac_text(mac);
    let _ = writeln!(
        lines,
        "link add name {port} type veth peer name eth0 address {mac} netns {namespace}\n\
         link set {port} master {bridge} up"
    );
}

/// What new devices have to inherit.
fn before_devices(place: Place) -> Result<()> {
    for scope in ["all", "default"] {
        sysctl(&format!("ipv4/conf/{scope}/rp_filter"), 0)?;
        sysctl(&format!("ipv4/conf/{scope}/accept_local"), 1)?;
        sysctl(&format!("ipv4/conf/{scope}/send_redirects"), 0)?;
        sysctl(&format!("ipv6/conf/{scope}/accept_dad"), 0)?;
        sysctl(&format!("ipv6/conf/{scope}/accept_ra"), 0)?;
    }
    if place.role().is_some() || place == Place::F1 {
        sysctl("ipv4/ip_forward", 1)?;
        sysctl("ipv6/conf/all/forwarding", 1)?;
    }
    Ok(())
}

/// What kube-proxy sets, for NodePorts on 127.0.0.1, and kubeadm demands, so that what pods of one
/// node send to each other meets the node's rules.
fn after_devices() -> Result<()> {
    for name in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        sysctl(&format!("bridge/{name}"), 1)?;
    }
    for scope in ["all", "default", "eth0"] {
        sysctl(&format!("ipv4/conf/{scope}/route_localnet"), 1)?;
    }
    Ok(())
}

/// Sets a network parameter of the namespace of this thread.
fn sysctl(name: &str, value: u8) -> Result<()> {
    let path = format!("/proc/sys/net/{name}");
    std::fs::write(&path, value.to_string()).with_context(|| format!("write {path}"))
}

fn batch(program: &str, namespace: &Namespace, lines: &str) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    Tool::new(program)
        .args(["-batch", "-"])
        .namespace(Some(namespace))
        .input(lines)
        .succeed()
        .map(drop)
        .with_context(|| lines.to_owned())
}

fn feed(program: &str, namespace: &Namespace, rules: String) -> Result<()> {
    Tool::new(program)
        .namespace(Some(namespace))
        .input(rules.clone())
        .succeed()
        .map(drop)
        .context(rules)
}
