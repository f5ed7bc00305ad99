//! Takes a packet that is about to be counted; tells whether the mirror has delivered it before. Only the programs that
//! remove copies have this; what a copy is, `flow` decides. Each CPU remembers its own packets: both copies of one
//! arrive on the same CPU, because a card spreads frames by addresses and ports.
#![expect(
    unsafe_code,
    reason = "map memory is reached through pointers; the verifier proves each access"
)]

use aya_ebpf::programs::XdpContext;
use flow::{Packet, RECENT_SETS, kernel::NO_REGION, packet_identity, recent_set};

use crate::{
    frame::XdpFrame,
    maps::{COPY_TICKS, IDENTITY_SEED, RECENT_PACKETS},
};

/// Whether this packet, of a frame of this length that came at this tick, is a copy. `salt` makes packets differ that
/// are the same; 0 in the product.
#[inline(always)]
pub(crate) fn is_copy(
    context: &XdpContext,
    region: u32,
    now: u32,
    packet: &Packet,
    length: u64,
    salt: u64,
) -> bool {
    let seed = IDENTITY_SEED.load() ^ salt;
    let identity = packet_identity(&XdpFrame::new(context), packet, length, seed);
    if identity == 0 || region == NO_REGION {
        return false;
    }
    let place = region.wrapping_mul(RECENT_SETS).wrapping_add(recent_set(identity));
    let Some(recent) = RECENT_PACKETS.get_ptr_mut(place) else { return false };
    // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region.
    unsafe { &mut *recent }.is_copy(identity, now, COPY_TICKS.load())
}
