//! The keys of one host: its sshd's own, and the one that it lets in as root.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::disk::Disk;
use crate::folder;
use crate::tool::Tool;

#[derive(Debug)]
pub(crate) struct Keys {
    folder: PathBuf,
    host_key: String,
}

impl Keys {
    /// Makes both and puts onto the disk what the host is to have of them.
    pub(crate) fn make(disk: &Disk) -> Result<Self> {
        let folder = disk.folder().join("keys");
        fs::create_dir(&folder)?;
        let (host_secret, host_key) = generate(&folder, "host")?;
        let (_, client_key) = generate(&folder, "client")?;
        disk.write("/etc/ssh/ssh_host_ed25519_key", &host_secret, 0o600)?;
        disk.write(
            "/etc/ssh/ssh_host_ed25519_key.pub",
            host_key.as_bytes(),
            0o644,
        )?;
        disk.write("/root/.ssh/authorized_keys", client_key.as_bytes(), 0o600)?;
        let host_key = host_key.trim().to_owned();
        folder::write(&folder.join("known_hosts"), format!("* {host_key}\n"))?;
        Ok(Self { folder, host_key })
    }

    pub(crate) fn host_key(&self) -> &str {
        &self.host_key
    }

    /// ssh that believes this host alone.
    pub(crate) fn ssh(&self, address: IpAddr, line: &str) -> Tool {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let mut arguments = vec!["-F".into(), "/dev/null".into(), "-i".into(), path("client")];
        for option in [
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "GlobalKnownHostsFile=/dev/null",
            "ConnectTimeout=10",
            "LogLevel=ERROR",
            &format!("UserKnownHostsFile={}", path("known_hosts")),
        ] {
            arguments.extend(["-o".to_owned(), option.to_owned()]);
        }
        arguments.extend([format!("root@{address}"), "--".to_owned(), line.to_owned()]);
        Tool::new("ssh").args(arguments)
    }
}

/// The secret key, and the public one without a comment.
fn generate(folder: &Path, name: &str) -> Result<(Vec<u8>, String)> {
    let secret = folder.join(name);
    Tool::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "", "-f"])
        .args([&secret])
        .succeed()
        .context("make a key")?;
    let public = fs::read_to_string(secret.with_extension("pub"))?;
    Ok((fs::read(&secret)?, public))
}
