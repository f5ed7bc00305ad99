//! A map with a fixed number of places: what was touched least, and least often, makes room.

use std::collections::HashMap;
use std::hash::Hash;

/// How many rounds of the hand an often-touched entry survives. A flood of sources that are each
/// seen once leaves at the first round, and the patient scanner among them stays.
const CREDIT_MAX: u8 = 7;

/// A map of at most `capacity` entries. When it is full, a clock hand (generalised CLOCK, Smith
/// 1978) takes one credit from each entry it passes and evicts the first that has none; each touch
/// gives one credit.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    places: Vec<Place<K, V>>,
    index: HashMap<K, usize>,
    hand: usize,
    capacity: usize,
    evicted_total: u64,
}

#[derive(Debug)]
struct Place<K, V> {
    key: K,
    value: V,
    credit: u8,
}

impl<K: Copy + Eq + Hash, V> Table<K, V> {
    /// An empty table; grows as it fills. A capacity of 0 is taken as 1.
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.max(1);
        Self { places: Vec::new(), index: HashMap::new(), hand: 0, capacity, evicted_total: 0 }
    }

    /// The entry of `key`, made when it is new, and what had to leave for it.
    pub(crate) fn touch(&mut self, key: K, make: impl FnOnce() -> V) -> (&mut V, Option<(K, V)>) {
        if let Some(&at) = self.index.get(&key) {
            let place = &mut self.places[at];
            place.credit = (place.credit + 1).min(CREDIT_MAX);
            return (&mut place.value, None);
        }
        let place = Place { key, value: make(), credit: 0 };
        if self.places.len() < self.capacity {
            let at = self.places.len();
            self.places.push(place);
            self.index.insert(key, at);
            return (&mut self.places[at].value, None);
        }
        let at = self.find_place();
        let evicted = std::mem::replace(&mut self.places[at], place);
        self.index.remove(&evicted.key);
        self.index.insert(key, at);
        self.evicted_total += 1;
        (&mut self.places[at].value, Some((evicted.key, evicted.value)))
    }

    /// Moves the hand to the next entry without credit and past it. Ends: each round takes a credit
    /// from all.
    fn find_place(&mut self) -> usize {
        loop {
            let at = self.hand;
            self.hand = (self.hand + 1) % self.places.len();
            match &mut self.places[at].credit {
                0 => return at,
                credit => *credit -= 1,
            }
        }
    }

    /// The entry of `key`, without touching it.
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.index.get(key).map(|&at| &self.places[at].value)
    }

    /// The entry of `key`, without touching it.
    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.index.get(key).map(|&at| &mut self.places[at].value)
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
