//! Why the fast plane is not there, or not as it should be. nftables enforces either way.

use std::io;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

/// A failure of the fast plane.
#[derive(Debug, Error)]
pub enum BpfError {
    /// This kernel or this process cannot run it at all.
    #[error("the BPF plane cannot run here: {missing}")]
    Unavailable {
        /// What is missing, as a sentence's end.
        missing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The embedded object was refused.
    #[error("the kernel does not take the BPF object")]
    Object(#[from] EbpfError),
    /// A program was refused.
    #[error("the kernel does not take the program {name}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Why.
        #[source]
        source: Box<ProgramError>,
    },
    /// The object lacks something: it is not the one that this program was written for.
    #[error("the BPF object has no {0}")]
    Incomplete(&'static str),
    /// A map could not be read or written.
    #[error("the BPF map {name} cannot be {what}")]
    Map {
        /// Its name.
        name: &'static str,
        /// `read`, `written`, `pinned`.
        what: &'static str,
        /// Why.
        #[source]
        source: MapError,
    },
    /// More than a map holds.
    #[error("{wanted} {what}, and the BPF plane holds {limit}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many the policy has.
        wanted: usize,
        /// How many there is room for.
        limit: u32,
    },
    /// Two ports count under one number.
    #[error("two isolated ports count under number {0}")]
    SharedSlot(u8),
    /// The folder of pins.
    #[error("{}: {what}", path.display())]
    Pins {
        /// Which file or folder.
        path: PathBuf,
        /// What could not be done with it.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What is missing on this machine, if that is all there is to say.
fn missing(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            Some("this process lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN or CAP_SYS_ADMIN")
        }
        Some(libc::ENOSYS) => Some("this kernel has no bpf(2)"),
        Some(libc::ENODEV) => Some("this kernel has no BPF file system"),
        _ => None,
    }
}

impl BpfError {
    /// Says [`BpfError::Unavailable`] where that is the whole story. For loading alone: later, the
    /// same answers of the kernel mean something else.
    pub(super) fn plainly(self) -> Self {
        let source = match &self {
            Self::Object(EbpfError::MapError(MapError::CreateError { io_error, .. })) => io_error,
            Self::Program { source, .. } => match &**source {
                // The verifier says EACCES of a program that it does not like.
                ProgramError::LoadError { io_error, .. }
                    if io_error.raw_os_error() != Some(libc::EACCES) =>
                {
                    io_error
                }
                _ => return self,
            },
            Self::Pins { source, .. } => source,
            _ => return self,
        };
        match (missing(source), source.raw_os_error()) {
            (Some(missing), Some(number)) => Self::Unavailable {
                missing,
                source: io::Error::from_raw_os_error(number),
            },
            _ => self,
        }
    }
}
