//! Takes a packet that found room in neither cache nor log; gives exact totals by the source's prefix, destination,
//! destination port, protocol and domain. What finds no place even here is added to the region's rest, which always
//! has room.
#![expect(
    unsafe_code,
    reason = "map memory is reached through pointers; the verifier proves each access"
)]

use flow::{
    Address,
    kernel::{COARSE_PLACES, COARSE_SLOTS, CoarseSlot},
};

use crate::{
    cache::{Added, Place, hash},
    maps::COARSE,
};

/// Places of the table that are tried before the rest takes the packet.
const PROBES: u32 = 4;

/// Adds one packet to the totals of its coarse key.
#[inline(always)]
pub(crate) fn add(place: Place, added: &Added<'_>) {
    let destination = added.key.destination;
    let tail = CoarseSlot::tail_of(&added.key);
    let base = place.block * COARSE_SLOTS;
    let start = hash([0, 0, destination.high, destination.low, tail], COARSE_PLACES);
    for probe in 0..PROBES {
        // The first slot is the rest.
        let offset = 1 + (start.wrapping_add(probe) & (COARSE_PLACES - 1));
        let Some(slot) = COARSE.get_ptr_mut(base + offset) else { break };
        // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region.
        let slot = unsafe { &mut *slot };
        if slot.generation != place.generation {
            begin(slot, place, destination, tail, added);
            return;
        }
        if slot.destination == destination && slot.tail == tail {
            increase(slot, added);
            return;
        }
    }
    let Some(slot) = COARSE.get_ptr_mut(base) else { return };
    // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region.
    let slot = unsafe { &mut *slot };
    if slot.generation == place.generation {
        increase(slot, added);
    } else {
        begin(slot, place, Address { high: 0, low: 0 }, 0, added);
    }
}

#[inline(always)]
fn begin(slot: &mut CoarseSlot, place: Place, destination: Address, tail: u64, added: &Added<'_>) {
    slot.destination = destination;
    slot.tail = tail;
    slot.packets = 1;
    slot.bytes = added.length;
    slot.syns = added.syn();
    slot.first = added.now;
    slot.last = added.now;
    slot.generation = place.generation;
}

#[inline(always)]
fn increase(slot: &mut CoarseSlot, added: &Added<'_>) {
    slot.packets += 1;
    slot.bytes += added.length;
    slot.syns += added.syn();
    slot.last = added.now;
}
