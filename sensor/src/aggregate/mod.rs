//! Takes observations (one packet of a capture, or a slot of the kernel's cache with many) and the
//! time; gives biflow records (RFC 5103). Pure: never reads a clock, never does I/O, never loses a
//! packet. The same input gives the same records in the same order.
//!
//! Time comes in epochs: [`Aggregator::advance`] ends one. Within an epoch observations may come in
//! any order, since a kernel slot holds many packets and the slots are scanned as they lie;
//! whatever depends on order (who opened the flow, whether a SYN begins a new one) is decided at
//! its end.

mod entry;
mod lists;
#[cfg(test)]
mod properties;
mod role;
#[cfg(test)]
mod tests;
mod watched;

use std::hash::BuildHasher as _;

use flow::{EndReason, FlowKey, Observation, Outer, Record, tcp_flag};
use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use entry::{Entry, NONE};
use lists::{CHANGED, Lists};
pub(crate) use watched::Watched;

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
    /// Flows held at once; about 250 bytes each. The one nearest to its end goes when the table is
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
}

/// An observation cannot push a flow's end further than this beyond the clock, whatever its time
/// says.
const AHEAD_MAX_MS: u64 = 10_000;
/// Entries looked at to find one that has really been silent, before one is evicted anyway.
const EVICTION_TRIES: u32 = 16;

/// Observations looked up together; their cache misses overlap.
const LOOKUPS_AT_ONCE: usize = 16;

/// Where the flow of an observation was found, or [`NONE`], and what it was looked up by.
#[derive(Clone, Copy, Default)]
struct Found {
    key: FlowKey,
    outer: Outer,
    reversed: bool,
    hash: u64,
    place: u32,
}

/// The table of open flows.
pub struct Aggregator {
    settings: AggregatorSettings,
    /// From a flow's identity to its place in `entries`.
    places: HashTable<u32>,
    hasher: foldhash::fast::RandomState,
    entries: Vec<Entry>,
    /// First of the unused places, linked by `next`.
    unused: u32,
    lists: Lists,
    now_ms: Option<u64>,
    totals: AggregatorTotals,
}

impl Aggregator {
    /// An empty table. Grows as flows come, up to its bound.
    #[must_use]
    pub fn new(settings: AggregatorSettings) -> Self {
        let flows_open_max = settings.flows_open_max.clamp(1, NONE - 1);
        Self {
            settings: AggregatorSettings { flows_open_max, ..settings },
            places: HashTable::new(),
            hasher: foldhash::fast::RandomState::default(),
            entries: Vec::new(),
            unused: NONE,
            lists: Lists::new(),
            now_ms: None,
            totals: AggregatorTotals::default(),
        }
    }

    /// What went through so far.
    #[must_use]
    pub fn totals(&self) -> AggregatorTotals {
        self.totals
    }

    /// Flows in the table.
    #[must_use]
    pub fn flows_open(&self) -> usize {
        self.places.len()
    }

    /// Counts packets of one direction of one flow. Gives a record only when the table is full.
    pub fn handle_observation(&mut self, seen: &Observation, emit: &mut dyn FnMut(Record)) {
        let found = self.find(seen);
        self.handle_found(seen, found, emit);
    }

    /// The same for many. All are looked up before the first is counted: a large table lies in slow
    /// memory, and look-ups that do not wait for each other overlap there.
    pub fn handle_observations(&mut self, seen: &[Observation], emit: &mut dyn FnMut(Record)) {
        for some in seen.chunks(LOOKUPS_AT_ONCE) {
            let mut all_found = [Found::default(); LOOKUPS_AT_ONCE];
            for (found, seen) in all_found.iter_mut().zip(some) {
                *found = self.find(seen);
            }
            for (found, seen) in all_found.iter().zip(some) {
                self.handle_found(seen, *found, emit);
            }
        }
    }

    /// Looks up the flow of `seen`.
    fn find(&self, seen: &Observation) -> Found {
        let (key, reversed) = seen.key.with_domain(0).canonical();
        let outer = self.settings.apart_by.of(seen.outer);
        let hash = hash_of(&self.hasher, &key, outer);
        let place = self.places.find(hash, |&place| self.is_at(place, &key, outer)).copied();
        Found { key, outer, reversed, hash, place: place.unwrap_or(NONE) }
    }

    fn is_at(&self, place: u32, key: &FlowKey, outer: Outer) -> bool {
        let entry = &self.entries[place as usize];
        entry.key == *key && entry.outer == outer
    }

    /// Counts packets whose flow was looked up; other flows may have come and gone since.
    fn handle_found(&mut self, seen: &Observation, found: Found, emit: &mut dyn FnMut(Record)) {
        debug_assert!(seen.packets > 0, "an observation is of at least one packet");
        self.totals.packets_in += seen.packets;
        self.totals.bytes_in += seen.bytes;
        let Found { key, outer, reversed, hash, mut place } = found;
        let now_ms = *self.now_ms.get_or_insert(seen.first_ms);
        let ahead_max_ms = now_ms.saturating_add(AHEAD_MAX_MS);
        let span_ms =
            (seen.first_ms.clamp(now_ms, ahead_max_ms), seen.last_ms.clamp(now_ms, ahead_max_ms));

        let still_there = place != NONE
            && self.entries[place as usize].list < DETACHED
            && self.is_at(place, &key, outer);
        if !still_there {
            let again = self.places.find(hash, |&place| self.is_at(place, &key, outer));
            place = again.copied().unwrap_or(NONE);
        }
        let place = if place == NONE {
            self.open(key, outer, hash, span_ms.1, emit)
        } else if self.entries[place as usize].closed {
            self.successor_of(place)
        } else {
            place
        };
        let entry = &mut self.entries[place as usize];
        entry.handle(seen, reversed, span_ms);
        // A FIN or RST may have closed it; the end of the epoch tells.
        if seen.tcp.flags & (tcp_flag::FIN | tcp_flag::RST) != 0 && entry.list != DETACHED {
            self.mark_changed(place);
        }
    }

    /// Ends an epoch at `now_ms`: gives the records of flows that ended or lasted too long. Time
    /// does not go back; an earlier one counts as none passed.
    pub fn advance(&mut self, now_ms: u64, emit: &mut dyn FnMut(Record)) {
        let before_ms = *self.now_ms.get_or_insert(now_ms);
        self.settle(emit);
        let now_ms = now_ms.max(before_ms);
        self.now_ms = Some(now_ms);
        for list in Lists::due(before_ms, now_ms) {
            // What is put back goes behind this one, so it is not met again.
            let last = self.lists.last(list);
            while let Some(place) = self.lists.pop(&mut self.entries, list) {
                self.look_at(place, now_ms, emit);
                if Some(place) == last {
                    break;
                }
            }
        }
    }

    /// Ends all flows: the sensor stops, or the capture has ended. The aggregator is empty
    /// afterwards.
    pub fn finish(&mut self, emit: &mut dyn FnMut(Record)) {
        self.settle(emit);
        let now_ms = self.now_ms.unwrap_or_default();
        for list in Lists::all(now_ms) {
            while let Some(place) = self.lists.pop(&mut self.entries, list) {
                let entry = &self.entries[place as usize];
                let reason = if entry.closed { EndReason::EndOfFlow } else { EndReason::ForcedEnd };
                self.close(place, reason, emit);
            }
        }
        debug_assert_eq!(self.totals.packets_in, self.totals.packets_out, "no packet is lost");
    }

    /// Reports the flow, keeps it, or puts it back, as its timeouts say. It is in no list.
    fn look_at(&mut self, place: u32, now_ms: u64, emit: &mut dyn FnMut(Record)) {
        let (due_ms, reason) = self.due(&self.entries[place as usize]);
        if due_ms > now_ms {
            self.lists.wait(&mut self.entries, place, due_ms, now_ms);
        } else if reason == EndReason::ActiveTimeout {
            if let Some(record) = self.entries[place as usize].poll_record(reason) {
                self.give(record, emit);
            }
            let (due_ms, _) = self.due(&self.entries[place as usize]);
            self.lists.wait(&mut self.entries, place, due_ms, now_ms);
        } else {
            self.close(place, reason, emit);
        }
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
        while let Some(place) = self.lists.pop(&mut self.entries, CHANGED) {
            let successor = std::mem::replace(&mut self.entries[place as usize].successor, NONE);
            if successor != NONE {
                let next = self.entries[successor as usize];
                self.release(successor);
                if next.opens() {
                    // The port is used again: the closed flow ends here and a new one begins in its
                    // place.
                    let closed = self.entries[place as usize].poll_record(EndReason::EndOfFlow);
                    if let Some(record) = closed {
                        self.give(record, emit);
                    }
                    self.totals.flows_opened += 1;
                    self.entries[place as usize] = next;
                } else {
                    self.entries[place as usize].merge(&next);
                }
            }
            let entry = &mut self.entries[place as usize];
            entry.closed = entry.ended();
            let (due_ms, _) = self.due(&self.entries[place as usize]);
            let now_ms = self.now_ms.unwrap_or_default();
            self.lists.wait(&mut self.entries, place, due_ms, now_ms);
        }
    }

    /// A new entry for this key, in the table and in a list.
    fn open(
        &mut self,
        key: FlowKey,
        outer: Outer,
        hash: u64,
        last_seen_ms: u64,
        emit: &mut dyn FnMut(Record),
    ) -> u32 {
        let place = loop {
            match self.reserve(key, outer) {
                Some(place) => break place,
                None => self.evict(emit),
            }
        };
        self.totals.flows_opened += 1;
        let (entries, hasher) = (&self.entries, &self.hasher);
        self.places.insert_unique(hash, place, |&other| {
            let entry = &entries[other as usize];
            hash_of(hasher, &entry.key, entry.outer)
        });
        let now_ms = self.now_ms.unwrap_or_default();
        // Another observation of this epoch may put the part's beginning as far back as the epoch's.
        let due_ms = last_seen_ms
            .saturating_add(self.settings.idle_timeout_ms)
            .min(now_ms.saturating_add(self.settings.active_timeout_ms));
        self.lists.wait(&mut self.entries, place, due_ms, now_ms);
        place
    }

    /// Where packets go that come after the flow was closed; the flow itself when there is no room.
    fn successor_of(&mut self, place: u32) -> u32 {
        let Entry { successor, key, outer, .. } = self.entries[place as usize];
        if successor != NONE {
            return successor;
        }
        let Some(successor) = self.reserve(key, outer) else {
            return place;
        };
        self.entries[successor as usize].list = DETACHED;
        self.entries[place as usize].successor = successor;
        self.mark_changed(place);
        successor
    }

    fn mark_changed(&mut self, place: u32) {
        if self.entries[place as usize].list != CHANGED {
            self.lists.remove(&mut self.entries, place);
            self.lists.append(&mut self.entries, place, CHANGED);
        }
    }

    /// Makes room: ends the flow that has been silent longest, as far as the lists know.
    fn evict(&mut self, emit: &mut dyn FnMut(Record)) {
        let now_ms = self.now_ms.unwrap_or_default();
        for attempt in 1..=EVICTION_TRIES {
            let place =
                self.lists.earliest(now_ms).expect("each flow of a full table is in some list");
            self.lists.remove(&mut self.entries, place);
            // It was filed by what was known then; it may have had packets since.
            let entry = &self.entries[place as usize];
            let (due_ms, _) = self.due(entry);
            if attempt == EVICTION_TRIES
                || entry.list == CHANGED
                || entry.list == Lists::list_for(due_ms, now_ms)
            {
                self.totals.flows_evicted += 1;
                self.close(place, EndReason::LackOfResources, emit);
                return;
            }
            self.lists.wait(&mut self.entries, place, due_ms, now_ms);
        }
    }

    /// Ends a flow that is in no list.
    fn close(&mut self, place: u32, reason: EndReason, emit: &mut dyn FnMut(Record)) {
        let successor = std::mem::replace(&mut self.entries[place as usize].successor, NONE);
        if successor != NONE {
            let next = self.entries[successor as usize];
            self.release(successor);
            self.entries[place as usize].merge(&next);
        }
        if let Some(record) = self.entries[place as usize].poll_record(reason) {
            self.give(record, emit);
        }
        let Entry { key, outer, .. } = self.entries[place as usize];
        let hash = hash_of(&self.hasher, &key, outer);
        if let Ok(found) = self.places.find_entry(hash, |&other| other == place) {
            found.remove();
        }
        self.release(place);
    }

    fn give(&mut self, record: Record, emit: &mut dyn FnMut(Record)) {
        self.totals.records_out += 1;
        self.totals.packets_out += record.from_initiator.packets + record.from_responder.packets;
        emit(record);
    }

    /// An unused place, or `None` when all are in use.
    fn reserve(&mut self, key: FlowKey, outer: Outer) -> Option<u32> {
        let entry = Entry::new(key, outer);
        if self.unused != NONE {
            let place = self.unused;
            self.unused = self.entries[place as usize].next;
            self.entries[place as usize] = entry;
            return Some(place);
        }
        let place = u32::try_from(self.entries.len()).ok()?;
        if place >= self.settings.flows_open_max {
            return None;
        }
        self.entries.push(entry);
        Some(place)
    }

    fn release(&mut self, place: u32) {
        self.entries[place as usize].list = DETACHED;
        self.entries[place as usize].next = self.unused;
        self.unused = place;
    }
}

/// What `Entry::list` says of an entry that is in none: a successor, or an unused place.
const DETACHED: u16 = u16::MAX;

fn hash_of(hasher: &foldhash::fast::RandomState, key: &FlowKey, outer: Outer) -> u64 {
    hasher.hash_one((key, outer))
}
