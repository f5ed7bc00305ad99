//! The entry points: one for each verdict, with and without frames in several buffers, and the tick reader.
#![expect(
    unsafe_code,
    reason = "map memory and helpers are reached through pointers; the verifier proves each access"
)]

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_xdp_get_buff_len},
    macros::xdp,
    programs::XdpContext,
};
use flow::{
    LinkLayer, Packet, Walk, Walked,
    kernel::{Cpu, not_ip_index},
    parse_common, plain_v4, plain_v6,
};

use crate::{
    cache::{self, Moment},
    carrier, duplicate,
    frame::XdpFrame,
    maps::{CPUS, WALKS},
};

/// Counts, then drops: for an interface that only listens.
#[xdp]
pub(crate) fn count_drop(context: XdpContext) -> u32 {
    count::<false, false>(&context, as_on_the_wire);
    XDP_DROP
}

/// Counts, then passes: for an interface that the machine also uses.
#[xdp]
pub(crate) fn count_pass(context: XdpContext) -> u32 {
    count::<false, false>(&context, as_on_the_wire);
    XDP_PASS
}

/// As `count_drop`, for drivers that give jumbo frames in several buffers.
#[xdp(frags)]
pub(crate) fn count_drop_frags(context: XdpContext) -> u32 {
    count::<true, false>(&context, as_on_the_wire);
    XDP_DROP
}

/// As `count_pass`, for drivers that give jumbo frames in several buffers.
#[xdp(frags)]
pub(crate) fn count_pass_frags(context: XdpContext) -> u32 {
    count::<true, false>(&context, as_on_the_wire);
    XDP_PASS
}

/// As `count_drop`, without the copies that a mirror makes.
#[xdp]
pub(crate) fn deduplicate_drop(context: XdpContext) -> u32 {
    count::<false, true>(&context, as_on_the_wire);
    XDP_DROP
}

/// As `count_pass`, without the copies that a mirror makes.
#[xdp]
pub(crate) fn deduplicate_pass(context: XdpContext) -> u32 {
    count::<false, true>(&context, as_on_the_wire);
    XDP_PASS
}

/// As `deduplicate_drop`, for drivers that give jumbo frames in several buffers.
#[xdp(frags)]
pub(crate) fn deduplicate_drop_frags(context: XdpContext) -> u32 {
    count::<true, true>(&context, as_on_the_wire);
    XDP_DROP
}

/// As `deduplicate_pass`, for drivers that give jumbo frames in several buffers.
#[xdp(frags)]
pub(crate) fn deduplicate_pass_frags(context: XdpContext) -> u32 {
    count::<true, true>(&context, as_on_the_wire);
    XDP_PASS
}

/// Never attached: a test run of it tells user space the clock that the slots are stamped with.
#[xdp]
pub(crate) fn clock(_context: XdpContext) -> u32 {
    // SAFETY: takes no argument and reads the kernel's tick counter.
    let jiffies = unsafe { bpf_jiffies64() };
    jiffies as u32
}

/// Never attached: a test run of it measures what dropping a frame costs when nothing is counted.
#[xdp]
pub(crate) fn floor_drop(_context: XdpContext) -> u32 {
    XDP_DROP
}

/// A packet is counted under the key that it carries, and is what it is.
#[inline(always)]
const fn as_on_the_wire(_packet: &mut Packet) -> u64 {
    0
}

/// Counts one frame, in several buffers or not, without copies or with them: which of these a program is is decided
/// when it is compiled, so that what removes copies costs nothing where it is not asked for.
///
/// `alter` stands between parser and cache: nothing in the product; programs that measure put another flow there and
/// give a number that makes another packet of it, because a test run repeats one and the same frame.
#[inline(always)]
pub(crate) fn count<const FRAGS: bool, const DEDUPLICATE: bool>(
    context: &XdpContext,
    alter: impl Fn(&mut Packet) -> u64,
) {
    // SAFETY: takes no argument; inlined by kernels from 6.10 on.
    let number = unsafe { bpf_get_smp_processor_id() };
    // A CPU number is always inside the table, which has a row for every possible CPU.
    let Some(cpu) = CPUS.get_ptr_mut(number) else { return };
    // SAFETY: the verifier proved the pointer non-null and inside the map; this row is written by this CPU only,
    // but for the epoch, which is read as such.
    let cpu = unsafe { &mut *cpu };
    cpu.frames_seen += 1;
    let moment = Moment::take(cpu);
    let frame = XdpFrame::new(context);
    // Most frames are of these kinds. They have a copy of the cache's instructions to themselves, from which the
    // compiler takes out what never happens to them.
    if let Some(packet) = plain_v4(&frame) {
        return ip::<FRAGS, DEDUPLICATE>(cpu, moment, context, packet, &alter);
    }
    if let Some(packet) = plain_v6(&frame) {
        return ip::<FRAGS, DEDUPLICATE>(cpu, moment, context, packet, &alter);
    }
    if let Some(packet) = parse_common(&frame) {
        carrier::count_carriers(cpu, &packet);
        return ip::<FRAGS, DEDUPLICATE>(cpu, moment, context, packet, &alter);
    }
    if !DEDUPLICATE {
        other::<FRAGS>(context, cpu, &alter);
    } else if other_parsed(context, cpu) {
        other_counted::<FRAGS>(context, cpu, &alter);
    }
}

/// Counts a frame of any other shape. A function of its own, so that the common shapes keep their registers.
#[inline(never)]
fn other<const FRAGS: bool>(
    context: &XdpContext,
    cpu: &mut Cpu,
    alter: &impl Fn(&mut Packet) -> u64,
) {
    let Some(walk) = walk() else { return };
    let moment = Moment::take(cpu);
    if run(context, cpu, walk) {
        let mut packet = walk.packet();
        carrier::count(cpu, &mut packet);
        ip::<FRAGS, false>(cpu, moment, context, packet, alter);
    }
}

/// The first half of the same where copies are removed: says whether there is a packet, which then is where the parser
/// is. In one function the two halves would need more of the stack than there is.
#[inline(never)]
fn other_parsed(context: &XdpContext, cpu: &mut Cpu) -> bool {
    let Some(walk) = walk() else { return false };
    run(context, cpu, walk)
}

/// The second half.
#[inline(never)]
fn other_counted<const FRAGS: bool>(
    context: &XdpContext,
    cpu: &mut Cpu,
    alter: &impl Fn(&mut Packet) -> u64,
) {
    let Some(walk) = walk() else { return };
    let moment = Moment::take(cpu);
    let mut packet = walk.packet();
    carrier::count(cpu, &mut packet);
    ip::<FRAGS, true>(cpu, moment, context, packet, alter);
}

/// Where this CPU's parser is.
#[inline(always)]
fn walk() -> Option<&'static mut Walk> {
    // SAFETY: takes no argument; inlined by kernels from 6.10 on.
    let number = unsafe { bpf_get_smp_processor_id() };
    let walk = WALKS.get_ptr_mut(number)?;
    // SAFETY: the verifier proved the pointer non-null and inside the map; this row is used by this CPU only.
    Some(unsafe { &mut *walk })
}

/// Walks a frame; says whether there is a packet, and counts what else it is.
#[inline(always)]
fn run(context: &XdpContext, cpu: &mut Cpu, walk: &mut Walk) -> bool {
    match walk.run(&XdpFrame::new(context), LinkLayer::Ethernet) {
        Walked::Ip => return true,
        Walked::NotIp(ethertype) => {
            if let Some(counter) = cpu.not_ip.get_mut(not_ip_index(ethertype)) {
                *counter += 1;
            }
        }
        Walked::Malformed(reason) => {
            if let Some(counter) = cpu.malformed.get_mut(reason as usize) {
                *counter += 1;
            }
        }
    }
    false
}

#[inline(always)]
fn ip<const FRAGS: bool, const DEDUPLICATE: bool>(
    cpu: &mut Cpu,
    moment: Moment,
    context: &XdpContext,
    mut packet: Packet,
    alter: &impl Fn(&mut Packet) -> u64,
) {
    let salt = alter(&mut packet);
    let length = if FRAGS {
        // SAFETY: the context pointer is the one that the kernel gave; the helper only reads it.
        unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) }
    } else {
        XdpFrame::new(context).linear_length()
    };
    if DEDUPLICATE && duplicate::is_copy(context, cpu.region, moment.now(), &packet, length, salt) {
        cpu.packets_duplicate += 1;
        return cache::count_packet(cpu, &packet, length);
    }
    cache::count(context, cpu, moment, &packet, length);
}

/// Nothing here can panic: the verifier would reject a program in which this loop is reachable.
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The project's licence; the helpers called here are open to programs of any licence.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 18] = *b"MIT OR Apache-2.0\0";
