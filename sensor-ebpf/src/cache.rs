//! Takes one packet's key and what it adds; gives an updated slot of the running epoch. A slot that must make
//! room goes to the log; when the log is full the new packet goes to the coarse totals instead, so that no
//! packet is ever missing from a total.
#![expect(
    unsafe_code,
    reason = "map memory is reached through pointers; the verifier proves each access"
)]

use aya_ebpf::helpers::bpf_jiffies64;
use flow::{
    FlowKey, Outer, Packet, Slot,
    kernel::{
        Control, Cpu, DOMAIN_INTERNED, DOMAIN_UNKNOWN, NO_REGION, OUTER_PROBES, OUTERS,
        interned_domain, outer_start,
    },
    tcp_flag,
};

use crate::{
    coarse,
    maps::{CONTROL, HASH_SEED, LOG, LOG_SLOTS, OUTER_IDENTITIES, SETS, SETS_PER_EPOCH},
};

/// Odd constants without structure (fractional digits of π and e), one for each word that is hashed.
const MULTIPLIERS: [u64; 6] = [
    0x243f_6a88_85a3_08d3,
    0x1319_8a2e_0370_7345,
    0xa409_3822_299f_31d1,
    0x082e_fa98_ec4e_6c89,
    0x4528_21e6_38d0_1377,
    0xb7e1_5162_8aed_2a6b,
];

/// What one packet adds.
pub(crate) struct Added {
    pub(crate) key: FlowKey,
    pub(crate) length: u64,
    pub(crate) syn: bool,
    syn_bits: u16,
    tcp_flags: u8,
    ttl: u8,
    pub(crate) now: u32,
}

/// Where this CPU writes in the running epoch.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) generation: u32,
    /// Region and half, as the index of a block in each table.
    pub(crate) block: u32,
}

/// Counts one packet.
#[inline(always)]
pub(crate) fn count(cpu: &mut Cpu, packet: &Packet, length: u64) {
    cpu.packets_ip += 1;
    if packet.length_told as u64 > length {
        cpu.packets_cut += 1;
    }
    let Some(control) = CONTROL.get_ptr(0) else { return };
    // SAFETY: the verifier proved the pointer non-null and the field inside the map's value. Volatile,
    // because user space stores to it at any time.
    let generation = unsafe { core::ptr::read_volatile(generation_of(control)) };
    let mut added = added(packet, length);
    let region = cpu.region;
    if region == NO_REGION {
        cpu.packets_folded += 1;
        cpu.stray_packets += 1;
        cpu.stray_bytes += length;
        cpu.stray_syns += u64::from(added.syn);
        return;
    }
    let place = Place { generation, block: region << 1 | (generation & 1) };
    let domain = domain(region, &packet.outer);
    added.key = added.key.with_domain(domain);
    if domain == DOMAIN_UNKNOWN || !insert(cpu, place, &added) {
        cpu.packets_folded += 1;
        coarse::add(place, &added);
    }
}

#[inline(always)]
const fn generation_of(control: *const Control) -> *const u32 {
    // The generation is the first field, which `repr(C)` puts at the start.
    control.cast()
}

#[inline(always)]
fn added(packet: &Packet, length: u64) -> Added {
    let syn = packet.tcp_flags & tcp_flag::SYN != 0;
    let ack = packet.tcp_flags & tcp_flag::ACK != 0;
    let syn_bits = match (syn, ack) {
        (true, false) => Slot::SYN_SEEN,
        (true, true) => Slot::SYN_ACK_SEEN,
        (false, _) => 0,
    };
    // SAFETY: takes no argument and reads the kernel's tick counter; the verifier puts the load in its place.
    let jiffies = unsafe { bpf_jiffies64() };
    Added {
        key: packet.key,
        length,
        syn: syn && !ack,
        syn_bits,
        tcp_flags: packet.tcp_flags,
        ttl: packet.ttl,
        now: jiffies as u32,
    }
}

/// The number of an outer identity: that of a single VLAN tag, or the place in the region's table. A place is written
/// once and never changes, so user space reads its meaning at any later time.
#[inline(always)]
fn domain(region: u32, outer: &Outer) -> u16 {
    if outer.ids == 0 && outer.layers < DOMAIN_INTERNED as u64 {
        return outer.layers as u16;
    }
    let start = outer_start(outer);
    for probe in 0..OUTER_PROBES {
        let place = start.wrapping_add(probe) & (OUTERS - 1);
        let Some(stored) = OUTER_IDENTITIES.get_ptr_mut(region * OUTERS + place) else { break };
        // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region.
        let stored = unsafe { &mut *stored };
        if stored.is_plain() {
            *stored = *outer;
        }
        if stored == outer {
            return interned_domain(place);
        }
    }
    DOMAIN_UNKNOWN
}

/// Mixes the key's words side by side, so that the multiplications overlap.
#[inline(always)]
pub(crate) fn hash(words: [u64; 5]) -> u32 {
    let seed = HASH_SEED.load();
    let mut sum = seed;
    let mut index = 0;
    while index < 5 {
        let product = (words[index] ^ seed).wrapping_mul(MULTIPLIERS[index]);
        sum = sum.wrapping_add(product ^ product >> (29 + index));
        index += 1;
    }
    (sum.wrapping_mul(MULTIPLIERS[5]) >> 32) as u32
}

/// False when the packet found no room: both ways hold other flows and the log is full.
#[inline(always)]
fn insert(cpu: &mut Cpu, place: Place, added: &Added) -> bool {
    let key = &added.key;
    let words =
        [key.source.high, key.source.low, key.destination.high, key.destination.low, key.tail];
    let sets = SETS_PER_EPOCH.load();
    let index = place.block * sets + (hash(words) & (sets - 1));
    let Some(set) = SETS.get_ptr_mut(index) else { return false };
    // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region, and
    // user space reads a half only after every program that wrote it has ended.
    let [first, second] = unsafe { &mut (*set).0 };
    let tag = place.generation as u16;
    if first.generation() == tag && first.key == *key {
        update(first, added);
        return true;
    }
    if second.generation() == tag && second.key == *key {
        update(second, added);
        return true;
    }
    let victim = if first.generation() != tag {
        first
    } else if second.generation() != tag {
        second
    } else {
        // The flow with fewer packets leaves; it is the one less likely to be hit again.
        let victim = if second.packets < first.packets { second } else { first };
        if !log(cpu, place, victim) {
            return false;
        }
        victim
    };
    start(victim, added, tag);
    true
}

#[inline(always)]
fn update(slot: &mut Slot, added: &Added) {
    slot.bytes_generation += added.length << 16;
    slot.packets += 1;
    let elapsed = added.now.wrapping_sub(slot.first);
    let elapsed = if elapsed > Slot::LAST_MAX as u32 { Slot::LAST_MAX } else { elapsed as u16 };
    slot.last_and_syn = slot.last_and_syn & !Slot::LAST_MAX | elapsed | added.syn_bits;
    slot.tcp_flags |= added.tcp_flags;
    let length = saturated(added.length);
    if length < slot.length_min {
        slot.length_min = length;
    }
    if length > slot.length_max {
        slot.length_max = length;
    }
}

#[inline(always)]
fn start(slot: &mut Slot, added: &Added, tag: u16) {
    let length = saturated(added.length);
    slot.key = added.key;
    slot.bytes_generation = added.length << 16 | tag as u64;
    slot.packets = 1;
    slot.first = added.now;
    slot.last_and_syn = added.syn_bits;
    slot.tcp_flags = added.tcp_flags;
    slot.ttl = added.ttl;
    slot.length_min = length;
    slot.length_max = length;
}

#[inline(always)]
const fn saturated(length: u64) -> u16 {
    if length > u16::MAX as u64 { u16::MAX } else { length as u16 }
}

/// Appends a slot to the log of the running epoch; false when the log is full.
#[inline(always)]
fn log(cpu: &mut Cpu, place: Place, slot: &Slot) -> bool {
    let half = (place.generation & 1) as usize;
    let cursor = cpu.log_cursor[half];
    let used = if (cursor >> 32) as u32 == place.generation { cursor as u32 } else { 0 };
    let capacity = LOG_SLOTS.load();
    if used >= capacity {
        return false;
    }
    let Some(target) = LOG.get_ptr_mut(place.block * capacity + used) else { return false };
    let source = core::ptr::from_ref(slot).cast::<u64>();
    let target = target.cast::<u64>();
    // Word by word and volatile, or else LLVM makes one copy of alignment 64 of it, which its BPF backend
    // does not know how to expand.
    let mut word = 0;
    while word < size_of::<Slot>() / 8 {
        // SAFETY: a slot is eight aligned words, and `word` is below eight.
        let from = unsafe { source.add(word) };
        // SAFETY: the verifier proved the target non-null and a whole slot inside the map.
        let to = unsafe { target.add(word) };
        // SAFETY: `from` points into a slot of the cache that only this CPU writes.
        let value = unsafe { core::ptr::read_volatile(from) };
        // SAFETY: only this CPU writes its region of the log.
        unsafe { core::ptr::write_volatile(to, value) };
        word += 1;
    }
    cpu.log_cursor[half] = (place.generation as u64) << 32 | (used + 1) as u64;
    true
}
