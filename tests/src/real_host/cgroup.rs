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
use nix::mount::MsFlags;
use nix::sched::{CloneFlags, unshare};

use crate::real_host::mount;
use crate::wait;

/// How long the kernel may take to give up the cgroups of processes that have just ended.
const SETTLING: Duration = Duration::from_secs(10);

/// Start of the names of all hosts' cgroups, whosever they are.
const PREFIX: &str = "gatehouse-";

/// Far longer than a cgroup of a host that boots has no process yet.
const ABANDONED: Duration = Duration::from_secs(600);

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
/// Pids are small and alike in the namespaces of `./x test`, and cgroups are the whole machine's.
/// With the number of the namespace of pids, and when the process began, no two are alike.
///
/// # Errors
/// If there is no such process any more.
pub fn prefix_of(pid: u32) -> Result<String> {
    let namespace = fs::metadata("/proc/self/ns/pid")?.ino();
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The 22nd field; the second, in parentheses, may hold anything.
    let began = stat
        .rsplit(')')
        .next()
        .and_then(|it| it.split_whitespace().nth(19));
    let began = began.with_context(|| format!("/proc/{pid}/stat: what is `{stat}`?"))?;
    Ok(format!("{PREFIX}{namespace}-{pid}-{began}-"))
}

/// Cgroups whose names begin like this, by hierarchy and name; see [`prefix_of`].
///
/// # Errors
/// If the hierarchies cannot be mounted: without root.
pub fn named(prefix: &str) -> Result<Vec<String>> {
    let prefix = prefix.to_owned();
    with_all(move |cgroups| cgroups.named(&prefix))
}

/// Does something with all hierarchies, on a thread that takes its mount namespace with it.
fn with_all<T: Send + 'static>(
    action: impl FnOnce(&Cgroups) -> Result<T> + Send + 'static,
) -> Result<T> {
    thread::spawn(|| -> Result<T> {
        mount::detach_from_machine()?;
        // Any folder will do, and one that is there already is no trace.
        action(&Cgroups::mount(&std::env::temp_dir())?)
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
        self.sweep()?;
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

    /// Removes what runs have left that were killed with all their processes at once, as Ctrl-C
    /// does to `./x test`: nobody was left to remove it then.
    fn sweep(&self) -> Result<()> {
        // Only version 2 tells of processes that are not in our own namespace of pids.
        let Some(oracle) = self.hierarchies.iter().find(|it| !it.is_version_1()) else {
            return Ok(());
        };
        for hierarchy in &self.hierarchies {
            for entry in fs::read_dir(self.parent(hierarchy))? {
                let entry = entry?;
                if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
                    continue;
                }
                let events = self.parent(oracle).join(entry.file_name());
                let events = fs::read_to_string(events.join("cgroup.events"));
                let used = events.is_ok_and(|it| it.contains("populated 1"));
                let changed = entry.metadata().and_then(|it| it.modified());
                let old = changed.is_ok_and(|it| it.elapsed().is_ok_and(|it| it > ABANDONED));
                if old && !used {
                    // Another run may do the same at the same time.
                    let _ = remove_tree(&entry.path());
                }
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
    use std::process::Command;
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn only_what_is_old_and_empty_is_swept_away() {
        let prefix = prefix_of(std::process::id()).unwrap();
        let left = with_all(move |cgroups| {
            let hierarchy = cgroups.hierarchies.last().unwrap();
            let make = |name: &str, age: Duration| {
                let folder = cgroups.parent(hierarchy).join(format!("{prefix}{name}"));
                fs::create_dir_all(folder.join("inner"))?;
                let handle = fs::File::open(&folder)?;
                handle.set_modified(SystemTime::now() - age)?;
                anyhow::Ok(folder)
            };
            let new = make("new", Duration::ZERO)?;
            make("old", ABANDONED * 2)?;
            let used = make("used", ABANDONED * 2)?;
            let mut process = Command::new("sleep").arg("600").spawn()?;
            let joined = fs::write(used.join("cgroup.procs"), process.id().to_string());
            cgroups.sweep()?;
            let left = cgroups.named(&prefix)?;
            let inner = used.join("inner").is_dir();
            process.kill()?;
            process.wait()?;
            remove_tree(&new)?;
            remove_tree(&used)?;
            joined?;
            Ok((left, inner))
        });
        let (left, inner) = left.unwrap();
        let ends: Vec<_> = left.iter().filter_map(|it| it.rsplit('-').next()).collect();
        assert_eq!(ends.len(), 2, "{left:?}");
        assert!(ends.contains(&"new") && ends.contains(&"used") && inner);
    }

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
