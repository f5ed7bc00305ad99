//! A map with a fixed number of places: what was touched least, and least often, makes room.

use std::hash::{BuildHasher as _, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// How many rounds of the hand an often-touched entry survives. A flood of sources that are each
/// seen once leaves at the first round, and the patient scanner among them stays.
const CREDIT_MAX: u8 = 7;

/// A map of at most `capacity` entries. When it is full, a clock hand (generalised CLOCK, Smith
/// 1978) takes one credit from each entry it passes and evicts the first that has none; each touch
/// gives one credit.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    places: Vec<Place<K, V>>,
    /// Of each place; apart, because the hand passes many.
    credits: Vec<u8>,
    /// Places by the hash of their keys. Only the number is here, so that the index of a full table stays in the cache.
    index: HashTable<u32>,
    /// Seeded anew in each process: who chooses addresses does not choose collisions.
    hasher: RandomState,
    hand: usize,
    capacity: usize,
    evicted_total: u64,
}

#[derive(Debug)]
struct Place<K, V> {
    key: K,
    value: V,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// An empty table; grows as it fills. A capacity of 0 is taken as 1, and none is above 2^32 - 1.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            places: Vec::new(),
            credits: Vec::new(),
            index: HashTable::new(),
            hasher: RandomState::default(),
            hand: 0,
            capacity: capacity.clamp(1, u32::MAX as usize),
            evicted_total: 0,
        }
    }

    /// The entry of `key`, made when it is new, and what had to leave for it.
    pub(crate) fn touch(&mut self, key: K, make: impl FnOnce() -> V) -> (&mut V, Option<(K, V)>) {
        let hash = self.hasher.hash_one(key);
        if let Some(at) = self.find(hash, &key) {
            let credit = &mut self.credits[at];
            *credit = (*credit + 1).min(CREDIT_MAX);
            return (&mut self.places[at].value, None);
        }
        let place = Place { key, value: make() };
        let (at, evicted) = if self.places.len() < self.capacity {
            self.places.push(place);
            self.credits.push(0);
            (self.places.len() - 1, None)
        } else {
            let at = self.find_place();
            let evicted = std::mem::replace(&mut self.places[at], place);
            self.remove_index(self.hasher.hash_one(evicted.key), at);
            self.evicted_total += 1;
            (at, Some((evicted.key, evicted.value)))
        };
        let Self { places, index, hasher, .. } = self;
        // No place has a number above the capacity, which has 32 bits.
        let number = u32::try_from(at).unwrap_or(u32::MAX);
        index.insert_unique(hash, number, |&at| hasher.hash_one(places[at as usize].key));
        (&mut self.places[at].value, evicted)
    }

    fn find(&self, hash: u64, key: &K) -> Option<usize> {
        let found = self.index.find(hash, |&at| self.places[at as usize].key == *key);
        found.map(|&at| at as usize)
    }

    fn remove_index(&mut self, hash: u64, at: usize) {
        if let Ok(entry) = self.index.find_entry(hash, |&known| known as usize == at) {
            entry.remove();
        }
    }

    /// Moves the hand to the next entry without credit and past it. Ends: each round takes a credit
    /// from all.
    fn find_place(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.credits.len();
            match &mut self.credits[at] {
                0 => return at,
                credit => *credit -= 1,
            }
        }
    }

    /// The entry of `key`, without touching it.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.find(self.hasher.hash_one(key), key).map(|at| &self.places[at].value)
    }

    /// The entry of `key`, without touching it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.find(self.hasher.hash_one(key), key).map(|at| &mut self.places[at].value)
    }

    /// Reads the entry of `key`, if there is one, and gives nothing. Look-ups that need nothing of each other wait for
    /// memory at the same time; what follows finds the entries in the cache.
    pub(crate) fn prepare(&self, key: &K) {
        if let Some(at) = self.find(self.hasher.hash_one(key), key) {
            std::hint::black_box(self.credits[at]);
        }
    }

    /// Entries held.
    pub(crate) const fn len(&self) -> usize {
        self.places.len()
    }

    /// The largest number of entries.
    pub(crate) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// Entries that had to make room, since the start.
    pub(crate) const fn evicted_total(&self) -> u64 {
        self.evicted_total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_holds_more_than_its_capacity() {
        let mut table = Table::new(8);
        for key in 0..1_000_u32 {
            table.touch(key, || key);
            assert!(table.len() <= 8 && table.index.len() == table.len());
        }
        assert_eq!(table.evicted_total(), 992);
        assert_eq!(table.get(&999), Some(&999));
    }

    #[test]
    fn what_is_touched_often_outlives_a_flood_of_single_touches() {
        let mut table = Table::new(64);
        for key in 0..10_000_u32 {
            table.touch(key, || 0_u32);
            if key % 16 == 0 {
                *table.touch(u32::MAX, || 0).0 += 1;
            }
        }
        assert_eq!(table.get(&u32::MAX), Some(&625));
    }
}
