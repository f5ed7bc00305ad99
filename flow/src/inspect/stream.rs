//! One direction of a TCP conversation: takes its segments in the order they arrive; counts holes in the sequence
//! numbers, and which of them the receiver has acknowledged although the mirror never showed the bytes.
//!
//! A hole that is filled later is the network's own affair (reordering, or loss that TCP repaired). A hole that
//! the receiver acknowledges is not: the bytes passed the mirrored link and never reached the sensor.

use super::Segment;
use crate::tcp_flag;

/// Holes that are watched at once in each direction; the oldest gives way when there are more.
pub const HOLES: usize = 4;

/// Bits of [`Stream::state`].
pub mod stream_state {
    /// [`super::Stream::next`] holds a number.
    pub const KNOWN: u16 = 1;
    /// [`super::Stream::acknowledged`] holds a number: the other side has sent something.
    pub const ACKNOWLEDGES: u16 = 2;
    /// A SYN was seen.
    pub const SYN: u16 = 4;
    /// A FIN or RST was seen.
    pub const ENDED: u16 = 8;
    /// A packet came that only follows when the other side has answered: an acknowledgement that is neither SYN
    /// nor RST, which a host sends to whoever uses its address.
    pub const ESTABLISHED: u16 = 16;
}

/// Numbers further apart than this do not belong to the same stretch of a conversation: the largest window
/// (RFC 7323 §2.3).
const DISTANCE_MAX: u32 = 1 << 30;

/// One direction of a TCP conversation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Payload bytes that were new.
    pub payload_bytes: u64,
    /// Sequence numbers that were skipped, filled later or not.
    pub gap_bytes: u64,
    /// Sequence numbers that the receiver acknowledged and that never came by.
    pub lost_bytes: u64,
    /// Packets, copies aside.
    pub packets: u32,
    /// Those that take sequence numbers: payload, SYN or FIN.
    pub segments: u32,
    /// How often sequence numbers were skipped.
    pub gaps: u32,
    /// Segments that filled a hole: late, or sent again because the network had lost them.
    pub late: u32,
    /// Segments whose bytes had all been seen before.
    pub retransmitted: u32,
    /// Holes of which the receiver acknowledged a part that never came by.
    pub lost_gaps: u32,
    /// Holes that could not be watched to their end.
    pub holes_unwatched: u32,
    /// How often the VLAN tags changed.
    pub tag_changes: u32,
    /// How often the CPU changed that the frames arrive on.
    pub cpu_changes: u32,
    /// The number that follows the highest one seen.
    pub next: u32,
    /// The highest number that this side has acknowledged.
    pub acknowledged: u32,
    /// VLAN tags of the last packet, as [`super::Seen::tags`].
    pub tags: u32,
    /// First number and the one behind the last of each hole; equal when there is none.
    pub holes: [[u32; 2]; HOLES],
    /// CPU that the last packet arrived on.
    pub cpu: u16,
    /// The longest payload, saturating.
    pub payload_max: u16,
    /// Bits of [`stream_state`].
    pub state: u16,
    /// Explicit padding.
    pub padding: u16,
}

const _: () = assert!(size_of::<Stream>() == 3 * 8 + 12 * 4 + HOLES * 8 + 8);

impl Stream {
    /// Whether all of these bits of [`stream_state`] are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, bits: u16) -> bool {
        self.state & bits == bits
    }

    /// The highest number that this side has acknowledged, if it has any.
    #[inline(always)]
    #[must_use]
    pub const fn acknowledges(&self) -> Option<u32> {
        if self.has(stream_state::ACKNOWLEDGES) { Some(self.acknowledged) } else { None }
    }

    /// Takes the next segment of this direction. `peer` is what the other direction has acknowledged so far.
    #[inline(always)]
    pub const fn handle(&mut self, segment: &Segment, peer: Option<u32>) {
        self.handle_place(segment);
        if segment.flags & tcp_flag::RST != 0 {
            // Its sequence number need not be one of the conversation's.
            self.state |= stream_state::ENDED;
            return;
        }
        if segment.flags & tcp_flag::ACK != 0 {
            self.raise_acknowledged(segment.acknowledgement);
        }
        let is_syn = segment.flags & tcp_flag::SYN != 0;
        if !is_syn && segment.flags & tcp_flag::ACK != 0 {
            self.state |= stream_state::ESTABLISHED;
        }
        let is_fin = segment.flags & tcp_flag::FIN != 0;
        let length = segment.payload + is_syn as u32 + is_fin as u32;
        if is_fin {
            self.state |= stream_state::ENDED;
        }
        if length > 0 {
            self.handle_numbers(segment.sequence, length, segment.payload, is_syn, is_fin);
        }
        if let Some(peer) = peer {
            self.settle(peer);
        }
    }

    /// VLAN tags and CPU.
    #[inline(always)]
    const fn handle_place(&mut self, segment: &Segment) {
        if self.packets > 0 {
            if self.tags != segment.tags {
                self.tag_changes += 1;
            }
            if self.cpu != segment.cpu {
                self.cpu_changes += 1;
            }
        }
        self.packets += 1;
        self.tags = segment.tags;
        self.cpu = segment.cpu;
    }

    #[inline(always)]
    const fn raise_acknowledged(&mut self, number: u32) {
        let ahead = number.wrapping_sub(self.acknowledged);
        let is_older = ahead.wrapping_neg() < DISTANCE_MAX;
        // A number from far away is that of another conversation between the same ports.
        if !self.has(stream_state::ACKNOWLEDGES) || !is_older {
            self.acknowledged = number;
            self.state |= stream_state::ACKNOWLEDGES;
        }
    }

    #[inline(always)]
    const fn handle_numbers(
        &mut self,
        start: u32,
        length: u32,
        payload: u32,
        is_syn: bool,
        is_fin: bool,
    ) {
        self.segments += 1;
        let saturated = if payload > u16::MAX as u32 { u16::MAX as u32 } else { payload };
        if saturated > self.payload_max as u32 {
            self.payload_max = (saturated & 0xffff) as u16;
        }
        let end = start.wrapping_add(length);
        let ahead = start.wrapping_sub(self.next);
        let is_far = ahead >= DISTANCE_MAX && ahead.wrapping_neg() >= DISTANCE_MAX;
        let is_anew = is_syn && end != self.next;
        if is_syn {
            self.state |= stream_state::SYN;
        }
        if !self.has(stream_state::KNOWN) || is_anew || is_far {
            self.begin(end, payload);
            return;
        }
        if payload <= 1 && ahead == u32::MAX && !is_syn && !is_fin {
            // A keep-alive repeats the last number so that the other side answers (RFC 9293 §3.8.4).
            return;
        }
        if ahead < DISTANCE_MAX {
            if ahead > 0 {
                self.gaps += 1;
                self.gap_bytes += ahead as u64;
                self.watch([self.next, start]);
            }
            self.payload_bytes += payload as u64;
            self.next = end;
            return;
        }
        let filled = self.fill(start, end);
        let beyond = end.wrapping_sub(self.next);
        if beyond < DISTANCE_MAX && beyond > 0 {
            self.payload_bytes += (beyond + filled) as u64;
            self.next = end;
        } else if filled > 0 {
            self.late += 1;
            self.payload_bytes += filled as u64;
        } else {
            self.retransmitted += 1;
        }
    }

    /// Forgets what was, and goes on from here.
    #[inline(always)]
    const fn begin(&mut self, next: u32, payload: u32) {
        let mut index = 0;
        while index < HOLES {
            if self.holes[index][0] != self.holes[index][1] {
                self.holes_unwatched += 1;
            }
            self.holes[index] = [0, 0];
            index += 1;
        }
        self.payload_bytes += payload as u64;
        self.next = next;
        self.state |= stream_state::KNOWN;
    }

    /// Watches a hole, the newest first; the oldest gives way.
    #[inline(always)]
    const fn watch(&mut self, hole: [u32; 2]) {
        if self.holes[HOLES - 1][0] != self.holes[HOLES - 1][1] {
            self.holes_unwatched += 1;
        }
        let mut index = HOLES - 1;
        while index > 0 {
            self.holes[index] = self.holes[index - 1];
            index -= 1;
        }
        self.holes[0] = hole;
    }

    /// Takes these numbers out of the holes; gives how many were in one.
    #[inline(always)]
    const fn fill(&mut self, start: u32, end: u32) -> u32 {
        let mut filled = 0_u32;
        let mut index = 0;
        while index < HOLES {
            let [from, to] = self.holes[index];
            let size = to.wrapping_sub(from);
            // Offsets from the hole's start; those before it are huge.
            let first = start.wrapping_sub(from);
            let last = end.wrapping_sub(from);
            let covers_start = first == 0 || first >= DISTANCE_MAX;
            if covers_start && last > 0 && last < DISTANCE_MAX {
                let part = if last < size { last } else { size };
                filled += part;
                self.holes[index][0] = from.wrapping_add(part);
            } else if !covers_start && first < size {
                if last < size {
                    // The part behind it is watched no longer: one hole does not become two.
                    self.holes_unwatched += 1;
                    filled += last - first;
                } else {
                    filled += size - first;
                }
                self.holes[index][1] = start;
            }
            index += 1;
        }
        filled
    }

    /// What the receiver has acknowledged and is still a hole was lost on the way to the sensor.
    #[inline(always)]
    const fn settle(&mut self, peer: u32) {
        let mut index = 0;
        while index < HOLES {
            let [from, to] = self.holes[index];
            let size = to.wrapping_sub(from);
            let reached = peer.wrapping_sub(from);
            if size > 0 && reached > 0 && reached < DISTANCE_MAX {
                let part = if reached < size { reached } else { size };
                self.lost_gaps += 1;
                self.lost_bytes += part as u64;
                self.holes[index][0] = from.wrapping_add(part);
            }
            index += 1;
        }
    }

    /// For the end: settles what is still open, and gives how many numbers behind the last one seen the
    /// receiver has acknowledged.
    #[must_use]
    pub const fn finish(&mut self, peer: Option<u32>) -> u32 {
        let Some(peer) = peer else { return 0 };
        self.settle(peer);
        let beyond = peer.wrapping_sub(self.next);
        if self.has(stream_state::KNOWN) && beyond < DISTANCE_MAX { beyond } else { 0 }
    }
}
