//! The loaded plane.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use aya::maps::{MapData, RingBuf};
use aya::programs::{ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfLoader, TestRun, TestRunOptions};
use ebpf_common::event::Event;
use ebpf_common::table::EVENTS;

use super::attach::{self, Attachment, Detached, Device, Links, Mode, Programs};
use super::bpffs::Pins;
use super::counters::{Books, Counters};
use super::error::BpfError;
use super::image::{Changes, Image};
use super::maps::{Maps, taken};
use super::tables::Tables;

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/nodeguard.bpf.o"));
const TCX: &str = "guard_tcx";
const XDP: &str = "guard_xdp";

/// SHA-256 of the embedded BPF object, in hexadecimal digits.
pub const OBJECT_SHA256: &str = env!("NODEGUARD_BPF_SHA256");

/// The programs, their maps and their links.
pub struct Plane {
    bpf: Ebpf,
    maps: Maps,
    books: Books,
    events: RingBuf<MapData>,
    links: Links,
    pins: Pins,
    numbers: Numbers,
    /// Whether links may have been given these programs since the counters were last settled.
    unsettled: bool,
}

/// The kernel's numbers of the programs.
struct Numbers {
    tcx: u32,
    xdp: u32,
}

/// How large a program is in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Its name.
    pub name: &'static str,
    /// Instructions after translation.
    pub instructions: u32,
    /// Instructions that the verifier went through.
    pub verified: u32,
}

impl Plane {
    /// Loads the programs with empty maps, attached to nothing. What runs on the devices is still
    /// what the process before has left.
    ///
    /// # Errors
    /// [`BpfError::Unavailable`] where this can never work; others if it went wrong.
    pub fn load(pins: &Path) -> Result<Self, BpfError> {
        Self::try_load(pins).map_err(BpfError::plainly)
    }

    fn try_load(pins: &Path) -> Result<Self, BpfError> {
        let pins = Pins::prepare(pins)?;
        // Nothing here is relocated by type, and reading the kernel's types takes 50 ms.
        let mut bpf = EbpfLoader::new().btf(None).load(OBJECT)?;
        let tcx: &mut SchedClassifier = program(&mut bpf, TCX)?;
        tcx.load().map_err(|source| refused(TCX, source))?;
        let tcx = number(TCX, tcx.info())?;
        let xdp: &mut Xdp = program(&mut bpf, XDP)?;
        xdp.load().map_err(|source| refused(XDP, source))?;
        let xdp = number(XDP, xdp.info())?;
        Ok(Self {
            maps: Maps::of(&mut bpf)?,
            books: Books::open(&mut bpf, &pins)?,
            events: taken(&mut bpf, EVENTS)?,
            links: Links::at(&pins),
            pins,
            numbers: Numbers { tcx, xdp },
            bpf,
            unsettled: false,
        })
    }

    /// The half of an update that lets more through, for before nftables changes: afterwards
    /// whatever passes under the old policy or under this one passes here.
    ///
    /// # Errors
    /// If the policy does not fit or a map cannot be written. Then no port is isolated here, and
    /// nftables judges alone until an update succeeds.
    pub fn loosen(&mut self, tables: &Tables) -> Result<Changes, BpfError> {
        let next = Image::of(tables).map(|next| self.maps.image.loosened(&next));
        match next.and_then(|next| self.maps.write(&next)) {
            Ok(changes) => Ok(changes),
            Err(error) => {
                self.maps.surrender()?;
                Err(error)
            }
        }
    }

    /// The other half, for after nftables has changed: what is refused by this policy is dropped
    /// here too.
    ///
    /// # Errors
    /// If the policy does not fit or a map cannot be written. What is dropped until the next update
    /// is refused by nftables too.
    pub fn tighten(&mut self, tables: &Tables) -> Result<Changes, BpfError> {
        let next = Image::of(tables)?;
        let slot = |entry: &u32| ebpf_common::table::PortEntry(*entry).slot();
        let mut staying = self.maps.image.ports.clone();
        staying.retain(|index, entry| next.ports.get(index).map(slot) == Some(slot(entry)));
        let moved = self.maps.set_ports(&staying)?;
        self.books.assign(&next.slots)?;
        let mut changes = self.maps.write(&next)?;
        self.maps.image.slots = next.slots;
        changes.ports += moved;
        Ok(changes)
    }

    /// Attaches these programs to these devices, in the network namespace of the calling thread, and
    /// detaches them from all others. Where a program of an earlier process runs, it is replaced
    /// between two packets. The maps must hold a policy by now.
    ///
    /// # Errors
    /// If the folder of pins cannot be read or written. What a single device refuses is reported.
    pub fn attach(&mut self, devices: &[Device]) -> Result<Vec<Attachment>, BpfError> {
        // Whoever unmounted it has taken our pins, not our links.
        self.pins.restore()?;
        let programs = Programs {
            tcx: (descriptor(&self.bpf, TCX)?, self.numbers.tcx),
            xdp: (descriptor(&self.bpf, XDP)?, self.numbers.xdp),
        };
        let report = self.links.follow(devices, &programs)?;
        self.books.succeed()?;
        self.unsettled = true;
        Ok(report)
    }

    /// Asks the kernel whether every link still runs our program on its device: a few system calls
    /// per device, for every second. [`Plane::attach`] mends what is reported.
    ///
    /// # Errors
    /// If the counters of an earlier process cannot be taken over.
    pub fn check(&mut self) -> Result<Vec<Detached>, BpfError> {
        if self.unsettled {
            self.books.settle()?;
            self.unsettled = false;
        }
        Ok(self.links.check())
    }

    /// What has been counted, by this process and those before.
    ///
    /// # Errors
    /// If a map cannot be read.
    pub fn counters(&self) -> Result<Counters, BpfError> {
        self.books.read()
    }

    /// A descriptor that is readable when [`Plane::drain`] has something to hand over.
    ///
    /// # Errors
    /// If this process has too many files open.
    pub fn events(&self) -> std::io::Result<OwnedFd> {
        self.events.as_fd().try_clone_to_owned()
    }

    /// Hands over what is told of dropped packets.
    pub fn drain(&mut self, mut tell: impl FnMut(Event)) {
        while let Some(item) = self.events.next() {
            if let Some(event) = Event::from_bytes(&item) {
                tell(event);
            }
        }
    }

    /// Whether a program drops this frame, without a device: `BPF_PROG_TEST_RUN`. It counts. A
    /// frame for tcx must be sent to 00:00:00:00:00:00, the address of `lo`.
    ///
    /// # Errors
    /// If the kernel does not take the frame; it wants at least an Ethernet header.
    pub fn drops(&self, mode: Mode, frame: &[u8]) -> Result<bool, BpfError> {
        const DROPS: (u32, u32) = (2, 1); // TC_ACT_SHOT, XDP_DROP
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        let (name, dropped) = match mode {
            Mode::Tcx => (TCX, DROPS.0),
            Mode::Xdp => (XDP, DROPS.1),
        };
        let loaded = self.bpf.program(name).ok_or(BpfError::Incomplete(name))?;
        let result = match mode {
            Mode::Tcx => <&SchedClassifier>::try_from(loaded).and_then(|it| it.test_run(options)),
            Mode::Xdp => <&Xdp>::try_from(loaded).and_then(|it| it.test_run(options)),
        };
        let result = result.map_err(|source| refused(name, source))?;
        Ok(result.return_value == dropped)
    }

    /// How large the programs are.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn sizes(&self) -> Result<[ProgramSize; 2], BpfError> {
        let size = |name| -> Result<ProgramSize, BpfError> {
            let loaded = self.bpf.program(name).ok_or(BpfError::Incomplete(name))?;
            let info = loaded.info().map_err(|source| refused(name, source))?;
            Ok(ProgramSize {
                name,
                instructions: info.size_translated().unwrap_or_default() / 8,
                verified: info.verified_instruction_count().unwrap_or_default(),
            })
        };
        Ok([size(TCX)?, size(XDP)?])
    }
}

/// Ends all enforcement by BPF that was set up with this folder, and removes the folder.
///
/// # Errors
/// If something could not be removed.
pub fn teardown(pins: &Path) -> Result<(), BpfError> {
    let pins = Pins::at(pins);
    // Whatever else a folder of that name holds is not ours.
    if !pins.is_bpffs() {
        return Ok(());
    }
    attach::remove_all(&pins)?;
    pins.remove()
}

fn program<'a, P>(bpf: &'a mut Ebpf, name: &'static str) -> Result<P, BpfError>
where
    P: TryFrom<&'a mut aya::programs::Program, Error = ProgramError>,
{
    let found = bpf.program_mut(name).ok_or(BpfError::Incomplete(name))?;
    P::try_from(found).map_err(|source| refused(name, source))
}

fn descriptor<'a>(bpf: &'a Ebpf, name: &'static str) -> Result<BorrowedFd<'a>, BpfError> {
    let loaded = bpf.program(name).ok_or(BpfError::Incomplete(name))?;
    let descriptor = loaded.fd().map_err(|source| refused(name, source))?;
    Ok(descriptor.as_fd())
}

fn number(
    name: &'static str,
    info: Result<aya::programs::ProgramInfo, ProgramError>,
) -> Result<u32, BpfError> {
    Ok(info.map_err(|source| refused(name, source))?.id())
}

fn refused(name: &'static str, source: ProgramError) -> BpfError {
    BpfError::Program {
        name,
        source: Box::new(source),
    }
}
