//! The fields of `cluster.yaml`, and what must fit together in it.

use std::net::IpAddr;
use std::path::PathBuf;

use serde_json::json;

use super::{ClusterSpec, Components, Dns, Host, NetworkBackend, Networks, Ssh, Version};
use crate::error::{InvalidValue, quoted};
use crate::guard::{ReadRouter, Router};
use crate::net::kinds::{host_name, ip_address, ip_range, label, port};
use crate::net::{HostName, IpRange};
use crate::plans::{Plan, Size};
use crate::reader::kinds::{
    Boolean, FilePath, Placed, Text, choice, list, mapping, placed, refuse_twice, text,
};
use crate::reader::{Fields, Mapping};

/// Every flannel node gets a /24 of the pod network; more than the largest plan needs must fit.
const WIDEST_POD_PREFIX: u8 = 20;

impl Mapping for ClusterSpec {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required("name", "The cluster's name.", placed(label()));
        let plan = f.required(
            "plan",
            "`single`: one host with both roles. `clustered`: 1 to 3 masters, 1 to 5 workers.",
            choice(&[("single", Plan::Single), ("clustered", Plan::Clustered)]),
        );
        let version = f.required(
            "version",
            "The Kubernetes version, all three numbers.",
            text(
                "a version",
                Some("^[0-9]+\\.[0-9]+\\.[0-9]+$"),
                Version::parse,
            ),
        );
        let masters = f.required(
            "masters",
            "Masters, 1 to 3; two only on the way between one and three. With the single plan, \
             the one host.",
            list(mapping::<ReadHost>()),
        );
        let workers = f.defaulted(
            "workers",
            "Workers, 1 to 5; none with the single plan.",
            list(mapping::<ReadHost>()),
            json!([]),
        );
        let networks = f.defaulted(
            "networks",
            "The cluster's own networks.",
            mapping::<ReadNetworks>(),
            json!({}),
        );
        let dns = f.required(
            "dns",
            "Names inside and outside of the cluster.",
            mapping::<Dns>(),
        );
        let routers = f.required(
            "routers",
            "Edge routers, which are let in beside the cluster's nodes; at least one.",
            list(mapping::<ReadRouter>()).of_length(1..=64),
        );
        let components = f.defaulted(
            "components",
            "What is installed besides Kubernetes itself.",
            mapping::<Components>(),
            json!({}),
        );

        if let Some(plan) = plan {
            refuse_counts(f, plan, masters.as_deref(), workers.as_deref());
        }
        let hosts: Vec<&ReadHost> = masters
            .iter()
            .flatten()
            .chain(workers.iter().flatten())
            .collect();
        let names: Vec<Placed<String>> = hosts
            .iter()
            .map(|host| &host.name)
            .chain(routers.iter().flatten().map(|router| &router.name))
            .cloned()
            .collect();
        refuse_twice(f, &names, "this name", Clone::clone);
        let addresses: Vec<Placed<IpAddr>> =
            hosts.iter().map(|host| host.address.clone()).collect();
        refuse_twice(f, &addresses, "this address", |address| *address);
        if let Some(networks) = &networks {
            let routers = routers
                .iter()
                .flatten()
                .flat_map(|router| &router.addresses);
            let outside = addresses
                .iter()
                .map(|item| Placed {
                    value: IpRange::single(item.value),
                    position: item.position,
                    field: item.field.clone(),
                })
                .chain(routers.cloned());
            refuse_addresses_inside(f, networks, outside.collect());
        }
        if let (Some(name), Some(dns)) = (&name, &dns) {
            refuse_long_names(f, name, dns);
        }

        Some(Self {
            name: name?.value,
            plan: plan?,
            version: version?,
            masters: masters?.into_iter().map(Host::from).collect(),
            workers: workers?.into_iter().map(Host::from).collect(),
            networks: networks?.into(),
            dns: dns?,
            routers: routers?.into_iter().map(Router::from).collect(),
            components: components?,
        })
    }
}

struct ReadHost {
    name: Placed<String>,
    address: Placed<IpAddr>,
    size: Size,
    ssh: Ssh,
}

impl Mapping for ReadHost {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let name = f.required(
            "name",
            "The node's name; its host name too.",
            placed(label()),
        );
        let address = f.required(
            "address",
            "The address that the cluster's nodes and the routers use.",
            placed(ip_address()),
        );
        let size = f.defaulted(
            "size",
            "What it must have at least: small 2 CPUs and 4 GiB, medium 4 and 8, large 8 and 16.",
            choice(&[
                ("small", Size::Small),
                ("medium", Size::Medium),
                ("large", Size::Large),
            ]),
            json!("small"),
        );
        let ssh = f.defaulted("ssh", "How it is reached.", mapping::<Ssh>(), json!({}));
        if let Some(address) = &address
            && (address.value.is_loopback() || address.value.is_unspecified())
        {
            let message = format!(
                "{} is no address that other nodes could reach",
                address.value
            );
            f.refuse_item(address, InvalidValue::new(message));
        }
        Some(Self {
            name: name?,
            address: address?,
            size: size?,
            ssh: ssh?,
        })
    }
}

impl From<ReadHost> for Host {
    fn from(read: ReadHost) -> Self {
        Self {
            name: read.name.value,
            address: read.address.value,
            size: read.size,
            ssh: read.ssh,
        }
    }
}

impl Mapping for Ssh {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let address = f.optional(
            "address",
            "Name or address for SSH; the host's address when absent.",
            ssh_word("a name or address"),
        );
        let port = f.defaulted("port", "Port.", port(), json!(22));
        let user = f.defaulted(
            "user",
            "User; becomes root by sudo where it is not.",
            ssh_word("a user"),
            json!("root"),
        );
        let key: Option<Option<PathBuf>> = f.optional(
            "key",
            "Private key; the SSH agent's or the user's own when absent.",
            FilePath,
        );
        let bastion = f.optional(
            "bastion",
            "[user@]host[:port] of a host to jump over, as for ssh -J.",
            ssh_word("a host to jump over"),
        );
        Some(Self {
            address: address?,
            port: u16::try_from(port?).ok()?,
            user: user?,
            key: key?,
            bastion: bastion?,
        })
    }
}

/// `networks:` with the places of its ranges.
struct ReadNetworks {
    pods: Placed<IpRange>,
    services: Placed<IpRange>,
    backend: NetworkBackend,
}

impl Mapping for ReadNetworks {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let pods = f.defaulted(
            "pods",
            "Pods; /20 or wider for IPv4, since every node gets a /24 of it.",
            placed(ip_range()),
            json!("10.244.0.0/16"),
        );
        let services = f.defaulted(
            "services",
            "Services.",
            placed(ip_range()),
            json!("10.96.0.0/16"),
        );
        let backend = f.defaulted(
            "backend",
            "How packets between pods travel: flannel's VXLAN, or routes between hosts of one \
             segment.",
            choice(&[
                ("vxlan", NetworkBackend::Vxlan),
                ("host-gw", NetworkBackend::HostGw),
            ]),
            json!("vxlan"),
        );
        if let (Some(pods), Some(services)) = (&pods, &services)
            && pods.value.overlaps(&services.value)
        {
            let message = format!("{} overlaps the pods' {}", services.value, pods.value);
            f.refuse_item(services, InvalidValue::new(message));
        }
        if let Some(pods) = &pods
            && pods.value.base().is_ipv4()
            && pods.value.prefix() > WIDEST_POD_PREFIX
        {
            let message = format!("{} is too narrow: every node gets a /24 of it", pods.value);
            f.refuse_item(pods, InvalidValue::new(message).help("use a /20 or wider"));
        }
        if let Some(services) = &services
            && services.value.base().is_ipv4()
            && services.value.prefix() > 24
        {
            let message = format!("{} is too narrow for services", services.value);
            f.refuse_item(
                services,
                InvalidValue::new(message).help("use a /24 or wider"),
            );
        }
        Some(Self {
            pods: pods?,
            services: services?,
            backend: backend?,
        })
    }
}

impl From<ReadNetworks> for Networks {
    fn from(read: ReadNetworks) -> Self {
        Self {
            pods: read.pods.value,
            services: read.services.value,
            backend: read.backend,
        }
    }
}

impl Mapping for Dns {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let zone = f.required(
            "zone",
            "The zone of the names that routers serve: api-NAME.ZONE, APP-apps-NAME.ZONE.",
            host_name(),
        );
        let cluster_domain = f.defaulted(
            "cluster_domain",
            "The domain inside the cluster.",
            host_name(),
            json!("cluster.local"),
        );
        Some(Self {
            zone: zone?,
            cluster_domain: cluster_domain?,
        })
    }
}

impl Mapping for Components {
    fn fields(f: &mut Fields<'_>) -> Option<Self> {
        let ingress = f.defaulted(
            "ingress",
            "The NGINX ingress controller on 31380 and 31390.",
            Boolean,
            json!(true),
        );
        let linkerd = f.defaulted(
            "linkerd",
            "The Linkerd service mesh.",
            Boolean,
            json!(false),
        );
        let nodeguard = f.defaulted(
            "nodeguard",
            "The node guard on every host.",
            Boolean,
            json!(true),
        );
        let registrar = f.defaulted(
            "registrar",
            "A registrar on every host.",
            Boolean,
            json!(true),
        );
        Some(Self {
            ingress: ingress?,
            linkerd: linkerd?,
            nodeguard: nodeguard?,
            registrar: registrar?,
        })
    }
}

fn refuse_counts(
    f: &mut Fields<'_>,
    plan: Plan,
    masters: Option<&[ReadHost]>,
    workers: Option<&[ReadHost]>,
) {
    for (name, hosts, allowed) in [
        ("masters", masters, plan.masters()),
        ("workers", workers, plan.workers()),
    ] {
        let Some(found) = hosts.map(<[ReadHost]>::len) else {
            continue;
        };
        if allowed.contains(&found) {
            continue;
        }
        let (low, high) = (allowed.start(), allowed.end());
        let count = match (*low, *high) {
            (0, 0) => "none".to_owned(),
            (low, high) if low == high => format!("exactly {low}"),
            (low, high) => format!("{low} to {high}"),
        };
        let message = format!("the {plan} plan has {count}, found {found}");
        f.refuse(name, InvalidValue::new(message));
    }
}

/// A host or router within a pod or service network could not be told from a pod or service.
fn refuse_addresses_inside(
    f: &mut Fields<'_>,
    networks: &ReadNetworks,
    outside: Vec<Placed<IpRange>>,
) {
    for item in outside {
        for (what, network) in [("pod", &networks.pods), ("service", &networks.services)] {
            if item.value.overlaps(&network.value) {
                let message = format!(
                    "{} overlaps the {what} network {}",
                    item.value, network.value
                );
                f.refuse_item(&item, InvalidValue::new(message));
            }
        }
    }
}

/// `x-apps-NAME.ZONE` must be a host name, with room for an application's name of one character.
fn refuse_long_names(f: &mut Fields<'_>, name: &Placed<String>, dns: &Dns) {
    let shortest = format!("x-apps-{}.{}", name.value, dns.zone);
    if HostName::parse(&shortest).is_err() {
        let message = format!(
            "{} is too long: no name like {} fits",
            name.value,
            quoted(&shortest)
        );
        f.refuse_item(name, InvalidValue::new(message));
    }
}

/// A word for ssh's command line: never empty, without blanks, and never an option.
fn ssh_word(expected: &'static str) -> Text<String> {
    text(expected, Some("^[^-\\s]\\S*$"), |value| {
        let graphic = value.bytes().all(|byte| byte.is_ascii_graphic());
        if value.is_empty() || value.starts_with('-') || !graphic {
            return Err(InvalidValue::new(format!(
                "{} is empty, holds a blank or begins with `-`",
                quoted(value)
            )));
        }
        Ok(value.to_owned())
    })
}
