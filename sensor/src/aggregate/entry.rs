//! Takes observations of one flow; gives what they add up to. Knows nothing of tables, timers or
//! clocks.
//!
//! Everything that is folded in here commutes (sums, minima, maxima, sets), so the order in which
//! the observations of one epoch arrive cannot show.

use std::cmp::Ordering;

use flow::{
    Direction, EndReason, FlowKey, Kind, Observation, OpeningTime, Outer, Pseudonyms, Record,
    handshake_rtt_us, protocol, tcp_flag,
};

use super::Identity;
use super::directions::Evidence;
use super::places::NONE;
use super::role::{self, Roles};

/// A SYN without ACK was seen since the flow began.
pub(super) const SYN: u8 = 1;
/// A SYN with ACK was seen since the flow began.
pub(super) const SYN_ACK: u8 = 2;
/// A packet was seen since the flow began.
const SEEN: u8 = 4;
/// A part with packets of this side was reported.
const REPORTED: u8 = 8;
/// [`Side::opening_us`] is the time of the first SYN or SYN-ACK.
const TIMED: u8 = 16;
/// [`Side::opening_us`] is how long after the SYN the SYN-ACK came.
const MEASURED: u8 = 32;
/// A fragment was seen in this part.
const FRAGMENTED: u8 = 64;
/// Those marks that stay when a part is reported.
const OF_ALL_PARTS: u8 = SYN | SYN_ACK | SEEN | REPORTED | TIMED | MEASURED;

/// Packets of one side that are taken for its half of a conversation.
const CONVERSATION_MIN: u64 = 3;

/// What one end of a flow sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    pub(super) packets: u64,
    bytes: u64,
    /// Of this part of the flow; no meaning while `packets` is 0.
    pub(super) first_ms: u64,
    last_ms: u64,
    /// As [`TIMED`] and [`MEASURED`] say; 0 when neither is set.
    opening_us: u32,
    length_min: u16,
    length_max: u16,
    tcp_flags: u8,
    ttl: u8,
    dscp: u8,
    interface: u8,
    /// TCP flags of the first packet since the flow began.
    first_flags: u8,
    /// OR of all TCP flags since the flow began, parts already reported included.
    pub(super) flags_ever: u8,
    marks: u8,
}

impl Side {
    /// The packets of an observation, and nothing before them.
    #[inline]
    fn of(seen: &Observation) -> Self {
        let (opening_us, timed) = match seen.opening {
            OpeningTime::Unknown => (0, 0),
            OpeningTime::At(time_us) => (time_us, TIMED),
            OpeningTime::After(rtt_us) => (rtt_us, MEASURED),
        };
        let mark = |is_set: bool, mark: u8| if is_set { mark } else { 0 };
        Self {
            packets: seen.packets,
            bytes: seen.bytes,
            first_ms: seen.first_ms,
            last_ms: seen.last_ms.max(seen.first_ms),
            opening_us,
            length_min: seen.length_min,
            length_max: seen.length_max,
            tcp_flags: seen.tcp.flags,
            ttl: seen.ttl,
            dscp: seen.dscp,
            interface: seen.interface,
            first_flags: seen.first_flags,
            flags_ever: seen.tcp.flags,
            marks: SEEN
                | timed
                | mark(seen.tcp.syn, SYN)
                | mark(seen.tcp.syn_ack, SYN_ACK)
                | mark(seen.fragmented, FRAGMENTED),
        }
    }

    #[inline]
    fn merge(&mut self, other: &Self) {
        if self.marks == 0 {
            *self = *other;
            return;
        }
        let opening_us = self.merged_opening_us(other);
        let first_flags = self.merged_first_flags(other);
        let (flags_ever, marks) = (self.flags_ever | other.flags_ever, self.marks | other.marks);
        if self.packets == 0 && other.packets > 0 {
            *self = *other;
        } else if other.packets > 0 {
            // Each is that of the first packet; of several in the same millisecond, the smallest.
            match self.first_ms.cmp(&other.first_ms) {
                Ordering::Less => {}
                Ordering::Greater => {
                    (self.ttl, self.dscp, self.interface) =
                        (other.ttl, other.dscp, other.interface);
                }
                Ordering::Equal => {
                    self.ttl = self.ttl.min(other.ttl);
                    self.dscp = self.dscp.min(other.dscp);
                    self.interface = self.interface.min(other.interface);
                }
            }
            self.first_ms = self.first_ms.min(other.first_ms);
            self.last_ms = self.last_ms.max(other.last_ms);
            self.packets += other.packets;
            self.bytes += other.bytes;
            self.tcp_flags |= other.tcp_flags;
            self.length_min = self.length_min.min(other.length_min);
            self.length_max = self.length_max.max(other.length_max);
        }
        self.opening_us = opening_us;
        self.first_flags = first_flags;
        self.flags_ever = flags_ever;
        self.marks = marks;
    }

    /// The earlier time, the shorter measurement; a measurement rather than a time.
    fn merged_opening_us(&self, other: &Self) -> u32 {
        // Neither mark: neither number means anything, and 0 is what stays.
        if (self.marks | other.marks) & (MEASURED | TIMED) == 0 {
            return 0;
        }
        let (one, two) = (self.opening_us, other.opening_us);
        match [MEASURED, TIMED].into_iter().find(|mark| self.has(*mark) || other.has(*mark)) {
            Some(mark) if !other.has(mark) => one,
            Some(mark) if !self.has(mark) => two,
            Some(MEASURED) => one.min(two),
            Some(_) => earlier_us(one, two),
            None => 0,
        }
    }

    /// Those of the first packet of the flow; of several in the same millisecond, a SYN.
    fn merged_first_flags(&self, other: &Self) -> u8 {
        if !other.has(SEEN) || self.has(REPORTED) {
            return self.first_flags;
        }
        if !self.has(SEEN) {
            return other.first_flags;
        }
        let rank =
            |side: &Self| (side.first_ms, side.first_flags & tcp_flag::SYN == 0, side.first_flags);
        if rank(other) < rank(self) { other.first_flags } else { self.first_flags }
    }

    /// Whether a packet was seen since the flow began.
    pub(super) const fn seen(&self) -> bool {
        self.has(SEEN)
    }

    /// [`SYN`] and [`SYN_ACK`], since the flow began.
    pub(super) const fn opening(&self) -> u8 {
        self.marks & (SYN | SYN_ACK)
    }

    const fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    fn direction(&self) -> Direction {
        Direction {
            packets: self.packets,
            bytes: self.bytes,
            tcp_flags: self.tcp_flags,
            ttl: self.ttl,
            dscp: self.dscp,
            first_flags: self.first_flags,
            fragmented: self.has(FRAGMENTED),
            length_min: self.length_min,
            length_max: self.length_max,
        }
    }

    /// Whether it goes on as only somebody does who is answered: it acknowledges after its own SYN, or sends data. Of
    /// what needs no answer, a flood or backscatter, come one or two packets, or always the same.
    const fn converses(&self) -> bool {
        const DATA: u8 = tcp_flag::PSH | tcp_flag::FIN;
        let acknowledges = self.flags_ever & tcp_flag::ACK != 0;
        let goes_on = self.opening() == SYN || self.flags_ever & DATA != 0;
        self.packets >= CONVERSATION_MIN && acknowledges && goes_on
    }

    /// Starts the next part: the counts go, what is known of the whole flow stays.
    fn reset(&mut self) {
        let Self { opening_us, first_flags, flags_ever, marks, .. } = *self;
        let reported = if self.has(SEEN) { REPORTED } else { 0 };
        let marks = (marks & OF_ALL_PARTS) | reported;
        *self = Self { opening_us, first_flags, flags_ever, marks, ..Self::default() };
    }
}

/// The earlier of two times modulo 2^32 that are less than half of that apart.
const fn earlier_us(one: u32, two: u32) -> u32 {
    if two.wrapping_sub(one) <= u32::MAX / 2 { one } else { two }
}

/// The later of the two.
const fn later_us(one: u32, two: u32) -> u32 {
    if two.wrapping_sub(one) <= u32::MAX / 2 { two } else { one }
}

/// What a place in the table is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// A flow that can be looked up.
    Open,
    /// What came after the flow that links here was closed.
    Successor,
    /// Nothing.
    Unused,
}

/// One open flow: three cache lines, of which a packet needs the first and one or both of the others.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// Canonical, in domain 0: the outer identity itself tells networks apart.
    pub(super) key: FlowKey,
    pub(super) outer: Outer,
    /// Number of the ticket that is valid: when to look at this entry again.
    pub(super) ticket: u32,
    /// What came after this flow was closed, until the epoch's end tells whether it is a new flow; of an
    /// unused place the next one.
    pub(super) link: u32,
    /// Index 0 sent packets with `key` as it stands, index 1 with its reverse.
    pub(super) sides: [Side; 2],
    /// The aggregator's clock when this part began.
    pub(super) part_began_ms: u64,
    /// The aggregator's clock at the last packet.
    pub(super) last_seen_ms: u64,
    /// When the last SYN came, as [`Side::opening_us`] has the first; no meaning without one.
    syn_last_us: u32,
    /// What the table of places knows it by.
    pub(super) hash: u32,
    pub(super) state: State,
    /// Something is to be decided at the end of the epoch.
    pub(super) changed: bool,
    /// FIN from both sides or RST from one, in an earlier epoch.
    pub(super) closed: bool,
    /// This part of it has told which directions the mirror shows.
    told: bool,
    /// Set once a part was reported: all parts of a flow name the same initiator.
    roles: Option<Roles>,
}

const _: () = assert!(size_of::<Entry>() == 192);

impl Entry {
    pub(super) fn new(key: FlowKey, outer: Outer, state: State) -> Self {
        Self {
            key,
            outer,
            ticket: 0,
            link: NONE,
            sides: [Side::default(); 2],
            part_began_ms: u64::MAX,
            last_seen_ms: 0,
            syn_last_us: 0,
            hash: 0,
            state,
            changed: false,
            closed: false,
            told: false,
            roles: None,
        }
    }

    /// Whether it is the open flow of this identity.
    pub(super) fn is(&self, identity: &Identity) -> bool {
        self.state == State::Open && self.key == identity.key && self.outer == identity.outer
    }

    /// Counts `seen`, whose first and last packet came at these times of the aggregator's clock.
    pub(super) fn handle(&mut self, seen: &Observation, reversed: bool, span_ms: (u64, u64)) {
        if self.packets() == 0 {
            self.part_began_ms = span_ms.0;
        }
        self.part_began_ms = self.part_began_ms.min(span_ms.0);
        self.last_seen_ms = self.last_seen_ms.max(span_ms.1);
        if let OpeningTime::At(time_us) = seen.opening
            && seen.tcp.syn
        {
            self.syn_last_us = self.merged_syn_last_us(Some(time_us));
        }
        self.sides[usize::from(reversed)].merge(&Side::of(seen));
    }

    /// Takes over what was counted apart: late packets of this flow after all.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.packets() == 0 {
            self.part_began_ms = other.part_began_ms;
        }
        self.part_began_ms = self.part_began_ms.min(other.part_began_ms);
        self.last_seen_ms = self.last_seen_ms.max(other.last_seen_ms);
        self.syn_last_us = self.merged_syn_last_us(other.syn_last_us());
        for (side, more) in self.sides.iter_mut().zip(&other.sides) {
            side.merge(more);
        }
    }

    /// When the last SYN came, where there was one whose time is known.
    fn syn_last_us(&self) -> Option<u32> {
        let is_timed = |side: &Side| side.has(SYN) && side.has(TIMED);
        self.sides.iter().any(is_timed).then_some(self.syn_last_us)
    }

    fn merged_syn_last_us(&self, other: Option<u32>) -> u32 {
        match (self.syn_last_us(), other) {
            (Some(one), Some(two)) => later_us(one, two),
            (one, two) => one.or(two).unwrap_or_default(),
        }
    }

    /// The time from the initiator's SYN to the responder's SYN-ACK.
    fn handshake_rtt_us(&self, initiator: &Side, responder: &Side) -> Option<u32> {
        if initiator.opening() & SYN_ACK != 0 || responder.opening() != SYN_ACK {
            return None;
        }
        if responder.has(MEASURED) {
            return Some(responder.opening_us);
        }
        let is_timed = initiator.has(SYN) && initiator.has(TIMED) && responder.has(TIMED);
        is_timed.then_some(())?;
        handshake_rtt_us(initiator.opening_us, self.syn_last_us, responder.opening_us)
    }

    /// Packets of this part, both directions.
    pub(super) fn packets(&self) -> u64 {
        self.sides[0].packets + self.sides[1].packets
    }

    /// Whether somebody opened or accepted a connection here.
    pub(super) fn opens(&self) -> bool {
        (self.sides[0].opening() | self.sides[1].opening()) != 0
    }

    /// Whether the connection has ended: FIN from both, or RST from one.
    pub(super) fn ended(&self) -> bool {
        let [a, b] = [self.sides[0].flags_ever, self.sides[1].flags_ever];
        (a & b & tcp_flag::FIN) | ((a | b) & tcp_flag::RST) != 0
    }

    /// Whether packets of both sides were seen since the flow began.
    pub(super) fn both_seen(&self) -> bool {
        self.sides[0].seen() && self.sides[1].seen()
    }

    /// What this flow tells of the mirror; once for each part.
    pub(super) fn poll_evidence(&mut self) -> Option<Evidence> {
        let is_tcp = self.key.protocol() == protocol::TCP && !self.key.kind().has(Kind::NO_PORTS);
        if self.told || !is_tcp {
            return None;
        }
        let evidence = if self.both_seen() {
            Evidence::Both
        } else if self.sides.iter().any(Side::converses) {
            Evidence::One
        } else {
            return None;
        };
        self.told = true;
        Some(evidence)
    }

    /// The record of this part; `None` when nothing came in it.
    #[inline]
    pub(super) fn record(&mut self, end_reason: EndReason) -> Option<Record> {
        if self.packets() == 0 {
            return None;
        }
        let roles = *self.roles.get_or_insert_with(|| role::decide(&self.key, &self.sides));
        let initiator = &self.sides[usize::from(roles.reversed)];
        let responder = &self.sides[usize::from(!roles.reversed)];
        let key = if roles.reversed { self.key.reversed() } else { self.key };
        let is_v4 = key.kind().has(Kind::V4);
        // A side without packets has no times.
        let (start_ms, end_ms) = match (initiator.packets, responder.packets) {
            (_, 0) => (initiator.first_ms, initiator.last_ms),
            (0, _) => (responder.first_ms, responder.last_ms),
            _ => (
                initiator.first_ms.min(responder.first_ms),
                initiator.last_ms.max(responder.last_ms),
            ),
        };
        Some(Record {
            start_ms,
            end_ms,
            initiator: key.source.to_ip(is_v4),
            responder: key.destination.to_ip(is_v4),
            initiator_port: key.source_port(),
            responder_port: key.destination_port(),
            protocol: key.protocol(),
            ports_known: !key.kind().has(Kind::NO_PORTS),
            outer: self.outer,
            from_initiator: initiator.direction(),
            from_responder: responder.direction(),
            handshake: role::handshake(key.protocol(), initiator, responder),
            handshake_rtt_us: self.handshake_rtt_us(initiator, responder),
            interface: if initiator.packets > 0 {
                initiator.interface
            } else {
                responder.interface
            },
            role: roles.evidence,
            end_reason,
            folded: false,
            pseudonyms: Pseudonyms::default(),
        })
    }

    /// Begins the next part, after the record of this one.
    pub(super) fn begin_part(&mut self) {
        self.told = false;
        for side in &mut self.sides {
            side.reset();
        }
    }
}
