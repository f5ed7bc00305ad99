//! Takes the key of a packet with SYN that begins a slot; notes when it came, and at a SYN-ACK how long after its SYN.
//! The only place that reads the precise clock: packets without SYN, and those that hit a slot, never come here.
#![expect(
    unsafe_code,
    reason = "map memory and helpers are reached through pointers; the verifier proves each access"
)]

use aya_ebpf::helpers::bpf_ktime_get_ns;
use flow::{FlowKey, HandshakeSlot, handshake_fingerprint, handshake_place};

use crate::maps::{HANDSHAKE_TIMES, HASH_FACTORS};

/// Notes a SYN, or a SYN-ACK. The key is given by value, so that the callers keep theirs in registers.
#[inline(always)]
pub(crate) fn note(key: FlowKey, is_syn: bool) {
    note_apart(&key, is_syn);
}

/// A function of its own, so that the plain path keeps its registers.
#[inline(never)]
fn note_apart(key: &FlowKey, is_syn: bool) {
    let mut factors = [0; 5];
    let mut index = 0;
    while index < 5 {
        factors[index] = HASH_FACTORS[index].load();
        index += 1;
    }
    let fingerprint = handshake_fingerprint(key, &factors);
    let Some(slot) = HANDSHAKE_TIMES.get_ptr_mut(handshake_place(fingerprint)) else { return };
    // SAFETY: takes no argument and reads the kernel's clock.
    let now_us = unsafe { bpf_ktime_get_ns() } / 1_000;
    // SAFETY: inside the map's value, which the verifier proved.
    let syn = unsafe { &raw mut (*slot).syn };
    // SAFETY: as above.
    let answer = unsafe { &raw mut (*slot).answer };
    let before = HandshakeSlot {
        // SAFETY: aligned and inside the map's value; volatile, because other CPUs store to it.
        syn: unsafe { core::ptr::read_volatile(syn) },
        // SAFETY: as above.
        answer: unsafe { core::ptr::read_volatile(answer) },
    };
    let after = if is_syn {
        before.after_syn(fingerprint, now_us)
    } else {
        before.after_syn_ack(fingerprint, now_us)
    };
    // The two words of an entry may be of two CPUs for a moment; the tag in each tells.
    if after.answer != before.answer {
        // SAFETY: aligned and inside the map's value.
        unsafe { core::ptr::write_volatile(answer, after.answer) };
    }
    if after.syn != before.syn {
        // SAFETY: as above.
        unsafe { core::ptr::write_volatile(syn, after.syn) };
    }
}
