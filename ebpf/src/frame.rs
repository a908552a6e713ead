//! A packet's bytes, as the verifier allows them to be read.

use aya_ebpf::programs::TcContext;
use ebpf_common::packet::Frame;

/// How much of a socket buffer is wanted in one piece: every header that is usually there.
const PULLED_BYTES: u32 = 256;

/// From the first byte of the Ethernet header to the end of the first piece.
pub(crate) struct Packet {
    start: usize,
    end: usize,
}

impl Packet {
    #[inline(always)]
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }
}

impl Frame for Packet {
    #[inline(always)]
    fn bytes<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let at = self.start + offset;
        if at + N > self.end {
            return None;
        }
        // SAFETY: the kernel keeps `start..end` readable while the program runs, the comparison
        // above is the one that the verifier demands, and bytes need no alignment.
        Some(unsafe { *(at as *const [u8; N]) })
    }
}

/// Brings the headers into the first piece of the buffer. Only where they are not: the helper makes
/// the buffer writable, which copies one that somebody else looks at as well.
#[inline(always)]
pub(crate) fn pull(context: &TcContext) {
    let wanted = if context.len() < PULLED_BYTES {
        context.len()
    } else {
        PULLED_BYTES
    };
    if context.data() + wanted as usize > context.data_end() {
        // A failure leaves the headers unread, and nftables judges.
        let _ = context.pull_data(wanted);
    }
}
