//! Takes observations of one flow; gives what they add up to. Knows nothing of tables, timers or
//! clocks.
//!
//! Everything that is folded in here commutes (sums, minima, maxima, sets), so the order in which
//! the observations of one epoch arrive cannot show.

use flow::{Direction, EndReason, FlowKey, Observation, Outer, Record, tcp_flag};

use super::Identity;
use super::places::NONE;
use super::role::{self, Roles};

/// A SYN without ACK was seen, in [`Side::opening`].
pub(super) const SYN: u8 = 1;
/// A SYN with ACK was seen, in [`Side::opening`].
pub(super) const SYN_ACK: u8 = 2;

/// What one end of a flow sent.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Side {
    pub(super) packets: u64,
    bytes: u64,
    /// Of this part of the flow; no meaning while `packets` is 0.
    pub(super) first_ms: u64,
    last_ms: u64,
    tcp_flags: u8,
    ttl: u8,
    length_min: u16,
    length_max: u16,
    /// OR of all TCP flags since the flow began, parts already reported included.
    pub(super) flags_ever: u8,
    /// [`SYN`] and [`SYN_ACK`], since the flow began.
    pub(super) opening: u8,
    /// A packet was seen since the flow began.
    pub(super) seen: bool,
}

impl Side {
    fn handle(&mut self, seen: &Observation) {
        self.merge(&Self {
            packets: seen.packets,
            bytes: seen.bytes,
            first_ms: seen.first_ms,
            last_ms: seen.last_ms.max(seen.first_ms),
            tcp_flags: seen.tcp.flags,
            ttl: seen.ttl,
            length_min: seen.length_min,
            length_max: seen.length_max,
            flags_ever: seen.tcp.flags,
            opening: (u8::from(seen.tcp.syn) * SYN) | (u8::from(seen.tcp.syn_ack) * SYN_ACK),
            seen: true,
        });
    }

    fn merge(&mut self, other: &Self) {
        self.flags_ever |= other.flags_ever;
        self.opening |= other.opening;
        self.seen |= other.seen;
        if other.packets == 0 {
            return;
        }
        if self.packets == 0 {
            let (flags_ever, opening) = (self.flags_ever, self.opening);
            *self = Self { flags_ever, opening, ..*other };
            return;
        }
        // The TTL is that of the first packet; of two in the same millisecond, the smaller.
        if (other.first_ms, other.ttl) < (self.first_ms, self.ttl) {
            self.ttl = other.ttl;
        }
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.tcp_flags |= other.tcp_flags;
        self.length_min = self.length_min.min(other.length_min);
        self.length_max = self.length_max.max(other.length_max);
    }

    fn direction(&self) -> Direction {
        Direction {
            packets: self.packets,
            bytes: self.bytes,
            tcp_flags: self.tcp_flags,
            ttl: self.ttl,
            length_min: self.length_min,
            length_max: self.length_max,
        }
    }

    /// Starts the next part: the counts go, what is known of the whole flow stays.
    fn reset(&mut self) {
        let Self { flags_ever, opening, seen, .. } = *self;
        *self = Self { flags_ever, opening, seen, ..Self::default() };
    }
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
    pub(super) state: State,
    /// Something is to be decided at the end of the epoch.
    pub(super) changed: bool,
    /// FIN from both sides or RST from one, in an earlier epoch.
    pub(super) closed: bool,
    /// Set once a part was reported: all parts of a flow name the same initiator.
    pub(super) roles: Option<Roles>,
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
            state,
            changed: false,
            closed: false,
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
        self.sides[usize::from(reversed)].handle(seen);
    }

    /// Takes over what was counted apart: late packets of this flow after all.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.packets() == 0 {
            self.part_began_ms = other.part_began_ms;
        }
        self.part_began_ms = self.part_began_ms.min(other.part_began_ms);
        self.last_seen_ms = self.last_seen_ms.max(other.last_seen_ms);
        for (side, more) in self.sides.iter_mut().zip(&other.sides) {
            side.merge(more);
        }
    }

    /// Packets of this part, both directions.
    pub(super) fn packets(&self) -> u64 {
        self.sides[0].packets + self.sides[1].packets
    }

    /// Whether somebody opened or accepted a connection here.
    pub(super) fn opens(&self) -> bool {
        (self.sides[0].opening | self.sides[1].opening) != 0
    }

    /// Whether the connection has ended: FIN from both, or RST from one.
    pub(super) fn ended(&self) -> bool {
        let [a, b] = [self.sides[0].flags_ever, self.sides[1].flags_ever];
        (a & b & tcp_flag::FIN) | ((a | b) & tcp_flag::RST) != 0
    }

    /// The record of this part, and begins the next one. `None` when nothing came since the last
    /// record.
    pub(super) fn poll_record(&mut self, end_reason: EndReason) -> Option<Record> {
        if self.packets() == 0 {
            return None;
        }
        let roles = *self.roles.get_or_insert_with(|| role::decide(&self.key, &self.sides));
        let (initiator, responder) =
            (self.sides[usize::from(roles.reversed)], self.sides[usize::from(!roles.reversed)]);
        let key = if roles.reversed { self.key.reversed() } else { self.key };
        let used = || [&initiator, &responder].into_iter().filter(|side| side.packets > 0);
        let is_v4 = key.kind().has(flow::Kind::V4);
        let record = Record {
            start_ms: used().map(|side| side.first_ms).min().unwrap_or_default(),
            end_ms: used().map(|side| side.last_ms).max().unwrap_or_default(),
            initiator: key.source.to_ip(is_v4),
            responder: key.destination.to_ip(is_v4),
            initiator_port: key.source_port(),
            responder_port: key.destination_port(),
            protocol: key.protocol(),
            ports_known: !key.kind().has(flow::Kind::NO_PORTS),
            outer: self.outer,
            from_initiator: initiator.direction(),
            from_responder: responder.direction(),
            handshake: role::handshake(key.protocol(), &initiator, &responder),
            role: roles.evidence,
            end_reason,
            folded: false,
        };
        for side in &mut self.sides {
            side.reset();
        }
        Some(record)
    }
}
