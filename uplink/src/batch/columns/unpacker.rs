//! Takes bytes; gives columns, see [`super::numbers`]. Never gives more values than its caller names.

use super::code::{CodeTable, SYMBOLS_MAX};
use super::numbers::{CLASSES, CODED, EQUAL, EXACT_MAX, PLAIN, STREAMS, Word, class_base};
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
    if let Some(eight) = bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        return u64::from_le_bytes(*eight) >> (place % 8);
    }
    let mut eight = [0; 8];
    let rest = bytes.get(at..).unwrap_or_default();
    eight[..rest.len()].copy_from_slice(rest);
    u64::from_le_bytes(eight) >> (place % 8)
}

/// 64 bits from this place on.
#[cold]
fn bits_at_wide(bytes: &[u8], place: usize) -> u64 {
    bits_at(bytes, place) & 0xffff_ffff | bits_at(bytes, place + 32) << 32
}
