//! The fields of `nodeguard.yaml`, and what must fit together in it.

use serde_json::json;

use super::peers::ReadRouter;
use super::{BpfMode, ExtraPort, GuardConfig, Interface, PodNetwork, Pods, Protocol};
use crate::error::{InvalidValue, quoted};
use crate::net::kinds::{ip_address, ip_range, label, port, socket_address};
use crate::ports::{API_SERVER, FLANNEL_VXLAN};
use crate::reader::kinds::{
    Boolean, Choice, FilePath, Placed, Text, choice, list, mapping, placed, refuse_twice, text,
    values,
};
use crate::reader::{Fields, Mapping};
use crate::roles::role;

impl Mapping for GuardConfig {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let cluster = f.required("cluster", "The cluster this node belongs to.", label());
        let node = f.required("node", "This node's name, as peers know it.", label());
        let role = f.required("role", "Which ports are isolated here.", role());
        let addresses = f.required(
            "addresses",
            "This node's own addresses; at least one.",
            list(placed(ip_address())).of_length(1..=64),
        );
        let interfaces = f.defaulted(
            "interfaces",
            "Devices that the BPF plane is attached to; all when empty. nftables covers every \
             device either way.",
            list(mapping::<ReadInterface>()).of_length(0..=256),
            json!([]),
        );
        let peers = f.defaulted("peers", "Folder of peer files.", FilePath, json!("peers.d"));
        let routers = f.defaulted(
            "routers",
            "Routers that are not in a peer file.",
            list(mapping::<ReadRouter>()),
            json!([]),
        );
        let network = f.defaulted(
            "network",
            "What carries packets between pods. With flannel, UDP 8472 is isolated too.",
            choice(&[
                ("flannel", PodNetwork::Flannel),
                ("other", PodNetwork::Other),
            ]),
            json!("flannel"),
        );
        let extra_ports = f.defaulted(
            "extra_ports",
            "Ports isolated besides the role's. Never SSH: a guard must not lock its keeper out.",
            list(placed(mapping::<ExtraPort>())),
            json!([]),
        );
        let pods = f.required(
            "pods",
            "The cluster's pods and what they may reach.",
            mapping(),
        );
        let bpf = f.defaulted(
            "bpf",
            "How the BPF plane is attached. nftables enforces in every mode.",
            bpf_mode(),
            json!("tcx"),
        );
        let reverse_path = f.defaulted(
            "reverse_path",
            "Whether a peer's packet must come by the device that an answer would leave by; the \
             only thing that tells a pod that borrows a node's address. Off only where routes are \
             asymmetric.",
            Boolean,
            json!(true),
        );
        let metrics = f.optional(
            "metrics",
            "Address of the Prometheus page; loopback only. None when absent.",
            placed(socket_address()),
        );
        let state = f.defaulted(
            "state",
            "Folder of the last good ruleset, which the boot unit loads.",
            FilePath,
            json!("/var/lib/nodeguard"),
        );
        let runtime = f.defaulted(
            "runtime",
            "Folder of the control socket and of what keeps the BPF plane in place; gone after a \
             reboot.",
            FilePath,
            json!("/run/nodeguard"),
        );

        if let Some(addresses) = &addresses {
            refuse_twice(f, addresses, "this address", |address| *address);
            for item in addresses.iter().filter(|item| item.value.is_loopback()) {
                f.refuse_item(
                    item,
                    InvalidValue::new("is a loopback address")
                        .help("loopback is always let in; name what other nodes reach this one by"),
                );
            }
        }
        if let Some(interfaces) = &interfaces {
            let names: Vec<Placed<String>> = interfaces
                .iter()
                .map(|device| device.name.clone())
                .collect();
            refuse_twice(f, &names, "this device", Clone::clone);
        }
        if let Some(routers) = &routers {
            let names: Vec<Placed<String>> =
                routers.iter().map(|router| router.name.clone()).collect();
            refuse_twice(f, &names, "this name", Clone::clone);
        }
        if let Some(ports) = &extra_ports {
            refuse_twice(f, ports, "this port", |extra| (extra.port, extra.protocol));
        }
        if let Some(Some(metrics)) = &metrics
            && !metrics.value.ip().is_loopback()
        {
            let message = format!("{} is not a loopback address", metrics.value.ip());
            f.refuse_item(
                metrics,
                InvalidValue::new(message).help("use 127.0.0.1 or [::1]"),
            );
        }

        let network = network?;
        let mut extra_ports = values(extra_ports?);
        let vxlan = ExtraPort {
            port: FLANNEL_VXLAN,
            protocol: Some(Protocol::Udp),
            name: "flannel-vxlan".to_owned(),
        };
        let listed = extra_ports.iter().any(|extra| {
            extra.port == vxlan.port && matches!(extra.protocol, None | Some(Protocol::Udp))
        });
        if network == PodNetwork::Flannel && !listed {
            extra_ports.push(vxlan);
        }
        Some(Self {
            cluster: cluster?,
            node: node?,
            role: role?,
            addresses: values(addresses?),
            interfaces: interfaces?.into_iter().map(Interface::from).collect(),
            peers: peers?,
            routers: routers?.into_iter().map(Into::into).collect(),
            network,
            extra_ports,
            pods: pods?,
            bpf: bpf?,
            reverse_path: reverse_path?,
            metrics: metrics?.map(|metrics| metrics.value),
            state: state?,
            runtime: runtime?,
        })
    }
}

struct ReadInterface {
    name: Placed<String>,
    bpf: Option<BpfMode>,
}

impl Mapping for ReadInterface {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required(
            "name",
            "The device's name, as in `ip link`.",
            placed(device()),
        );
        let bpf = f.optional(
            "bpf",
            "How BPF is attached to it; the file's `bpf` when absent.",
            bpf_mode(),
        );
        Some(Self {
            name: name?,
            bpf: bpf?,
        })
    }
}

impl From<ReadInterface> for Interface {
    fn from(read: ReadInterface) -> Self {
        Self {
            name: read.name.value,
            bpf: read.bpf,
        }
    }
}

impl Mapping for ExtraPort {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let port = f.required("port", "The port.", port());
        let protocol = f.optional(
            "protocol",
            "The protocol; all three when absent.",
            choice(&[
                ("tcp", Protocol::Tcp),
                ("udp", Protocol::Udp),
                ("sctp", Protocol::Sctp),
            ]),
        );
        let name = f.required(
            "name",
            "Short name for rules, counters and reports.",
            label(),
        );
        if port == Some(22) && !matches!(protocol, Some(Some(Protocol::Udp | Protocol::Sctp))) {
            let reason = InvalidValue::new("SSH is not the guard's business");
            f.refuse(
                "port",
                reason.help("shutting it would lock the operator out"),
            );
        }
        Some(Self {
            port: u16::try_from(port?).ok()?,
            protocol: protocol?,
            name: name?,
        })
    }
}

impl Mapping for Pods {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let ranges = f.required(
            "ranges",
            "The cluster's pod networks; pods of nobody else are let in.",
            list(placed(ip_range())).of_length(1..=16),
        );
        let ports = f.defaulted(
            "ports",
            "Isolated ports that these pods may reach: 8443 for in-cluster clients; add 10250 for \
             metrics-server.",
            list(placed(port())).of_length(0..=64),
            json!([API_SERVER]),
        );
        if let Some(ranges) = &ranges {
            refuse_twice(f, ranges, "this range", |range| *range);
            for item in ranges.iter().filter(|item| item.value.prefix() == 0) {
                f.refuse_item(
                    item,
                    InvalidValue::new("a range of all addresses guards nothing"),
                );
            }
        }
        if let Some(ports) = &ports {
            refuse_twice(f, ports, "this port", |port| *port);
        }
        let ports: Option<Vec<u16>> = values(ports?)
            .into_iter()
            .map(|port| u16::try_from(port).ok())
            .collect();
        Some(Self {
            ranges: values(ranges?),
            ports: ports?,
        })
    }
}

fn bpf_mode() -> Choice<BpfMode> {
    choice(&[
        ("tcx", BpfMode::Tcx),
        ("xdp", BpfMode::Xdp),
        ("off", BpfMode::Off),
    ])
}

/// A device name as the kernel takes it (`dev_valid_name`): up to 15 bytes, no slash, colon or
/// white space, not `.` or `..`.
fn device() -> Text<String> {
    text("a device name", Some("^[^/:\\s]{1,15}$"), |name| {
        let wrong = name.is_empty()
            || name.len() > 15
            || matches!(name, "." | "..")
            || name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control());
        if wrong {
            return Err(InvalidValue::new(format!(
                "{} is not a device name",
                quoted(name)
            )));
        }
        Ok(name.to_owned())
    })
}
