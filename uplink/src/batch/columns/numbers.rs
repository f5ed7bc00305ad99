//! Takes columns of whole numbers; gives their bytes, and the way back. Never gives more values than its caller names,
//! whatever the bytes say.
//!
//! ```text
//! column   nothing, when there are no values
//!          0, value: varint                    all values are this one
//!          1, width: u8, values                as they are, `width` bytes each
//!          2, base: varint, shift: u8,         each value, less the base, its lowest bits left out, as a symbol
//!             table, streams                   of a prefix code and bits that follow it
//! table    k: u8, k varints                    the values that are symbols, ascending, each less the one before
//!          first: u8, classes: u8              which classes of values are symbols
//!          (k + classes + 1) / 2 bytes         the length of each symbol's code, 4 bits, the lower ones first
//! streams  three lengths, varints; 4 streams   of a quarter of the values each, the last one to the column's end
//! ```
//!
//! A value that occurs often is a symbol of its own. Any other one is of the class of values that have equally many bits
//! and the same two first ones; its remaining bits follow the symbol as they are. So what repeats is short, and what does
//! not costs no time to find out about.
#![expect(
    clippy::cast_possible_truncation,
    reason = "bits are taken apart, and counts are bounded by the record count"
)]

use super::code::{CodeMaker, CodeTable, SYMBOLS_MAX, codes};
use super::shape::KINDS;
use crate::reader::{DecodeError, Reader, write_varint};

const EQUAL: u8 = 0;
const PLAIN: u8 = 1;
const CODED: u8 = 2;
const STREAMS: usize = 4;
/// Values that can be symbols are below this: what is larger hardly repeats.
const SMALL: usize = 2048;
/// Values that are symbols at most; with the classes they fit a byte.
const EXACT_MAX: usize = 112;
/// A value that occurs less often costs more in the table than it saves.
const EXACT_COUNT_MIN: u32 = 6;
const CLASSES: usize = 128;
/// About what a table takes: a column that is not shorter by that much stays as it is.
const TABLE_BITS: usize = 256;

/// A number that columns are made of.
pub(super) trait Word: Copy + Default {
    /// Its bytes.
    const WIDTH: usize;

    fn number(self) -> u64;
    /// Its lowest bits.
    fn of(number: u64) -> Self;
}

macro_rules! word {
    ($($type:ty),+) => {$(
        impl Word for $type {
            const WIDTH: usize = size_of::<Self>();

            #[inline]
            fn number(self) -> u64 {
                u64::from(self)
            }

            #[inline]
            fn of(number: u64) -> Self {
                number as Self
            }
        }
    )+};
}

word!(u8, u16, u32, u64);

/// The class of a value, and how many of its bits follow: 1 is class 0, 0 is class 1.
#[inline]
fn class(value: u64) -> (usize, u32) {
    let bits = u64::BITS - value.leading_zeros();
    match bits.checked_sub(2) {
        None => (usize::from(value == 0), 0),
        Some(follow) => (2 * (bits as usize - 1) + (value >> follow & 1) as usize, follow),
    }
}

/// The least value of a class, and how many bits follow.
fn class_base(class: usize) -> (u64, u8) {
    match class {
        0 => (1, 0),
        1 => (0, 0),
        _ => {
            let follow = class / 2 - 1;
            // At most 62.
            ((2 + class as u64 % 2) << follow, follow as u8)
        }
    }
}

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
            match small.get_mut(value as usize) {
                Some(count) => *count = count.wrapping_add(1),
                None => {
                    let count = &mut classes[class(value).0 & (CLASSES - 1)];
                    *count = count.wrapping_add(1);
                }
            }
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
                match (written.get(one as usize), written.get(other as usize)) {
                    // Two at a time, which are 42 bits at most.
                    (Some(one), Some(other)) => {
                        let (length, length_2) = (one >> 24, other >> 24);
                        let bits = u64::from(one & 0x00ff_ffff)
                            | u64::from(other & 0x00ff_ffff) << (length & 63);
                        writer.put(bits, length + length_2);
                    }
                    _ => {
                        writer.value(one, written, &of_class);
                        writer.value(other, written, &of_class);
                    }
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
        self.bits >>= self.count & 56;
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

/// Unpacks columns.
pub(super) struct Unpacker<'a> {
    section: &'a [u8],
    reader: Reader<'a>,
    table: CodeTable,
}

impl<'a> Unpacker<'a> {
    pub(super) fn new(section: &'a [u8]) -> Self {
        let reader = Reader::new("column section", section);
        Self { section, reader, table: CodeTable::new() }
    }

    /// A number that stands between columns.
    pub(super) fn varint(&mut self, name: &'static str) -> Result<u64, DecodeError> {
        self.reader.varint(name)
    }

    /// The same, at most `max`.
    pub(super) fn number(
        &mut self,
        name: &'static str,
        max: usize,
        expected: &'static str,
    ) -> Result<usize, DecodeError> {
        let offset = self.reader.offset();
        let value = self.reader.varint(name)?;
        usize::try_from(value)
            .ok()
            .filter(|value| *value <= max)
            .ok_or_else(|| self.reader.value_at(name, offset, value, expected))
    }

    /// The next column, of `count` values.
    pub(super) fn column<W: Word>(
        &mut self,
        name: &'static str,
        count: usize,
    ) -> Result<Vec<W>, DecodeError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let offset = self.reader.offset();
        match self.reader.u8(name)? {
            EQUAL => {
                let value = self.reader.varint(name)?;
                self.check::<W>(name, offset, value)?;
                Ok(vec![W::of(value); count])
            }
            PLAIN => {
                let width = usize::from(self.reader.u8(name)?);
                if width == 0 || width > W::WIDTH {
                    return Err(self.value(name, offset, width as u64, "as wide as the column"));
                }
                let bytes = self.reader.take(name, width * count)?;
                let number = |bytes: &[u8]| {
                    let mut number = [0; 8];
                    number[..width].copy_from_slice(bytes);
                    W::of(u64::from_le_bytes(number))
                };
                Ok(bytes.chunks_exact(width).map(number).collect())
            }
            CODED => self.coded(name, count),
            form => Err(self.value(name, offset, u64::from(form), "a column's form: 0, 1 or 2")),
        }
    }

    /// The next column, in pieces that end where `cuts` say, the last one at `count` values.
    pub(super) fn pieces<W: Word>(
        &mut self,
        name: &'static str,
        cuts: [usize; KINDS - 1],
        count: usize,
    ) -> Result<Vec<W>, DecodeError> {
        let mut values = Vec::with_capacity(count);
        for end in cuts.into_iter().chain([count]) {
            values.extend(self.column::<W>(name, end - values.len())?);
        }
        Ok(values)
    }

    fn check<W: Word>(
        &self,
        name: &'static str,
        offset: usize,
        largest: u64,
    ) -> Result<(), DecodeError> {
        if W::of(largest).number() == largest {
            return Ok(());
        }
        Err(self.value(name, offset, largest, "a number that the column can hold"))
    }

    fn coded<W: Word>(&mut self, name: &'static str, count: usize) -> Result<Vec<W>, DecodeError> {
        let offset = self.reader.offset();
        let base = self.reader.varint(name)?;
        let shift = self.reader.u8(name)?;
        if shift > 63 {
            return Err(self.value(name, offset, u64::from(shift), "a shift of at most 63 bits"));
        }
        let symbols = self.read_table(name)?;
        let mut ends = [0; STREAMS];
        for end in &mut ends[..STREAMS - 1] {
            let bytes = self.reader.varint(name)?;
            *end = usize::try_from(bytes).unwrap_or(usize::MAX);
        }
        let mut places = [0; STREAMS];
        for (number, end) in ends.iter_mut().enumerate() {
            places[number] = 8 * self.reader.offset();
            if number < STREAMS - 1 {
                self.reader.take(name, *end)?;
            }
            *end = self.reader.offset();
        }
        let streams = Streams { section: self.section, table: &self.table, symbols: &symbols };
        let mut values = vec![W::default(); count];
        let all = streams.read(&mut values, &mut places);
        // No carries: below the base's bits there are none of the values' and above them neither.
        let largest = all.checked_shl(u32::from(shift)).filter(|shifted| shifted >> shift == all);
        let largest = largest.map_or(u64::MAX, |shifted| shifted | base);
        self.check::<W>(name, offset, largest)?;
        if (base, shift) != (0, 0) {
            for value in &mut values {
                *value = W::of(value.number() << shift | base);
            }
        }
        let last = places[STREAMS - 1].div_ceil(8).saturating_sub(self.reader.offset());
        self.reader.take(name, last)?;
        ends[STREAMS - 1] = self.reader.offset();
        for (place, end) in places.iter().zip(ends) {
            if place.div_ceil(8) != end {
                let place = place.div_ceil(8) as u64;
                return Err(self.value(name, offset, place, "where its stream ends"));
            }
        }
        Ok(values)
    }

    /// Reads a table; gives the least value of each symbol, and how many bits follow.
    fn read_table(&mut self, name: &'static str) -> Result<Symbols, DecodeError> {
        let offset = self.reader.offset();
        let mut bases = [Symbol::default(); SYMBOLS_MAX];
        let mut follows = [0; SYMBOLS_MAX];
        let exact = usize::from(self.reader.u8(name)?);
        if exact > EXACT_MAX {
            return Err(self.value(name, offset, exact as u64, "at most 112 values as symbols"));
        }
        let mut before = 0_u64;
        for base in &mut bases[..exact] {
            before = before.saturating_add(self.reader.varint(name)?);
            *base = Symbol { base: before, ..Symbol::default() };
        }
        let [first, classes] = self.reader.array(name)?.map(usize::from);
        if first + classes > CLASSES {
            let end = (first + classes) as u64;
            return Err(self.value(name, offset, end, "at most 128 classes"));
        }
        for (symbol, class) in (exact..).zip(first..first + classes) {
            let (least, follow) = class_base(class);
            bases[symbol] = Symbol { base: least, mask: (1 << follow) - 1 };
            follows[symbol] = follow;
        }
        let symbols = exact + classes;
        let nibbles = self.reader.take(name, symbols.div_ceil(2))?;
        let mut lengths = [0; SYMBOLS_MAX];
        for (pair, nibble) in lengths.chunks_mut(2).zip(nibbles) {
            pair.copy_from_slice(&[nibble & 15, nibble >> 4]);
        }
        if lengths[symbols..].iter().any(|length| *length > 0)
            || !self.table.fill(&lengths[..symbols], &follows)
        {
            return Err(self.value(name, offset, symbols as u64, "symbols with a whole code"));
        }
        Ok(bases)
    }

    /// An error unless everything was read.
    pub(super) fn end(&self) -> Result<(), DecodeError> {
        self.reader.end()
    }

    pub(super) fn value(
        &self,
        name: &'static str,
        offset: usize,
        value: u64,
        expected: &'static str,
    ) -> DecodeError {
        self.reader.value_at(name, offset, value, expected)
    }
}

/// What a symbol stands for: the least value of it, and bits that follow to be added.
#[derive(Clone, Copy, Default)]
struct Symbol {
    base: u64,
    mask: u64,
}

type Symbols = [Symbol; SYMBOLS_MAX];

/// Four streams of values, being read.
struct Streams<'a> {
    section: &'a [u8],
    table: &'a CodeTable,
    symbols: &'a Symbols,
}

impl Streams<'_> {
    /// Fills in the values; `places` are the streams' bits. Gives every bit that one of the values has.
    fn read<W: Word>(&self, values: &mut [W], places: &mut [usize; STREAMS]) -> u64 {
        let quarter = values.len().div_ceil(STREAMS);
        let whole = values.len() - (STREAMS - 1).min(values.len() / quarter) * quarter;
        let mut all = 0;
        let mut parts = values.chunks_mut(quarter);
        if let (Some(a), Some(b), Some(c), Some(d)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        {
            let [mut at_a, mut at_b, mut at_c, mut at_d] = *places;
            let ((a, rest_a), (b, rest_b), (c, rest_c)) =
                (a.split_at_mut(whole), b.split_at_mut(whole), c.split_at_mut(whole));
            // One after another would wait for each other; four at once do not.
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                all |= self.value(&mut at_a, a)
                    | self.value(&mut at_b, b)
                    | self.value(&mut at_c, c)
                    | self.value(&mut at_d, d);
            }
            *places = [at_a, at_b, at_c, at_d];
            for (place, rest) in places.iter_mut().zip([rest_a, rest_b, rest_c]) {
                for value in rest {
                    all |= self.value(place, value);
                }
            }
        } else {
            for (place, part) in places.iter_mut().zip(values.chunks_mut(quarter)) {
                for value in part {
                    all |= self.value(place, value);
                }
            }
        }
        all
    }

    #[inline]
    fn value<W: Word>(&self, place: &mut usize, value: &mut W) -> u64 {
        let bits = bits_at(self.section, *place);
        let entry = self.table.read(bits);
        let Symbol { base, mask } = self.symbols[entry.symbol()];
        let whole = entry.whole();
        let more = if whole <= 56 {
            bits >> (entry.length() & 63)
        } else {
            bits_at_wide(self.section, place.wrapping_add(entry.length()))
        };
        *place = place.wrapping_add(whole);
        let number = base | (more & mask);
        *value = W::of(number);
        number
    }
}

/// At least 57 bits from this place on; behind the end there are zeros.
#[inline]
fn bits_at(bytes: &[u8], place: usize) -> u64 {
    let at = place / 8;
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(eight) => u64::from_le_bytes(*eight) >> (place % 8),
        None => {
            let mut eight = [0; 8];
            let rest = bytes.get(at..).unwrap_or_default();
            eight[..rest.len()].copy_from_slice(rest);
            u64::from_le_bytes(eight) >> (place % 8)
        }
    }
}

/// 64 bits from this place on.
#[cold]
fn bits_at_wide(bytes: &[u8], place: usize) -> u64 {
    bits_at(bytes, place) & 0xffff_ffff | bits_at(bytes, place + 32) << 32
}
