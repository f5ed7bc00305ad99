//! Takes what the inspection counted, CPU by CPU and conversation by conversation; gives the sums that the checks
//! judge. Pure: no clock, no I/O.

use std::collections::BTreeMap;

use flow::inspect::{Conversation, InspectTotals, Stream, encapsulation_name, stream_state};
use flow::kernel::not_ip_name;
use serde::Serialize;

use super::thresholds::{CPU_CHANGES_MIN, ONLY_SHORT_BYTES, ONLY_SHORT_FACTOR};
use crate::capture::Inspected;

/// What was counted in the traffic.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// How long was listened, or how long the capture lasts, milliseconds; `None` where the capture has no times.
    pub duration_ms: Option<u64>,
    /// Frames.
    pub frames: u64,
    /// Their layer-2 bytes.
    pub bytes: u64,
    /// Frames to group addresses.
    pub frames_group: u64,
    /// Frames to the interface's own address.
    pub frames_own: u64,
    /// The longest frame, bytes.
    pub frame_bytes_max: u64,
    /// Frames longer than 1,522 bytes.
    pub frames_jumbo: u64,
    /// Frames shorter than their IP header says.
    pub frames_cut: u64,
    /// Most bytes missing from one of them.
    pub cut_bytes_max: u64,
    /// Frames with one VLAN tag.
    pub frames_tagged: u64,
    /// Frames with two or more.
    pub frames_tagged_twice: u64,
    /// Of a capture file: frames of which it does not hold every byte.
    pub frames_snapped: Option<u64>,
    /// IP packets.
    pub packets_ip: u64,
    /// Frames that say IP and are broken.
    pub packets_malformed: u64,
    /// Fragments.
    pub fragments: u64,
    /// IP packets that a repetition by the sender would not equal.
    pub comparable: u64,
    /// Those that came once more.
    pub copies: u64,
    /// Copies with another TTL.
    pub copies_other_ttl: u64,
    /// Copies with other VLAN tags.
    pub copies_other_tags: u64,
    /// Frames that are not IP.
    pub not_ip: BTreeMap<&'static str, u64>,
    /// Frames with another network inside.
    pub encapsulated: BTreeMap<&'static str, u64>,
    /// Frames by the CPU that took them; empty for a capture file.
    pub frames_by_cpu: BTreeMap<u32, u64>,
    /// What TCP tells.
    pub tcp: Tcp,
}

/// What TCP conversations tell about the mirror.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tcp {
    /// TCP packets.
    pub packets: u64,
    /// Those whose conversation found no place: they were not inspected.
    pub packets_unplaced: u64,
    /// Conversations that began and found no place.
    pub conversations_unplaced: u64,
    /// Conversations that were inspected.
    pub conversations: u64,
    /// Both directions were seen.
    pub both_directions: u64,
    /// One direction only, although it acknowledges what the other sends.
    pub one_direction: u64,
    /// Both directions were seen, with different VLAN tags.
    pub tags_differ: u64,
    /// Those of them of which one direction has no tag.
    pub tags_one_side: u64,
    /// A direction arrived on several CPUs in turn.
    pub scattered: u64,
    /// The directions arrived on different CPUs.
    pub directions_apart: u64,
    /// Segments that take sequence numbers.
    pub segments: u64,
    /// How often sequence numbers were skipped.
    pub gaps: u64,
    /// Segments that filled a hole.
    pub late: u64,
    /// Segments that were sent again although they had been seen.
    pub retransmitted: u64,
    /// Conversations that loss could be judged of: both directions, in order.
    pub judged: u64,
    /// Payload bytes seen in them.
    pub payload_bytes: u64,
    /// Bytes that the receiver acknowledged and that never came by.
    pub lost_bytes: u64,
    /// In how many places.
    pub lost_gaps: u64,
    /// How many segments that may have been, by the longest of each conversation.
    pub lost_segments: u64,
    /// Directions whose long segments are all missing while the short ones arrive.
    pub only_short: u64,
    /// Holes that could not be watched to their end.
    pub holes_unwatched: u64,
    /// One conversation of each kind, for whoever wants to look.
    pub examples: BTreeMap<&'static str, String>,
}

impl Traffic {
    /// Sums up.
    pub(super) fn new(inspected: &Inspected) -> Self {
        let mut traffic = Self::default();
        for (cpu, totals) in &inspected.totals {
            traffic.add(totals);
            traffic.frames_by_cpu.insert(*cpu, totals.frames);
        }
        for conversation in &inspected.conversations {
            traffic.tcp.handle(conversation);
        }
        traffic
    }

    fn add(&mut self, totals: &InspectTotals) {
        for (sum, one) in [
            (&mut self.frames, totals.frames),
            (&mut self.bytes, totals.bytes),
            (&mut self.frames_group, totals.frames_group),
            (&mut self.frames_own, totals.frames_own),
            (&mut self.frames_jumbo, totals.frames_jumbo),
            (&mut self.frames_cut, totals.frames_cut),
            (&mut self.frames_tagged, totals.frames_tagged),
            (&mut self.frames_tagged_twice, totals.frames_tagged_twice),
            (&mut self.packets_ip, totals.packets_ip),
            (&mut self.packets_malformed, totals.packets_malformed),
            (&mut self.fragments, totals.fragments),
            (&mut self.comparable, totals.comparable),
            (&mut self.copies, totals.copies),
            (&mut self.copies_other_ttl, totals.copies_other_ttl),
            (&mut self.copies_other_tags, totals.copies_other_tags),
            (&mut self.tcp.packets, totals.packets_tcp),
            (&mut self.tcp.packets_unplaced, totals.unplaced),
            (&mut self.tcp.conversations_unplaced, totals.unplaced_syns),
        ] {
            *sum += one;
        }
        self.frame_bytes_max = self.frame_bytes_max.max(totals.frame_bytes_max);
        self.cut_bytes_max = self.cut_bytes_max.max(totals.cut_bytes_max);
        for (index, frames) in totals.not_ip.iter().enumerate().filter(|(_, frames)| **frames > 0) {
            *self.not_ip.entry(not_ip_name(index)).or_default() += frames;
        }
        let inside = totals.encapsulated.iter().enumerate().filter(|(_, frames)| **frames > 0);
        for (index, frames) in inside {
            *self.encapsulated.entry(encapsulation_name(index)).or_default() += frames;
        }
    }

    /// Frames to neither a group nor the interface itself: what a mirror is for.
    pub(super) const fn frames_of_others(&self) -> u64 {
        self.frames.saturating_sub(self.frames_group).saturating_sub(self.frames_own)
    }
}

impl Tcp {
    fn handle(&mut self, conversation: &Conversation) {
        let [mut forward, mut backward] = conversation.streams;
        self.conversations += 1;
        for stream in [&forward, &backward] {
            self.segments += u64::from(stream.segments);
            self.gaps += u64::from(stream.gaps);
            self.late += u64::from(stream.late);
            self.retransmitted += u64::from(stream.retransmitted);
            self.holes_unwatched += u64::from(stream.holes_unwatched);
        }
        let is_scattered =
            [&forward, &backward].iter().any(|stream| stream.cpu_changes >= CPU_CHANGES_MIN);
        if is_scattered {
            self.scattered += 1;
            self.example("scattered", conversation);
        }
        if forward.packets == 0 || backward.packets == 0 {
            let seen = if forward.packets == 0 { &backward } else { &forward };
            if seen.has(stream_state::ESTABLISHED) {
                self.one_direction += 1;
                self.example("one_direction", conversation);
            }
            return;
        }
        self.both_directions += 1;
        if forward.tags != backward.tags {
            self.tags_differ += 1;
            self.tags_one_side += u64::from(forward.tags == 0 || backward.tags == 0);
            self.example("tags_differ", conversation);
        }
        self.directions_apart += u64::from(forward.cpu != backward.cpu);
        if is_scattered {
            return;
        }
        self.judged += 1;
        let (from_forward, from_backward) = (forward.acknowledges(), backward.acknowledges());
        let lost_before = self.lost_bytes;
        // The end of listening falls between a segment and its acknowledgement when they wait on two CPUs.
        let is_apart = forward.cpu != backward.cpu;
        self.lose(&mut forward, from_backward, is_apart);
        self.lose(&mut backward, from_forward, is_apart);
        if self.lost_bytes > lost_before {
            self.example("loss", conversation);
        }
    }

    fn lose(&mut self, stream: &mut Stream, peer: Option<u32>, is_apart: bool) {
        let beyond = u64::from(stream.finish(peer));
        let beyond = if is_apart { 0 } else { beyond };
        let lost = stream.lost_bytes + beyond;
        self.payload_bytes += stream.payload_bytes;
        self.lost_bytes += lost;
        self.lost_gaps += u64::from(stream.lost_gaps) + u64::from(beyond > 0);
        self.lost_segments += lost.div_ceil(u64::from(stream.payload_max.max(1)));
        let is_short = stream.payload_max <= ONLY_SHORT_BYTES
            && lost > u64::from(ONLY_SHORT_BYTES) * 2
            && lost / ONLY_SHORT_FACTOR >= stream.payload_bytes;
        self.only_short += u64::from(is_short);
    }

    fn example(&mut self, what: &'static str, conversation: &Conversation) {
        self.examples.entry(what).or_insert_with(|| {
            let key = &conversation.key;
            let is_v4 = key.kind().has(flow::Kind::V4);
            let end = |address: flow::Address, port: u16| {
                std::net::SocketAddr::new(address.to_ip(is_v4), port)
            };
            let source = end(key.source, key.source_port());
            format!("{source} and {}", end(key.destination, key.destination_port()))
        });
    }
}
