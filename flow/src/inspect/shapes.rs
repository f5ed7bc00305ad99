//! The memory that the inspection program and `doctor` share: integers only, explicit padding.

use super::{Seen, Stream, look::ENCAPSULATION_KINDS};
use crate::{FlowKey, kernel::NOT_IP_KINDS};

/// TCP conversations that are followed at once; a power of two.
pub const CONVERSATION_PLACES: u32 = 65_536;
/// Places that are looked at before a conversation counts as unplaced.
pub const CONVERSATION_PROBES: u32 = 8;
/// Packets that each CPU remembers to recognise copies; a power of two.
pub const RECENT_PLACES: u32 = 4096;
/// Longest frame without its check sequence that is not jumbo: 1,500 bytes of payload, an Ethernet header and
/// two VLAN tags.
pub const FRAME_BYTES_PLAIN: u64 = 1500 + 14 + 8;

/// What one CPU counted; counters only grow, and only that CPU writes them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InspectTotals {
    /// Frames the program was given.
    pub frames: u64,
    /// Their layer-2 bytes.
    pub bytes: u64,
    /// Frames sent to a group address: broadcast and multicast.
    pub frames_group: u64,
    /// Frames sent to the interface's own address.
    pub frames_own: u64,
    /// The longest frame, layer-2 bytes.
    pub frame_bytes_max: u64,
    /// Frames longer than [`FRAME_BYTES_PLAIN`].
    pub frames_jumbo: u64,
    /// Frames shorter than their IP header says.
    pub frames_cut: u64,
    /// Most bytes that were missing from one of them.
    pub cut_bytes_max: u64,
    /// Frames with one VLAN tag.
    pub frames_tagged: u64,
    /// Frames with two or more.
    pub frames_tagged_twice: u64,
    /// Frames with a usable IP header.
    pub packets_ip: u64,
    /// Frames that say IP and are broken.
    pub packets_malformed: u64,
    /// Fragments of IP packets, the first ones too.
    pub fragments: u64,
    /// TCP packets, fragments aside.
    pub packets_tcp: u64,
    /// TCP packets whose header is cut.
    pub tcp_cut: u64,
    /// TCP packets of conversations that found no place.
    pub unplaced: u64,
    /// Those of them that open a conversation: SYN without ACK.
    pub unplaced_syns: u64,
    /// IP packets that can be told from a repetition by the sender.
    pub comparable: u64,
    /// Those of them that came once more within a moment.
    pub copies: u64,
    /// Copies whose TTL differs: taken before and behind a router.
    pub copies_other_ttl: u64,
    /// Copies whose VLAN tags differ: taken in two VLANs.
    pub copies_other_tags: u64,
    /// Frames that are not IP, by [`crate::kernel::not_ip_index`].
    pub not_ip: [u64; NOT_IP_KINDS],
    /// Frames that carry another network inside, by [`super::encapsulation_name`]; one in several counts once for each.
    pub encapsulated: [u64; ENCAPSULATION_KINDS],
}

const _: () = assert!(size_of::<InspectTotals>() == (21 + NOT_IP_KINDS + ENCAPSULATION_KINDS) * 8);

/// One packet that was seen a moment ago.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Fingerprint of what a repetition by the sender would change; 0 is an empty place.
    pub identity: u64,
    /// When, in ticks of the caller's clock.
    pub ticks: u32,
    /// Its VLAN tags.
    pub tags: u32,
    /// Its TTL or hop limit.
    pub ttl: u32,
    /// Explicit padding.
    pub padding: u32,
}

const _: () = assert!(size_of::<Recent>() == 24);

/// One TCP conversation; each half is written by the CPU that gets that direction's frames.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conversation {
    /// Fingerprint of the key, by which it is found; 0 is an empty place.
    pub tag: u64,
    /// The canonical key.
    pub key: FlowKey,
    /// The direction of the canonical key, and the other.
    pub streams: [Stream; 2],
}

const _: () = assert!(size_of::<Conversation>() == 8 + 40 + 2 * size_of::<Stream>());

/// Where to look for a conversation, at this probe.
#[inline(always)]
#[must_use]
pub const fn conversation_place(tag: u64, probe: u32) -> u32 {
    ((tag >> 32) as u32).wrapping_add(probe) & (CONVERSATION_PLACES - 1)
}

/// Where a packet is remembered, among its CPU's places.
#[inline(always)]
#[must_use]
pub const fn recent_place(identity: u64) -> u32 {
    (identity >> 40) as u32 & (RECENT_PLACES - 1)
}

/// Whether this packet is a copy of the one that was remembered at its place no more than `within` ticks ago;
/// counts it, and remembers the packet there.
#[inline(always)]
pub const fn is_copy(
    recent: &mut Recent,
    seen: &Seen,
    now: u32,
    within: u32,
    totals: &mut InspectTotals,
) -> bool {
    totals.comparable += 1;
    let is_copy = recent.identity == seen.identity && now.wrapping_sub(recent.ticks) <= within;
    if is_copy {
        totals.copies += 1;
        if recent.ttl != seen.ttl {
            totals.copies_other_ttl += 1;
        }
        if recent.tags != seen.tags {
            totals.copies_other_tags += 1;
        }
    }
    recent.identity = seen.identity;
    recent.ticks = now;
    recent.tags = seen.tags;
    recent.ttl = seen.ttl;
    is_copy
}
