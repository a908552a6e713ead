//! Whether `nodeguard.yaml` and the peer files agree with each other: the check over all at once.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use super::{GuardConfig, Node, PeerFile, Router};
use crate::document::Position;
use crate::error::{ConfigError, ConfigErrors, quoted};
use crate::net::IpRange;

/// Refuses files that contradict each other: another cluster's peers, a name or a node's address
/// that stands in two files, this node with another role, and peers that cannot be told from the
/// cluster's pods, which would let the pods in.
///
/// # Errors
/// Every contradiction, at the later of two places.
pub fn agree<'a>(
    file: &Path,
    config: &'a GuardConfig,
    peers: impl IntoIterator<Item = (&'a Path, &'a PeerFile)>,
) -> Result<(), ConfigErrors> {
    let mut check = Check {
        config,
        names: BTreeMap::new(),
        addresses: BTreeMap::new(),
        errors: Vec::new(),
    };
    for router in &config.routers {
        check.router(file, router);
    }
    for (file, peers) in peers {
        if peers.cluster != config.cluster {
            let message = format!(
                "these are peers of {}, this node belongs to {}",
                quoted(&peers.cluster),
                quoted(&config.cluster)
            );
            check.refuse(file, peers.position, "cluster", message);
        }
        for node in &peers.nodes {
            check.node(file, node);
        }
        for router in &peers.routers {
            check.router(file, router);
        }
    }
    match ConfigErrors::from_errors(check.errors) {
        Some(errors) => Err(errors),
        None => Ok(()),
    }
}

struct Check<'a> {
    config: &'a GuardConfig,
    names: BTreeMap<&'a str, (&'a Path, Position)>,
    addresses: BTreeMap<IpAddr, &'a str>,
    errors: Vec<ConfigError>,
}

impl<'a> Check<'a> {
    fn node(&mut self, file: &'a Path, node: &'a Node) {
        self.name(file, "nodes", &node.name, node.position);
        for address in &node.addresses {
            if let Some(other) = self.addresses.insert(*address, &node.name)
                && other != node.name
            {
                let message = format!("{address} is already an address of {}", quoted(other));
                self.refuse(file, node.position, "nodes", message);
            }
            self.apart_from_pods(file, node.position, "nodes", IpRange::single(*address));
        }
        if node.name == self.config.node && node.role != self.config.role {
            let message = format!(
                "this node is a {} here and a {} in its own file",
                node.role, self.config.role
            );
            self.refuse(file, node.position, "nodes", message);
        }
    }

    fn router(&mut self, file: &'a Path, router: &'a Router) {
        self.name(file, "routers", &router.name, router.position);
        for range in &router.addresses {
            self.apart_from_pods(file, router.position, "routers", *range);
        }
    }

    fn name(&mut self, file: &'a Path, field: &str, name: &'a str, position: Position) {
        // Within one file its own parser has refused a name that stands twice.
        match self.names.get(name) {
            Some((other, first)) if *other != file => {
                let place = format!("{}:{}", other.display(), first.line);
                let message = format!("{} stands in {place} already", quoted(name));
                self.refuse(file, position, field, message);
            }
            Some(_) => {}
            None => drop(self.names.insert(name, (file, position))),
        }
    }

    fn apart_from_pods(&mut self, file: &Path, position: Position, field: &str, range: IpRange) {
        let pods = &self.config.pods.ranges;
        if let Some(pods) = pods.iter().find(|pods| pods.overlaps(&range)) {
            let message = format!("{range} overlaps the pods' {pods}: pods would be let in");
            self.refuse(file, position, field, message);
        }
    }

    fn refuse(&mut self, file: &Path, position: Position, field: &str, message: String) {
        self.errors.push(ConfigError {
            file: file.to_owned(),
            position,
            field: field.to_owned(),
            message,
            help: None,
            source_line: None,
        });
    }
}
