//! Takes columns; gives their bytes, see [`super::numbers`]. Keeps its memory for the next batch.
#![expect(
    clippy::cast_possible_truncation,
    reason = "bits are taken apart, and counts are bounded by the record count"
)]

use super::code::{CodeMaker, codes};
use super::numbers::{
    CLASSES, CODED, EQUAL, EXACT_COUNT_MIN, EXACT_MAX, PLAIN, SMALL, STREAMS, TABLE_BITS, Word,
    class, class_base,
};
use super::shape::KINDS;
use crate::reader::write_varint;

/// Packs columns; keeps its memory for the next batch.
pub(super) struct Packer {
    compresses: bool,
    maker: CodeMaker,
    /// How often each small value occurs.
    small: Vec<u32>,
    /// What is written for each small value: bits, at most 21, and in the topmost byte how many.
    written: Vec<u32>,
    /// Small values that are symbols: how often they do not occur, and which.
    exact: Vec<(u32, u16)>,
    /// The other small values that occur.
    others: Vec<u16>,
    counts: Vec<u32>,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

/// What all values of a column have in common: the bits above those that differ, and the bits below them.
#[derive(Clone, Copy)]
struct Frame {
    base: u64,
    shift: u32,
}

impl Packer {
    pub(super) fn new(compresses: bool) -> Self {
        Self {
            compresses,
            maker: CodeMaker::default(),
            small: vec![0; SMALL],
            written: vec![0; SMALL],
            exact: Vec::new(),
            others: Vec::new(),
            counts: Vec::new(),
            lengths: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Appends a column.
    pub(super) fn column<W: Word>(&mut self, values: &[W], out: &mut Vec<u8>) {
        let Some(first) = values.first().map(|first| first.number()) else { return };
        let differing = values.iter().fold(0, |all, value| all | (value.number() ^ first));
        if differing == 0 {
            out.push(EQUAL);
            write_varint(out, first);
            return;
        }
        let (above, shift) = (differing.leading_zeros(), differing.trailing_zeros());
        let between = u64::MAX >> above;
        let frame = Frame { base: first & !between | first & !(u64::MAX << shift), shift };
        let width = (u64::BITS - (first | between).leading_zeros()).div_ceil(8) as usize;
        let plain_bits = 8 * width * values.len();
        let largest = between >> shift;
        if !self.compresses || self.choose_code(values, frame, largest) + TABLE_BITS >= plain_bits {
            out.extend([PLAIN, width as u8]);
            for value in values {
                out.extend_from_slice(&value.number().to_le_bytes()[..width]);
            }
            return;
        }
        out.push(CODED);
        write_varint(out, frame.base);
        out.push(frame.shift as u8);
        let classes = self.write_table(out);
        self.write_streams(values, frame, classes, out);
    }

    /// Appends a column in pieces, one for each kind of record, which end where `cuts` say.
    pub(super) fn pieces<W: Word>(
        &mut self,
        values: &[W],
        cuts: [usize; KINDS - 1],
        out: &mut Vec<u8>,
    ) {
        let mut start = 0;
        for end in cuts.into_iter().chain([values.len()]) {
            self.column(&values[start..end], out);
            start = end;
        }
    }

    /// Decides which values are symbols, and their codes; gives how many bits the values take.
    fn choose_code<W: Word>(&mut self, values: &[W], frame: Frame, largest: u64) -> usize {
        // Looking at each small value must not cost more than looking at the column.
        let small = (largest as usize).min(SMALL - 1).min(4 * values.len()) + 1;
        self.small.clear();
        self.small.resize(small, 0);
        let small = &mut self.small[..];
        let mut classes = [0_u32; CLASSES];
        for value in values {
            let value = frame.of(value.number());
            let count = if let Some(count) = small.get_mut(value as usize) {
                count
            } else {
                &mut classes[class(value).0 & (CLASSES - 1)]
            };
            *count = count.wrapping_add(1);
        }
        self.exact.clear();
        self.others.clear();
        for (value, count) in (0_u16..).zip(small.iter()) {
            if *count >= EXACT_COUNT_MIN {
                self.exact.push((!count, value));
            } else if *count > 0 {
                self.others.push(value);
            }
        }
        if self.exact.len() > EXACT_MAX {
            self.exact.select_nth_unstable(EXACT_MAX);
            self.others.extend(self.exact.drain(EXACT_MAX..).map(|(_, value)| value));
            self.exact.sort_unstable_by_key(|(_, value)| *value);
        }
        for value in &self.others {
            classes[class(u64::from(*value)).0] += small[usize::from(*value)];
        }
        self.counts.clear();
        self.counts.extend(self.exact.iter().map(|(not_count, _)| !not_count));
        self.counts.extend(classes);
        self.maker.lengths(&self.counts, &mut self.lengths);
        let exact = self.exact.len();
        let followed = (0..self.counts.len()).map(|symbol| {
            let follow = symbol.checked_sub(exact).map_or(0, |class| class_base(class).1);
            self.counts[symbol] as usize * (usize::from(self.lengths[symbol]) + usize::from(follow))
        });
        followed.sum()
    }

    /// Appends the table; gives the range of classes that are in it.
    fn write_table(&mut self, out: &mut Vec<u8>) -> std::ops::Range<usize> {
        let exact = self.exact.len();
        let used = |length: &u8| *length > 0;
        let classes = &self.lengths[exact..];
        let first = classes.iter().position(used).unwrap_or(0);
        let end = classes.iter().rposition(used).map_or(first, |last| last + 1);
        out.push(exact as u8);
        let mut before = 0;
        for (_, value) in &self.exact {
            write_varint(out, u64::from(value - before));
            before = *value;
        }
        out.extend([first as u8, (end - first) as u8]);
        // Only these have a code from here on.
        self.lengths.copy_within(exact + first..exact + end, exact);
        self.lengths.truncate(exact + end - first);
        for pair in self.lengths.chunks(2) {
            out.push(pair[0] | pair.get(1).map_or(0, |upper| upper << 4));
        }
        first..end
    }

    fn write_streams<W: Word>(
        &mut self,
        values: &[W],
        frame: Frame,
        classes: std::ops::Range<usize>,
        out: &mut Vec<u8>,
    ) {
        let codes = codes(&self.lengths);
        let exact = self.exact.len();
        let mut of_class = [(0, 0); CLASSES];
        for (symbol, class) in (exact..).zip(classes) {
            of_class[class] = (u64::from(codes[symbol]), u32::from(self.lengths[symbol]));
        }
        let written = &mut self.written[..self.small.len()];
        for value in &self.others {
            let (class, follow) = class(u64::from(*value));
            let (code, length) = of_class[class];
            let bits = code as u32 | (u32::from(*value) & ((1 << follow) - 1)) << length;
            written[usize::from(*value)] = bits | (length + follow) << 24;
        }
        for (symbol, (_, value)) in self.exact.iter().enumerate() {
            written[usize::from(*value)] =
                u32::from(codes[symbol]) | u32::from(self.lengths[symbol]) << 24;
        }
        // No value takes more than a code and 62 bits.
        let room = 10 * values.len() + 8 * STREAMS + 8;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let mut writer = BitWriter { bytes: &mut self.bytes, at: 0, bits: 0, count: 0 };
        let mut ends = [0; STREAMS];
        for (end, quarter) in ends.iter_mut().zip(values.chunks(values.len().div_ceil(STREAMS))) {
            let (pairs, single) = quarter.as_chunks::<2>();
            for pair in pairs {
                let [one, other] = pair.map(|value| frame.of(value.number()));
                // Two at a time, which are 42 bits at most.
                if let (Some(one), Some(other)) =
                    (written.get(one as usize), written.get(other as usize))
                {
                    let (length, length_2) = (one >> 24, other >> 24);
                    let bits = u64::from(one & 0x00ff_ffff)
                        | u64::from(other & 0x00ff_ffff) << (length & 63);
                    writer.put(bits, length + length_2);
                } else {
                    writer.value(one, written, &of_class);
                    writer.value(other, written, &of_class);
                }
            }
            for value in single {
                writer.value(frame.of(value.number()), written, &of_class);
            }
            *end = writer.end();
        }
        let length = writer.at;
        let mut start = 0;
        for end in &mut ends[..STREAMS - 1] {
            // A quarter that has no values has no bytes.
            *end = (*end).max(start);
            write_varint(out, (*end - start) as u64);
            start = *end;
        }
        out.extend_from_slice(&self.bytes[..length]);
    }
}

impl Frame {
    #[inline]
    fn of(self, value: u64) -> u64 {
        value.wrapping_sub(self.base) >> (self.shift & 63)
    }
}

/// Collects bits, the lowest first.
struct BitWriter<'a> {
    /// Room for all of them.
    bytes: &'a mut [u8],
    at: usize,
    bits: u64,
    count: u32,
}

impl BitWriter<'_> {
    /// Appends bits, at most 56; those above `count` are 0.
    #[inline]
    fn put(&mut self, bits: u64, count: u32) {
        self.bits |= bits << (self.count & 63);
        self.count = self.count.wrapping_add(count);
        if let Some(room) = self.bytes.get_mut(self.at..).and_then(|room| room.first_chunk_mut()) {
            *room = self.bits.to_le_bytes();
        }
        // Whole bytes are done with.
        self.at = self.at.wrapping_add(self.count as usize / 8);
        self.bits >>= self.count & 0x38;
        self.count &= 7;
    }

    /// Appends a value: as it is in the table of small values, or the code of its class and what follows.
    #[inline]
    fn value(&mut self, value: u64, written: &[u32], of_class: &[(u64, u32); CLASSES]) {
        if let Some(written) = written.get(value as usize) {
            return self.put(u64::from(written & 0x00ff_ffff), written >> 24);
        }
        let (class, follow) = class(value);
        let (code, length) = of_class[class & (CLASSES - 1)];
        let (low, high) = (follow.min(32), follow.saturating_sub(32));
        self.put(code | (value & ((1 << low) - 1)) << (length & 63), length + low);
        if high > 0 {
            self.put(value >> 32 & ((1 << high) - 1), high);
        }
    }

    /// Fills up the byte in hand; gives how many bytes there are.
    fn end(&mut self) -> usize {
        self.at += usize::from(self.count > 0);
        (self.bits, self.count) = (0, 0);
        self.at
    }
}
