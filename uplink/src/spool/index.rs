//! Takes what happened to spool files; gives their order, their total and which to evict. Pure: knows no disk.
//!
//! A batch takes eight bytes here, in chunks of 256: a spool of the usual bound (1 GiB) holds at most 262,144 batches,
//! one block of the disk each, whose index has 2 MiB. So what waits on the disk does not fill the memory.
//!
//! ```text
//!  63      62 … 43        42 … 18        17 … 0
//!  there │ records (20) │ length (25) │ taken of the disk, in units of 512 bytes (18)
//! ```

use std::collections::{BTreeMap, BTreeSet};
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

    const fn place(self) -> (Place, usize) {
        let chunk = self.sequence / CHUNK_BATCHES as u64;
        // Its lowest byte is the remainder.
        let at = self.sequence.to_le_bytes()[0] as usize;
        (Place { boot_epoch: self.boot_epoch, chunk }, at)
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
}

/// How large a batch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Its length.
    pub(crate) bytes: u64,
    /// What its file takes of the disk: whole blocks.
    pub(crate) disk_bytes: u64,
}

const CHUNK_BATCHES: usize = 256;
const UNIT_BYTES: u64 = 512;
const THERE: u64 = 1 << 63;
const RECORDS_BITS: u32 = 20;
const BYTES_BITS: u32 = 25;
const UNITS_BITS: u32 = 18;

const fn limit(value: u64, bits: u32) -> u64 {
    let most = (1 << bits) - 1;
    if value < most { value } else { most }
}

/// An entry in eight bytes. No batch has so many records or bytes that they do not fit; a file system with blocks of
/// more than 128 MiB would be counted as if it had such.
const fn packed(size: Size, records: u32) -> u64 {
    let units = limit(size.disk_bytes.div_ceil(UNIT_BYTES), UNITS_BITS);
    let bytes = limit(size.bytes, BYTES_BITS) << UNITS_BITS;
    THERE | limit(records as u64, RECORDS_BITS) << (UNITS_BITS + BYTES_BITS) | bytes | units
}

const fn unpacked(packed: u64) -> Entry {
    Entry {
        bytes: packed >> UNITS_BITS & ((1 << BYTES_BITS) - 1),
        disk_bytes: (packed & ((1 << UNITS_BITS) - 1)) * UNIT_BYTES,
        records: (packed >> (UNITS_BITS + BYTES_BITS) & ((1 << RECORDS_BITS) - 1)) as u32,
    }
}

/// Which sequences of which boot epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    boot_epoch: u64,
    chunk: u64,
}

#[derive(Clone, Debug)]
struct Chunk {
    entries: Box<[u64; CHUNK_BATCHES]>,
    /// Those that are there.
    count: u16,
}

impl Default for Chunk {
    fn default() -> Self {
        Self { entries: Box::new([0; CHUNK_BATCHES]), count: 0 }
    }
}

/// The spooled batches, oldest first.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpoolIndex {
    chunks: BTreeMap<Place, Chunk>,
    /// On their way over the present connection: evicted only when nothing else is left. As few as a session allows.
    in_flight: BTreeSet<Key>,
    batches: usize,
    disk_bytes: u64,
    records: u64,
}

impl SpoolIndex {
    pub(crate) fn insert(&mut self, key: Key, size: Size, records: u32) {
        let (place, at) = key.place();
        let chunk = self.chunks.entry(place).or_default();
        let entry = packed(size, records);
        let replaced = std::mem::replace(&mut chunk.entries[at], entry);
        debug_assert!(replaced == 0, "a sequence is used once");
        chunk.count += u16::from(replaced == 0);
        let Entry { disk_bytes, records, .. } = unpacked(entry);
        self.batches += 1;
        self.disk_bytes += disk_bytes;
        self.records += u64::from(records);
    }

    pub(crate) fn remove(&mut self, key: Key) -> Option<Entry> {
        let (place, at) = key.place();
        let chunk = self.chunks.get_mut(&place)?;
        let held = std::mem::take(&mut chunk.entries[at]);
        if held == 0 {
            return None;
        }
        chunk.count -= 1;
        if chunk.count == 0 {
            self.chunks.remove(&place);
        }
        self.in_flight.remove(&key);
        let entry = unpacked(held);
        self.batches -= 1;
        self.disk_bytes -= entry.disk_bytes;
        self.records -= u64::from(entry.records);
        Some(entry)
    }

    pub(crate) fn contains(&self, key: Key) -> bool {
        let (place, at) = key.place();
        self.chunks.get(&place).is_some_and(|chunk| chunk.entries[at] != 0)
    }

    pub(crate) fn set_in_flight(&mut self, key: Key) {
        if self.contains(key) {
            self.in_flight.insert(key);
        }
    }

    pub(crate) fn clear_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// Takes out what has to be given up so that the rest takes at most `bytes_max` of the disk: the oldest that are
    /// not on their way, then the oldest; never `newest`.
    pub(crate) fn take_excess(&mut self, bytes_max: u64, newest: Key) -> Vec<(Key, Entry)> {
        let mut taken = Vec::new();
        while self.disk_bytes > bytes_max {
            let Some(key) = self.to_evict().filter(|key| *key != newest) else { break };
            let Some(entry) = self.remove(key) else { break };
            taken.push((key, entry));
        }
        taken
    }

    /// Puts back what was taken out.
    pub(crate) fn put_back(&mut self, taken: &[(Key, Entry)]) {
        for (key, Entry { bytes, disk_bytes, records }) in taken {
            self.insert(*key, Size { bytes: *bytes, disk_bytes: *disk_bytes }, *records);
        }
    }

    fn to_evict(&self) -> Option<Key> {
        let oldest = self.after(None)?;
        let mut candidate = Some(oldest);
        while let Some(key) = candidate {
            if !self.in_flight.contains(&key) {
                return Some(key);
            }
            candidate = self.after(Some(key));
        }
        Some(oldest)
    }

    /// The first batch after this one; the first of all after `None`.
    pub(crate) fn after(&self, key: Option<Key>) -> Option<Key> {
        let mut first = 0;
        let mut from = Bound::Unbounded;
        if let Some(key) = key {
            let (place, at) = key.place();
            from = Bound::Included(place);
            first = at + 1;
            if first == CHUNK_BATCHES {
                from = Bound::Excluded(place);
                first = 0;
            } else if !self.chunks.contains_key(&place) {
                first = 0;
            }
        }
        for (place, chunk) in self.chunks.range((from, Bound::Unbounded)) {
            let later = &chunk.entries[first..];
            if let Some(at) = later.iter().position(|entry| *entry != 0) {
                let sequence = place.chunk * CHUNK_BATCHES as u64 + (first + at) as u64;
                return Some(Key { boot_epoch: place.boot_epoch, sequence });
            }
            first = 0;
        }
        None
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
        self.batches
    }

    /// What one of them takes of the disk; 0 when it is none.
    pub(crate) fn disk_bytes_of(&self, key: Key) -> u64 {
        let (place, at) = key.place();
        let held = self.chunks.get(&place).map_or(0, |chunk| chunk.entries[at]);
        unpacked(held).disk_bytes
    }

    /// What all of them take of the disk.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.disk_bytes
    }

    pub(crate) fn records(&self) -> u64 {
        self.records
    }
}

#[cfg(test)]
mod tests {
    use std::collections::btree_map::Entry;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::{BTreeMap, Bound, Key, Size, SpoolIndex, packed, unpacked};

    #[test]
    fn what_no_batch_exceeds_comes_back_as_it_was() {
        for (bytes, disk_bytes, records) in
            [(1, 4096, 1), (16 << 20, 16 << 20, 65_536), (0, 0, 0), (4097, 8192, 8192)]
        {
            let entry = unpacked(packed(Size { bytes, disk_bytes }, records));
            assert_eq!(
                (entry.bytes, entry.disk_bytes, entry.records),
                (bytes, disk_bytes, records)
            );
        }
    }

    proptest! {
        /// A plain map is the model.
        #[test]
        fn it_orders_and_counts_as_a_map_does(
            steps in vec((0..3_u8, 1..4_u64, 0..600_u64), 0..200),
        ) {
            let mut index = SpoolIndex::default();
            let mut model = BTreeMap::new();
            for (kind, boot_epoch, sequence) in steps {
                let key = Key { boot_epoch, sequence };
                let size = Size { bytes: sequence + 1, disk_bytes: 512 * (1 + sequence % 9) };
                let records = u32::try_from(sequence % 7).expect("small");
                if kind == 0 {
                    prop_assert_eq!(index.remove(key).is_some(), model.remove(&key).is_some());
                } else if let Entry::Vacant(place) = model.entry(key) {
                    index.insert(key, size, records);
                    place.insert((size.disk_bytes, u64::from(records)));
                }
                let next = model.range((Bound::Excluded(key), Bound::Unbounded)).next();
                prop_assert_eq!(index.after(Some(key)), next.map(|(key, _)| *key));
            }
            let mut found = Vec::new();
            let mut next = index.after(None);
            while let Some(key) = next {
                found.push(key);
                next = index.after(Some(key));
            }
            prop_assert_eq!(&found, &model.keys().copied().collect::<Vec<_>>());
            prop_assert_eq!(index.len(), model.len());
            prop_assert_eq!(index.disk_bytes(), model.values().map(|(bytes, _)| bytes).sum::<u64>());
            prop_assert_eq!(index.records(), model.values().map(|(_, records)| records).sum::<u64>());
            let mut epochs: Vec<u64> = model.keys().map(|key| key.boot_epoch).collect();
            epochs.dedup();
            prop_assert_eq!(index.epochs(64), epochs);
        }
    }
}
