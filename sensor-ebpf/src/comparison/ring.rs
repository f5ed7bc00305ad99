//! The other usual design, for comparison only: one record a packet through a ring buffer, which user space adds
//! up. What finds the ring full is lost; the adding up is not in its figures.
#![expect(
    unsafe_code,
    reason = "map memory and helpers are reached through pointers; the verifier proves each access"
)]

use aya_ebpf::{
    bindings::{BPF_RB_NO_WAKEUP, xdp_action::XDP_DROP},
    helpers::bpf_ktime_get_coarse_ns,
    macros::{map, xdp},
    maps::RingBuf,
    programs::XdpContext,
};
use flow::{FlowKey, parse_plain};

use crate::{flows::choose, frame::XdpFrame};

/// One packet.
#[repr(C)]
struct Record {
    key: FlowKey,
    now_ns: u64,
    bytes: u32,
    tcp_flags: u32,
}

/// A loader that does not use it makes it smaller.
#[map]
static RING: RingBuf = RingBuf::with_byte_size(32 << 20, 0);

/// Sends a record, then drops. The consumer polls, so that no packet pays for waking it.
#[xdp]
pub(crate) fn ring_drop(context: XdpContext) -> u32 {
    let frame = XdpFrame::new(&context);
    if let Some(mut packet) = parse_plain(&frame) {
        choose(&mut packet);
        // SAFETY: takes no argument and reads the kernel's clock.
        let now_ns = unsafe { bpf_ktime_get_coarse_ns() };
        if let Some(mut entry) = RING.reserve::<Record>(0) {
            entry.write(Record {
                key: packet.key,
                now_ns,
                bytes: frame.linear_length() as u32,
                tcp_flags: packet.tcp_flags as u32,
            });
            entry.submit(BPF_RB_NO_WAKEUP as u64);
        }
    }
    XDP_DROP
}
