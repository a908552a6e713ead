//! A host's own cgroups: made below ours, in every hierarchy that the machine has.
//!
//! Control groups are not a namespace's own: a folder that is made in one hierarchy is there for
//! the whole machine, so whoever makes it must also remove it. The machine's mounts of them are not
//! relied upon; in the namespaces of `./x test` there are none.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::mount::{MntFlags, MsFlags, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::folder::Folder;
use crate::real_host::mount;
use crate::wait;

/// How long the kernel may take to give up the cgroups of processes that have just ended.
const SETTLING: Duration = Duration::from_secs(10);

/// One tree of cgroups, and where in it we are ourselves: a line of `/proc/self/cgroup`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    /// As in `cpu,cpuacct` or `name=systemd`; empty for version 2.
    controllers: String,
    /// Our own cgroup, below the hierarchy's root.
    own: PathBuf,
}

/// The machine's hierarchies, mounted on a folder in a mount namespace of our own.
#[derive(Debug)]
pub(crate) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    folder: PathBuf,
}

/// Start of the names of all cgroups that a process makes for its hosts.
///
/// Pids are small and alike in the namespaces of `./x test`; together with the number of the
/// namespace of pids they are one's own on the whole machine.
pub(crate) fn prefix(pid: u32) -> String {
    let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |it| it.ino());
    format!("gatehouse-{namespace}-{pid}-")
}

/// Cgroups of hosts of this process that are there now, by hierarchy and name.
///
/// # Errors
/// If the hierarchies cannot be mounted: without root.
pub fn made_by(pid: u32) -> Result<Vec<String>> {
    // On a thread of its own, which takes its mount namespace with it when it ends.
    thread::spawn(move || -> Result<Vec<String>> {
        mount::detach_from_machine()?;
        let place = Folder::new("cgroups")?;
        let found = Cgroups::mount(place.path()).and_then(|it| it.named(&prefix(pid)));
        // Before the folder is removed: what is mounted in it is no copy.
        umount2(place.path(), MntFlags::MNT_DETACH)?;
        found
    })
    .join()
    .expect("the thread does not panic")
}

/// Reads `/proc/self/cgroup`.
fn hierarchies(lines: &str) -> Result<Vec<Hierarchy>> {
    let mut found = Vec::new();
    for line in lines.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(own)) = (fields.next(), fields.next()) else {
            bail!("/proc/self/cgroup: what is `{line}`?");
        };
        found.push(Hierarchy {
            controllers: controllers.to_owned(),
            own: own.trim_start_matches('/').into(),
        });
    }
    let systemd = "name=systemd";
    // systemd needs one to itself where version 1 is in use; on such a machine it is ours to make.
    if found.iter().any(|it| it.is_version_1()) && !found.iter().any(|it| it.controllers == systemd)
    {
        found.push(Hierarchy {
            controllers: systemd.to_owned(),
            own: PathBuf::new(),
        });
    }
    Ok(found)
}

impl Hierarchy {
    fn is_version_1(&self) -> bool {
        !self.controllers.is_empty()
    }

    /// What systemd expects its mount point to be called where there is more than one.
    fn name(&self) -> &str {
        match self.controllers.as_str() {
            "" => "unified",
            named => named.trim_start_matches("name="),
        }
    }

    fn mount_on(&self, place: &Path) -> Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if !self.is_version_1() {
            return mount::fresh("cgroup2", place, flags, "");
        }
        let options = if self.controllers.starts_with("name=") {
            format!("none,{}", self.controllers)
        } else {
            self.controllers.clone()
        };
        mount::fresh("cgroup", place, flags, &options)
    }
}

impl Cgroups {
    /// Those that [`Cgroups::mount`] has mounted there.
    pub(crate) fn at(folder: &Path) -> Result<Self> {
        let lines = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        Ok(Self {
            hierarchies: hierarchies(&lines)?,
            folder: folder.to_owned(),
        })
    }

    /// Mounts every hierarchy below `folder`. Only in a mount namespace of one's own.
    pub(crate) fn mount(folder: &Path) -> Result<Self> {
        let cgroups = Self::at(folder)?;
        mount::fresh(
            "tmpfs",
            folder,
            MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
            "mode=755",
        )?;
        for hierarchy in &cgroups.hierarchies {
            let place = folder.join(hierarchy.name());
            fs::create_dir(&place)?;
            hierarchy.mount_on(&place)?;
        }
        Ok(cgroups)
    }

    /// Mounts them for a host, on its `/sys/fs/cgroup`: what its systemd finds as its roots are the
    /// cgroups that this process is in now, if it has a cgroup namespace of its own.
    pub(crate) fn mount_inside(&self, place: &Path) -> Result<()> {
        if let [only] = self.hierarchies.as_slice()
            && !only.is_version_1()
        {
            return only.mount_on(place);
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount::fresh("tmpfs", place, flags, "mode=755")?;
        for hierarchy in &self.hierarchies {
            let folder = place.join(hierarchy.name());
            fs::create_dir(&folder)?;
            hierarchy.mount_on(&folder)?;
            // `cpu` and `cpuacct` for `cpu,cpuacct`.
            if hierarchy.controllers.contains(',') {
                for controller in hierarchy.controllers.split(',') {
                    std::os::unix::fs::symlink(hierarchy.name(), place.join(controller))?;
                }
            }
        }
        Ok(())
    }

    /// Makes a cgroup of that name in each.
    pub(crate) fn make(&self, name: &str) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let folder = self.parent(hierarchy).join(name);
            fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
            if hierarchy.controllers.split(',').any(|it| it == "cpuset") {
                // A new one of version 1 has neither cores nor memory, and takes no process.
                for file in ["cpuset.cpus", "cpuset.mems"] {
                    let all = fs::read_to_string(self.parent(hierarchy).join(file))?;
                    fs::write(folder.join(file), all.trim())
                        .with_context(|| format!("write {file}"))?;
                }
            }
        }
        Ok(())
    }

    /// Moves this process into them, and makes them its roots.
    pub(crate) fn enter(&self, name: &str) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let processes = self.parent(hierarchy).join(name).join("cgroup.procs");
            // "0" is who writes it, whatever its pid is called where.
            fs::write(&processes, "0").with_context(|| format!("enter {}", processes.display()))?;
        }
        unshare(CloneFlags::CLONE_NEWCGROUP).context("make a cgroup namespace")
    }

    /// Removes them and all below them. Their processes must have ended.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        for hierarchy in &self.hierarchies {
            let folder = self.parent(hierarchy).join(name);
            let what = format!("{} to be free of processes", folder.display());
            let mut failure = None;
            let removed = wait::until(&what, SETTLING, || match remove_tree(&folder) {
                Ok(()) => Some(()),
                Err(error) => {
                    failure = Some(error);
                    None
                }
            });
            if let Err(late) = removed {
                return Err(failure.map_or(late, |it| anyhow::Error::from(it).context(what)));
            }
        }
        Ok(())
    }

    fn named(&self, prefix: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        for hierarchy in &self.hierarchies {
            for entry in fs::read_dir(self.parent(hierarchy))? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                if name.starts_with(prefix) {
                    found.push(format!("{}/{name}", hierarchy.name()));
                }
            }
        }
        Ok(found)
    }

    /// Where a host's cgroup is made: below ours, so that limits set for us hold for it, too.
    ///
    /// Version 2 lets no cgroup that holds processes, as ours does, hand controllers down; the
    /// nearest above that does hand them down is the place there.
    fn parent(&self, hierarchy: &Hierarchy) -> PathBuf {
        let root = self.folder.join(hierarchy.name());
        if !hierarchy.is_version_1() {
            for above in hierarchy.own.ancestors() {
                let handed_down = root.join(above).join("cgroup.subtree_control");
                if fs::read_to_string(handed_down).is_ok_and(|it| !it.trim().is_empty()) {
                    return root.join(above);
                }
            }
            return root;
        }
        root.join(&hierarchy.own)
    }
}

/// The files in a cgroup go with its folder and cannot be removed before.
fn remove_tree(folder: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_a_hierarchy_and_systemd_gets_one_of_version_1() {
        let found = hierarchies("2:cpu,cpuacct:/a/b\n1:name=systemd:/\n0::/x:y\n").unwrap();
        let names: Vec<_> = found.iter().map(Hierarchy::name).collect();
        assert_eq!(names, ["cpu,cpuacct", "systemd", "unified"]);
        assert_eq!(found[0].own, Path::new("a/b"));
        assert_eq!(found[2].own, Path::new("x:y"));

        let found = hierarchies("3:memory:/\n").unwrap();
        assert_eq!(found[1].controllers, "name=systemd");
        assert_eq!(hierarchies("0::/\n").unwrap().len(), 1);
        assert!(hierarchies("nonsense\n").is_err());
    }
}
