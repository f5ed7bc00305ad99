//! Takes bytes that came over a wire or from a disk; gives numbers and slices of them, or an error that names
//! field, offset and value. Never panics and never allocates by what the bytes claim.

use thiserror::Error;

/// What is wrong with some encoded bytes. Remedy: they were damaged or made by another version; the text says
/// where to look with a hex viewer and `docs/format.md`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The bytes end too early.
    #[error("{place}: {field} at offset {offset} needs {needed} bytes, {left} are left")]
    Short {
        /// What was being decoded.
        place: &'static str,
        /// Which field of it.
        field: &'static str,
        /// Where the field starts, from the start of the place.
        offset: usize,
        /// Bytes the field needs.
        needed: usize,
        /// Bytes there are.
        left: usize,
    },
    /// A number outside what the field may hold.
    #[error("{place}: {field} at offset {offset} is {value}, not {expected}")]
    Value {
        /// What was being decoded.
        place: &'static str,
        /// Which field of it.
        field: &'static str,
        /// Where the field starts, from the start of the place.
        offset: usize,
        /// What it holds.
        value: u64,
        /// What it may hold.
        expected: &'static str,
    },
    /// A text or compressed part that is not well formed.
    #[error("{place}: {field} at offset {offset}: {reason}")]
    Malformed {
        /// What was being decoded.
        place: &'static str,
        /// Which field of it.
        field: &'static str,
        /// Where the field starts, from the start of the place.
        offset: usize,
        /// What is wrong with it.
        reason: String,
    },
}

/// A cursor over encoded bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    place: &'static str,
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(place: &'static str, bytes: &'a [u8]) -> Self {
        Self { place, bytes, offset: 0 }
    }

    pub(crate) const fn offset(&self) -> usize {
        self.offset
    }

    pub(crate) const fn left(&self) -> usize {
        self.bytes.len() - self.offset
    }

    /// The next `length` bytes.
    pub(crate) fn take(
        &mut self,
        field: &'static str,
        length: usize,
    ) -> Result<&'a [u8], DecodeError> {
        let rest = &self.bytes[self.offset..];
        let Some(taken) = rest.get(..length) else {
            return Err(DecodeError::Short {
                place: self.place,
                field,
                offset: self.offset,
                needed: length,
                left: rest.len(),
            });
        };
        self.offset += length;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        Ok(u8::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(u16::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(u32::from_le_bytes(self.array(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(u64::from_le_bytes(self.array(field)?))
    }

    /// A 32-bit length, at most `max`.
    pub(crate) fn length_u32(
        &mut self,
        field: &'static str,
        max: usize,
        expected: &'static str,
    ) -> Result<usize, DecodeError> {
        let offset = self.offset;
        let value = self.u32(field)?;
        usize::try_from(value)
            .ok()
            .filter(|length| *length <= max)
            .ok_or_else(|| self.value_at(field, offset, u64::from(value), expected))
    }

    /// An unsigned LEB128 number of at most ten bytes, in its shortest form.
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let start = self.offset;
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8(field)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.value_at(field, start, bits, "a number of at most 64 bits"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(self.value_at(field, start, value, "in its shortest form"));
                }
                return Ok(value);
            }
        }
        Err(self.value_at(field, start, value, "a number of at most ten bytes"))
    }

    /// A text behind an 8-bit length.
    pub(crate) fn text_u8(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = usize::from(self.u8(field)?);
        self.text(field, length)
    }

    /// A text behind a 16-bit length.
    pub(crate) fn text_u16(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let length = usize::from(self.u16(field)?);
        self.text(field, length)
    }

    fn text(&mut self, field: &'static str, length: usize) -> Result<&'a str, DecodeError> {
        let offset = self.offset;
        std::str::from_utf8(self.take(field, length)?)
            .map_err(|error| self.malformed_at(field, offset, error.to_string()))
    }

    /// An error unless everything was read.
    pub(crate) fn end(&self) -> Result<(), DecodeError> {
        if self.left() == 0 {
            return Ok(());
        }
        let left = u64::try_from(self.left()).unwrap_or(u64::MAX);
        Err(self.value_at("bytes left over", self.offset, left, "0"))
    }

    pub(crate) const fn value_at(
        &self,
        field: &'static str,
        offset: usize,
        value: u64,
        expected: &'static str,
    ) -> DecodeError {
        DecodeError::Value { place: self.place, field, offset, value, expected }
    }

    pub(crate) const fn malformed_at(
        &self,
        field: &'static str,
        offset: usize,
        reason: String,
    ) -> DecodeError {
        DecodeError::Malformed { place: self.place, field, offset, reason }
    }
}

/// Appends an unsigned LEB128 number.
pub(crate) fn write_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Folds the sign into the lowest bit, so that small differences of both signs become small numbers.
pub(crate) const fn zigzag(difference: i64) -> u64 {
    (difference << 1 ^ difference >> 63).cast_unsigned()
}

/// The reverse of [`zigzag`].
pub(crate) const fn unzigzag(folded: u64) -> i64 {
    (folded >> 1).cast_signed() ^ -(folded & 1).cast_signed()
}
