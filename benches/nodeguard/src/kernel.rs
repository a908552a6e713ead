//! The system calls that no crate here has: BPF programs made of single instructions, run on frames
//! that are really sent.

#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

/// Numbers of `enum bpf_cmd`, linux/bpf.h.
const PROG_LOAD: libc::c_int = 5;
const PROG_TEST_RUN: libc::c_int = 10;
const LINK_CREATE: libc::c_int = 28;
/// `BPF_PROG_TYPE_XDP`.
const TYPE_XDP: u32 = 6;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `XDP_FLAGS_DRV_MODE`: in the driver, or not at all.
const DRIVER_MODE: u32 = 1 << 2;
/// `BPF_F_TEST_XDP_LIVE_FRAMES`: what the program decides about a frame is done.
const LIVE_FRAMES: u32 = 1 << 1;
/// No helper in use asks for the GPL.
const LICENSE: &CStr = c"Apache-2.0";

/// A loaded XDP program.
#[derive(Debug)]
pub(crate) struct Program(OwnedFd);

/// A program on a device; it goes with this value.
#[derive(Debug)]
pub(crate) struct Link {
    _descriptor: OwnedFd,
}

#[repr(C)]
struct LoadAttributes {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

#[repr(C)]
struct RunAttributes {
    program: u32,
    verdict: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_size_in: u32,
    context_size_out: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

#[repr(C)]
struct LinkAttributes {
    program: u32,
    device: u32,
    attach_type: u32,
    flags: u32,
}

impl Program {
    /// Loads a program of these instructions (`struct bpf_insn`).
    ///
    /// # Errors
    /// With what the verifier says.
    pub(crate) fn load(instructions: &[u64]) -> Result<Self> {
        let mut log = vec![0_u8; 1 << 16];
        let mut attributes = LoadAttributes {
            kind: TYPE_XDP,
            instruction_count: number(instructions.len()),
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: 1,
            log_size: number(log.len()),
            log: log.as_mut_ptr() as u64,
        };
        // SAFETY: the attributes are those of BPF_PROG_LOAD; the instructions, the license and the
        // log that they point at live until the call is over, and the kernel writes to the log only.
        let descriptor = unsafe { bpf(PROG_LOAD, &mut attributes) };
        let descriptor = descriptor.with_context(|| {
            let text = String::from_utf8_lossy(&log);
            format!("load a program: {}", text.trim_end_matches('\0'))
        })?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }))
    }

    /// Runs it on `count` copies of `frame`, `batch` at a time, and sends them where it says. In
    /// the network namespace of this thread, on its CPU; what the frames set off there is done
    /// when this returns.
    ///
    /// # Errors
    /// If the kernel refuses (Linux 5.18 and newer take it).
    pub(crate) fn send(&self, frame: &[u8], count: u32, batch: u32) -> Result<()> {
        let mut attributes = RunAttributes {
            program: self.descriptor(),
            verdict: 0,
            data_size_in: number(frame.len()),
            data_size_out: 0,
            data_in: frame.as_ptr() as u64,
            data_out: 0,
            repeat: count,
            duration: 0,
            context_size_in: 0,
            context_size_out: 0,
            context_in: 0,
            context_out: 0,
            flags: LIVE_FRAMES,
            cpu: 0,
            batch_size: batch,
            padding: 0,
        };
        // SAFETY: the attributes are those of BPF_PROG_TEST_RUN; the frame outlives the call, the
        // kernel only reads it, and with live frames it writes nothing back.
        unsafe { bpf(PROG_TEST_RUN, &mut attributes) }.context("run a program on live frames")?;
        Ok(())
    }

    /// Attaches it to a device of this thread's namespace, in the driver.
    ///
    /// # Errors
    /// If the device has a program already.
    pub(crate) fn attach(&self, device: u32) -> Result<Link> {
        let mut attributes = LinkAttributes {
            program: self.descriptor(),
            device,
            attach_type: ATTACH_XDP,
            flags: DRIVER_MODE,
        };
        // SAFETY: the attributes are those of BPF_LINK_CREATE and point at nothing.
        let descriptor =
            unsafe { bpf(LINK_CREATE, &mut attributes) }.context("attach a program")?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Link {
            _descriptor: descriptor,
        })
    }

    fn descriptor(&self) -> u32 {
        u32::try_from(self.0.as_raw_fd()).expect("descriptors are not negative")
    }
}

/// Gives this thread its core for as long as it wants it. A nice value would not do: it counts
/// within a control group or session only.
///
/// # Errors
/// Without root.
pub(crate) fn take_precedence() -> Result<()> {
    let lowest = libc::sched_param { sched_priority: 1 };
    // SAFETY: 0 is the calling thread, and the kernel reads the parameter during the call.
    match unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &lowest) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()).context("sched_setscheduler"),
    }
}

/// # Safety
///
/// `A` has to begin like the part of `union bpf_attr` that belongs to the command, and what it
/// points at has to be valid for it.
unsafe fn bpf<A>(command: libc::c_int, attributes: &mut A) -> io::Result<RawFd> {
    let pointer: *mut A = attributes;
    // SAFETY: the kernel reads and writes size_of::<A>() bytes at most, which are ours; the rest is
    // for the caller to see to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<A>()) };
    match RawFd::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

fn number(length: usize) -> u32 {
    u32::try_from(length).expect("programs and frames are short")
}
