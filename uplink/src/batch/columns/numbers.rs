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
//! A value that occurs often is a symbol of its own. Any other one is of the class of values that have equally
//! many bits and the same two first ones; its remaining bits follow the symbol as they are. So what repeats is
//! short, and what does not costs no time to find out about.
#![expect(
    clippy::cast_possible_truncation,
    reason = "bits are taken apart, and counts are bounded by the record count"
)]

use std::ops::{BitOr, BitXor};

pub(super) const EQUAL: u8 = 0;
pub(super) const PLAIN: u8 = 1;
pub(super) const CODED: u8 = 2;
pub(super) const STREAMS: usize = 4;
/// Values that can be symbols are below this: what is larger hardly repeats.
pub(super) const SMALL: usize = 2048;
/// Values that are symbols at most; with the classes they fit a byte.
pub(super) const EXACT_MAX: usize = 112;
/// A value that occurs less often costs more in the table than it saves.
pub(super) const EXACT_COUNT_MIN: u32 = 16;
pub(super) const CLASSES: usize = 128;
/// About what a table takes: a column that is not shorter by that much stays as it is.
pub(super) const TABLE_BITS: usize = 256;

/// A number that columns are made of.
pub(super) trait Word:
    Copy + Default + BitOr<Output = Self> + BitXor<Output = Self>
{
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
pub(super) fn class(value: u64) -> (usize, u32) {
    let bits = u64::BITS - value.leading_zeros();
    match bits.checked_sub(2) {
        None => (usize::from(value == 0), 0),
        Some(follow) => (2 * (bits as usize - 1) + (value >> follow & 1) as usize, follow),
    }
}

/// The same of a value of at least 2, without a branch.
#[inline]
pub(super) fn class_of_large(value: u64) -> usize {
    let follow = 62 - (value | 2).leading_zeros();
    2 * (follow as usize + 1) + (value >> (follow & 63) & 1) as usize
}

/// The lowest bits, so many of them.
pub(super) const LOWEST: [u64; 64] = {
    let mut lowest = [0; 64];
    let mut count = 1;
    while count < 64 {
        lowest[count] = lowest[count - 1] << 1 | 1;
        count += 1;
    }
    lowest
};

/// The least value of a class, and how many bits follow.
pub(super) fn class_base(class: usize) -> (u64, u8) {
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
