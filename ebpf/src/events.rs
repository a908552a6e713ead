//! What is told of dropped packets, within a budget.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use ebpf_common::event::Event;
use ebpf_common::packet::Flow;
use ebpf_common::table::{EVENT_BYTES, EVENTS_PER_SECOND, LOST_EVENTS, Reason};

use crate::tables::count;

const NANOSECONDS: u64 = 1_000_000_000;

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(EVENT_BYTES, 0);
#[map]
static BUDGET: PerCpuArray<Spent> = PerCpuArray::with_max_entries(1, 0);

/// What this CPU has sent.
#[repr(C)]
struct Spent {
    second: u64,
    events: u64,
}

/// Sends an event, or counts that none was sent.
#[inline(always)]
pub(crate) fn send(flow: &Flow, reason: Reason, device: u32) {
    if !within_budget() {
        return count(LOST_EVENTS);
    }
    match EVENTS.reserve::<Event>(0) {
        Some(mut entry) => {
            entry.write(Event::new(flow, reason, device));
            entry.submit(0);
        }
        None => count(LOST_EVENTS),
    }
}

#[inline(always)]
fn within_budget() -> bool {
    let Some(spent) = BUDGET.get_ptr_mut(0) else {
        return false;
    };
    // SAFETY: the verifier knows the pointer to be this CPU's element of the map, and the helper
    // takes nothing. The coarse clock is a tenth of the exact one's price.
    unsafe {
        let second = bpf_ktime_get_coarse_ns() / NANOSECONDS;
        if (*spent).second != second {
            (*spent).second = second;
            (*spent).events = 0;
        }
        if (*spent).events >= EVENTS_PER_SECOND as u64 {
            return false;
        }
        (*spent).events += 1;
    }
    true
}
