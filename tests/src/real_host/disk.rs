//! A host's disk: what it has written over the shared root, and what it is given while it is off.
//!
//! Below its folder: `upper` and `work` of the overlay, a folder for each volume, `merged` and `cgroup` as mount points for
//! the supervisor alone. All of it goes with the value.

use std::fs::{self, DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::folder::Folder;

/// The disk of one host.
#[derive(Debug)]
pub(crate) struct Disk {
    folder: Folder,
    lower: PathBuf,
    volumes: Vec<(PathBuf, String)>,
}

impl Disk {
    pub(crate) fn new(name: &str, lower: &Path) -> Result<Self> {
        let folder = Folder::new(&format!("host-{name}"))?;
        for part in ["upper", "work"] {
            // The host's `/` itself; others than root pass through it.
            DirBuilder::new()
                .mode(0o755)
                .create(folder.path().join(part))?;
        }
        Ok(Self {
            folder,
            lower: lower.to_owned(),
            volumes: Vec::new(),
        })
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file of the host, which is off.
    pub(crate) fn write(&self, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
        let place = self.place(path)?;
        fs::write(&place, bytes).with_context(|| format!("write {}", place.display()))?;
        // Not subject to the umask.
        fs::set_permissions(&place, Permissions::from_mode(mode))?;
        Ok(())
    }

    /// Enables a unit of systemd in the host, which is off: what it says under `[Install]`.
    pub(crate) fn enable(&self, unit: &str) -> Result<()> {
        let mut found = None;
        for folder in ["etc/systemd/system", "usr/lib/systemd/system"] {
            let path = format!("{folder}/{unit}");
            let text = [self.upper(), self.lower.clone()]
                .iter()
                .find_map(|layer| fs::read_to_string(layer.join(&path)).ok());
            if let Some(text) = text {
                found = Some((format!("/{path}"), text));
                break;
            }
        }
        let (path, text) = found.with_context(|| format!("there is no unit {unit}"))?;
        let links = wanted_by(&text);
        if links.is_empty() {
            bail!("{unit} does not say by what it is wanted");
        }
        for folder in links {
            let link = self.place(&format!("/etc/systemd/system/{folder}/{unit}"))?;
            if link.symlink_metadata().is_err() {
                symlink(&path, &link)?;
            }
        }
        Ok(())
    }

    /// Makes a folder of the host one of this disk by itself, without the overlay.
    pub(crate) fn make_volume(&mut self, path: &str) -> Result<()> {
        // So that nothing on the way to the mount point is a symlink, which might lead anywhere.
        self.place(&format!("{path}/inside"))?;
        let plain = self.folder().join(format!("volume-{}", self.volumes.len()));
        DirBuilder::new().mode(0o755).create(&plain)?;
        self.volumes.push((plain, path.to_owned()));
        Ok(())
    }

    /// Where each volume is on this disk, and in the host.
    pub(crate) fn volumes(&self) -> &[(PathBuf, String)] {
        &self.volumes
    }

    fn upper(&self) -> PathBuf {
        self.folder().join("upper")
    }

    /// Where a path of the host is on its disk; its parent folders are there afterwards.
    ///
    /// A folder in the upper layer takes the place of a symlink of that name in the lower one, so a
    /// path that leads through one is refused: it would break the host.
    fn place(&self, path: &str) -> Result<PathBuf> {
        let path = Path::new(path);
        let inner = path
            .strip_prefix("/")
            .with_context(|| format!("{} does not begin with a /", path.display()))?;
        if !inner
            .components()
            .all(|it| matches!(it, Component::Normal(_)))
        {
            bail!("{}: plain names only", path.display());
        }
        let parents: Vec<_> = inner.ancestors().skip(1).collect();
        for parent in parents.into_iter().rev() {
            let upper = self.upper().join(parent);
            if upper.is_dir() && !upper.is_symlink() {
                continue;
            }
            if upper.symlink_metadata().is_ok() {
                bail!("/{} is no folder in this host", parent.display());
            }
            match self.lower.join(parent).symlink_metadata() {
                Ok(lower) if lower.is_dir() => {
                    fs::create_dir(&upper)?;
                    chown(&upper, Some(lower.uid()), Some(lower.gid()))?;
                    fs::set_permissions(&upper, lower.permissions())?;
                }
                Ok(_) => bail!("/{} is a symlink: name what it leads to", parent.display()),
                Err(_) => {
                    fs::create_dir(&upper)?;
                    fs::set_permissions(&upper, Permissions::from_mode(0o755))?;
                }
            }
        }
        Ok(self.upper().join(inner))
    }
}

/// The folders in which `systemctl enable` would link a unit with this text.
fn wanted_by(unit: &str) -> Vec<String> {
    let install = unit.split("[Install]").nth(1).unwrap_or_default();
    let mut folders = Vec::new();
    for line in install.lines() {
        for (key, suffix) in [("WantedBy=", "wants"), ("RequiredBy=", "requires")] {
            let names = line.strip_prefix(key).unwrap_or_default();
            folders.extend(names.split_whitespace().map(|it| format!("{it}.{suffix}")));
        }
    }
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_linked_where_it_says() {
        let unit = "[Service]\nWantedBy=no.target\n[Install]\nWantedBy=a.target b.target\nRequiredBy=c.target\n";
        assert_eq!(
            wanted_by(unit),
            ["a.target.wants", "b.target.wants", "c.target.requires"]
        );
        assert!(wanted_by("[Service]\nExecStart=/bin/true\n").is_empty());
    }

    #[test]
    fn folders_are_taken_over_with_their_modes_and_symlinks_are_refused() {
        let lower = Folder::new("disk-lower").unwrap();
        fs::create_dir_all(lower.path().join("usr/lib")).unwrap();
        fs::create_dir(lower.path().join("root")).unwrap();
        fs::set_permissions(lower.path().join("root"), Permissions::from_mode(0o700)).unwrap();
        symlink("usr/lib", lower.path().join("lib")).unwrap();
        let disk = Disk::new("disk", lower.path()).unwrap();

        disk.write("/root/.ssh/known", b"x", 0o600).unwrap();
        let mode = |path: &str| disk.upper().join(path).metadata().unwrap().mode() & 0o7777;
        assert_eq!(mode("root"), 0o700);
        assert_eq!(mode("root/.ssh"), 0o755);
        assert_eq!(mode("root/.ssh/known"), 0o600);

        let refused = disk.write("/lib/x", b"", 0o644).unwrap_err().to_string();
        assert!(refused.contains("/lib is a symlink"), "{refused}");
        assert!(disk.write("/usr/../../x", b"", 0o644).is_err());
        assert!(disk.write("x", b"", 0o644).is_err());
    }
}
