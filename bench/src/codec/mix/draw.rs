//! In: a seed. Out: draws from distributions that are written down as quantiles. Whole numbers only, so that the
//! same seed gives the same draws on every machine.

use rand::{Rng as _, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// At which parts of a thousand the quantiles of [`Quantiles`] lie.
const AT: [u32; 8] = [0, 100, 250, 500, 750, 900, 990, 1000];

/// A distribution: its smallest value, the quantiles at 10, 25, 50, 75, 90 and 99 per cent, its largest value; even
/// between them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quantiles(pub(super) [u32; 8]);

/// Draws.
#[derive(Debug)]
pub(super) struct Draw(ChaCha8Rng);

impl Draw {
    pub(super) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Below `end`.
    pub(super) fn below(&mut self, end: u32) -> u32 {
        self.0.random_range(0..end)
    }

    pub(super) fn between(&mut self, first: u16, last: u16) -> u16 {
        self.0.random_range(first..=last)
    }

    pub(super) fn u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    /// True so many times of a hundred.
    pub(super) fn percent(&mut self, percent: u32) -> bool {
        self.below(100) < percent
    }

    pub(super) fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.0.random_range(0..values.len())]
    }

    /// One of these, each with its weight.
    pub(super) fn weighted<T: Copy>(&mut self, values: &[(u32, T)]) -> T {
        let mut lot = self.below(values.iter().map(|(weight, _)| weight).sum());
        for (weight, value) in values {
            if lot < *weight {
                return *value;
            }
            lot -= weight;
        }
        unreachable!("the lot is below the sum of the weights")
    }

    pub(super) fn spread(&mut self, quantiles: Quantiles) -> u32 {
        let lot = self.below(1000);
        let above = AT.iter().position(|at| lot < *at).unwrap_or(AT.len() - 1);
        let [low, high] = [quantiles.0[above - 1], quantiles.0[above]];
        low + self.below(high - low + 1)
    }

    /// A place in a ranking of `2^doublings` where the n-th is about 1/n as frequent as the first (Zipf).
    pub(super) fn rank(&mut self, doublings: u32) -> u32 {
        let octave = self.below(doublings + 1);
        if octave == 0 { 0 } else { (1 << (octave - 1)) + self.below(1 << (octave - 1)) }
    }
}
