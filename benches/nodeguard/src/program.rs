//! Two XDP programs, instruction by instruction: one sends frames of many sources, one drops.

use crate::frames::Template;

/// `XDP_DROP`.
const DROP: i32 = 1;
/// `BPF_FUNC_get_prandom_u32` and `BPF_FUNC_redirect`.
const RANDOM: i32 = 7;
const REDIRECT: i32 = 23;

/// Sends each frame to `device`, from one of `sources` addresses at random: the last two bytes of
/// the address are `first` and on. The two bytes that keep the checksum right follow.
pub(crate) fn sender(device: u32, template: &Template, first: u16, sources: u16) -> Vec<u64> {
    let length = i32::try_from(template.frame.len()).expect("frames are short");
    let device = i32::try_from(device).expect("device numbers are small");
    vec![
        instruction(0xbf, 6, 1, 0, 0),                     // r6 = context
        instruction(0x85, 0, 0, 0, RANDOM),                // r0 = random
        instruction(0x94, 0, 0, 0, i32::from(sources)),    // w0 %= sources
        instruction(0x04, 0, 0, 0, i32::from(first)),      // w0 += first
        instruction(0x61, 2, 6, 0, 0),                     // r2 = data
        instruction(0x61, 3, 6, 4, 0),                     // r3 = data_end
        instruction(0xbf, 4, 2, 0, 0),                     // r4 = r2
        instruction(0x07, 4, 0, 0, length),                // r4 += length
        instruction(0x2d, 4, 3, 8, 0),                     // if r4 > r3 goto drop
        instruction(0xdc, 0, 0, 0, 16),                    // r0 = big-endian 16 bits of r0
        instruction(0x6b, 2, 0, template.source, 0),       // *(u16 *)(r2 + source) = r0
        instruction(0xa4, 0, 0, 0, 0xffff),                // w0 ^= 0xffff
        instruction(0x6b, 2, 0, template.compensation, 0), // *(u16 *)(r2 + ...) = r0
        instruction(0xb7, 1, 0, 0, device),                // r1 = device
        instruction(0xb7, 2, 0, 0, 0),                     // r2 = 0
        instruction(0x85, 0, 0, 0, REDIRECT),              // r0 = redirect(r1, r2)
        instruction(0x95, 0, 0, 0, 0),                     // exit
        instruction(0xb7, 0, 0, 0, DROP),                  // drop: r0 = XDP_DROP
        instruction(0x95, 0, 0, 0, 0),                     // exit
    ]
}

/// Drops everything.
pub(crate) fn dropper() -> Vec<u64> {
    vec![
        instruction(0xb7, 0, 0, 0, DROP),
        instruction(0x95, 0, 0, 0, 0),
    ]
}

/// `struct bpf_insn` as a little-endian number.
fn instruction(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    u64::from(code)
        | u64::from(destination | source << 4) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(immediate.cast_unsigned()) << 32
}
