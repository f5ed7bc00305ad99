//! Takes one packet's key and what it adds; gives an updated slot of the running epoch. Where there is no room, a slot
//! or the packet itself goes to the log; when the log is full the packet goes to the coarse totals instead, so that
//! no packet is ever missing from a total.
#![expect(
    unsafe_code,
    reason = "map memory is reached through pointers; the verifier proves each access"
)]

use core::mem::offset_of;

use aya_ebpf::{EbpfContext as _, bindings::xdp_md, helpers::bpf_jiffies64, programs::XdpContext};
use flow::{
    FlowKey, Fragment, Frame as _, Outer, Packet, Slot, dscp,
    kernel::{
        Cpu, DOMAIN_INTERNED, DOMAIN_UNKNOWN, NO_REGION, OUTER_PROBES, OUTERS, block,
        interned_domain, outer_start,
    },
    tcp_flag,
};

use crate::{
    coarse,
    frame::XdpFrame,
    handshake,
    maps::{HASH_FACTORS, INTERFACES, LOG, LOG_SLOTS, OUTER_IDENTITIES, SETS},
};

/// Where both ways hold other flows, one new flow in this many takes the place of one of them. The packet of any other
/// goes straight to the log, a record of its own: cheaper than to move a slot there and write another in its place,
/// and a flood of flows with one packet each leaves most of the cache to the flows that last. One that lasts is let in
/// after four packets, on average.
const ADMITTED_IN: u32 = 4;

/// When a packet came, and which epoch it belongs to. Taken before the frame is parsed: the compiler takes it that a
/// helper call, though the kernel puts a load in its place, costs half of the registers, and then they are free.
#[derive(Clone, Copy)]
pub(crate) struct Moment {
    epoch: u64,
    now: u32,
}

impl Moment {
    #[inline(always)]
    pub(crate) fn take(cpu: &Cpu) -> Self {
        // SAFETY: a field of a row that is borrowed. Volatile, because user space stores to it at any time.
        let epoch = unsafe { core::ptr::read_volatile(&raw const cpu.epoch) };
        // SAFETY: takes no argument and reads the kernel's tick counter; the verifier puts the load in its place.
        let jiffies = unsafe { bpf_jiffies64() };
        Self { epoch, now: jiffies as u32 }
    }

    /// The tick counter's lower half.
    #[inline(always)]
    pub(crate) const fn now(self) -> u32 {
        self.now
    }

    /// The generation of the epoch.
    #[inline(always)]
    const fn generation(self) -> u32 {
        self.epoch as u32
    }

    /// The first set of this CPU's half.
    #[inline(always)]
    const fn first_set(self) -> u32 {
        (self.epoch >> 32) as u32
    }
}

/// What one packet adds.
pub(crate) struct Added<'a> {
    context: &'a XdpContext,
    pub(crate) key: FlowKey,
    pub(crate) length: u64,
    pub(crate) now: u32,
    /// As in a slot: `last_and_syn` without time, and above it the TCP flags.
    seen: u32,
    ttl: u8,
    /// Where the IP header is.
    network_offset: usize,
    is_fragment: bool,
}

impl Added<'_> {
    /// A SYN without ACK.
    #[inline(always)]
    pub(crate) const fn syn(&self) -> u64 {
        (self.seen / Slot::SYN_SEEN as u32 & 1) as u64
    }
}

/// Where this CPU writes in the running epoch, the cache aside.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    pub(crate) generation: u32,
    /// Region and half, as the index of a block in each table.
    pub(crate) block: u32,
}

impl Place {
    #[inline(always)]
    const fn new(cpu: &Cpu, moment: Moment) -> Self {
        let generation = moment.generation();
        Self { generation, block: block(generation, cpu.region) }
    }
}

/// Counts one packet, whether it gets into a flow or not.
#[inline(always)]
pub(crate) const fn count_packet(cpu: &mut Cpu, packet: &Packet, length: u64) {
    cpu.packets_ip += 1;
    if packet.length_told as u64 > length {
        cpu.packets_cut += 1;
    }
}

/// Counts one packet.
#[inline(always)]
pub(crate) fn count(
    context: &XdpContext,
    cpu: &mut Cpu,
    moment: Moment,
    packet: &Packet,
    length: u64,
) {
    count_packet(cpu, packet, length);
    let domain = domain(cpu.region, &packet.outer);
    let added = Added {
        context,
        key: packet.key.with_domain(domain),
        length,
        now: moment.now,
        seen: seen(packet.tcp_flags),
        ttl: packet.ttl,
        network_offset: packet.network_offset,
        is_fragment: !matches!(packet.fragment, Fragment::Whole),
    };
    if domain == DOMAIN_UNKNOWN || !insert(cpu, moment, &added) {
        fold(cpu, moment, &added);
    }
}

/// Counts a packet that has no slot.
#[inline(always)]
fn fold(cpu: &mut Cpu, moment: Moment, added: &Added<'_>) {
    cpu.packets_folded += 1;
    if cpu.region == NO_REGION {
        cpu.stray_packets += 1;
        cpu.stray_bytes += added.length;
        cpu.stray_syns += added.syn();
    } else {
        coarse::add(Place::new(cpu, moment), added);
    }
}

/// TCP flags as a slot holds them: the byte itself above the two bits for SYN and for SYN with ACK.
#[inline(always)]
const fn seen(tcp_flags: u8) -> u32 {
    let flags = (tcp_flags as u32) << 16;
    if tcp_flags & tcp_flag::SYN == 0 {
        flags
    } else if tcp_flags & tcp_flag::ACK == 0 {
        flags | Slot::SYN_SEEN as u32
    } else {
        flags | Slot::SYN_ACK_SEEN as u32
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

/// A number below `bound`: the highest bits of the sum of all words, each times a factor of its own. The factors are
/// odd, random and secret, so that nobody outside can choose addresses that collide.
#[inline(always)]
pub(crate) fn hash(words: [u64; 5], bound: u32) -> u32 {
    let mut sum: u64 = 0;
    let mut index = 0;
    while index < 5 {
        // Half of an IPv4 address is 0 by construction; where the compiler knows, nothing of this is left.
        if words[index] != 0 {
            sum = sum.wrapping_add(words[index].wrapping_mul(HASH_FACTORS[index].load()));
        }
        index += 1;
    }
    ((sum >> 32) * bound as u64 >> 32) as u32
}

/// False when the packet found no room: both ways hold other flows and the log is full, or this CPU has no region.
#[inline(always)]
fn insert(cpu: &mut Cpu, moment: Moment, added: &Added<'_>) -> bool {
    let key = &added.key;
    let words =
        [key.source.high, key.source.low, key.destination.high, key.destination.low, key.tail];
    let index = moment.first_set().wrapping_add(hash(words, cpu.sets));
    let Some(set) = SETS.get_ptr_mut(index) else { return false };
    // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region, and
    // user space reads a half only after every program that wrote it has ended.
    let [first, second] = unsafe { &mut (*set).0 };
    let tag = moment.generation() as u16;
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
        let Some((target, used)) = reserve(cpu, Place::new(cpu, moment)) else { return false };
        if used % ADMITTED_IN != 0 {
            // SAFETY: the verifier proved the pointer non-null and a whole slot inside the map; only this CPU writes
            // its region of the log.
            start(unsafe { &mut *target }, added, tag);
            return true;
        }
        // The flow with fewer packets leaves; it is the one less likely to be hit again.
        let victim = if second.packets < first.packets { second } else { first };
        copy(victim, target);
        victim
    };
    start(victim, added, tag);
    true
}

#[inline(always)]
fn update(slot: &mut Slot, added: &Added<'_>) {
    slot.bytes_generation += added.length << 16;
    slot.packets += 1;
    // Of the first packet's word only the lowest bits, the time, get through the mask.
    let elapsed = added.now.wrapping_sub(slot.first) & Slot::TICKS_MASK;
    let seen = seen_of(slot);
    *seen = *seen & !Slot::TICKS_MASK | elapsed | added.seen;
    if added.is_fragment {
        slot.first |= Slot::FRAGMENT_SEEN;
    }
    let length = saturated(added.length);
    if length < slot.length_min {
        slot.length_min = length;
    }
    if length > slot.length_max {
        slot.length_max = length;
    }
}

/// The fields `last_and_syn`, `tcp_flags` and `ttl` as one word, in this order from its lowest bit on.
#[inline(always)]
fn seen_of(slot: &mut Slot) -> &mut u32 {
    const OFFSET: usize = offset_of!(Slot, last_and_syn);
    const {
        assert!(OFFSET.is_multiple_of(align_of::<u32>()));
        assert!(offset_of!(Slot, tcp_flags) == OFFSET + 2);
        assert!(offset_of!(Slot, ttl) == OFFSET + 3);
    }
    let word = core::ptr::from_mut(slot).wrapping_byte_add(OFFSET).cast::<u32>();
    // SAFETY: four bytes inside the slot, which is borrowed mutably; aligned, as asserted above, because the slot is;
    // integers all.
    unsafe { &mut *word }
}

#[inline(always)]
fn start(slot: &mut Slot, added: &Added<'_>, tag: u16) {
    let length = saturated(added.length);
    // Read again from the frame, which only a new flow pays for.
    let header = XdpFrame::new(added.context).bytes::<2>(added.network_offset);
    let first = Slot::first_word(
        added.now,
        interface(added.context),
        dscp(header.unwrap_or([0; 2])),
        (added.seen >> 16) as u8,
    );
    slot.key = added.key;
    slot.bytes_generation = added.length << 16 | tag as u64;
    slot.packets = 1;
    slot.first = if added.is_fragment { first | Slot::FRAGMENT_SEEN } else { first };
    *seen_of(slot) = added.seen | (added.ttl as u32) << 24;
    slot.length_min = length;
    slot.length_max = length;
    if added.seen & (Slot::SYN_SEEN | Slot::SYN_ACK_SEEN) as u32 != 0 {
        handshake::note(added.key, added.syn() != 0);
    }
}

/// Which of the sensor's interfaces the frame came in by, from 1; 0 when it is none of them.
#[inline(always)]
fn interface(context: &XdpContext) -> u32 {
    let context = context.as_ptr().cast::<xdp_md>();
    // SAFETY: the context is the one that the kernel gave; the verifier puts the right loads in place of this one.
    let index = unsafe { (*context).ingress_ifindex };
    let mut number = 0;
    while number < INTERFACES.len() {
        if INTERFACES[number].load() == index {
            return number as u32 + 1;
        }
        number += 1;
    }
    0
}

#[inline(always)]
const fn saturated(length: u64) -> u16 {
    if length > u16::MAX as u64 { u16::MAX } else { length as u16 }
}

/// Takes the next free slot of the log of the running epoch, and says how many were taken before; `None` when it is
/// full.
#[inline(always)]
fn reserve(cpu: &mut Cpu, place: Place) -> Option<(*mut Slot, u32)> {
    let half = (place.generation & 1) as usize;
    let cursor = cpu.log_cursor[half];
    let used = if (cursor >> 32) as u32 == place.generation { cursor as u32 } else { 0 };
    let capacity = LOG_SLOTS.load();
    if used >= capacity {
        return None;
    }
    let target = LOG.get_ptr_mut(place.block * capacity + used)?;
    cpu.log_cursor[half] = (place.generation as u64) << 32 | (used + 1) as u64;
    Some((target, used))
}

/// Copies a slot into the log.
#[inline(always)]
fn copy(slot: &Slot, target: *mut Slot) {
    let source = core::ptr::from_ref(slot).cast::<u64>();
    let target = target.cast::<u64>();
    // Word by word and volatile, or else LLVM makes one copy of alignment 64 of it, which its BPF backend
    // does not know how to expand.
    let mut word = 0;
    while word < size_of::<Slot>() / 8 {
        // SAFETY: a slot is eight aligned words, and `word` is below eight.
        let from = unsafe { source.add(word) };
        // SAFETY: the verifier proved the target a whole slot inside the map.
        let to = unsafe { target.add(word) };
        // SAFETY: `from` points into a slot of the cache that only this CPU writes.
        let value = unsafe { core::ptr::read_volatile(from) };
        // SAFETY: only this CPU writes its region of the log.
        unsafe { core::ptr::write_volatile(to, value) };
        word += 1;
    }
}
