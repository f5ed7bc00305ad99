//! Takes 32-bit items; gives how many different ones there were, in bounded memory.

use std::net::IpAddr;

/// Registers of the sketch: 2^10, so the count is within about 3.3 % (1.04 / √1024, Flajolet et al.
/// 2007).
const REGISTERS: usize = 1 << REGISTER_BITS;
/// Bits of the hash that choose a register.
const REGISTER_BITS: u32 = 10;

/// The highest rank of a register: the sum of all registers, in units of two to the minus this, fits 64 bits.
const RANK_MAX: u8 = 53;

/// A set that counts its items: exactly up to a limit, then as a `HyperLogLog` sketch of 1 KiB.
#[derive(Clone, Debug)]
pub(crate) struct Distinct {
    /// Sorted; empty once the sketch has taken over.
    exact: Vec<u32>,
    exact_max: usize,
    sketch: Option<Box<Sketch>>,
}

impl Distinct {
    /// Counts exactly up to `exact_max` items.
    pub(crate) const fn new(exact_max: usize) -> Self {
        Self { exact: Vec::new(), exact_max, sketch: None }
    }

    /// Adds an item.
    pub(crate) fn insert(&mut self, item: u32) {
        if let Some(sketch) = &mut self.sketch {
            sketch.observe(item);
            return;
        }
        if let Err(place) = self.exact.binary_search(&item) {
            if self.exact.len() < self.exact_max {
                self.exact.insert(place, item);
            } else {
                let mut sketch = Box::new(Sketch::new());
                for known in self.exact.drain(..) {
                    sketch.observe(known);
                }
                sketch.observe(item);
                self.exact.shrink_to_fit();
                self.sketch = Some(sketch);
            }
        }
    }

    /// Adds all items of `other`.
    pub(crate) fn absorb(&mut self, other: &Self) {
        for &item in &other.exact {
            self.insert(item);
        }
        if let Some(theirs) = &other.sketch {
            let known = std::mem::take(&mut self.exact);
            let mine = self.sketch.get_or_insert_with(|| Box::new(Sketch::new()));
            for item in known {
                mine.observe(item);
            }
            for (register, &rank) in theirs.ranks.iter().enumerate() {
                mine.raise(register, rank);
            }
        }
    }

    /// How many different items were added.
    pub(crate) fn count(&self) -> u64 {
        self.sketch.as_ref().map_or(self.exact.len() as u64, |sketch| sketch.estimate())
    }

    /// Whether [`Distinct::count`] is exact rather than an estimate.
    pub(crate) const fn is_exact(&self) -> bool {
        self.sketch.is_none()
    }
}

/// The registers, with what the estimate needs of them: it is asked for with every judgement, and looks at none.
#[derive(Clone, Debug)]
struct Sketch {
    ranks: [u8; REGISTERS],
    /// The sum of 2^-rank, in units of 2^-[`RANK_MAX`]: exact.
    inverse: u64,
    empty: u16,
}

impl Sketch {
    const fn new() -> Self {
        let inverse = 1 << (REGISTER_BITS + RANK_MAX as u32);
        Self { ranks: [0; REGISTERS], inverse, empty: 1 << REGISTER_BITS }
    }

    fn observe(&mut self, item: u32) {
        let hash = mixed(u64::from(item));
        #[expect(clippy::cast_possible_truncation, reason = "only the lowest 10 bits are kept")]
        let register = (hash as usize) & (REGISTERS - 1);
        let zeros = (hash >> REGISTER_BITS).trailing_zeros().min(u32::from(RANK_MAX) - 1);
        #[expect(clippy::cast_possible_truncation, reason = "at most 52")]
        self.raise(register, zeros as u8 + 1);
    }

    fn raise(&mut self, register: usize, rank: u8) {
        let known = &mut self.ranks[register];
        if rank > *known {
            self.inverse -= (1 << (RANK_MAX - *known)) - (1 << (RANK_MAX - rank));
            self.empty -= u16::from(*known == 0);
            *known = rank;
        }
    }

    /// Flajolet et al. 2007, with linear counting for small counts.
    fn estimate(&self) -> u64 {
        const SIZE: f64 = 1024.0;
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^-53 of it is far below the sketch's own error"
        )]
        let inverse = self.inverse as f64 * 0.5_f64.powi(i32::from(RANK_MAX));
        let raw = 0.7213 / (1.0 + 1.079 / SIZE) * SIZE * SIZE / inverse;
        let empty = f64::from(self.empty);
        let count = if raw <= 2.5 * SIZE && empty > 0.0 { SIZE * (SIZE / empty).ln() } else { raw };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "positive, and far below 2^53 with 32-bit items"
        )]
        let count = count.round() as u64;
        count
    }
}

/// `SplitMix64`'s finaliser: spreads close numbers over all bits, the same on every machine.
pub(crate) const fn mixed(value: u64) -> u64 {
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}

/// An address as an item: an IPv4 address as it is, an IPv6 address folded.
pub(crate) fn address_item(address: IpAddr) -> u32 {
    match address {
        IpAddr::V4(v4) => v4.to_bits(),
        IpAddr::V6(v6) => {
            let bits = v6.to_bits();
            #[expect(clippy::cast_possible_truncation, reason = "both halves are mixed in")]
            let folded = mixed(mixed((bits >> 64) as u64) ^ bits as u64) as u32;
            folded
        }
    }
}

/// Two items as one.
pub(crate) fn paired(first: u32, second: u32) -> u32 {
    #[expect(clippy::cast_possible_truncation, reason = "a hash of both is what is wanted")]
    let item = mixed(u64::from(first) << 32 | u64::from(second)) as u32;
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_up_to_the_limit_and_close_above_it() {
        for count in [0_u32, 1, 63, 64, 65, 1_000, 40_000, 1_000_000] {
            let mut distinct = Distinct::new(64);
            for item in 0..count {
                distinct.insert(item.wrapping_mul(2_654_435_761));
                distinct.insert(item.wrapping_mul(2_654_435_761));
            }
            let (seen, count) = (distinct.count(), u64::from(count));
            assert_eq!(distinct.is_exact(), count <= 64, "{count}");
            assert!(
                seen.abs_diff(count) * 10 <= if count <= 64 { 0 } else { count },
                "{seen} {count}"
            );
        }
    }

    #[test]
    fn what_is_kept_for_the_estimate_is_what_the_registers_say() {
        let (mut left, mut right) = (Distinct::new(4), Distinct::new(4));
        (0..50_000_u32).for_each(|item| left.insert(item.wrapping_mul(2_654_435_761)));
        (0..700).for_each(|item| right.insert(item));
        right.absorb(&left);
        for distinct in [left, right] {
            let sketch = distinct.sketch.expect("more than 4 items");
            let sum: u64 = sketch.ranks.iter().map(|&rank| 1 << (RANK_MAX - rank)).sum();
            let empty: u16 = sketch.ranks.iter().map(|&rank| u16::from(rank == 0)).sum();
            assert_eq!((sketch.inverse, sketch.empty), (sum, empty));
        }
    }

    #[test]
    fn absorbing_is_the_union() {
        for (mine, theirs) in [(10, 20), (10, 2_000), (2_000, 10), (2_000, 3_000)] {
            let (mut left, mut right) = (Distinct::new(64), Distinct::new(64));
            (0..mine).for_each(|item| left.insert(item));
            (mine / 2..mine / 2 + theirs).for_each(|item| right.insert(item));
            left.absorb(&right);
            let union = u64::from((mine / 2 + theirs).max(mine));
            assert!(left.count().abs_diff(union) * 10 <= union, "{} {union}", left.count());
        }
    }
}
