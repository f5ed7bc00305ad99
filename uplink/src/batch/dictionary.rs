//! Takes a column of fixed-size values; gives three byte streams that compress well, and the way back. Never
//! trusts a count or an index that it reads.
//!
//! ```text
//! entries  values that occur at least twice, most frequent first, as byte planes
//! index    one varint a value: 0 = the next single, k = entry k - 1
//! singles  values that occur once, in order, as byte planes
//! ```
//!
//! Byte planes (all first bytes, then all second bytes, …) put bytes with the same meaning side by side: the
//! leading bytes of addresses repeat although the whole addresses do not.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use crate::reader::{DecodeError, Reader, write_varint};

/// The three streams of one column.
pub(super) struct Streams {
    pub(super) entries: Vec<u8>,
    pub(super) index: Vec<u8>,
    pub(super) singles: Vec<u8>,
}

/// Splits a column into its streams.
pub(super) fn encode<const W: usize>(values: impl ExactSizeIterator<Item = [u8; W]>) -> Streams {
    // Values by their first occurrence, and how often each occurs.
    let count = values.len();
    let mut numbers: HashMap<[u8; W], usize, RandomState> =
        HashMap::with_capacity_and_hasher(count, RandomState::default());
    let mut distinct: Vec<([u8; W], u32)> = Vec::new();
    let mut column: Vec<usize> = Vec::with_capacity(count);
    for value in values {
        let number = *numbers.entry(value).or_insert_with(|| {
            distinct.push((value, 0));
            distinct.len() - 1
        });
        distinct[number].1 += 1;
        column.push(number);
    }
    let mut ranked: Vec<usize> = (0..distinct.len()).filter(|n| distinct[*n].1 > 1).collect();
    ranked.sort_by_key(|n| (u32::MAX - distinct[*n].1, *n));
    let mut codes = vec![0_u64; distinct.len()];
    for (code, number) in (1_u64..).zip(&ranked) {
        codes[*number] = code;
    }
    let mut index = Vec::with_capacity(column.len() * 2);
    let mut singles = Vec::new();
    for number in column {
        write_varint(&mut index, codes[number]);
        if codes[number] == 0 {
            singles.push(distinct[number].0);
        }
    }
    let entries: Vec<[u8; W]> = ranked.iter().map(|number| distinct[*number].0).collect();
    Streams { entries: planes(&entries), index, singles: planes(&singles) }
}

fn planes<const W: usize>(values: &[[u8; W]]) -> Vec<u8> {
    (0..W).flat_map(|plane| values.iter().map(move |value| value[plane])).collect()
}

/// A column's streams, being read back one value at a time.
pub(super) struct Values<'a, const W: usize> {
    names: [&'static str; 3],
    entries: &'a [u8],
    index: Reader<'a>,
    singles: &'a [u8],
    singles_read: usize,
}

impl<'a, const W: usize> Values<'a, W> {
    /// `names` are the streams' names in errors.
    pub(super) fn new(
        names: [&'static str; 3],
        entries: &'a [u8],
        index: &'a [u8],
        singles: &'a [u8],
    ) -> Result<Self, DecodeError> {
        for (name, stream) in [(names[0], entries), (names[2], singles)] {
            if stream.len() % W != 0 {
                let length = u64::try_from(stream.len()).unwrap_or(u64::MAX);
                let reader = Reader::new(name, stream);
                return Err(reader.value_at("length", 0, length, "a multiple of the value size"));
            }
        }
        Ok(Self { names, entries, index: Reader::new(names[1], index), singles, singles_read: 0 })
    }

    /// The next value.
    pub(super) fn value(&mut self) -> Result<[u8; W], DecodeError> {
        let offset = self.index.offset();
        let code = self.index.varint("code")?;
        let (stream, position) = match code.checked_sub(1) {
            None => {
                self.singles_read += 1;
                (self.singles, self.singles_read - 1)
            }
            Some(rank) => (self.entries, usize::try_from(rank).unwrap_or(usize::MAX)),
        };
        let rows = stream.len() / W;
        if position >= rows {
            let expected = if code == 0 { "backed by a single" } else { "an entry's number" };
            return Err(self.index.value_at("code", offset, code, expected));
        }
        Ok(std::array::from_fn(|plane| stream[plane * rows + position]))
    }

    /// An error unless every code and every single was read.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        self.index.end()?;
        let left = self.singles.len() / W - self.singles_read;
        if left == 0 {
            return Ok(());
        }
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        let reader = Reader::new(self.names[2], self.singles);
        Err(reader.value_at("singles left over", self.singles_read, left, "0"))
    }
}
