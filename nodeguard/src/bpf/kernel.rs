//! bpf(2) for links: aya makes and updates them, but cannot say which device one is attached to.
//!
//! The kernel takes a shorter struct than its own and fills the rest with zeros, so that each call
//! has the fields that it needs and no more (`union bpf_attr` of `linux/bpf.h`).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const OBJ_PIN: libc::c_long = 6;
const OBJ_GET: libc::c_long = 7;
const OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const LINK_CREATE: libc::c_long = 28;
const LINK_UPDATE: libc::c_long = 29;
const LINK_DETACH: libc::c_long = 34;

const ATTACH_XDP: u32 = 37;
const ATTACH_TCX_INGRESS: u32 = 46;
const BEFORE: u32 = 1 << 3; // BPF_F_BEFORE, of nobody in particular: first
const DRIVER: u32 = 1 << 2; // XDP_FLAGS_DRV_MODE

/// What the kernel says of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LinkInfo {
    /// Number of the program that runs.
    pub(super) program: u32,
    /// Index of the device; 0 once it is detached.
    pub(super) device: u32,
}

#[repr(C)]
struct Object {
    path: u64,
    file: u32,
    flags: u32,
}

#[repr(C)]
struct Ask {
    file: u32,
    answer_bytes: u32,
    answer: u64,
}

/// The beginning of `struct bpf_link_info`; `device` is the first field for XDP and for tcx.
#[repr(C)]
#[derive(Default)]
struct Answer {
    kind: u32,
    number: u32,
    program: u32,
    gap: u32,
    device: u32,
    attached: u32,
}

#[repr(C)]
struct Create {
    program: u32,
    device: u32,
    attach: u32,
    flags: u32,
    relative: u32,
    gap: u32,
    revision: u64,
}

#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    old_program: u32,
}

/// Opens a pinned object.
pub(super) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let file = bpf(
        OBJ_GET,
        &mut Object {
            path: path.as_ptr() as u64,
            file: 0,
            flags: 0,
        },
    )?;
    owned(file)
}

/// Pins an object.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = &mut Object {
        path: path.as_ptr() as u64,
        file: number(object),
        flags: 0,
    };
    bpf(OBJ_PIN, attributes).map(drop)
}

/// Attaches at tcx ingress, before all others if `first`. It lasts as long as the descriptor or a
/// pin.
pub(super) fn attach_tcx(program: BorrowedFd<'_>, device: u32, first: bool) -> io::Result<OwnedFd> {
    create(
        program,
        device,
        ATTACH_TCX_INGRESS,
        if first { BEFORE } else { 0 },
    )
}

/// Attaches in the driver.
pub(super) fn attach_xdp(program: BorrowedFd<'_>, device: u32) -> io::Result<OwnedFd> {
    create(program, device, ATTACH_XDP, DRIVER)
}

fn create(program: BorrowedFd<'_>, device: u32, attach: u32, flags: u32) -> io::Result<OwnedFd> {
    let attributes = &mut Create {
        program: number(program),
        device,
        attach,
        flags,
        relative: 0,
        gap: 0,
        revision: 0,
    };
    owned(bpf(LINK_CREATE, attributes)?)
}

/// Puts another program in the place of the one that a link runs, between two packets.
pub(super) fn update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attributes = &mut Update {
        link: number(link),
        program: number(program),
        flags: 0,
        old_program: 0,
    };
    bpf(LINK_UPDATE, attributes).map(drop)
}

/// Detaches, whoever else holds the link.
pub(super) fn detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(LINK_DETACH, &mut number(link)).map(drop)
}

/// Asks what a link is attached to.
pub(super) fn link_info(link: BorrowedFd<'_>) -> io::Result<LinkInfo> {
    let mut answer = Answer::default();
    let attributes = &mut Ask {
        file: number(link),
        answer_bytes: size_of::<Answer>() as u32,
        answer: (&raw mut answer) as u64,
    };
    bpf(OBJ_GET_INFO_BY_FD, attributes)?;
    Ok(LinkInfo {
        program: answer.program,
        device: answer.device,
    })
}

fn number(file: BorrowedFd<'_>) -> u32 {
    file.as_raw_fd().unsigned_abs()
}

fn owned(file: libc::c_long) -> io::Result<OwnedFd> {
    let file = RawFd::try_from(file).map_err(io::Error::other)?;
    // SAFETY: only called with what BPF_OBJ_GET and BPF_LINK_CREATE have just answered: a new
    // descriptor, which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(file) })
}

fn bpf<A>(command: libc::c_long, attributes: &mut A) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes at most the given number of bytes at the struct, which
    // lives across the call. The addresses inside it (a path, an answer) are of locals of the
    // callers above, which outlive the call too, and whose sizes are a terminating zero or stand
    // beside them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_mut(attributes),
            size_of::<A>(),
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}
