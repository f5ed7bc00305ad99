//! The usual design, for comparison only: an LRU hash table with one value a CPU, updated by each packet, stamped
//! by the coarse clock. What it evicts is lost; what user space pays to read it by system calls is not in its
//! figures.
#![expect(
    unsafe_code,
    reason = "map memory and helpers are reached through pointers; the verifier proves each access"
)]

use aya_ebpf::{
    bindings::xdp_action::XDP_DROP,
    helpers::bpf_ktime_get_coarse_ns,
    macros::{map, xdp},
    maps::LruPerCpuHashMap,
    programs::XdpContext,
};
use flow::{FlowKey, parse_plain};

use crate::{flows::choose, frame::XdpFrame};

/// What is kept for each flow.
#[repr(C)]
#[derive(Clone, Copy)]
struct Totals {
    packets: u64,
    bytes: u64,
    first_ns: u64,
    last_ns: u64,
    tcp_flags: u64,
}

/// Room for a quarter of a million flows; a loader that does not use it makes it smaller.
#[map]
static LRU: LruPerCpuHashMap<FlowKey, Totals> = LruPerCpuHashMap::with_max_entries(262_144, 0);

/// Counts in the LRU table, then drops.
#[xdp]
pub(crate) fn lru_drop(context: XdpContext) -> u32 {
    let frame = XdpFrame::new(&context);
    if let Some(mut packet) = parse_plain(&frame) {
        choose(&mut packet);
        // SAFETY: takes no argument and reads the kernel's clock.
        let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
        let bytes = frame.linear_length();
        let tcp_flags = packet.tcp_flags as u64;
        if let Some(totals) = LRU.get_ptr_mut(&packet.key) {
            // SAFETY: the verifier proved the pointer non-null; the value is this CPU's own.
            let totals = unsafe { &mut *totals };
            totals.packets += 1;
            totals.bytes += bytes;
            totals.last_ns = now_ns;
            totals.tcp_flags |= tcp_flags;
        } else {
            let totals = Totals { packets: 1, bytes, first_ns: now_ns, last_ns: now_ns, tcp_flags };
            // What does not fit is lost, as it is in the designs that this stands for.
            let _full = LRU.insert(&packet.key, &totals, 0);
        }
    }
    XDP_DROP
}
