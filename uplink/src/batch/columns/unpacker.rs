//! Takes bytes; gives columns, see [`super::numbers`]. Never gives more values than its caller names.
#![expect(clippy::cast_possible_truncation, reason = "what is cut was compared with its bound")]

use super::code::{CodeTable, Entry, SYMBOLS_MAX};
use super::numbers::{CLASSES, CODED, EQUAL, EXACT_MAX, PLAIN, SMALL, STREAMS, Word, class_base};
use super::shape::KINDS;
use crate::reader::{DecodeError, Reader};

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
        let mut values = vec![W::default(); count];
        self.fill(name, &mut values)?;
        Ok(values)
    }

    /// The next column, in pieces that end where `cuts` say, the last one where the values do.
    pub(super) fn pieces<W: Word>(
        &mut self,
        name: &'static str,
        cuts: [usize; KINDS - 1],
        values: &mut [W],
    ) -> Result<(), DecodeError> {
        let mut start = 0;
        for end in cuts.into_iter().chain([values.len()]) {
            self.fill(name, &mut values[start..end])?;
            start = end;
        }
        Ok(())
    }

    /// The next column, of as many values as there is room for.
    pub(super) fn fill<W: Word>(
        &mut self,
        name: &'static str,
        values: &mut [W],
    ) -> Result<(), DecodeError> {
        if values.is_empty() {
            return Ok(());
        }
        let offset = self.reader.offset();
        match self.reader.u8(name)? {
            EQUAL => {
                let value = self.reader.varint(name)?;
                self.check::<W>(name, offset, value)?;
                values.fill(W::of(value));
            }
            PLAIN => {
                let width = usize::from(self.reader.u8(name)?);
                if width == 0 || width > W::WIDTH {
                    return Err(self.value(name, offset, width as u64, "as wide as the column"));
                }
                let bytes = self.reader.take(name, width * values.len())?;
                match width {
                    1 => plain::<1, W>(bytes, values),
                    2 => plain::<2, W>(bytes, values),
                    3 => plain::<3, W>(bytes, values),
                    4 => plain::<4, W>(bytes, values),
                    5 => plain::<5, W>(bytes, values),
                    6 => plain::<6, W>(bytes, values),
                    7 => plain::<7, W>(bytes, values),
                    _ => plain::<8, W>(bytes, values),
                }
            }
            CODED => self.coded(name, values)?,
            form => {
                return Err(self.value(
                    name,
                    offset,
                    u64::from(form),
                    "a column's form: 0, 1 or 2",
                ));
            }
        }
        Ok(())
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

    fn coded<W: Word>(&mut self, name: &'static str, values: &mut [W]) -> Result<(), DecodeError> {
        let offset = self.reader.offset();
        let base = self.reader.varint(name)?;
        let shift = self.reader.u8(name)?;
        if shift > 63 {
            return Err(self.value(name, offset, u64::from(shift), "a shift of at most 63 bits"));
        }
        let all = self.read_table(name)?;
        // No carries: below the base's bits there are none of the values' and above them neither.
        let largest = all.checked_shl(u32::from(shift)).filter(|shifted| shifted >> shift == all);
        let largest = largest.map_or(u64::MAX, |shifted| shifted | base);
        self.check::<W>(name, offset, largest)?;
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
        Streams { section: self.section, table: &self.table }.read(values, &mut places);
        if (base, shift) != (0, 0) {
            for value in &mut *values {
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
        Ok(())
    }

    /// Reads a table; gives every bit that one of the numbers in it may have.
    fn read_table(&mut self, name: &'static str) -> Result<u64, DecodeError> {
        let offset = self.reader.offset();
        let mut tops = [(0_u16, 0_u8); SYMBOLS_MAX];
        let exact = usize::from(self.reader.u8(name)?);
        if exact > EXACT_MAX {
            return Err(self.value(name, offset, exact as u64, "at most 112 values as symbols"));
        }
        let mut before = 0;
        for (top, _) in &mut tops[..exact] {
            let value = self.reader.varint(name)?.saturating_add(before);
            if value >= SMALL as u64 {
                return Err(self.value(name, offset, value, "a symbol below 2048"));
            }
            (*top, before) = (value as u16, value);
        }
        let [first, classes] = self.reader.array(name)?.map(usize::from);
        if first + classes > CLASSES {
            let end = (first + classes) as u64;
            return Err(self.value(name, offset, end, "at most 128 classes"));
        }
        for (symbol, class) in (exact..).zip(first..first + classes) {
            let (base, follow) = class_base(class);
            // The first two bits, at most.
            tops[symbol] = ((base >> follow) as u16, follow);
        }
        let symbols = exact + classes;
        let nibbles = self.reader.take(name, symbols.div_ceil(2))?;
        let lengths = nibbles.iter().flat_map(|nibble| [nibble & 15, nibble >> 4]);
        let mut entries = [Entry::default(); SYMBOLS_MAX];
        let mut all = 0;
        for ((entry, (top, follow)), length) in entries.iter_mut().zip(tops).zip(lengths) {
            *entry = Entry::new(top, length, follow);
            all |= if length > 0 { entry.number(u64::MAX) } else { 0 };
        }
        let used = &entries[..symbols];
        if entries[symbols..].iter().any(|entry| entry.length() > 0) || !self.table.fill(used) {
            return Err(self.value(name, offset, symbols as u64, "symbols with a whole code"));
        }
        Ok(all)
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

/// Values as they are, each of so many bytes.
fn plain<const WIDTH: usize, W: Word>(bytes: &[u8], values: &mut [W]) {
    for (value, bytes) in values.iter_mut().zip(bytes.as_chunks::<WIDTH>().0) {
        let mut number = [0; 8];
        number[..WIDTH].copy_from_slice(bytes);
        *value = W::of(u64::from_le_bytes(number));
    }
}

/// Four streams of values, being read.
struct Streams<'a> {
    section: &'a [u8],
    table: &'a CodeTable,
}

impl Streams<'_> {
    /// Fills in the values; `places` are the streams' bits.
    fn read<W: Word>(&self, values: &mut [W], places: &mut [usize; STREAMS]) {
        // How many numbers at least lie in the bits that are looked at together.
        match AT_ONCE / self.table.whole_max().max(1) {
            0 => self.read_wide(values, places),
            1 => self.read_some::<1, W>(values, places),
            2 => self.read_some::<2, W>(values, places),
            _ => self.read_some::<3, W>(values, places),
        }
    }

    fn read_some<const SOME: usize, W: Word>(
        &self,
        values: &mut [W],
        places: &mut [usize; STREAMS],
    ) {
        let quarter = values.len().div_ceil(STREAMS);
        let mut parts = values.chunks_mut(quarter);
        let mut part = || parts.next().unwrap_or_default().as_chunks_mut::<SOME>();
        let ((a, rest_a), (b, rest_b), (c, rest_c), (d, rest_d)) = (part(), part(), part(), part());
        let together = d.len();
        let ((a, more_a), (b, more_b), (c, more_c)) =
            (split(a, together), split(b, together), split(c, together));
        let [mut at_a, mut at_b, mut at_c, mut at_d] = *places;
        // One after another would wait for each other; four at once do not.
        for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
            self.some(&mut at_a, a);
            self.some(&mut at_b, b);
            self.some(&mut at_c, c);
            self.some(&mut at_d, d);
        }
        *places = [at_a, at_b, at_c, at_d];
        let more = [more_a, more_b, more_c, &mut []];
        let rests = [rest_a, rest_b, rest_c, rest_d];
        for (place, (more, rest)) in places.iter_mut().zip(more.into_iter().zip(rests)) {
            for some in more {
                self.some(place, some);
            }
            for value in rest {
                self.some(place, std::array::from_mut(value));
            }
        }
    }

    /// Reads values that lie in [`AT_ONCE`] bits for certain.
    #[expect(clippy::inline_always, reason = "a call for each value takes a third of the time")]
    #[inline(always)]
    fn some<const SOME: usize, W: Word>(&self, place: &mut usize, values: &mut [W; SOME]) {
        let mut bits = bits_at(self.section, *place);
        for value in values {
            let entry = self.table.read(bits);
            *value = W::of(entry.narrow(bits));
            bits >>= entry.whole() & 63;
            *place = place.wrapping_add(entry.whole());
        }
    }

    /// Reads values of any length.
    #[cold]
    fn read_wide<W: Word>(&self, values: &mut [W], places: &mut [usize; STREAMS]) {
        let quarter = values.len().div_ceil(STREAMS);
        for (place, part) in places.iter_mut().zip(values.chunks_mut(quarter)) {
            for value in part {
                let entry = self.table.read(bits_at(self.section, *place));
                let follow = place.wrapping_add(entry.length());
                let more = bits_at(self.section, follow) & 0xffff_ffff
                    | bits_at(self.section, follow.wrapping_add(32)) << 32;
                *value = W::of(entry.number(more));
                *place = place.wrapping_add(entry.whole());
            }
        }
    }
}

/// The first so many, and the others; there may be fewer.
fn split<T>(values: &mut [T], at: usize) -> (&mut [T], &mut [T]) {
    values.split_at_mut(at.min(values.len()))
}

/// Bits that [`bits_at`] gives at least.
const AT_ONCE: usize = 57;

/// The bits from this place on, at least [`AT_ONCE`]; behind the end there are zeros.
#[inline]
fn bits_at(bytes: &[u8], place: usize) -> u64 {
    let at = place / 8;
    let eight = bytes.get(at..at + 8).and_then(|eight| eight.first_chunk());
    let eight = eight.map_or_else(|| last_bytes(bytes, at), |eight| u64::from_le_bytes(*eight));
    eight >> (place % 8)
}

/// What is left from there on, less than eight bytes.
#[cold]
fn last_bytes(bytes: &[u8], at: usize) -> u64 {
    let mut eight = [0; 8];
    let rest = bytes.get(at..).unwrap_or_default();
    eight[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(eight)
}
