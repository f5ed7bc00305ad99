//! Takes the kernel's tick count (jiffies), in which slots are stamped; gives milliseconds since the Unix epoch.
//!
//! Ticks are locked to `CLOCK_MONOTONIC`, so one look at a tick's edge fixes their relation for good; only the
//! relation of that clock to `CLOCK_REALTIME` is asked for anew, at each drain. A stamp is exact to one tick
//! downwards (4 ms at the usual 250 Hz) plus the few microseconds of that look.

use rustix::time::{ClockId, clock_gettime};

use super::CaptureError;

/// Tick rates a kernel can be built with, all architectures together.
const TICK_RATES_HZ: [u32; 15] =
    [24, 32, 48, 64, 100, 128, 200, 250, 256, 300, 500, 512, 1000, 1024, 1200];
/// The counter starts this long before it wraps, so that wrapping is always tested (`INITIAL_JIFFIES`).
const WRAPS_AFTER_SECONDS: u32 = 300;
/// By how many milliseconds counter and clock may disagree: the counter starts early in the boot.
const DISAGREEMENT_MS: u64 = 2_000;
/// Looks for an edge; each takes microseconds, and a tick is at most 42 ms.
const LOOKS_MAX: u32 = 200_000;

/// The relation of ticks to `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticks {
    tick_ns: u64,
    /// A tick count, lower 32 bits, and the moment it began.
    edge: u32,
    edge_ns: u64,
}

/// The same, with the relation of `CLOCK_MONOTONIC` to the time of day at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct TickTime {
    ticks: Ticks,
    now_ns: u64,
    unix_now_ns: u64,
}

impl Ticks {
    /// Looks at the counter until it steps. `read` gives the lower 32 bits of the counter.
    pub(super) fn calibrate(
        mut read: impl FnMut() -> Result<u32, CaptureError>,
    ) -> Result<Self, CaptureError> {
        let first = read()?;
        for _ in 0..LOOKS_MAX {
            let before_ns = monotonic_ns();
            let count = read()?;
            if count != first {
                return Self::new(count, before_ns);
            }
        }
        Err(CaptureError::TickRate { uptime_ms: monotonic_ns() / 1_000_000 })
    }

    /// The tick rate is the one at which the counter has counted from its known start to here.
    fn new(edge: u32, edge_ns: u64) -> Result<Self, CaptureError> {
        let disagreement = |rate_hz: u32| {
            let start = 0_u32.wrapping_sub(WRAPS_AFTER_SECONDS * rate_hz);
            let counted = edge.wrapping_sub(start);
            let tick_ns = 1_000_000_000 / u64::from(rate_hz);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "compared modulo 2^32, as the counter counts"
            )]
            let expected = (edge_ns / tick_ns) as u32;
            let apart = counted.wrapping_sub(expected).cast_signed().unsigned_abs();
            u64::from(apart) * tick_ns / 1_000_000
        };
        let best = TICK_RATES_HZ.into_iter().min_by_key(|rate_hz| disagreement(*rate_hz));
        match best {
            Some(rate_hz) if disagreement(rate_hz) <= DISAGREEMENT_MS => {
                // Rounded as the kernel rounds it (TICK_NSEC).
                let rate_hz = u64::from(rate_hz);
                Ok(Self { tick_ns: (1_000_000_000 + rate_hz / 2) / rate_hz, edge, edge_ns })
            }
            _ => Err(CaptureError::TickRate { uptime_ms: edge_ns / 1_000_000 }),
        }
    }

    /// How long one tick lasts: the precision of a stamp.
    pub(super) const fn tick_ns(&self) -> u64 {
        self.tick_ns
    }

    /// Ready to convert stamps of the recent past.
    pub(super) fn at_now(self) -> TickTime {
        let now_ns = monotonic_ns();
        let unix_now_ns = clock_ns(ClockId::Realtime);
        TickTime { ticks: self, now_ns, unix_now_ns }
    }
}

impl TickTime {
    /// Milliseconds since the Unix epoch at the beginning of a tick, from the lower 32 bits of its count. The
    /// tick is taken for the last one with those bits: the right one for 2^32 ticks, 49 days at 1,000 Hz.
    pub(super) fn unix_ms(&self, count: u32) -> u64 {
        let Ticks { tick_ns, edge, edge_ns } = self.ticks;
        // One more than the clock says: the counter may have stepped since `now_ns` was read.
        let newest = self.now_ns.saturating_sub(edge_ns) / tick_ns + 1;
        #[expect(clippy::cast_possible_truncation, reason = "counts are compared modulo 2^32")]
        let age = edge.wrapping_add(newest as u32).wrapping_sub(count);
        let since_edge = newest.cast_signed() - i64::from(age);
        let stamp_ns = edge_ns.cast_signed() + since_edge * tick_ns.cast_signed();
        let unix_ns = stamp_ns + (self.unix_now_ns.cast_signed() - self.now_ns.cast_signed());
        u64::try_from(unix_ns / 1_000_000).unwrap_or(0)
    }
}

fn monotonic_ns() -> u64 {
    clock_ns(ClockId::Monotonic)
}

fn clock_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanoseconds = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds * 1_000_000_000 + nanoseconds
}

#[cfg(test)]
mod tests;
