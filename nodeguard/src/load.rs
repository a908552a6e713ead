//! Reads `nodeguard.yaml` and the peer files, and makes the policy of them.

use std::fs;
use std::path::{Path, PathBuf};

use config::ConfigErrors;
use config::guard::{GuardConfig, PeerFile, agree};
use daemon::files::{parse, yaml_files};

use crate::policy::{GuardedPort, Node, Owner, Policy, role_ports};

/// What the files say, together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// `nodeguard.yaml`.
    pub config: GuardConfig,
    /// The peer files, by name.
    pub peers: Vec<(PathBuf, PeerFile)>,
}

/// Reads `nodeguard.yaml` alone.
///
/// # Errors
/// Everything that is wrong with it.
pub fn load_config(file: &Path) -> Result<GuardConfig, ConfigErrors> {
    parse(file, GuardConfig::parse)
}

/// Reads all files. A folder of peers that is not there holds none.
///
/// # Errors
/// Everything that is wrong with any file, and contradictions between them.
pub fn load(file: &Path) -> Result<Loaded, ConfigErrors> {
    let config = load_config(file)?;
    let mut peers = Vec::new();
    let mut errors = Vec::new();
    let found = match fs::exists(&config.peers) {
        Ok(false) => Ok(Vec::new()),
        _ => yaml_files(&config.peers),
    };
    match found {
        Ok(files) => {
            for file in files {
                match parse(&file, PeerFile::parse) {
                    Ok(content) => peers.push((file, content)),
                    Err(refused) => errors.extend_from_slice(refused.errors()),
                }
            }
        }
        Err(error) => {
            let refused = ConfigErrors::unreadable(&config.peers, &error);
            errors.extend_from_slice(refused.errors());
        }
    }
    let files = peers.iter().map(|(file, content)| (&**file, content));
    if let Err(refused) = agree(file, &config, files) {
        errors.extend_from_slice(refused.errors());
    }
    match ConfigErrors::from_errors(errors) {
        Some(errors) => Err(errors),
        None => Ok(Loaded { config, peers }),
    }
}

/// Every path whose change may change what is loaded.
#[must_use]
pub fn sources(file: &Path, config: Option<&GuardConfig>) -> Vec<PathBuf> {
    let peers = config.map(|config| config.peers.clone());
    std::iter::once(file.to_owned()).chain(peers).collect()
}

impl Loaded {
    /// The policy that the files ask for.
    #[must_use]
    pub fn policy(&self) -> Policy {
        let config = &self.config;
        let extra = config.extra_ports.iter().map(|extra| GuardedPort {
            port: extra.port,
            protocol: extra.protocol,
            name: extra.name.clone(),
            on: Owner::Nodes,
        });
        let nodes = self.peers.iter().flat_map(|(_, file)| &file.nodes);
        let routers = self.peers.iter().flat_map(|(_, file)| &file.routers);
        Policy {
            cluster: config.cluster.clone(),
            node: config.node.clone(),
            role: config.role,
            ports: role_ports().chain(extra).collect(),
            nodes: nodes
                .map(|node| {
                    let (role, addresses) = (node.role, node.addresses.clone());
                    (node.name.clone(), Node { role, addresses })
                })
                .collect(),
            routers: routers
                .chain(&config.routers)
                .map(|router| (router.name.clone(), router.addresses.clone()))
                .collect(),
            pods: config.pods.ranges.clone(),
            pod_ports: config.pods.ports.clone(),
            reverse_path: config.reverse_path,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
cluster: acme
node: w1
role: worker
addresses: [10.0.0.11]
routers: [{name: edge, addresses: [192.0.2.0/28]}]
extra_ports: [{name: exporter, port: 9100, protocol: tcp}]
pods: {ranges: [10.244.0.0/16]}
";
    const PEERS: &str = "\
cluster: acme
nodes:
  - {name: m1, role: master, addresses: [10.0.0.1]}
  - {name: w1, role: worker, addresses: [10.0.0.11]}
";

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("nodeguard.yaml");
        fs::write(&file, CONFIG).unwrap();
        fs::create_dir(folder.path().join("peers.d")).unwrap();
        fs::write(folder.path().join("peers.d/cluster.yaml"), PEERS).unwrap();
        (folder, file)
    }

    #[test]
    fn the_files_make_a_policy() {
        let (_folder, file) = folder();
        let policy = load(&file).unwrap().policy();
        assert_eq!(policy.nodes.len(), 2);
        assert_eq!(policy.routers.len(), 1);
        // Eleven ports of three protocols, the exporter's and VXLAN.
        assert_eq!(policy.isolated().len(), 35);
        assert_eq!(policy.pod_ports, [8443]);
    }

    #[test]
    fn every_file_s_errors_come_at_once() {
        let (folder, file) = folder();
        let add = |name: &str, text: &str| {
            fs::write(folder.path().join("peers.d").join(name), text).unwrap();
        };
        add(
            "a.yaml",
            "cluster: acme\nnodes: [{name: m1, role: master, addresses: [10.0.0.1]}]\n",
        );
        add("b.yaml", "cluster: acme\nnoodes: []\n");
        add(
            "c.yaml",
            "cluster: other\nrouters: [{name: r, addresses: [192.0.2.77]}]\n",
        );
        add("not-mine.txt", "not yaml at all");
        let errors = load(&file).unwrap_err();
        let text = errors.to_string();
        for says in [
            "`m1` stands in",
            "unknown field `noodes`",
            "these are peers of `other`",
        ] {
            assert!(text.contains(says), "{text}");
        }
    }

    #[test]
    fn without_a_folder_there_are_no_peers() {
        let (folder, file) = folder();
        fs::remove_dir_all(folder.path().join("peers.d")).unwrap();
        assert!(load(&file).unwrap().policy().nodes.is_empty());
    }
}
