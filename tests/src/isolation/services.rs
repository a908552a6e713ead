//! The Services of the cluster, and the rules that kube-proxy and flannel make of them.
//!
//! Rules are what kube-proxy (iptables mode) and flannel write, without `--random-fully`: it may
//! choose an isolated port as the source port of a masqueraded packet, whose answer the guard then
//! takes for a request, and a test must not depend on that chance.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use config::guard::Protocol;
use config::ports::{self, API_SERVER, INGRESS_HTTP, INGRESS_HTTPS};
use config::roles::Role;
use nodeguard::ruleset::Family;

use super::place::{Place, pod_v6};

/// A Service with one endpoint.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Its number, of which its addresses are made.
    pub number: u8,
    /// The protocol.
    pub protocol: Protocol,
    /// Its port on every node.
    pub node_port: u16,
    /// Its port on its ClusterIP and externalIP.
    pub port: u16,
    /// Who answers.
    pub endpoint: Place,
    /// Where.
    pub target_port: u16,
}

/// Ports of solo that a rule sends to its own 127.0.0.1, and to which port there: an isolated one,
/// and one that is not, such as a cloud's metadata proxy.
pub const TO_LOCALHOST: [(u16, u16); 2] = [(30_999, 10_257), (30_998, 22)];

/// `kubernetes`: what pods reach the API server by.
pub const KUBERNETES: Service = Service {
    number: 1,
    protocol: Protocol::Tcp,
    node_port: 0,
    port: 443,
    endpoint: Place::M1,
    target_port: API_SERVER,
};

impl Service {
    /// Its ClusterIP.
    #[must_use]
    pub fn cluster_ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(10, 96, 0, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd96, 0, 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }

    /// Its externalIP: an address that a tenant claims and routers on the way believe.
    #[must_use]
    pub fn external_ip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => Ipv4Addr::new(192, 0, 2, self.number).into(),
            Family::V6 => Ipv6Addr::new(0xfd92, 0, 0, 0, 0, 0, 0, self.number.into()).into(),
        }
    }
}

/// The ingress: its doors are isolated ports, its pods' port is not.
#[must_use]
pub fn ingress(node: Place) -> Vec<Service> {
    let pods = if node == Place::Solo {
        [Place::Sp, Place::Sp]
    } else {
        [Place::P1, Place::P2]
    };
    let door = |number, node_port, endpoint| Service {
        number,
        protocol: Protocol::Tcp,
        node_port,
        port: 80,
        endpoint,
        target_port: 8080,
    };
    vec![
        door(2, INGRESS_HTTP, pods[0]),
        door(3, INGRESS_HTTPS, pods[1]),
    ]
}

/// The Service of the ingress that a node's kube-proxy sends a port to.
#[must_use]
pub fn door(node: Place, protocol: Protocol, port: u16) -> Option<Service> {
    if !node.role().is_some_and(Role::is_worker) || protocol != Protocol::Tcp {
        return None;
    }
    ingress(node)
        .into_iter()
        .find(|door| door.node_port == port)
}

/// Services by which a tenant tries to reach isolated ports: one for each port of each node that
/// this node's kube-proxy knows, TCP; and UDP and SCTP for one port of each.
#[must_use]
pub fn of_the_tenant(node: Place) -> Vec<Service> {
    let endpoints: &[Place] = if node == Place::Solo {
        &[Place::Solo]
    } else {
        &Place::ACME
    };
    let mut services = Vec::new();
    let mut add = |protocol, endpoint, target_port| {
        let number = 10 + u8::try_from(services.len()).expect("some sixty services");
        services.push(Service {
            number,
            protocol,
            node_port: 30_500 + u16::from(number),
            port: target_port,
            endpoint,
            target_port,
        });
    };
    for &endpoint in endpoints {
        let role = endpoint.role().expect("endpoints are nodes");
        for entry in ports::of(role) {
            add(Protocol::Tcp, endpoint, entry.port);
        }
        let first = ports::of(role).next().expect("no role is without ports");
        add(Protocol::Udp, endpoint, first.port);
        add(Protocol::Udp, endpoint, ports::FLANNEL_VXLAN);
        add(Protocol::Sctp, endpoint, first.port);
    }
    // A control: the same path to a port that nobody isolates.
    add(Protocol::Tcp, endpoints[0], 22);
    services
}

/// What `iptables-restore` is fed on a node, for one family.
#[must_use]
pub fn rules(node: Place, family: Family) -> String {
    let mut text = String::from("*nat\n");
    for chain in [
        "KUBE-SERVICES",
        "KUBE-NODEPORTS",
        "KUBE-MARK-MASQ",
        "KUBE-POSTROUTING",
        "FLANNEL-POSTRTG",
    ] {
        let _ = writeln!(text, ":{chain} - [0:0]");
    }
    text.push_str(
        "-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES\n\
         -A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING\n\
         -A POSTROUTING -m comment --comment \"flanneld masq\" -j FLANNEL-POSTRTG\n\
         -A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000\n\
         -A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN\n\
         -A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0\n\
         -A KUBE-POSTROUTING -j MASQUERADE\n",
    );
    let mut services = of_the_tenant(node);
    services.extend(ingress(node));
    if node != Place::Solo {
        services.push(KUBERNETES);
    }
    for service in &services {
        service_rules(&mut text, service, family);
    }
    if (node, family) == (Place::Solo, Family::V4) {
        for (port, target) in TO_LOCALHOST {
            let _ = writeln!(
                text,
                "-A KUBE-NODEPORTS -p tcp -m tcp --dport {port} \
                 -j DNAT --to-destination 127.0.0.1:{target}"
            );
        }
    }
    text.push_str("-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS\n");
    masquerade(&mut text, node, family);
    text.push_str("COMMIT\n");
    text
}

fn service_rules(text: &mut String, service: &Service, family: Family) {
    let protocol = protocol_name(service.protocol);
    let endpoint = SocketAddr::new(service.endpoint.address(family), service.target_port);
    let chain = format!("KUBE-SVC-{}", service.number);
    let _ = writeln!(
        text,
        ":{chain} - [0:0]\n-A {chain} -j KUBE-MARK-MASQ\n\
         -A {chain} -p {protocol} -m {protocol} -j DNAT --to-destination {endpoint}"
    );
    let port = service.port;
    for address in [service.cluster_ip(family), service.external_ip(family)] {
        let _ = writeln!(
            text,
            "-A KUBE-SERVICES -d {address} -p {protocol} -m {protocol} --dport {port} -j {chain}"
        );
    }
    if service.node_port != 0 {
        let node_port = service.node_port;
        let _ = writeln!(
            text,
            "-A KUBE-NODEPORTS -p {protocol} -m {protocol} --dport {node_port} -j {chain}"
        );
    }
}

/// flannel's `masqRules`.
fn masquerade(text: &mut String, node: Place, family: Family) {
    let (all, own, multicast) = match family {
        Family::V4 => (
            "10.244.0.0/16".to_owned(),
            format!("10.244.{}.0/24", node.pod_subnet()),
            "224.0.0.0/4",
        ),
        Family::V6 => (
            "fd44::/48".to_owned(),
            format!("{}/64", pod_v6(node.pod_subnet(), 0)),
            "ff00::/8",
        ),
    };
    let _ = writeln!(
        text,
        "-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -j RETURN\n\
         -A FLANNEL-POSTRTG -s {own} -d {all} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {all} -d {own} -j RETURN\n\
         -A FLANNEL-POSTRTG ! -s {all} -d {own} -j RETURN\n\
         -A FLANNEL-POSTRTG -s {all} ! -d {multicast} -j MASQUERADE\n\
         -A FLANNEL-POSTRTG ! -s {all} -d {all} -j MASQUERADE"
    );
}

/// A protocol as `iptables` writes it.
#[must_use]
pub fn protocol_name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}
