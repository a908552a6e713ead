//! Frames that hide what they are for.

use config::guard::Protocol;
use config::ports::{FLANNEL_VXLAN, INGRESS_HTTP};
use nodeguard::ruleset::Family;
use nodeguard::verdict::Reason;

use super::{FAMILIES, Plan, Table, first_hop, kernel_drops};
use crate::isolation::case::{Drop, Expectation, Group, Means, Sight};
use crate::isolation::frames::Shape;
use crate::isolation::place::Place;
use crate::isolation::services::{ingress, of_the_tenant};

pub(super) fn add(table: &mut Table<'_>) {
    for family in FAMILIES {
        let shapes = match family {
            Family::V4 => &Shape::V4[..],
            Family::V6 => &Shape::V6[..],
        };
        for &shape in shapes {
            to_nodes(table, family, shape);
            to_node_ports(table, family, shape);
        }
    }
    in_vxlan(table);
}

fn crafted(group: Group, from: Place, to: Place, family: Family, shape: Shape) -> Plan {
    let mut plan = Plan::direct(group, from, to, family);
    plan.means = Means::Frames {
        shape,
        source: from.address(family),
        hop: first_hop(from, to),
    };
    plan
}

fn to_nodes(table: &mut Table<'_>, family: Family, shape: Shape) {
    for (node, port) in [(Place::M1, 2379), (Place::W1, 10250), (Place::Solo, 10259)] {
        for protocol in Protocol::ALL {
            for from in [Place::Stranger, Place::Edge] {
                let plan = crafted(Group::Frames, from, node, family, shape).port(protocol, port);
                let mut expectation = table.expected(from, node, family, protocol, port);
                if let Expectation::Dropped(drop) = &mut expectation
                    && !is_readable(shape)
                {
                    drop.sight = Sight::Unreadable;
                }
                table.add(plan.expect(kernel_drops(shape).unwrap_or(expectation)));
            }
        }
    }
    // A pod's frames, to its own node and through it.
    for (node, port) in [(Place::W1, 10250), (Place::M1, 2379), (Place::W2, 10256)] {
        let plan = crafted(Group::Frames, Place::P1, node, family, shape).port(Protocol::Tcp, port);
        let mut expectation = table.expected(Place::P1, node, family, Protocol::Tcp, port);
        if let Expectation::Dropped(drop) = &mut expectation
            && !is_readable(shape)
        {
            drop.sight = Sight::Unreadable;
        }
        table.add(plan.expect(kernel_drops(shape).unwrap_or(expectation)));
    }
}

/// Judged before and after the translation.
fn to_node_ports(table: &mut Table<'_>, family: Family, shape: Shape) {
    let door = ingress(Place::W1)[0];
    for from in [Place::Stranger, Place::Edge] {
        let mut plan = crafted(Group::FramesByNodePort, from, Place::W1, family, shape);
        plan.to.1 = INGRESS_HTTP;
        plan.lands = (door.endpoint, door.target_port);
        let mut expectation = table.expected(from, Place::W1, family, Protocol::Tcp, INGRESS_HTTP);
        if let Expectation::Dropped(drop) = &mut expectation
            && !is_readable(shape)
        {
            drop.sight = Sight::Unreadable;
        }
        table.add(plan.expect(kernel_drops(shape).unwrap_or(expectation)));
    }
    let tenants = of_the_tenant(Place::W1);
    for endpoint in [Place::M1, Place::W1] {
        let service = tenants
            .iter()
            .find(|it| it.endpoint == endpoint)
            .expect("one for each node");
        let mut plan = crafted(
            Group::FramesByNodePort,
            Place::Stranger,
            Place::W1,
            family,
            shape,
        );
        plan.to.1 = service.node_port;
        plan.lands = (endpoint, service.target_port);
        let drop = Expectation::Dropped(Drop {
            node: Place::W1,
            reason: Reason::Relayed,
            family,
            protocol: Protocol::Tcp,
            port: service.target_port,
            sight: Sight::Later,
        });
        table.add(plan.expect(kernel_drops(shape).unwrap_or(drop)));
    }
}

/// What the BPF plane reads. Beyond it, nftables decides.
fn is_readable(shape: Shape) -> bool {
    !matches!(shape, Shape::Tags(4) | Shape::DestinationOptions(12))
}

/// Whoever reaches the VXLAN port is a pod of any address that he likes.
fn in_vxlan(table: &mut Table<'_>) {
    for family in FAMILIES {
        for (node, port) in [(Place::M1, 2379), (Place::W1, 10250), (Place::W2, 22)] {
            let mut plan = Plan::direct(Group::Spoofed, Place::Stranger, node, family);
            plan.to.0 = node.overlay(family);
            plan.means = Means::Vxlan {
                to: node,
                source: Place::P1.address(family),
            };
            table.add(
                plan.port(Protocol::Tcp, port)
                    .expect(Expectation::Dropped(Drop {
                        node,
                        reason: Reason::Stranger,
                        // The frame's, whatever it carries.
                        family: Family::V4,
                        protocol: Protocol::Udp,
                        port: FLANNEL_VXLAN,
                        sight: Sight::Wire,
                    })),
            );
        }
    }
}
