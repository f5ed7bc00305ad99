//! Takes a column of values of which some repeat; gives a short code for each, and the way back. Never trusts a count
//! or a code that it reads.
//!
//! ```text
//! entries: varint     how many values occur at least twice
//! entry column(s)     these, most frequent first, equally frequent ones by size; each less the one before it
//! code column         one for each value: 0 = the next single, k = entry k - 1
//! single column(s)    values that occur once, in order
//! ```
#![expect(
    clippy::cast_possible_truncation,
    reason = "a batch has at most 65,536 records, and words are cut into parts"
)]

use super::distinct::{Distinct, Key};
use super::numbers::Word;
use super::packer::Packer;
use super::shape::KINDS;
use super::unpacker::Unpacker;
use crate::reader::{DecodeError, write_varint};

/// A value that dictionaries hold, as one word or several.
pub(super) trait Value: Default + Key + Ord {
    /// Each in a column of its own.
    type Part: Word;
    const PARTS: usize;

    fn part(self, number: usize) -> Self::Part;
    fn with_part(self, part: Self::Part, number: usize) -> Self;
    /// Both wrap.
    fn less(self, other: Self) -> Self;
    fn plus(self, other: Self) -> Self;
}

macro_rules! value {
    ($($type:ty as $part:ty),+) => {$(
        impl Value for $type {
            type Part = $part;
            const PARTS: usize = size_of::<Self>() / size_of::<$part>();

            fn part(self, number: usize) -> $part {
                (self >> (number * <$part>::BITS as usize)) as $part
            }

            fn with_part(self, part: $part, number: usize) -> Self {
                self | Self::from(part) << (number * <$part>::BITS as usize)
            }

            fn less(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }

            fn plus(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
        }
    )+};
}

value!(u16 as u16, u32 as u32, u128 as u16);

/// Finds the codes of a column; keeps its memory for the next batch.
#[derive(Default)]
pub(super) struct Dictionary<V: Value> {
    distinct: Distinct<V>,
    ranked: Vec<(u32, V, u32)>,
    code_of: Vec<u32>,
    codes: Vec<u32>,
    entries: Vec<V>,
    singles: Vec<V>,
    parts: Vec<V::Part>,
}

impl<V: Value> Dictionary<V> {
    /// Looks at a column; [`Dictionary::codes`] are its codes from now on.
    pub(super) fn fill(&mut self, values: &[V]) {
        self.distinct.fill(values.iter().copied(), &mut self.codes);
        let distinct = self.distinct.values();
        self.ranked.clear();
        let repeated = (0_u32..).zip(distinct.iter()).filter(|(_, (_, count))| *count > 1);
        self.ranked.extend(repeated.map(|(number, (value, count))| (!count, *value, number)));
        self.ranked.sort_unstable();
        self.code_of.clear();
        self.code_of.resize(distinct.len(), 0);
        self.entries.clear();
        for (code, (_, value, number)) in (1..).zip(&self.ranked) {
            self.code_of[*number as usize] = code;
            self.entries.push(*value);
        }
        // Each value is written behind the singles, which it becomes one of if it has no code.
        self.singles.clear();
        self.singles.resize(distinct.len() - self.entries.len() + 1, V::default());
        let mut singles = 0;
        for (code, value) in self.codes.iter_mut().zip(values) {
            *code = self.code_of[*code as usize];
            self.singles[singles] = *value;
            singles += usize::from(*code == 0);
        }
        self.singles.truncate(singles);
    }

    /// The code of each value of the column.
    pub(super) fn codes(&self) -> &[u32] {
        &self.codes
    }

    /// How many values occur at least twice.
    pub(super) fn entries(&self) -> usize {
        self.entries.len()
    }

    /// Appends what [`read`] reads.
    pub(super) fn write(
        &mut self,
        cuts: [usize; KINDS - 1],
        packer: &mut Packer,
        out: &mut Vec<u8>,
    ) {
        write_varint(out, self.entries.len() as u64);
        let mut before = V::default();
        for entry in &mut self.entries {
            (*entry, before) = (entry.less(before), *entry);
        }
        parts(&self.entries, &mut self.parts, packer, out);
        packer.pieces(&self.codes, cuts, out);
        parts(&self.singles, &mut self.parts, packer, out);
    }
}

fn parts<V: Value>(values: &[V], part: &mut Vec<V::Part>, packer: &mut Packer, out: &mut Vec<u8>) {
    for number in 0..V::PARTS {
        part.clear();
        part.extend(values.iter().map(|value| value.part(number)));
        packer.column(part, out);
    }
}

/// Reads a column; gives its values, first the entries, then the singles. `places` gets the place of each value among
/// them, counted from `first_place`; how many there are the caller has bounded.
pub(super) fn read<V: Value>(
    unpacker: &mut Unpacker<'_>,
    name: &'static str,
    cuts: [usize; KINDS - 1],
    first_place: usize,
    places: &mut [u32],
) -> Result<Vec<V>, DecodeError> {
    let count = places.len();
    let entries = unpacker.number(name, count / 2, "at most half of its values")?;
    let mut values: Vec<V> = Vec::with_capacity(count.min(2 * entries));
    read_parts(unpacker, name, entries, &mut values)?;
    let mut before = V::default();
    for value in &mut values {
        *value = value.plus(before);
        before = *value;
    }
    unpacker.pieces(name, cuts, places)?;
    let largest = places.iter().copied().max().unwrap_or(0);
    if largest as usize > entries {
        return Err(unpacker.value(name, 0, u64::from(largest), "an entry's number"));
    }
    // Entries begin at the first place, singles behind them.
    let first_single = (first_place + entries) as u32;
    let mut next = first_single;
    for place in places {
        let is_single = *place == 0;
        *place = if is_single { next } else { (*place - 1) + first_place as u32 };
        next += u32::from(is_single);
    }
    read_parts(unpacker, name, (next - first_single) as usize, &mut values)?;
    Ok(values)
}

fn read_parts<V: Value>(
    unpacker: &mut Unpacker<'_>,
    name: &'static str,
    count: usize,
    values: &mut Vec<V>,
) -> Result<(), DecodeError> {
    let start = values.len();
    values.resize(start + count, V::default());
    for number in 0..V::PARTS {
        let part: Vec<V::Part> = unpacker.column(name, count)?;
        for (value, part) in values[start..].iter_mut().zip(part) {
            *value = value.with_part(part, number);
        }
    }
    Ok(())
}
