//! The inspection that `doctor` attaches for some seconds in place of the counting programs: frames go in, counts
//! of what is wrong with the mirror come out. What is counted is decided in `flow::inspect`; here are only its
//! tables. Nothing here runs while the sensor counts.
#![expect(
    unsafe_code,
    reason = "map memory and helpers are reached through pointers; the verifier proves each access"
)]

use aya_ebpf::{
    EbpfContext as _, Global,
    bindings::xdp_action::{XDP_DROP, XDP_PASS},
    btf_maps::Array,
    helpers::{bpf_get_smp_processor_id, bpf_jiffies64, bpf_xdp_get_buff_len},
    macros::{btf_map, xdp},
    programs::XdpContext,
};
use flow::{
    FlowKey, LinkLayer, Parsed, Walked,
    inspect::{
        CONVERSATION_PROBES, Conversation, InspectTotals, Look, RECENT_PLACES, Recent, Seen,
        Segment, Stream, compare, conversation_place, is_copy, look, look_inside, recent_place,
        stream_state,
    },
    parse_common, parse_plain, tcp_flag,
};

use crate::{
    frame::XdpFrame,
    maps::{COPY_TICKS, FLAGS, IDENTITY_SEED, WALKS},
};

/// Counts, by CPU number.
#[btf_map]
static INSPECT_CPUS: Array<InspectTotals, 1, FLAGS> = Array::new();

/// The packet under inspection, by CPU number. It lies here rather than on the stack so that the verifier forgets by
/// which of its many ways the parser came to it, and follows the rest once.
#[btf_map]
static INSPECT_SEEN: Array<Seen, 1, FLAGS> = Array::new();

/// Packets seen a moment ago: CPU numbers × `RECENT_PLACES`.
#[btf_map]
static INSPECT_RECENT: Array<Recent, 1, FLAGS> = Array::new();

/// TCP conversations, of all CPUs.
#[btf_map]
static CONVERSATIONS: Array<Conversation, 1, FLAGS> = Array::new();

/// The interface's hardware address.
#[unsafe(no_mangle)]
static OWN_ADDRESS: Global<u64> = Global::new(0);

/// Inspects, then drops: for an interface that only listens.
#[xdp]
pub(crate) fn inspect_drop(context: XdpContext) -> u32 {
    inspect::<false>(&context);
    XDP_DROP
}

/// Inspects, then passes: for an interface that the machine also uses.
#[xdp]
pub(crate) fn inspect_pass(context: XdpContext) -> u32 {
    inspect::<false>(&context);
    XDP_PASS
}

/// As `inspect_drop`, for drivers that give jumbo frames in several buffers.
#[xdp(frags)]
pub(crate) fn inspect_drop_frags(context: XdpContext) -> u32 {
    inspect::<true>(&context);
    XDP_DROP
}

/// As `inspect_pass`, for drivers that give jumbo frames in several buffers.
#[xdp(frags)]
pub(crate) fn inspect_pass_frags(context: XdpContext) -> u32 {
    inspect::<true>(&context);
    XDP_PASS
}

/// Three functions with nothing in hand between them, so that the verifier follows each once, and not once for each of
/// the ways through those before it.
#[inline(always)]
fn inspect<const FRAGS: bool>(context: &XdpContext) {
    let is_packet = common(context) || walk(context);
    count::<FRAGS>(context, is_packet);
}

/// What this CPU counts, and where the packet in its hands lies.
#[inline(always)]
fn rows() -> Option<(u32, &'static mut InspectTotals, *mut Seen)> {
    // SAFETY: takes no argument.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let totals = INSPECT_CPUS.get_ptr_mut(cpu)?;
    let place = INSPECT_SEEN.get_ptr_mut(cpu)?;
    // SAFETY: the verifier proved the pointer non-null and inside the map; this row is written by this CPU only.
    Some((cpu, unsafe { &mut *totals }, place))
}

/// Looks for a packet in a frame of the common shapes; says whether there is one.
#[inline(never)]
fn common(context: &XdpContext) -> bool {
    let Some((_, totals, place)) = rows() else { return false };
    let frame = XdpFrame::new(context);
    if let Some(packet) = parse_plain(&frame) {
        return put(place, look_inside(&Parsed::Ip(packet), totals));
    }
    if let Some(packet) = parse_common(&frame) {
        return put(place, look_inside(&Parsed::Ip(packet), totals));
    }
    false
}

/// The same in a frame of any other shape.
#[inline(never)]
fn walk(context: &XdpContext) -> bool {
    let Some((cpu, totals, place)) = rows() else { return false };
    let Some(walk) = WALKS.get_ptr_mut(cpu) else { return false };
    // SAFETY: the verifier proved the pointer non-null and inside the map; this row is used by this CPU only.
    let walk = unsafe { &mut *walk };
    let parsed = match walk.run(&XdpFrame::new(context), LinkLayer::Ethernet) {
        Walked::Ip => Parsed::Ip(walk.packet()),
        Walked::NotIp(ethertype) => Parsed::NotIp(ethertype),
        Walked::Malformed(reason) => Parsed::Malformed(reason),
    };
    put(place, look_inside(&parsed, totals))
}

/// Counts the frame, and compares the packet in it, if there is one.
#[inline(never)]
fn count<const FRAGS: bool>(context: &XdpContext, is_packet: bool) {
    let Some((cpu, totals, place)) = rows() else { return };
    let frame = XdpFrame::new(context);
    let wire_bytes = if FRAGS {
        // SAFETY: the context pointer is the one that the kernel gave; the helper only reads it.
        unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) }
    } else {
        frame.linear_length()
    };
    let about = Look {
        wire_bytes,
        own_address: OWN_ADDRESS.load(),
        seed: IDENTITY_SEED.load(),
        cpu: cpu as u16,
    };
    look(&frame, LinkLayer::Ethernet, &about, totals);
    if !is_packet {
        return;
    }
    // SAFETY: aligned, inside the map, and this CPU's own; volatile, so that it is read back.
    let mut seen = unsafe { core::ptr::read_volatile(place) };
    compare(&frame, &about, &mut seen, totals);
    let seen = settled(place, seen);
    follow_up(cpu, &seen, totals);
}

/// Writes a packet down, if there is one; says whether there is.
#[inline(always)]
fn put(place: *mut Seen, seen: Option<Seen>) -> bool {
    let Some(seen) = seen else { return false };
    // SAFETY: aligned, inside the map, and this CPU's own; volatile, because it is read back.
    unsafe { core::ptr::write_volatile(place, seen) };
    true
}

/// Writes a packet down and reads it back.
#[inline(always)]
fn settled(place: *mut Seen, seen: Seen) -> Seen {
    // SAFETY: aligned, inside the map, and this CPU's own; volatile, so that it is read back.
    unsafe { core::ptr::write_volatile(place, seen) };
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(place) }
}

/// What has to be compared with other packets.
#[inline(always)]
fn follow_up(cpu: u32, seen: &Seen, totals: &mut InspectTotals) {
    if seen.identity != 0 {
        let place = cpu * RECENT_PLACES + recent_place(seen.identity);
        let Some(recent) = INSPECT_RECENT.get_ptr_mut(place) else { return };
        // SAFETY: the verifier proved the pointer non-null and inside the map; these places are this CPU's own.
        let recent = unsafe { &mut *recent };
        // SAFETY: takes no argument and reads the kernel's tick counter.
        let now = unsafe { bpf_jiffies64() } as u32;
        if is_copy(recent, seen, now, COPY_TICKS.load(), totals) {
            return;
        }
    }
    if seen.has_segment == 0 {
        return;
    }
    let (key, tag, half) = seen.conversation(IDENTITY_SEED.load());
    if let Some(conversation) = find(&key, tag) {
        handle(conversation, half, &seen.segment);
    } else {
        let flags = seen.segment.flags & (tcp_flag::SYN | tcp_flag::ACK);
        totals.unplaced += 1;
        totals.unplaced_syns += u64::from(flags == tcp_flag::SYN);
    }
}

/// Finds the place of a conversation, a new one if need be; `None` when there is none left.
#[inline(always)]
fn find(key: &FlowKey, tag: u64) -> Option<*mut Conversation> {
    for probe in 0..CONVERSATION_PROBES {
        let conversation = CONVERSATIONS.get_ptr_mut(conversation_place(tag, probe))?;
        // SAFETY: inside the map's value, which the verifier proved.
        let word = unsafe { &raw mut (*conversation).tag };
        // SAFETY: as above; volatile, because another CPU may store to it.
        let stored = unsafe { core::ptr::read_volatile(word) };
        if stored == 0 {
            // Two CPUs that meet two new conversations at the same empty place within the same nanoseconds would
            // both take it: one first segment then stands in the other's half, and moves on with the next.
            // SAFETY: inside the map's value.
            unsafe { core::ptr::write_volatile(word, tag) };
            // SAFETY: inside the map's value.
            let place = unsafe { &raw mut (*conversation).key };
            // SAFETY: aligned and inside the map's value; whoever set the tag writes the key.
            unsafe { place.write(*key) };
        }
        if stored == 0 || stored == tag {
            return Some(conversation);
        }
    }
    None
}

/// Hands the segment to its half of the conversation.
#[inline(always)]
fn handle(conversation: *mut Conversation, half: usize, segment: &Segment) {
    // SAFETY: both halves are inside the map's value, which the verifier proved.
    let forward = unsafe { &raw mut (*conversation).streams[0] };
    // SAFETY: as above.
    let backward = unsafe { &raw mut (*conversation).streams[1] };
    let (own, peer) = if half == 0 { (forward, backward) } else { (backward, forward) };
    let acknowledged = acknowledged(peer);
    // SAFETY: frames of one direction arrive on one CPU, which alone writes this half; where they do not, the
    // half says so (`cpu_changes`), and its counts are not relied on.
    unsafe { &mut *own }.handle(segment, acknowledged);
}

/// What the other direction has acknowledged; another CPU may be writing it.
#[inline(always)]
fn acknowledged(peer: *const Stream) -> Option<u32> {
    // SAFETY: inside the map's value.
    let state = unsafe { &raw const (*peer).state };
    // SAFETY: inside the map's value.
    let number = unsafe { &raw const (*peer).acknowledged };
    // SAFETY: as above; volatile, because another CPU may store to it.
    let state = unsafe { core::ptr::read_volatile(state) };
    // SAFETY: as above.
    let number = unsafe { core::ptr::read_volatile(number) };
    if state & stream_state::ACKNOWLEDGES != 0 { Some(number) } else { None }
}
