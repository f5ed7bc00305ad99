//! Takes observations (one packet of a capture, or a slot of the kernel's cache with many) and the
//! time; gives biflow records (RFC 5103). Pure: never reads a clock, never does I/O, never loses a
//! packet. The same input gives the same records in the same order.
//!
//! Time comes in epochs: [`Aggregator::advance`] ends one. Within an epoch observations may come in
//! any order, since a kernel slot holds many packets and the slots are scanned as they lie;
//! whatever depends on order (who opened the flow, whether a SYN begins a new one) is decided at
//! its end.

mod directions;
mod entry;
#[cfg(test)]
mod mirrors;
mod places;
#[cfg(test)]
mod properties;
mod role;
#[cfg(test)]
mod tests;
mod watched;
mod wheel;

use std::hash::BuildHasher as _;
use std::hint;

use flow::{EndReason, FlowKey, Handshake, Observation, Outer, Record, tcp_flag};
use serde::{Deserialize, Serialize};

pub use directions::DirectionsSeen;
use entry::{Entry, State};
use places::{ABSENT, NONE, Places};
pub(crate) use watched::Watched;
use wheel::{Ticket, Wheel};

use crate::pages::roomy;

/// What of VLAN tags and tunnels keeps flows with equal addresses apart, and stands in their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApartBy {
    /// Everything, also what differs by direction: MPLS labels and endpoints of GTP-U. Under those a conversation is
    /// two flows of one direction each.
    Everything,
    /// What is the same for both directions: VLAN tags, and the numbers of tunnels that have one for both.
    #[default]
    Conversation,
    /// Nothing: for a mirror port that tags one direction only, or each its own way.
    Nothing,
}

impl ApartBy {
    pub(crate) fn of(self, outer: Outer) -> Outer {
        match self {
            Self::Everything => outer,
            Self::Conversation if outer.is_plain() => outer,
            Self::Conversation => outer.both_ways(),
            Self::Nothing => Outer::default(),
        }
    }
}

/// Bounds of the flow table and when flows end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AggregatorSettings {
    /// A flow that lasts longer is reported in parts of this length.
    pub active_timeout_ms: u64,
    /// A flow without a packet for this long has ended.
    pub idle_timeout_ms: u64,
    /// How long a closed TCP connection is kept for late packets.
    pub linger_ms: u64,
    /// Flows held at once; about 220 bytes each. The one nearest to its end goes when the table is
    /// full.
    pub flows_open_max: u32,
    /// What keeps flows with equal addresses apart.
    pub apart_by: ApartBy,
}

impl Default for AggregatorSettings {
    fn default() -> Self {
        Self {
            active_timeout_ms: 60_000,
            idle_timeout_ms: 15_000,
            linger_ms: 2_000,
            flows_open_max: 1_000_000,
            apart_by: ApartBy::Conversation,
        }
    }
}

/// What went through so far; each only grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AggregatorTotals {
    /// Packets taken in; each is in a record, written or open.
    pub packets_in: u64,
    /// Layer-2 bytes taken in.
    pub bytes_in: u64,
    /// Packets in the records given out.
    pub packets_out: u64,
    /// Records given out.
    pub records_out: u64,
    /// Flows that began.
    pub flows_opened: u64,
    /// Flows that ended early because the table was full.
    pub flows_evicted: u64,
    /// Records of openings that are told as [`flow::Handshake::OneWay`] because the mirror shows one direction only.
    pub openings_one_way: u64,
    /// TCP conversations of late, by the directions that were seen of them.
    pub directions: DirectionsSeen,
    /// The mirror shows one direction of the traffic only, as far as those tell.
    pub one_way: bool,
}

impl AggregatorTotals {
    /// Of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            packets_in: self.packets_in + other.packets_in,
            bytes_in: self.bytes_in + other.bytes_in,
            packets_out: self.packets_out + other.packets_out,
            records_out: self.records_out + other.records_out,
            flows_opened: self.flows_opened + other.flows_opened,
            flows_evicted: self.flows_evicted + other.flows_evicted,
            openings_one_way: self.openings_one_way + other.openings_one_way,
            directions: self.directions.plus(&other.directions),
            one_way: self.one_way || other.one_way,
        }
    }
}

/// Open flows, in one table or spread over several.
pub trait FlowTable: Send {
    /// Counts observations whose identities are known; there are as many of both. Gives records only when a
    /// table is full.
    fn handle_identified(
        &mut self,
        seen: &[Observation],
        identities: &[Identity],
        emit: &mut dyn FnMut(Record),
    );

    /// Ends an epoch at `now_ms`: gives the records of flows that ended or lasted too long. Time does not
    /// go back; an earlier one counts as none passed.
    fn advance(&mut self, now_ms: u64, emit: &mut dyn FnMut(Record));

    /// Ends all flows: the sensor stops, or the capture has ended. The table is empty afterwards.
    fn finish(&mut self, emit: &mut dyn FnMut(Record));

    /// What went through so far; what was handed over after the latest end of an epoch may be missing.
    fn totals(&self) -> AggregatorTotals;

    /// Flows in the table, at the same time.
    fn flows_open(&self) -> usize;
}

/// An observation cannot push a flow's end further than this beyond the clock, whatever its time
/// says.
const AHEAD_MAX_MS: u64 = 10_000;
/// Entries looked at to find one that has really been silent, before one is evicted anyway.
const EVICTION_TRIES: u32 = 16;

/// Invalid tickets, beyond one for each flow, that the wheel may hold before they are thrown out: flows
/// that end soon leave theirs until its time comes.
const TICKETS_SPARE: usize = 65_536;

/// Flows named for the end of an epoch, beyond two for each place, before those are thrown out that have
/// left the table since: an epoch of a capture may be of any length.
const CHANGED_SPARE: usize = 65_536;

/// Observations looked up together; their cache misses overlap.
const LOOKUPS_AT_ONCE: usize = 32;

/// Whose packets an observation counts, as the table of flows knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The same for both directions.
    key: FlowKey,
    outer: Outer,
    /// The observation's own key is the reverse of that.
    reversed: bool,
    hash: u32,
}

impl Identity {
    /// The same for both directions of a flow; secret, and different at each start.
    #[must_use]
    pub fn hash(&self) -> u32 {
        self.hash
    }
}

/// Finds out whose packets an observation counts. Copies of one agree.
#[derive(Clone, Debug)]
pub struct Identities {
    hasher: foldhash::fast::RandomState,
    apart_by: ApartBy,
}

impl Identities {
    /// With a hash that nobody can foresee.
    #[must_use]
    pub fn new(apart_by: ApartBy) -> Self {
        Self { hasher: foldhash::fast::RandomState::default(), apart_by }
    }

    /// The identity for this key, in whichever domain, and outer identity.
    #[must_use]
    pub fn of(&self, key: &FlowKey, outer: Outer) -> Identity {
        let (key, reversed) = key.with_domain(0).canonical();
        let outer = self.apart_by.of(outer);
        Identity { key, outer, reversed, hash: self.hash_of(&key, outer) }
    }

    fn hash_of(&self, key: &FlowKey, outer: Outer) -> u32 {
        // The table of places has another meaning for 0.
        ((self.hasher.hash_one((key, outer)) >> 32) as u32).max(1)
    }
}

/// The bit of [`Aggregator::opened`] for this flow, and a few others.
fn opened_bit(identity: &Identity) -> u64 {
    1 << (identity.hash % u64::BITS)
}

/// The table of open flows.
pub struct Aggregator {
    settings: AggregatorSettings,
    identities: Identities,
    /// From a flow's hash to its place in `entries`.
    places: Places,
    entries: Vec<Entry>,
    /// First of the unused places, linked by `link`.
    unused: u32,
    /// When to look at each flow again; each has one valid ticket.
    wheel: Wheel,
    /// Flows that something is to be decided about at the end of the epoch.
    changed: Vec<u32>,
    /// One bit for each flow that was opened since the latest look-ups, by its hash.
    opened: u64,
    now_ms: Option<u64>,
    totals: AggregatorTotals,
}

impl Aggregator {
    /// An empty table. Grows as flows come, up to its bound.
    #[must_use]
    pub fn new(settings: AggregatorSettings) -> Self {
        Self::with_identities(settings, Identities::new(settings.apart_by))
    }

    /// The same for observations whose identities were found out before.
    #[must_use]
    pub fn with_identities(settings: AggregatorSettings, identities: Identities) -> Self {
        let flows_open_max = settings.flows_open_max.clamp(1, ABSENT - 1);
        Self {
            settings: AggregatorSettings { flows_open_max, ..settings },
            identities,
            places: Places::new(),
            entries: roomy(flows_open_max as usize),
            unused: NONE,
            wheel: Wheel::new(),
            changed: Vec::new(),
            opened: 0,
            now_ms: None,
            totals: AggregatorTotals::default(),
        }
    }

    /// Counts packets of one direction of one flow. Gives a record only when the table is full.
    pub fn handle_observation(&mut self, seen: &Observation, emit: &mut dyn FnMut(Record)) {
        let identity = self.identities.of(&seen.key, seen.outer);
        self.handle_at(seen, &identity, NONE, emit);
    }

    /// The same for many.
    pub fn handle_observations(&mut self, seen: &[Observation], emit: &mut dyn FnMut(Record)) {
        let mut identities = [Identity::default(); LOOKUPS_AT_ONCE];
        for some in seen.chunks(LOOKUPS_AT_ONCE) {
            for (identity, seen) in identities.iter_mut().zip(some) {
                *identity = self.identities.of(&seen.key, seen.outer);
            }
            self.handle_identified(some, &identities, emit);
        }
    }

    /// Counts packets whose flow may lie at `likely`.
    fn handle_at(
        &mut self,
        seen: &Observation,
        identity: &Identity,
        likely: u32,
        emit: &mut dyn FnMut(Record),
    ) {
        debug_assert!(seen.packets > 0, "an observation is of at least one packet");
        self.totals.packets_in += seen.packets;
        self.totals.bytes_in += seen.bytes;
        let now_ms = *self.now_ms.get_or_insert(seen.first_ms);
        let ahead_max_ms = now_ms.saturating_add(AHEAD_MAX_MS);
        let span_ms =
            (seen.first_ms.clamp(now_ms, ahead_max_ms), seen.last_ms.clamp(now_ms, ahead_max_ms));

        let found = self.find(identity, likely);
        let place = if found == NONE {
            self.open(identity, seen, span_ms, emit)
        } else {
            let is_closed = self.entries[found as usize].closed;
            let place = if is_closed { self.successor_of(found) } else { found };
            self.entries[place as usize].handle(seen, identity.reversed, span_ms);
            place
        };
        // A FIN or RST may have closed it; the end of the epoch tells.
        let is_open = self.entries[place as usize].state == State::Open;
        if seen.tcp.flags & (tcp_flag::FIN | tcp_flag::RST) != 0 && is_open {
            self.mark_changed(place);
        }
    }

    /// Where the flow is that was looked up to be at `likely`; since then others may have come and gone.
    #[inline]
    fn find(&self, identity: &Identity, likely: u32) -> u32 {
        if likely == ABSENT && self.opened & opened_bit(identity) == 0 {
            return NONE;
        }
        if self.entries.get(likely as usize).is_some_and(|entry| entry.is(identity)) {
            return likely;
        }
        self.places.find(identity.hash, |place| self.entries[place as usize].is(identity))
    }

    /// Reports each flow, keeps it, or puts it back, as its timeouts say.
    fn look_at(&mut self, tickets: &[Ticket], now_ms: u64, emit: &mut dyn FnMut(Record)) {
        for ticket in tickets {
            // As with look-ups: what each will need is asked for before the first is dealt with.
            hint::black_box(self.entries[ticket.place as usize].ticket);
        }
        for ticket in tickets {
            let entry = &self.entries[ticket.place as usize];
            if entry.ticket != ticket.number {
                continue;
            }
            let (due_ms, reason) = self.due(entry);
            if due_ms > now_ms {
                self.take_evidence(ticket.place as usize);
                self.file(ticket.place, due_ms);
            } else if reason == EndReason::ActiveTimeout {
                self.report(ticket.place as usize, reason, emit);
                self.entries[ticket.place as usize].begin_part();
                let (due_ms, _) = self.due(&self.entries[ticket.place as usize]);
                self.file(ticket.place, due_ms);
            } else {
                self.close(ticket.place, reason, emit);
            }
        }
    }

    /// Has a flow looked at at `due_ms`, and at no other time that was named before.
    fn file(&mut self, place: u32, due_ms: u64) {
        let entry = &mut self.entries[place as usize];
        entry.ticket = entry.ticket.wrapping_add(1);
        let ticket = Ticket { place, number: entry.ticket };
        self.wheel.file(ticket, due_ms, self.now_ms.unwrap_or_default());
    }

    /// When the flow is to be reported next, and why.
    fn due(&self, entry: &Entry) -> (u64, EndReason) {
        let AggregatorSettings { active_timeout_ms, idle_timeout_ms, linger_ms, .. } =
            self.settings;
        let (wait_ms, reason) = if entry.closed {
            (linger_ms.min(idle_timeout_ms), EndReason::EndOfFlow)
        } else {
            (idle_timeout_ms, EndReason::IdleTimeout)
        };
        let silent_ms = entry.last_seen_ms.saturating_add(wait_ms);
        let long_ms = entry.part_began_ms.saturating_add(active_timeout_ms);
        if entry.packets() > 0 && long_ms < silent_ms {
            (long_ms, EndReason::ActiveTimeout)
        } else {
            (silent_ms, reason)
        }
    }

    /// Decides what could not be decided before all of an epoch was seen.
    fn settle(&mut self, emit: &mut dyn FnMut(Record)) {
        let mut changed = std::mem::take(&mut self.changed);
        for place in changed.drain(..) {
            let at = place as usize;
            // It may have been put out of a full table since, and its place be in use again.
            if self.entries[at].state != State::Open || !self.entries[at].changed {
                continue;
            }
            self.entries[at].changed = false;
            let was_closed = self.entries[at].closed;
            if let Some(next) = self.take_successor(place) {
                if next.opens() {
                    // The port is used again: the closed flow ends here and a new one begins in its
                    // place.
                    self.report(at, EndReason::EndOfFlow, emit);
                    self.totals.flows_opened += 1;
                    let Entry { ticket, hash, .. } = self.entries[at];
                    self.entries[at] = next;
                    let entry = &mut self.entries[at];
                    (entry.state, entry.ticket, entry.hash) = (State::Open, ticket, hash);
                } else {
                    self.entries[at].merge(&next);
                }
            }
            self.take_evidence(at);
            let entry = &mut self.entries[at];
            entry.closed = entry.ended();
            if entry.closed || was_closed {
                let (due_ms, _) = self.due(&self.entries[at]);
                self.file(place, due_ms);
            }
        }
        self.changed = changed;
    }

    /// A new entry for this flow, in the table, with its first packets.
    fn open(
        &mut self,
        identity: &Identity,
        seen: &Observation,
        span_ms: (u64, u64),
        emit: &mut dyn FnMut(Record),
    ) -> u32 {
        let mut entry = Entry::new(identity.key, identity.outer, State::Open);
        entry.hash = identity.hash;
        entry.handle(seen, identity.reversed, span_ms);
        let place = loop {
            match self.reserve(&entry) {
                Some(place) => break place,
                None => self.evict(emit),
            }
        };
        self.totals.flows_opened += 1;
        self.opened |= opened_bit(identity);
        self.places.insert(identity.hash, place);
        let now_ms = self.now_ms.unwrap_or_default();
        // Another observation of this epoch may put the part's beginning as far back as the epoch's.
        let due_ms = span_ms
            .1
            .saturating_add(self.settings.idle_timeout_ms)
            .min(now_ms.saturating_add(self.settings.active_timeout_ms));
        self.file(place, due_ms);
        place
    }

    /// Where packets go that come after the flow was closed; the flow itself when there is no room.
    fn successor_of(&mut self, place: u32) -> u32 {
        let Entry { link, key, outer, .. } = self.entries[place as usize];
        if link != NONE {
            return link;
        }
        let Some(successor) = self.reserve(&Entry::new(key, outer, State::Successor)) else {
            return place;
        };
        self.entries[place as usize].link = successor;
        self.mark_changed(place);
        successor
    }

    /// What was counted after the flow was closed, which leaves the table.
    fn take_successor(&mut self, place: u32) -> Option<Entry> {
        let successor = std::mem::replace(&mut self.entries[place as usize].link, NONE);
        let mut next = *self.entries.get(successor as usize)?;
        self.release(successor);
        next.link = NONE;
        Some(next)
    }

    fn mark_changed(&mut self, place: u32) {
        if self.changed.len() >= 2 * self.entries.len() + CHANGED_SPARE {
            // Most of these have been put out of a full table since.
            let entries = &self.entries;
            self.changed.retain(|place| entries[*place as usize].changed);
            self.changed.sort_unstable();
            self.changed.dedup();
        }
        let entry = &mut self.entries[place as usize];
        if !entry.changed {
            entry.changed = true;
            self.changed.push(place);
        }
    }

    /// Makes room: ends the flow that has been silent longest, as far as the wheel knows.
    fn evict(&mut self, emit: &mut dyn FnMut(Record)) {
        let now_ms = self.now_ms.unwrap_or_default();
        let mut attempts = 0;
        loop {
            let (ticket, list) =
                self.wheel.pop_earliest(now_ms).expect("each flow of a full table has a ticket");
            let entry = &self.entries[ticket.place as usize];
            if entry.ticket != ticket.number {
                continue;
            }
            attempts += 1;
            // It was filed by what was known then; it may have had packets since.
            let (due_ms, _) = self.due(entry);
            let is_silent = Wheel::list_for(due_ms, now_ms) == list;
            if attempts == EVICTION_TRIES || entry.changed || is_silent {
                self.totals.flows_evicted += 1;
                self.close(ticket.place, EndReason::LackOfResources, emit);
                return;
            }
            self.file(ticket.place, due_ms);
        }
    }

    /// Ends a flow.
    fn close(&mut self, place: u32, reason: EndReason, emit: &mut dyn FnMut(Record)) {
        if let Some(next) = self.take_successor(place) {
            self.entries[place as usize].merge(&next);
        }
        self.report(place as usize, reason, emit);
        let hash = self.entries[place as usize].hash;
        self.places.remove(hash, place);
        self.release(place);
    }

    /// Learns from a flow which directions the mirror shows, once for each part of it.
    fn take_evidence(&mut self, at: usize) {
        if let Some(evidence) = self.entries[at].poll_evidence() {
            self.totals.directions.handle(evidence);
        }
    }

    /// Gives the record of a flow's part, if there is anything in it. The next part has not begun yet.
    fn report(&mut self, at: usize, reason: EndReason, emit: &mut dyn FnMut(Record)) {
        self.take_evidence(at);
        let one_way = self.totals.one_way;
        let Some(mut record) = self.entries[at].record(reason) else { return };
        let is_opening = matches!(record.handshake, Handshake::Syn | Handshake::SynAck);
        if one_way && is_opening && !self.entries[at].both_seen() {
            record.handshake = Handshake::OneWay;
            self.totals.openings_one_way += 1;
        }
        self.totals.records_out += 1;
        self.totals.packets_out += record.from_initiator.packets + record.from_responder.packets;
        emit(record);
    }

    /// Puts an entry where none is; `None` when all places are in use.
    fn reserve(&mut self, entry: &Entry) -> Option<u32> {
        if let Some(unused) = self.entries.get_mut(self.unused as usize) {
            let Entry { link, ticket, .. } = *unused;
            *unused = *entry;
            // Tickets of whoever was here before stay invalid.
            unused.ticket = ticket;
            return Some(std::mem::replace(&mut self.unused, link));
        }
        let place = u32::try_from(self.entries.len()).ok()?;
        if place >= self.settings.flows_open_max {
            return None;
        }
        self.entries.push(*entry);
        Some(place)
    }

    fn release(&mut self, place: u32) {
        let entry = &mut self.entries[place as usize];
        entry.state = State::Unused;
        entry.changed = false;
        entry.ticket = entry.ticket.wrapping_add(1);
        entry.link = std::mem::replace(&mut self.unused, place);
    }
}

impl FlowTable for Aggregator {
    fn handle_identified(
        &mut self,
        seen: &[Observation],
        identities: &[Identity],
        emit: &mut dyn FnMut(Record),
    ) {
        // All are looked up before the first is counted: a large table lies in slow memory, and
        // look-ups that do not wait for each other overlap there.
        let chunks = seen.chunks(LOOKUPS_AT_ONCE).zip(identities.chunks(LOOKUPS_AT_ONCE));
        for (seen, identities) in chunks {
            self.opened = 0;
            let mut likely = [NONE; LOOKUPS_AT_ONCE];
            for (place, identity) in likely.iter_mut().zip(identities) {
                *place = self.places.likely(identity.hash);
            }
            for (&place, identity) in likely.iter().zip(identities) {
                if let Some(entry) = self.entries.get(place as usize) {
                    // Waiting for these is what is done here: they are in the caches below.
                    hint::black_box((
                        entry.key.tail,
                        entry.sides[usize::from(identity.reversed)].packets,
                    ));
                }
            }
            for ((seen, identity), &place) in seen.iter().zip(identities).zip(&likely) {
                self.handle_at(seen, identity, place, emit);
            }
        }
    }

    fn advance(&mut self, now_ms: u64, emit: &mut dyn FnMut(Record)) {
        let one_way = self.totals.directions.is_one_way(self.totals.one_way);
        self.advance_as(one_way, now_ms, emit);
    }

    fn finish(&mut self, emit: &mut dyn FnMut(Record)) {
        self.take_all_evidence();
        let one_way = self.totals.directions.is_one_way(self.totals.one_way);
        self.finish_as(one_way, emit);
    }

    fn totals(&self) -> AggregatorTotals {
        self.totals
    }

    fn flows_open(&self) -> usize {
        self.places.len()
    }
}

/// The same for one of several tables, which are told what all of them together have found out about the mirror.
impl Aggregator {
    /// As [`FlowTable::advance`], with a mirror that shows one direction only or not. What is learnt meanwhile counts
    /// from the next epoch on, so that the order of flows within one does not show.
    pub fn advance_as(&mut self, one_way: bool, now_ms: u64, emit: &mut dyn FnMut(Record)) {
        self.totals.one_way = one_way;
        let before_ms = *self.now_ms.get_or_insert(now_ms);
        self.settle(emit);
        let now_ms = now_ms.max(before_ms);
        self.now_ms = Some(now_ms);
        self.totals.directions.advance(before_ms, now_ms);
        for list in Wheel::due(before_ms, now_ms) {
            let mut rest = self.wheel.take(list);
            while let Some(block) = self.wheel.next_block(&mut rest) {
                self.look_at(block.tickets(), now_ms, emit);
            }
        }
        if self.wheel.len() > 2 * self.places.len() + TICKETS_SPARE {
            let entries = &self.entries;
            self.wheel.retain(|ticket| entries[ticket.place as usize].ticket == ticket.number);
        }
    }

    /// Learns from every open flow, before all of them end.
    pub fn take_all_evidence(&mut self) {
        for at in 0..self.entries.len() {
            if self.entries[at].state == State::Open {
                self.take_evidence(at);
            }
        }
    }

    /// As [`FlowTable::finish`], with a mirror that shows one direction only or not.
    pub fn finish_as(&mut self, one_way: bool, emit: &mut dyn FnMut(Record)) {
        self.totals.one_way = one_way;
        self.settle(emit);
        for at in 0..self.entries.len() {
            let entry = &self.entries[at];
            if entry.state == State::Open {
                let reason = if entry.closed { EndReason::EndOfFlow } else { EndReason::ForcedEnd };
                self.report(at, reason, emit);
            }
        }
        self.entries.clear();
        self.unused = NONE;
        self.places.clear();
        self.wheel.clear();
        debug_assert_eq!(self.totals.packets_in, self.totals.packets_out, "no packet is lost");
    }
}
