//! Takes values, many of them equal; gives the different ones, how often each occurs, and which of them each value is.
//! Never slower by more than a constant for values that somebody has chosen: where one is looked for depends on a
//! number drawn when the program starts.
#![expect(
    clippy::cast_possible_truncation,
    reason = "a batch has at most 65,536 records, and hashes are cut"
)]

use std::hash::BuildHasher as _;

use foldhash::fast::RandomState;

/// A value that can be looked for.
pub(super) trait Key: Copy + Eq {
    /// All of it as two words.
    fn words(self) -> [u64; 2];
}

impl Key for u16 {
    fn words(self) -> [u64; 2] {
        [u64::from(self), 0]
    }
}

impl Key for u32 {
    fn words(self) -> [u64; 2] {
        [u64::from(self), 0]
    }
}

impl Key for u128 {
    fn words(self) -> [u64; 2] {
        [self as u64, (self >> 64) as u64]
    }
}

/// Different values; keeps its memory.
pub(super) struct Distinct<V> {
    /// Drawn when it is made.
    seeds: [u64; 2],
    /// By their first occurrence, and how often each occurs; then room.
    values: Vec<(V, u32)>,
    /// How many of these there are.
    found: usize,
    /// Places of a power of two: one more than a value's number, or 0.
    table: Vec<u32>,
}

impl<V> Default for Distinct<V> {
    fn default() -> Self {
        let state = RandomState::default();
        let seeds = [0_u8, 1].map(|number| state.hash_one(number));
        Self { seeds, values: Vec::new(), found: 0, table: Vec::new() }
    }
}

/// The product's halves, each of which depends on all bits of both.
#[inline]
fn folded(one: u64, other: u64) -> u64 {
    let product = u128::from(one) * u128::from(other);
    product as u64 ^ (product >> 64) as u64
}

impl<V: Key + Default> Distinct<V> {
    /// Looks at these values; `numbers` gets the number of each.
    pub(super) fn fill(
        &mut self,
        values: impl ExactSizeIterator<Item = V>,
        numbers: &mut Vec<u32>,
    ) {
        let places = (2 * values.len()).next_power_of_two();
        let mask = places - 1;
        if self.values.len() <= values.len() {
            self.values.resize(values.len() + 1, Default::default());
        }
        self.table.clear();
        self.table.resize(places, 0);
        numbers.clear();
        let Self { seeds, values: known, table, .. } = self;
        let table = &mut table[..places];
        let mut found = 0;
        numbers.extend(values.map(|value| {
            let [low, high] = value.words();
            let high = folded(high ^ seeds[1], 0x9e37_79b9_7f4a_7c15);
            let mut place = folded(low ^ seeds[0], high) as usize;
            // Whether a value is new is hard to guess: so it becomes the next new one, which stays if no other place is
            // told for it.
            known[found] = (value, 0);
            loop {
                let told = table[place & mask];
                let number = if told == 0 { found as u32 } else { told - 1 };
                let (held, count) = &mut known[number as usize];
                if *held == value {
                    *count += 1;
                    table[place & mask] = number + 1;
                    found += usize::from(told == 0);
                    return number;
                }
                place = place.wrapping_add(1);
            }
        }));
        self.found = found;
    }

    /// The different values, by number, and how often each occurs.
    pub(super) fn values(&self) -> &[(V, u32)] {
        &self.values[..self.found]
    }
}
