//! Links: which device runs which program. Each is pinned, so that it outlives the process and the
//! next one can put its program in the place of this one's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::if_nametoindex;

use super::bpffs::{Pins, failure};
use super::error::BpfError;
use super::kernel;

/// A device that is to be guarded, in the network namespace of the calling thread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its index.
    pub index: u32,
    /// Its name, for reports.
    pub name: String,
    /// How. XDP is not for a port of a bridge: it would judge frames that are none of this node's.
    pub mode: Mode,
}

/// Where in the kernel a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// At tcx ingress.
    Tcx,
    /// In the driver.
    Xdp,
}

/// What has become of a device.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether and how.
    pub state: State,
}

/// Whether and how a device is guarded by BPF.
#[derive(Clone, Debug)]
pub enum State {
    /// As was asked.
    Attached(Mode),
    /// At tcx ingress, because XDP was refused.
    Fallback(Refusal),
    /// Not at all: nftables alone.
    Refused(Refusal),
}

/// Why a program could not be attached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Another XDP program sits there, and stays.
    #[error("an XDP program of somebody else is attached")]
    Foreign,
    /// The driver has no native XDP, or not with this MTU or these queues.
    #[error("the driver has no native XDP as it is set up")]
    NoNativeXdp,
    /// Linux older than 6.6.
    #[error("this kernel has no tcx (Linux 6.6)")]
    NoTcx,
    /// Frames do not begin with an Ethernet header there.
    #[error("not an Ethernet device")]
    NotEthernet,
    /// There is no such device any more, or it has another name.
    #[error("no such device")]
    Gone,
    /// Something else.
    #[error("{0}")]
    Other(String),
}

/// A link that no longer enforces, or not for long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Index of the device.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// How it was attached.
    pub mode: Mode,
}

/// The two loaded programs.
pub(super) struct Programs<'a> {
    pub(super) tcx: (BorrowedFd<'a>, u32),
    pub(super) xdp: (BorrowedFd<'a>, u32),
}

/// Index of a device, and how it is attached.
type Place = (u32, Mode);

/// Our links.
pub(super) struct Links {
    folder: PathBuf,
    held: BTreeMap<Place, Held>,
}

struct Held {
    link: OwnedFd,
    name: String,
    program: u32,
}

impl Links {
    pub(super) fn at(pins: &Pins) -> Self {
        Self {
            folder: pins.links(),
            held: BTreeMap::new(),
        }
    }

    /// Makes the links those that are wanted, and says what came of each device.
    pub(super) fn follow(
        &mut self,
        wanted: &[Device],
        programs: &Programs<'_>,
    ) -> Result<Vec<Attachment>, BpfError> {
        let ethernet = ethernet_devices();
        let mut kept = BTreeSet::new();
        let mut report = Vec::new();
        for device in wanted {
            let state = match admit(device, &ethernet) {
                Err(refusal) => State::Refused(refusal),
                Ok(()) => self.guard(device, programs),
            };
            match &state {
                State::Attached(mode) => drop(kept.insert((device.index, *mode))),
                State::Fallback(_) => drop(kept.insert((device.index, Mode::Tcx))),
                // Whatever is still attached is better than nothing.
                State::Refused(_) => {
                    let modes = [Mode::Tcx, Mode::Xdp].into_iter();
                    kept.extend(
                        modes
                            .map(|mode| (device.index, mode))
                            .filter(|&place| is_alive(&self.folder, place)),
                    );
                }
            }
            report.push(Attachment {
                index: device.index,
                name: device.name.clone(),
                state,
            });
        }
        for (key, path) in pinned(&self.folder)? {
            if !kept.contains(&key) {
                self.held.remove(&key);
                remove(&path)?;
            }
        }
        Ok(report)
    }

    /// Asks the kernel about each link; what is reported, [`Links::follow`] mends.
    pub(super) fn check(&self) -> Vec<Detached> {
        let broken = |(&(index, mode), held): (&Place, &Held)| {
            let sound = kernel::link_info(held.link.as_fd())
                .is_ok_and(|info| info.device == index && info.program == held.program);
            // Without its pin, a link lasts as long as this process.
            let pinned = fs::symlink_metadata(path_of(&self.folder, (index, mode))).is_ok();
            (!sound || !pinned).then(|| Detached {
                index,
                name: held.name.clone(),
                mode,
            })
        };
        self.held.iter().filter_map(broken).collect()
    }

    fn guard(&mut self, device: &Device, programs: &Programs<'_>) -> State {
        let refusal = match device.mode {
            Mode::Tcx => None,
            Mode::Xdp => match self.ensure(device, Mode::Xdp, programs.xdp) {
                Ok(()) => return State::Attached(Mode::Xdp),
                Err(error) => Some(xdp_refusal(&error)),
            },
        };
        match (self.ensure(device, Mode::Tcx, programs.tcx), refusal) {
            (Ok(()), None) => State::Attached(Mode::Tcx),
            (Ok(()), Some(refusal)) => State::Fallback(refusal),
            (Err(error), _) => State::Refused(tcx_refusal(&error)),
        }
    }

    /// One link that runs our program: the pinned one if it is alive, else a new one.
    fn ensure(
        &mut self,
        device: &Device,
        mode: Mode,
        (program, number): (BorrowedFd<'_>, u32),
    ) -> io::Result<()> {
        let key = (device.index, mode);
        let path = path_of(&self.folder, key);
        let link = match kernel::open(&path) {
            Ok(pinned) => match revived(&pinned, device.index, program, number)? {
                true => pinned,
                false => {
                    fs::remove_file(&path)?;
                    new_link(device.index, mode, program, &path)?
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Somebody removed the pin; what we hold is attached still.
                match self.held.remove(&key) {
                    Some(held) if revived(&held.link, device.index, program, number)? => {
                        kernel::pin(held.link.as_fd(), &path)?;
                        held.link
                    }
                    _ => new_link(device.index, mode, program, &path)?,
                }
            }
            Err(error) => return Err(error),
        };
        let held = Held {
            link,
            name: device.name.clone(),
            program: number,
        };
        self.held.insert(key, held);
        Ok(())
    }
}

fn admit(device: &Device, ethernet: &BTreeSet<String>) -> Result<(), Refusal> {
    if if_nametoindex(device.name.as_str()) != Ok(device.index) {
        return Err(Refusal::Gone);
    }
    if !ethernet.contains(&device.name) {
        return Err(Refusal::NotEthernet);
    }
    Ok(())
}

/// Whether a link is attached to that device; if so, it runs our program from now on. A dead one was
/// detached by hand, or its device is gone and another has its index.
fn revived(link: &OwnedFd, index: u32, program: BorrowedFd<'_>, number: u32) -> io::Result<bool> {
    let info = kernel::link_info(link.as_fd())?;
    if info.device != index {
        return Ok(false);
    }
    if info.program == number {
        return Ok(true);
    }
    match kernel::update(link.as_fd(), program) {
        Ok(()) => Ok(true),
        // It died since we asked.
        Err(error) if error.raw_os_error() == Some(libc::ENOLINK) => Ok(false),
        Err(error) => Err(error),
    }
}

fn new_link(index: u32, mode: Mode, program: BorrowedFd<'_>, path: &Path) -> io::Result<OwnedFd> {
    let link = attached(index, mode, program)?;
    // A failure closes the only descriptor, and that detaches.
    kernel::pin(link.as_fd(), path)?;
    Ok(link)
}

fn attached(index: u32, mode: Mode, program: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    match mode {
        Mode::Xdp => kernel::attach_xdp(program, index),
        // Somebody else may have claimed the first place for good; any place will do.
        Mode::Tcx => kernel::attach_tcx(program, index, true)
            .or_else(|_| kernel::attach_tcx(program, index, false)),
    }
}

fn xdp_refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        // EEXIST: theirs is a generic one.
        Some(libc::EBUSY | libc::EEXIST) => Refusal::Foreign,
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM | libc::ENOSPC | libc::ERANGE) => {
            Refusal::NoNativeXdp
        }
        Some(libc::ENODEV) => Refusal::Gone,
        _ => Refusal::Other(error.to_string()),
    }
}

fn tcx_refusal(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(libc::EINVAL) => Refusal::NoTcx,
        Some(libc::ENODEV) => Refusal::Gone,
        _ => Refusal::Other(error.to_string()),
    }
}

/// Names of devices whose frames begin with an Ethernet header; `lo` is none of them.
fn ethernet_devices() -> BTreeSet<String> {
    let Ok(addresses) = getifaddrs() else {
        return BTreeSet::new();
    };
    addresses
        .filter(|entry| {
            let link = entry.address.as_ref().and_then(|it| it.as_link_addr());
            link.is_some_and(|link| link.hatype() == libc::ARPHRD_ETHER)
        })
        .map(|entry| entry.interface_name)
        .collect()
}

fn is_alive(folder: &Path, place: Place) -> bool {
    let info = kernel::open(&path_of(folder, place)).and_then(|it| kernel::link_info(it.as_fd()));
    info.is_ok_and(|info| info.device == place.0)
}

fn path_of(folder: &Path, (index, mode): Place) -> PathBuf {
    match mode {
        Mode::Tcx => folder.join(format!("tcx-{index}")),
        Mode::Xdp => folder.join(format!("xdp-{index}")),
    }
}

/// The pinned links. By index and not by name: a device's name may change and may hold a dot, which
/// the BPF file system does not allow.
fn pinned(folder: &Path) -> Result<Vec<(Place, PathBuf)>, BpfError> {
    let unread = |error| failure(folder, "cannot be read", error);
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name();
        let key = name.to_str().and_then(|name| {
            let (mode, index) = name.split_once('-')?;
            let mode = match mode {
                "tcx" => Mode::Tcx,
                "xdp" => Mode::Xdp,
                _ => return None,
            };
            Some((index.parse().ok()?, mode))
        });
        if let Some(key) = key {
            found.push((key, entry.path()));
        }
    }
    Ok(found)
}

/// Detaches and unpins. The pin goes even if the kernel has nothing left to detach.
fn remove(path: &Path) -> Result<(), BpfError> {
    if let Ok(link) = kernel::open(path) {
        // What is dead already answers with an error.
        let _ = kernel::detach(link.as_fd());
    }
    fs::remove_file(path).map_err(|error| failure(path, "cannot be removed", error))
}

/// Detaches everything that is pinned.
pub(super) fn remove_all(pins: &Pins) -> Result<(), BpfError> {
    for (_, path) in pinned(&pins.links())? {
        remove(&path)?;
    }
    Ok(())
}
