//! Takes failures; gives how long to wait, the same or doubling up to a bound; with jitter, so that a thousand sensors
//! do not come back in the same second. Pure: chance comes from a seed.

/// Doubling wait with jitter.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    min_ms: u64,
    max_ms: u64,
    failures: u32,
    state: u64,
}

impl Backoff {
    pub(super) const fn new(min_ms: u64, max_ms: u64, seed: u64) -> Self {
        Self { min_ms, max_ms, failures: 0, state: seed }
    }

    pub(super) const fn reset(&mut self) {
        self.failures = 0;
    }

    /// Between half and all of the first wait; it stays the first one.
    pub(super) const fn first_ms(&mut self) -> u64 {
        self.between_half_and_all(self.min_ms)
    }

    /// Between half and all of the doubled wait.
    pub(super) const fn next_ms(&mut self) -> u64 {
        let doubled = match 1_u64.checked_shl(self.failures) {
            Some(factor) => self.min_ms.saturating_mul(factor),
            None => u64::MAX,
        };
        self.failures = self.failures.saturating_add(1);
        self.between_half_and_all(doubled)
    }

    const fn between_half_and_all(&mut self, wanted_ms: u64) -> u64 {
        let most = if wanted_ms < self.max_ms { wanted_ms } else { self.max_ms };
        let half = most / 2;
        half + self.random() % (most - half + 1)
    }

    /// `SplitMix64` (Steele, Lea, Flood 2014).
    const fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
}
