//! Takes a frame; gives its flow to the cache as the product does, and, as the product never does, what follows the
//! transport header to a table.
#![expect(
    unsafe_code,
    reason = "map memory is reached through pointers; the verifier proves each access"
)]

use aya_ebpf::{
    bindings::xdp_action::XDP_DROP,
    btf_maps::Array,
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use flow::{Frame as _, kernel::MMAPABLE};

use crate::{frame::XdpFrame, program};

/// What must never be kept.
#[btf_map]
static PAYLOAD: Array<[u8; 64], 1, { MMAPABLE as usize }> = Array::new();

/// Counts, keeps the beginning of the payload, then drops.
#[xdp]
pub(crate) fn leak_drop(context: XdpContext) -> u32 {
    program::count::<false, false>(&context, |_packet| 0);
    if let Some(payload) = payload(&XdpFrame::new(&context))
        && let Some(kept) = PAYLOAD.get_ptr_mut(0)
    {
        // SAFETY: the verifier proved the pointer non-null and inside the map.
        unsafe { kept.write_unaligned(payload) };
    }
    XDP_DROP
}

/// The first bytes behind a TCP header over IPv4.
#[inline(always)]
fn payload(frame: &XdpFrame) -> Option<[u8; 64]> {
    const NETWORK_OFFSET: usize = 14;
    let [version_length] = frame.bytes::<1>(NETWORK_OFFSET)?;
    let transport_offset = NETWORK_OFFSET + (version_length & 0x0f) as usize * 4;
    let [data_offset] = frame.bytes::<1>(transport_offset + 12)?;
    frame.bytes::<64>(transport_offset + (data_offset >> 4) as usize * 4)
}
