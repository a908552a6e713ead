//! Checks that a run left the machine as it was.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::errno::Errno;

use crate::folder;
use crate::real_host::cgroup;

/// How long the kernel may take to clear away what has just ended.
const SETTLING: Duration = Duration::from_secs(10);

/// What can be left behind or changed: links, named namespaces, mounts, firewall rules, temporary
/// folders, children, cgroups of hosts, and owner and mode of the machine's devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineState {
    links: BTreeSet<String>,
    namespaces: BTreeSet<String>,
    mounts: BTreeSet<String>,
    firewall: Option<String>,
    folders: BTreeSet<String>,
    children: BTreeSet<String>,
    cgroups: BTreeSet<String>,
    devices: BTreeSet<String>,
}

impl MachineState {
    /// Looks at the machine as it is now.
    ///
    /// # Errors
    /// If `/proc`, `/sys` or `ip` cannot be read.
    pub fn capture() -> Result<Self> {
        Ok(Self {
            links: names_in("/sys/class/net"),
            namespaces: names_in("/run/netns"),
            mounts: std::fs::read_to_string("/proc/self/mounts")?
                .lines()
                .map(str::to_owned)
                .collect(),
            firewall: firewall()?,
            folders: names_in(&std::env::temp_dir().to_string_lossy())
                .into_iter()
                .filter(|name| name.starts_with(&folder::prefix()))
                .collect(),
            children: children(),
            cgroups: cgroups()?,
            devices: devices(),
        })
    }

    /// Compares with the machine as it is now.
    ///
    /// # Errors
    /// With the list of everything that came or went.
    pub fn assert_unchanged(&self) -> Result<()> {
        let deadline = Instant::now() + SETTLING;
        loop {
            let differences = self.differences(&Self::capture()?);
            if differences.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!(
                    "the machine is not as it was:\n  {}",
                    differences.join("\n  ")
                );
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Everything that came or went until `now`, in words.
    #[must_use]
    pub fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (kind, before, after) in [
            ("link", &self.links, &now.links),
            ("network namespace", &self.namespaces, &now.namespaces),
            ("mount", &self.mounts, &now.mounts),
            ("temporary folder", &self.folders, &now.folders),
            ("child process", &self.children, &now.children),
            ("cgroup", &self.cgroups, &now.cgroups),
            ("device", &self.devices, &now.devices),
        ] {
            found.extend(
                after
                    .difference(before)
                    .map(|it| format!("{kind} came: {it}")),
            );
            found.extend(
                before
                    .difference(after)
                    .map(|it| format!("{kind} went: {it}")),
            );
        }
        if self.firewall != now.firewall {
            found.push("the nftables ruleset changed".to_owned());
        }
        found
    }
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// The ruleset without its counters; `None` if nobody could have changed one.
///
/// Not by [`crate::tool::Tool`], which gives up after Ctrl-C; this is asked for after it.
fn firewall() -> Result<Option<String>> {
    let nft = ["/usr/sbin/nft", "/sbin/nft"]
        .into_iter()
        .find(|it| Path::new(it).exists());
    let Some(nft) = nft.filter(|_| nix::unistd::geteuid().is_root()) else {
        return Ok(None);
    };
    let output = Command::new(nft)
        .args(["--stateless", "list", "ruleset"])
        .output()?;
    if !output.status.success() {
        bail!(
            "nft list ruleset: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// Those of our hosts; who may not look for them could not have made them.
fn cgroups() -> Result<BTreeSet<String>> {
    match cgroup::named(&cgroup::prefix_of(std::process::id())?) {
        Err(error) if error.downcast_ref() == Some(&Errno::EPERM) => Ok(BTreeSet::new()),
        found => Ok(found?.into_iter().collect()),
    }
}

/// Each with its mode and owner: a host's getty once took the machine's `/dev/null` for its own.
fn devices() -> BTreeSet<String> {
    let Ok(entries) = std::fs::read_dir("/dev") else {
        return BTreeSet::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let of = entry.path().symlink_metadata().ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            Some(format!("{name} {:o} {}:{}", of.mode(), of.uid(), of.gid()))
        })
        .collect()
}

/// Processes whose parent we are.
fn children() -> BTreeSet<String> {
    let own = std::process::id().to_string();
    names_in("/proc")
        .into_iter()
        .filter(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
        .filter_map(|pid| {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            // pid (name) state parent ...; the name may hold anything, even a parenthesis.
            let (name, rest) = stat.rsplit_once(')')?;
            (rest.split_whitespace().nth(1)? == own).then(|| format!("{name})"))
        })
        .collect()
}
