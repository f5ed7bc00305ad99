//! Takes columns; gives their bytes, see [`super::numbers`]. Keeps its memory for the next batch.
#![expect(
    clippy::cast_possible_truncation,
    reason = "bits are taken apart, and counts are bounded by the record count"
)]

use super::code::{CodeMaker, codes};
use super::numbers::{
    CLASSES, CODED, EQUAL, EXACT_COUNT_MIN, EXACT_MAX, LOWEST, PLAIN, SMALL, STREAMS, TABLE_BITS,
    Word, class, class_base, class_of_large,
};
use super::shape::KINDS;
use crate::reader::write_varint;

/// Packs columns; keeps its memory for the next batch.
pub(super) struct Packer {
    compresses: bool,
    maker: CodeMaker,
    /// How often each small value occurs, then values of each class that are not small: at even and at odd places,
    /// since counting the same one twice in a row would wait for memory.
    seen: Vec<[u16; 2]>,
    /// What is written for each of these.
    written: Vec<Written>,
    /// How many values are small, and where classes begin in both.
    small: usize,
    classes_at: usize,
    /// Bits that a value takes at most.
    bits_max: u32,
    /// Values that are not all small: each with its number in both.
    numbered: Vec<u64>,
    /// Small values that are symbols: how often they do not occur, and which.
    exact: Vec<(u32, u16)>,
    /// The other small values that occur.
    others: Vec<u16>,
    counts: Vec<u32>,
    lengths: Vec<u8>,
    bytes: Vec<u8>,
}

/// Bits, and how many; how many lowest ones of the value follow them.
#[derive(Clone, Copy, Default)]
struct Written {
    bits: u32,
    length: u8,
    follow: u8,
}

/// Numbers in `seen` have so many bits at most; above them lies the value.
const NUMBER_BITS: u32 = 12;
/// Values below this are not cut then, and take no more bits than are written at once.
const VALUE_NUMBERED_MAX: u64 = 1 << 47;
/// Bits that are written at once.
const AT_ONCE: u32 = 56;
/// Values that are looked at together for whether one of them occurs.
const ZEROS: usize = 8;

/// The number of a value that has one.
#[inline]
fn number(numbered: u64) -> usize {
    numbered as usize & ((1 << NUMBER_BITS) - 1)
}

fn sum([even, odd]: [u16; 2]) -> u32 {
    u32::from(even) + u32::from(odd)
}

/// Counts values, or what they stand for.
fn count<T>(values: &[T], number: impl Fn(&T) -> usize, seen: &mut [[u16; 2]]) {
    let (pairs, single) = values.as_chunks::<2>();
    // Each half counts 32,768 values at most.
    for [even, odd] in pairs {
        let (even, odd) = (number(even), number(odd));
        seen[even][0] = seen[even][0].wrapping_add(1);
        seen[odd][1] = seen[odd][1].wrapping_add(1);
    }
    for value in single {
        let [even, _] = &mut seen[number(value)];
        *even = even.wrapping_add(1);
    }
}

/// Appends values as they are, each of so many bytes.
fn plain<const WIDTH: usize, W: Word>(values: &[W], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + WIDTH * values.len(), 0);
    for (bytes, value) in out[start..].as_chunks_mut::<WIDTH>().0.iter_mut().zip(values) {
        bytes.copy_from_slice(&value.number().to_le_bytes()[..WIDTH]);
    }
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
            seen: Vec::new(),
            written: vec![Written::default(); SMALL + CLASSES],
            small: 0,
            classes_at: 0,
            bits_max: 0,
            numbered: Vec::new(),
            exact: Vec::new(),
            others: Vec::new(),
            counts: Vec::new(),
            lengths: Vec::new(),
            bytes: Vec::new(),
        }
    }

    /// Appends a column.
    pub(super) fn column<W: Word>(&mut self, values: &[W], out: &mut Vec<u8>) {
        let Some(first) = values.first().copied() else { return };
        let differing = values.iter().fold(W::default(), |all, value| all | (*value ^ first));
        let (first, differing) = (first.number(), differing.number());
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
            match width {
                1 => plain::<1, W>(values, out),
                2 => plain::<2, W>(values, out),
                3 => plain::<3, W>(values, out),
                4 => plain::<4, W>(values, out),
                5 => plain::<5, W>(values, out),
                6 => plain::<6, W>(values, out),
                7 => plain::<7, W>(values, out),
                _ => plain::<8, W>(values, out),
            }
            return;
        }
        out.push(CODED);
        write_varint(out, frame.base);
        out.push(frame.shift as u8);
        let classes = self.write_table(out);
        self.fill_written(classes);
        self.write_streams(values, frame, largest, out);
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
        self.small = small;
        self.classes_at = small.next_multiple_of(ZEROS);
        self.seen.clear();
        self.seen.resize(self.classes_at + CLASSES, [0; 2]);
        if largest < small as u64 {
            count(values, |value| frame.of(value.number()) as usize, &mut self.seen);
        } else {
            let classes_at = self.classes_at;
            let numbered = |value: &W| {
                let value = frame.of(value.number());
                let is_small = value < small as u64;
                let class = classes_at + class_of_large(value);
                value << NUMBER_BITS | if is_small { value } else { class as u64 }
            };
            self.numbered.clear();
            self.numbered.extend(values.iter().map(numbered));
            count(&self.numbered, |numbered| number(*numbered), &mut self.seen);
        }
        self.exact.clear();
        self.others.clear();
        self.others.resize(SMALL + 1, 0);
        let mut others = 0;
        let (small, large) = self.seen.split_at(self.classes_at);
        let mut classes = [0_u32; CLASSES];
        for (count, seen) in classes.iter_mut().zip(large) {
            *count = sum(*seen);
        }
        for (first, seen) in (0..).step_by(ZEROS).zip(small.as_chunks::<ZEROS>().0) {
            // Most do not occur.
            if seen.iter().fold(0, |all, [even, odd]| all | even | odd) == 0 {
                continue;
            }
            for (value, seen) in (first..).zip(seen) {
                let count = sum(*seen);
                if count >= EXACT_COUNT_MIN {
                    self.exact.push((!count, value));
                }
                // Whether it occurs is hard to guess: so it is written, and stays if it does.
                self.others[others] = value;
                others += usize::from(count.wrapping_sub(1) < EXACT_COUNT_MIN - 1);
            }
        }
        self.others.truncate(others);
        if self.exact.len() > EXACT_MAX {
            self.exact.select_nth_unstable(EXACT_MAX);
            self.others.extend(self.exact.drain(EXACT_MAX..).map(|(_, value)| value));
            self.exact.sort_unstable_by_key(|(_, value)| *value);
        }
        for value in &self.others {
            classes[class(u64::from(*value)).0] += sum(small[usize::from(*value)]);
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

    /// Fills in what is written for each value and class that occurs.
    fn fill_written(&mut self, classes: std::ops::Range<usize>) {
        let codes = codes(&self.lengths);
        let exact = self.exact.len();
        let (small, large) = self.written.split_at_mut(self.classes_at);
        let mut bits_max = 0;
        for (symbol, class) in (exact..).zip(classes) {
            let (bits, length) = (u32::from(codes[symbol]), self.lengths[symbol]);
            let follow = class_base(class).1;
            large[class] = Written { bits, length, follow };
            bits_max = bits_max.max(if length > 0 { length + follow } else { 0 });
        }
        for value in &self.others {
            let class = class(u64::from(*value)).0;
            let Written { bits, length, follow } = large[class];
            let low = u32::from(*value) & ((1 << follow) - 1);
            let bits = bits | low << length;
            small[usize::from(*value)] = Written { bits, length: length + follow, follow: 0 };
        }
        for (symbol, (_, value)) in self.exact.iter().enumerate() {
            let (bits, length) = (u32::from(codes[symbol]), self.lengths[symbol]);
            small[usize::from(*value)] = Written { bits, length, follow: 0 };
            bits_max = bits_max.max(length);
        }
        self.bits_max = u32::from(bits_max);
    }

    fn write_streams<W: Word>(
        &mut self,
        values: &[W],
        frame: Frame,
        largest: u64,
        out: &mut Vec<u8>,
    ) {
        // No value takes more than a code and 62 bits.
        let room = 10 * values.len() + 8 * STREAMS + 8;
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
        let bits_max = self.bits_max;
        let written = &self.written[..self.classes_at + CLASSES];
        let mut writer = BitWriter { bytes: &mut self.bytes, at: 0, bits: 0, count: 0 };
        let mut ends = [0; STREAMS];
        let quarter = values.len().div_ceil(STREAMS);
        if largest < self.small as u64 {
            let bits = |value: W| {
                let Written { bits, length, .. } = written[frame.of(value.number()) as usize];
                (u64::from(bits), u32::from(length))
            };
            writer.streams(values.chunks(quarter), bits, bits_max, &mut ends);
        } else if largest < VALUE_NUMBERED_MAX {
            let bits = |numbered: u64| {
                let Written { bits, length, follow } = written[number(numbered)];
                let low = numbered >> NUMBER_BITS & LOWEST[usize::from(follow & 63)];
                (u64::from(bits) | low << (length & 63), u32::from(length + follow))
            };
            writer.streams(self.numbered.chunks(quarter), bits, bits_max, &mut ends);
        } else {
            let mut quarters = values.chunks(quarter).zip(self.numbered.chunks(quarter));
            for end in &mut ends {
                let (values, numbered) = quarters.next().unwrap_or_default();
                for (value, numbered) in values.iter().zip(numbered) {
                    let Written { bits, length, follow } = written[number(*numbered)];
                    writer.put(u64::from(bits), u32::from(length));
                    let low = frame.of(value.number()) & LOWEST[usize::from(follow & 63)];
                    writer.put(low & LOWEST[32], u32::from(follow.min(32)));
                    writer.put(low >> 32, u32::from(follow.saturating_sub(32)));
                }
                *end = writer.end();
            }
        }
        let length = writer.at;
        let mut start = 0;
        for end in &ends[..STREAMS - 1] {
            write_varint(out, (end - start) as u64);
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
    /// Writes each part of the values as a stream of its own: the bits of each value, of which there are so many at
    /// most.
    fn streams<'v, T: Copy + 'v>(
        &mut self,
        parts: impl Iterator<Item = &'v [T]>,
        bits: impl Fn(T) -> (u64, u32),
        bits_max: u32,
        ends: &mut [usize; STREAMS],
    ) {
        match AT_ONCE / bits_max.max(1) {
            0 | 1 => self.some::<1, T>(parts, bits, ends),
            2 | 3 => self.some::<2, T>(parts, bits, ends),
            _ => self.some::<4, T>(parts, bits, ends),
        }
    }

    /// The same, `SOME` values at once.
    fn some<'v, const SOME: usize, T: Copy + 'v>(
        &mut self,
        mut parts: impl Iterator<Item = &'v [T]>,
        bits: impl Fn(T) -> (u64, u32),
        ends: &mut [usize; STREAMS],
    ) {
        for end in ends {
            let (together, rest) = parts.next().unwrap_or_default().as_chunks::<SOME>();
            for values in together {
                let (mut all, mut count) = (0, 0);
                for value in values {
                    let (bits, length) = bits(*value);
                    all |= bits << (count & 63);
                    count += length;
                }
                self.put(all, count);
            }
            for value in rest {
                let (bits, length) = bits(*value);
                self.put(bits, length);
            }
            *end = self.end();
        }
    }

    /// Appends bits, at most 56; those above `count` are 0.
    #[inline]
    fn put(&mut self, bits: u64, count: u32) {
        self.bits |= bits << (self.count & 63);
        self.count = self.count.wrapping_add(count);
        let room = self.bytes.get_mut(self.at..self.at.wrapping_add(8));
        if let Some(room) = room.and_then(|room| room.first_chunk_mut()) {
            *room = self.bits.to_le_bytes();
        }
        // Whole bytes are done with.
        self.at = self.at.wrapping_add(self.count as usize / 8);
        self.bits >>= self.count & 0x38;
        self.count &= 7;
    }

    /// Fills up the byte in hand; gives how many bytes there are.
    fn end(&mut self) -> usize {
        self.at += usize::from(self.count > 0);
        (self.bits, self.count) = (0, 0);
        self.at
    }
}
