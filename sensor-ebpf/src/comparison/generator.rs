//! A generator of frames: takes a UDP or TCP frame over IPv4 that `BPF_PROG_TEST_RUN` repeats as live frames; gives
//! it to an interface under the addresses of one flow after the other.
//!
//! The flow's number becomes the source, 10.0.0.0 and onwards, with the next source port after 2^24 addresses. The
//! IPv4 checksum is right; the transport checksum is left as it is, so a UDP frame brings 0 (none).
#![expect(
    unsafe_code,
    reason = "packet and map memory is reached through pointers; the verifier proves each access"
)]

use aya_ebpf::{
    Global,
    bindings::xdp_action::XDP_ABORTED,
    helpers::bpf_redirect,
    macros::{map, xdp},
    maps::Array,
    programs::XdpContext,
};
use flow::kernel::MMAPABLE;

use crate::flows::FLOWS;

/// Index of the interface that sends.
#[unsafe(no_mangle)]
static GENERATOR_INTERFACE: Global<u32> = Global::new(0);

/// Sum of the IPv4 header's 16-bit words, as they are numbers, without source address and checksum.
#[unsafe(no_mangle)]
static GENERATOR_HEADER_SUM: Global<u32> = Global::new(0);

/// Number of the flow that the next frame belongs to; frames are made on one CPU.
#[map]
static GENERATED: Array<u64> = Array::with_max_entries(1, MMAPABLE);

const CHECKSUM_OFFSET: usize = 14 + 10;
const SOURCE_OFFSET: usize = 14 + 12;
const SOURCE_PORT_OFFSET: usize = 14 + 20;
const END: usize = SOURCE_PORT_OFFSET + 2;
/// 10.0.0.0, and how many bits of the flow's number follow it.
const SOURCE: u32 = 10 << 24;
const SOURCE_BITS: u32 = 24;
const PORT: u16 = 1024;

/// Sends the frame as one of the next flow; `FLOWS` of them in turn, or never the same again when that is 0.
#[xdp]
pub(crate) fn generate(context: XdpContext) -> u32 {
    let Some(generated) = GENERATED.get_ptr_mut(0) else { return XDP_ABORTED };
    // SAFETY: the verifier proved the pointer non-null and inside the map; one CPU alone runs this.
    let generated = unsafe { &mut *generated };
    let flow = *generated as u32;
    let following = *generated + 1;
    *generated = if following == FLOWS.load() as u64 { 0 } else { following };

    let source = SOURCE | flow & ((1 << SOURCE_BITS) - 1);
    let port = PORT + (flow >> SOURCE_BITS) as u16;
    let mut sum = GENERATOR_HEADER_SUM.load() + (source >> 16) + (source & 0xffff);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    let checksum = !(sum as u16);

    let start = context.data();
    if start + END > context.data_end() {
        return XDP_ABORTED;
    }
    let checksum_field = (start + CHECKSUM_OFFSET) as *mut [u8; 2];
    // SAFETY: the comparison above is the one that the verifier demands; the frame is this program's own.
    unsafe { checksum_field.write_unaligned(checksum.to_be_bytes()) };
    let source_field = (start + SOURCE_OFFSET) as *mut [u8; 4];
    // SAFETY: as above.
    unsafe { source_field.write_unaligned(source.to_be_bytes()) };
    let port_field = (start + SOURCE_PORT_OFFSET) as *mut [u8; 2];
    // SAFETY: as above.
    unsafe { port_field.write_unaligned(port.to_be_bytes()) };
    // SAFETY: takes plain numbers; the kernel looks the interface up in this program's own network namespace.
    let verdict = unsafe { bpf_redirect(GENERATOR_INTERFACE.load(), 0) };
    verdict as u32
}
