//! Takes a packet that is not of the plain case; counts what it was carried in and what is to be told of it, and
//! gives a later fragment the ports of its first one.
#![expect(
    unsafe_code,
    reason = "map memory is reached through pointers; the verifier proves each access"
)]

use aya_ebpf::helpers::bpf_jiffies64;
use flow::{
    FRAGMENTS, Fragment, Notes, Packet, fragment_place,
    kernel::{CARRIED_MPLS, CARRIED_VLAN, Cpu, FRAGMENT_TICKS_MAX, NO_REGION},
};

use crate::maps::FIRST_FRAGMENTS;

/// Counts a packet beside its flow.
#[inline(always)]
pub(crate) fn count(cpu: &mut Cpu, packet: &mut Packet) {
    for (bit, counter) in cpu.noted.iter_mut().enumerate() {
        if packet.notes.has(Notes(1 << bit)) {
            *counter += 1;
        }
    }
    count_carriers(cpu, packet);
    match packet.fragment {
        Fragment::Whole => {}
        Fragment::First(identification) => {
            cpu.fragments[0] += 1;
            remember(cpu, packet, identification);
        }
        Fragment::Later(identification) => {
            let known = recall(cpu, packet, identification);
            cpu.fragments[if known { 1 } else { 2 }] += 1;
        }
    }
}

/// Counts what a packet was carried in.
#[inline(always)]
pub(crate) fn count_carriers(cpu: &mut Cpu, packet: &Packet) {
    if packet.outer.is_plain() {
        return;
    }
    if packet.outer.vlans().0[0] != 0 {
        cpu.carried[CARRIED_VLAN] += 1;
    }
    if packet.outer.mpls_label().is_some() {
        cpu.carried[CARRIED_MPLS] += 1;
    }
    for kind in packet.outer.kind_numbers() {
        if kind != 0
            && let Some(counter) = cpu.carried.get_mut(kind)
        {
            *counter += 1;
        }
    }
}

#[inline(always)]
fn remember(cpu: &Cpu, packet: &Packet, identification: u32) {
    if let Some(slot) = slot(cpu, packet, identification) {
        // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region.
        unsafe { &mut *slot }.remember(packet, identification, now());
    }
}

#[inline(always)]
fn recall(cpu: &Cpu, packet: &mut Packet, identification: u32) -> bool {
    let Some(slot) = slot(cpu, packet, identification) else { return false };
    // SAFETY: the verifier proved the pointer non-null and inside the map; only this CPU writes its region.
    let slot = unsafe { &*slot };
    match slot.recall(packet, identification, now(), FRAGMENT_TICKS_MAX) {
        Some(key) => {
            packet.key = key;
            true
        }
        None => false,
    }
}

#[inline(always)]
fn slot(cpu: &Cpu, packet: &Packet, identification: u32) -> Option<*mut flow::FragmentSlot> {
    if cpu.region == NO_REGION {
        return None;
    }
    let place = fragment_place(&packet.key, identification);
    FIRST_FRAGMENTS.get_ptr_mut(cpu.region * FRAGMENTS + place)
}

#[inline(always)]
fn now() -> u32 {
    // SAFETY: takes no argument and reads the kernel's tick counter; the verifier puts the load in its place.
    (unsafe { bpf_jiffies64() }) as u32
}
