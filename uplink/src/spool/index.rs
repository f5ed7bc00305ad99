//! Takes what happened to spool files; gives their order, their total and which to evict. Pure: knows no disk.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A batch's place in the order of one sensor's batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) boot_epoch: u64,
    pub(crate) sequence: u64,
}

impl Key {
    /// The name of a batch's file without its ending; names sort by age.
    pub(super) fn stem(boot_epoch: u64, sequence: u64) -> String {
        format!("{boot_epoch:020}-{sequence:020}")
    }
}

/// One spooled batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Length of the batch.
    pub(crate) bytes: u64,
    /// What its file takes of the disk.
    pub(crate) disk_bytes: u64,
    pub(crate) records: u32,
    /// On its way over the present connection: evicted only when nothing else is left.
    pub(crate) in_flight: bool,
}

/// How large a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Its length.
    pub(crate) bytes: u64,
    /// What its file takes of the disk: whole blocks.
    pub(crate) disk_bytes: u64,
}

/// The spooled batches, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpoolIndex {
    entries: BTreeMap<Key, Entry>,
    disk_bytes: u64,
    records: u64,
}

impl SpoolIndex {
    pub(crate) fn insert(&mut self, key: Key, size: Size, records: u32) {
        let Size { bytes, disk_bytes } = size;
        let entry = Entry { bytes, disk_bytes, records, in_flight: false };
        let replaced = self.entries.insert(key, entry);
        debug_assert!(replaced.is_none(), "a sequence is used once");
        self.disk_bytes += disk_bytes;
        self.records += u64::from(records);
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        let entry = self.entries.remove(&key)?;
        self.disk_bytes -= entry.disk_bytes;
        self.records -= u64::from(entry.records);
        Some(entry)
    }

    pub(crate) fn set_in_flight(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.in_flight = true;
        }
    }

    pub(crate) fn clear_in_flight(&mut self) {
        self.entries.values_mut().for_each(|entry| entry.in_flight = false);
    }

    /// The batch to give up when room is needed: the oldest that is not on its way, else the oldest.
    pub(crate) fn to_evict(&self) -> Option<Key> {
        let waiting = self.entries.iter().find(|(_, entry)| !entry.in_flight);
        waiting.or_else(|| self.entries.iter().next()).map(|(key, _)| *key)
    }

    /// The first batch after this one; the first of all after `None`.
    pub(crate) fn after(&self, key: Option<Key>) -> Option<Key> {
        let from = key.map_or(Bound::Unbounded, Bound::Excluded);
        self.entries.range((from, Bound::Unbounded)).next().map(|(key, _)| *key)
    }

    /// The batches of one boot epoch up to a sequence.
    pub(crate) fn up_to(&self, boot_epoch: u64, sequence: u64) -> Vec<Key> {
        let first = Key { boot_epoch, sequence: 0 };
        let last = Key { boot_epoch, sequence };
        self.entries.range(first..=last).map(|(key, _)| *key).collect()
    }

    /// The boot epochs there are batches of, oldest first, at most `max`.
    pub(crate) fn epochs(&self, max: usize) -> Vec<u64> {
        let mut epochs = Vec::new();
        let mut next = self.after(None);
        while let Some(key) = next.filter(|_| epochs.len() < max) {
            epochs.push(key.boot_epoch);
            next = self.after(Some(Key { boot_epoch: key.boot_epoch, sequence: u64::MAX }));
        }
        epochs
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// What one of them takes of the disk; 0 when it is none.
    pub(crate) fn disk_bytes_of(&self, key: Key) -> u64 {
        self.entries.get(&key).map_or(0, |entry| entry.disk_bytes)
    }

    /// What all of them take of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }
}
