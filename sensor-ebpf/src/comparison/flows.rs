//! Takes the one frame that a test run repeats; gives it to the cache as a packet of another flow each time. Also
//! the parser alone, and what choosing a flow costs by itself.
//!
//! The number of the flow goes into the key after parsing, so that the frame stays as it is: writing to it would
//! make the next read of the parser wait for the store, which does not happen to a frame from a network card. The
//! number is worked out one packet ahead, beside the work on the packet before.
#![expect(
    unsafe_code,
    reason = "a loader finds constants by their symbol names; the state is one CPU's own"
)]

use aya_ebpf::{
    Global,
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    macros::xdp,
    programs::XdpContext,
};
use flow::{Packet, parse_plain};

use crate::{frame::XdpFrame, program};

/// How many flows; 0 makes every packet a new one.
#[unsafe(no_mangle)]
pub(crate) static FLOWS: Global<u32> = Global::new(1);

/// State of the number generator. Writable data of the program, which needs no lookup; a plain integer, because the
/// kernel refuses the types of an object that has cells in its data.
static mut STATE: u64 = 0;
/// The flow that the next packet belongs to.
static mut FLOW: u64 = 0;
/// Packets so far.
static mut PACKETS: u64 = 0;

/// A linear congruential generator of full period (Knuth, MMIX).
const FACTOR: u64 = 6_364_136_223_846_793_005;
const SUMMAND: u64 = 1_442_695_040_888_963_407;

/// Spreads neighbouring numbers over the addresses; odd, so that no two flows become one.
const SPREAD: u32 = 0x9e37_79b1;

/// The number of the flow that this packet belongs to: drawn evenly from [`FLOWS`], or one more than the last.
#[inline(always)]
fn next() -> u32 {
    // SAFETY: a test run uses one CPU, which runs one packet after the other, and user space does not touch it.
    let flow = unsafe { FLOW };
    let flows = FLOWS.load();
    let following = if flows == 0 {
        flow + 1
    } else {
        // SAFETY: as above.
        let state = unsafe { STATE }.wrapping_mul(FACTOR).wrapping_add(SUMMAND);
        // SAFETY: as above.
        unsafe { STATE = state };
        (state >> 32) * flows as u64 >> 32
    };
    // SAFETY: as above.
    unsafe { FLOW = following };
    flow as u32
}

/// Puts the flow's number into the last four bytes of the source address.
#[inline(always)]
pub(crate) fn choose(packet: &mut Packet) -> u64 {
    if FLOWS.load() != 1 {
        packet.key.source.low ^= (next().wrapping_mul(SPREAD) as u64) << 32;
    }
    0
}

/// The same, and no packet is a copy of another.
#[inline(always)]
fn choose_anew(packet: &mut Packet) -> u64 {
    choose(packet);
    // SAFETY: a test run uses one CPU, which runs one packet after the other, and user space does not touch it.
    let salt = unsafe { PACKETS } + 1;
    // SAFETY: as above.
    unsafe { PACKETS = salt };
    salt
}

/// As the product's `count_drop`, on many flows.
#[xdp]
pub(crate) fn flows_drop(context: XdpContext) -> u32 {
    program::count::<false, false>(&context, choose);
    XDP_DROP
}

/// As the product's `deduplicate_drop`, on many flows, where no packet is a copy.
#[xdp]
pub(crate) fn flows_deduplicate_drop(context: XdpContext) -> u32 {
    program::count::<false, true>(&context, choose_anew);
    XDP_DROP
}

/// What choosing a flow costs: chooses, and only drops.
#[xdp]
pub(crate) fn flows_only(_context: XdpContext) -> u32 {
    // The verdict hangs on the number, so that the compiler cannot leave it out.
    if next() == u32::MAX { XDP_PASS } else { XDP_DROP }
}

/// Parses a frame of one of the common shapes, and only drops.
#[xdp]
pub(crate) fn parse_drop(context: XdpContext) -> u32 {
    /// No frame of a measurement adds up to this; the verdict hangs on everything that was parsed.
    const UNLIKELY: u64 = 0x5ca1_ab1e_0ddb_a115;
    let sum = match parse_plain(&XdpFrame::new(&context)) {
        Some(packet) => {
            let key = packet.key;
            let words = key.source.high ^ key.source.low ^ key.destination.high;
            let flags_ttl = (packet.tcp_flags as u64) << 8 | packet.ttl as u64;
            words ^ key.destination.low ^ key.tail ^ flags_ttl
        }
        None => 0,
    };
    if sum == UNLIKELY { XDP_PASS } else { XDP_DROP }
}
