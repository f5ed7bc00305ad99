//! Takes what one sensor sends over one connection, and what the store says of it; gives what the backend does next.
//! Pure: no socket, no store, no clock. Never acks what was not committed, never hands over a batch before the
//! former group is settled, and nothing after a batch that could not be stored.
//!
//! ```text
//!  Hello ──► Look ──held──► Greet ──► batches in the order of their streams ──► Commit, a group ──settled──► Ack …
//!                                                    ▲                                        │
//!                                                    └──────── none was Retry ◄───────────────┴──► Retry: Close
//! ```
//!
//! A batch is named by the number of its stream, counted from 0; in which order the streams arrive does not matter.

use std::collections::{BTreeMap, VecDeque};

use crate::spool::Key;
use crate::wire::{Close, Outcome};

/// How much is committed together, and waits, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReceptionSettings {
    /// Batches of one group.
    pub(crate) group_batches: usize,
    /// Records after which a group is full.
    pub(crate) group_records: usize,
    /// Batches that wait for the former group or for an earlier stream.
    pub(crate) queue_batches: usize,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Ask the store for the last sequence of each boot epoch.
    Look { boot_epochs: Vec<u64> },
    /// Answer the hello.
    Greet { held: Vec<u64> },
    /// See whether the sensor is still admitted, then give these batches to the store, in this order.
    Commit { streams: Vec<u64> },
    /// Answer a batch.
    Ack { stream: u64, key: Key, outcome: Outcome },
    /// End the connection.
    Close(Close),
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    stream: u64,
    key: Key,
    records: usize,
}

#[derive(Debug)]
enum Phase {
    /// The hello has not come, or the store has not answered.
    Greeting,
    Open,
    /// A group is with the store.
    Committing(Vec<Waiting>),
    Closed,
}

/// The backend's side of one connection.
#[derive(Debug)]
pub(crate) struct Reception {
    settings: ReceptionSettings,
    phase: Phase,
    /// Whole, but streams before them are not.
    early: BTreeMap<u64, Waiting>,
    /// Whole, in order.
    queue: VecDeque<Waiting>,
    next_stream: u64,
    deeds: VecDeque<Deed>,
}

impl Reception {
    pub(crate) fn new(settings: ReceptionSettings) -> Self {
        Self {
            settings,
            phase: Phase::Greeting,
            early: BTreeMap::new(),
            queue: VecDeque::new(),
            next_stream: 0,
            deeds: VecDeque::new(),
        }
    }

    /// The first message.
    pub(crate) fn handle_hello(&mut self, boot_epochs: Vec<u64>) {
        self.deeds.push_back(Deed::Look { boot_epochs });
    }

    /// What the store holds; `None` when it cannot say.
    pub(crate) fn handle_held(&mut self, held: Option<Vec<u64>>) {
        match held {
            Some(held) => {
                self.phase = Phase::Open;
                self.deeds.push_back(Deed::Greet { held });
            }
            None => self.close(Close::Retry),
        }
    }

    /// A batch has arrived as a whole.
    pub(crate) fn handle_batch(&mut self, stream: u64, key: Key, records: usize) {
        if matches!(self.phase, Phase::Closed) || stream < self.next_stream {
            return;
        }
        self.early.insert(stream, Waiting { stream, key, records });
        while let Some(next) = self.early.remove(&self.next_stream) {
            self.queue.push_back(next);
            self.next_stream += 1;
        }
        if self.early.len() + self.queue.len() > self.settings.queue_batches {
            self.close(Close::Protocol);
        }
    }

    /// Whether another batch may be taken in: its records are in memory until they are committed.
    pub(crate) fn has_room(&self) -> bool {
        let records: usize = self.queue.iter().map(|waiting| waiting.records).sum();
        self.early.len() + self.queue.len() < self.settings.queue_batches
            && records < self.settings.group_records
    }

    /// What became of the group, batch by batch.
    pub(crate) fn handle_settled(&mut self, outcomes: Vec<Outcome>) {
        let Phase::Committing(group) = &mut self.phase else { return };
        let group = std::mem::take(group);
        self.phase = Phase::Open;
        assert_eq!(group.len(), outcomes.len(), "the store answers for each batch");
        for (Waiting { stream, key, .. }, outcome) in group.into_iter().zip(outcomes) {
            let is_over = matches!(outcome, Outcome::Retry(_));
            self.deeds.push_back(Deed::Ack { stream, key, outcome });
            if is_over {
                self.close(Close::Retry);
                return;
            }
        }
    }

    /// The sensor may not, or no more, deliver, or something else makes going on useless.
    pub(crate) fn close(&mut self, close: Close) {
        if !matches!(self.phase, Phase::Closed) {
            self.phase = Phase::Closed;
            self.queue.clear();
            self.early.clear();
            self.deeds.push_back(Deed::Close(close));
        }
    }

    /// What to do now; `None` until something happens.
    pub(crate) fn poll_deed(&mut self) -> Option<Deed> {
        if let Some(deed) = self.deeds.pop_front() {
            return Some(deed);
        }
        if !matches!(self.phase, Phase::Open) || self.queue.is_empty() {
            return None;
        }
        let mut group = Vec::new();
        let mut records = 0;
        while group.len() < self.settings.group_batches
            && records < self.settings.group_records
            && let Some(next) = self.queue.pop_front()
        {
            records += next.records;
            group.push(next);
        }
        let streams = group.iter().map(|waiting| waiting.stream).collect();
        self.phase = Phase::Committing(group);
        Some(Deed::Commit { streams })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: ReceptionSettings =
        ReceptionSettings { group_batches: 3, group_records: 100, queue_batches: 5 };

    fn key(sequence: u64) -> Key {
        Key { boot_epoch: 1, sequence }
    }

    fn open() -> Reception {
        let mut reception = Reception::new(SETTINGS);
        reception.handle_hello(vec![1]);
        assert_eq!(reception.poll_deed(), Some(Deed::Look { boot_epochs: vec![1] }));
        reception.handle_held(Some(vec![0]));
        assert_eq!(reception.poll_deed(), Some(Deed::Greet { held: vec![0] }));
        assert_eq!(reception.poll_deed(), None);
        reception
    }

    #[test]
    fn streams_that_overtake_each_other_are_committed_in_order_and_in_groups() {
        let mut reception = open();
        for stream in [2, 1, 3] {
            reception.handle_batch(stream, key(stream + 1), 1);
            assert_eq!(reception.poll_deed(), None, "the first is missing");
        }
        reception.handle_batch(0, key(1), 1);
        assert_eq!(reception.poll_deed(), Some(Deed::Commit { streams: vec![0, 1, 2] }));
        assert_eq!(reception.poll_deed(), None, "one group at a time");
        reception.handle_settled(vec![Outcome::Stored, Outcome::Duplicate, Outcome::Stored]);
        for (stream, outcome) in
            [(0, Outcome::Stored), (1, Outcome::Duplicate), (2, Outcome::Stored)]
        {
            let key = key(stream + 1);
            assert_eq!(reception.poll_deed(), Some(Deed::Ack { stream, key, outcome }));
        }
        assert_eq!(reception.poll_deed(), Some(Deed::Commit { streams: vec![3] }));
    }

    #[test]
    fn nothing_is_handed_over_after_a_batch_that_could_not_be_stored() {
        let mut reception = open();
        for stream in 0..4 {
            reception.handle_batch(stream, key(stream + 1), 60);
        }
        assert_eq!(reception.poll_deed(), Some(Deed::Commit { streams: vec![0, 1] }));
        let retry = Outcome::Retry("full".to_owned());
        reception.handle_settled(vec![retry.clone(), Outcome::Stored]);
        let ack = Deed::Ack { stream: 0, key: key(1), outcome: retry };
        assert_eq!(reception.poll_deed(), Some(ack));
        assert_eq!(reception.poll_deed(), Some(Deed::Close(Close::Retry)));
        reception.handle_batch(4, key(5), 1);
        assert_eq!(reception.poll_deed(), None);
    }

    #[test]
    fn a_store_without_an_answer_and_a_sensor_without_measure_end_the_connection() {
        let mut reception = Reception::new(SETTINGS);
        reception.handle_hello(vec![1]);
        reception.poll_deed();
        reception.handle_held(None);
        assert_eq!(reception.poll_deed(), Some(Deed::Close(Close::Retry)));
        let mut reception = open();
        for stream in 1..=6 {
            assert_eq!(reception.has_room(), stream <= 5);
            reception.handle_batch(stream, key(stream), 1);
        }
        assert_eq!(reception.poll_deed(), Some(Deed::Close(Close::Protocol)));
    }
}
