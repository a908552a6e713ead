//! What is mounted in a host before its systemd starts, and what of it a host may change.
//!
//! Nothing of the machine is bound in but parts of the kernel's own `/proc`, and those that are the
//! whole machine's are read-only. Devices are made, never bound: a `chmod` in a host would reach
//! the machine's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};
use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::real_host::cgroup::Cgroups;
use crate::real_host::mount;

/// Character devices, all with mode 666.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Parts of `/proc` through which root changes the machine and not its own host.
const WHOLE_MACHINE: [&str; 8] = [
    "sys",
    "sysrq-trigger",
    "irq",
    "bus",
    "fs",
    "acpi",
    "scsi",
    "mtrr",
];

/// Settings of the kernel, below `/proc/sys`, that programs insist on writing (all of these:
/// kubelet). A host writes to a copy, which the kernel does not heed.
const COPIED: [&str; 5] = [
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
    "vm/overcommit_memory",
];

/// Where the copies are, below the host's root.
const COPIES: &str = "run/gatehouse/kernel";

pub(crate) fn mount_all(merged: &Path, name: &str, cgroups: &Cgroups) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let inert = safe | MsFlags::MS_NOEXEC;
    let at = |path: &str| merged.join(path);
    mount::fresh("proc", &at("proc"), inert, "")?;
    // Read-only is also what tells systemd that devices are not its to manage.
    mount::fresh("sysfs", &at("sys"), inert | MsFlags::MS_RDONLY, "")?;
    cgroups.mount_inside(&at("sys/fs/cgroup"))?;
    // Each mount of this kind is a tree of its own.
    mount::fresh("bpf", &at("sys/fs/bpf"), inert, "mode=700")?;
    mount::fresh("tmpfs", &at("run"), safe, "mode=755")?;
    mount::fresh("tmpfs", &at("tmp"), safe, "mode=1777")?;
    make_devices(&at("dev"))?;
    // Ours by the namespace that we have just made.
    fs::write(at("proc/sys/kernel/hostname"), name).context("set the host name")?;
    protect_kernel(merged)
}

fn make_devices(dev: &Path) -> Result<()> {
    mount::fresh("tmpfs", dev, MsFlags::MS_NOSUID, "mode=755")?;
    for (name, major, minor) in DEVICES {
        let path = dev.join(name);
        mknod(&path, SFlag::S_IFCHR, Mode::empty(), makedev(major, minor))
            .with_context(|| format!("make {}", path.display()))?;
        // Not by mknod, whose mode is subject to the umask.
        fs::set_permissions(&path, Permissions::from_mode(0o666))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    let quiet = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount::fresh(
        "devpts",
        &dev.join("pts"),
        quiet,
        "newinstance,ptmxmode=666,mode=620,gid=5",
    )?;
    mount::fresh(
        "tmpfs",
        &dev.join("shm"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        "mode=1777",
    )?;
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "fd/0"),
        ("stdout", "fd/1"),
        ("stderr", "fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    Ok(())
}

fn protect_kernel(merged: &Path) -> Result<()> {
    let proc = merged.join("proc");
    let network = proc.join("sys/net");
    let parts: Vec<_> = WHOLE_MACHINE
        .iter()
        .map(|part| proc.join(part))
        .filter(|part| part.exists())
        .collect();
    for part in &parts {
        mount::bind(part, part)?;
    }
    // A mount of its own before what is around it becomes read-only: the network's are the host's.
    mount::bind(&network, &network)?;
    let copies = merged.join(COPIES);
    mount::folder(&copies)?;
    for setting in COPIED {
        let original = proc.join("sys").join(setting);
        let copy = copies.join(setting.replace('/', "."));
        fs::write(
            &copy,
            fs::read(&original).with_context(|| format!("read {setting}"))?,
        )?;
        mount::bind(&copy, &original)?;
    }
    // Every boot has a number of its own; the kernel's is the machine's.
    let boot = copies.join("boot_id");
    fs::write(&boot, fs::read(proc.join("sys/kernel/random/uuid"))?)?;
    let boot_id = proc.join("sys/kernel/random/boot_id");
    mount::bind(&boot, &boot_id)?;
    mount::read_only(&boot_id)?;
    for part in &parts {
        mount::read_only(part)?;
    }
    Ok(())
}
