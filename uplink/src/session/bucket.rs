//! Takes bytes that are to be sent; says how long to wait first, so that the member's line keeps room for others. A
//! token bucket. Pure: time comes in as an argument.

/// The time whose bytes may be sent at once.
const BURST_US: u64 = 250_000;
/// No less than this is sent at once, or a slow line would be used in crumbs.
const BURST_BYTES_MIN: u64 = 16 << 10;
const SECOND_US: u64 = 1_000_000;

/// So many bytes a second on average, and a quarter of a second's bytes at once.
#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    bytes_per_second: u64,
    burst_bytes: u64,
    /// In millionths of a byte, so that no rate is rounded away; below zero is a debt.
    level: i128,
    at_us: u64,
}

impl Bucket {
    /// A full bucket.
    pub(crate) fn new(bytes_per_second: u64, now_us: u64) -> Self {
        let burst = u128::from(bytes_per_second) * u128::from(BURST_US) / u128::from(SECOND_US);
        let burst_bytes = u64::try_from(burst).unwrap_or(u64::MAX).max(BURST_BYTES_MIN);
        let level = i128::from(burst_bytes) * i128::from(SECOND_US);
        Self { bytes_per_second: bytes_per_second.max(1), burst_bytes, level, at_us: now_us }
    }

    /// Takes bytes out, and says after how many microseconds they may be sent. More than there are is a debt: who comes
    /// later waits for it, too.
    pub(crate) fn take(&mut self, now_us: u64, bytes: u64) -> u64 {
        // A clock that goes back gives nothing.
        let elapsed = now_us.saturating_sub(self.at_us);
        self.at_us = self.at_us.max(now_us);
        let full = i128::from(self.burst_bytes) * i128::from(SECOND_US);
        let gained = i128::from(elapsed) * i128::from(self.bytes_per_second);
        self.level = self.level.saturating_add(gained).min(full);
        self.level -= i128::from(bytes) * i128::from(SECOND_US);
        let debt = u128::try_from(-self.level).unwrap_or(0);
        u64::try_from(debt.div_ceil(u128::from(self.bytes_per_second))).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_is_free_and_then_the_rate_holds() {
        let mut bucket = Bucket::new(1_000_000, 0);
        assert_eq!(bucket.take(0, 250_000), 0);
        assert_eq!(bucket.take(0, 500_000), 500_000);
        assert_eq!(bucket.take(500_000, 0), 0, "the debt is paid");
        assert_eq!(bucket.take(500_000, 1), 1);
        assert_eq!(bucket.take(100, 1), 2, "a clock that goes back gives nothing");
        assert_eq!(bucket.take(u64::MAX, 250_000), 0, "no more than a burst was saved up");
        assert_eq!(bucket.take(u64::MAX, 1), 1);
        assert_eq!(Bucket::new(1, 0).take(0, 16 << 10), 0);
    }

    proptest! {
        /// Who waits as told never sends more than the rate and one burst.
        #[test]
        fn no_window_has_more_than_its_share(
            rate in 1_000..10_000_000_u64,
            sends in vec((1..100_000_u64, 0..200_000_u64), 1..60),
        ) {
            let mut bucket = Bucket::new(rate, 0);
            let mut now_us = 0;
            let mut sent = 0;
            for (bytes, pause_us) in sends {
                now_us += pause_us;
                now_us += bucket.take(now_us, bytes);
                sent += bytes;
                let earned = u128::from(now_us) * u128::from(rate) / 1_000_000;
                prop_assert!(u128::from(sent) <= earned + u128::from(bucket.burst_bytes) + 1);
            }
        }
    }
}
