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
/// Ticks over which the rate is measured: 64 ms at 250 Hz.
const TICKS_MEASURED: u32 = 16;
/// An edge counts only when the look before it was at most this long ago: in between the thread may have slept.
const LOOK_NS_MAX: u64 = 100_000;
/// How far a measured tick may lie from that of a known rate, parts in a thousand; the closest two known rates
/// are 23 apart.
const DEVIATION_PERMILLE: u64 = 8;
/// Measurements before giving up, for a machine on which the thread is put to sleep all the time.
const ATTEMPTS: u32 = 32;
/// Looks for one edge; each takes microseconds, and a tick is at most 42 ms.
const LOOKS_MAX: u32 = 1_000_000;

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
    /// Looks at the counter while it steps. `read` gives the lower 32 bits of the counter.
    pub(super) fn calibrate(
        read: impl FnMut() -> Result<u32, CaptureError>,
    ) -> Result<Self, CaptureError> {
        Self::calibrate_by(monotonic_ns, read)
    }

    fn calibrate_by(
        mut now_ns: impl FnMut() -> u64,
        mut read: impl FnMut() -> Result<u32, CaptureError>,
    ) -> Result<Self, CaptureError> {
        let mut measured_ns = 0;
        for _ in 0..ATTEMPTS {
            let Some((edge, edge_ns)) = next_edge(&mut now_ns, &mut read)? else { continue };
            let mut ticks = 0;
            let mut last_ns = edge_ns;
            while ticks < TICKS_MEASURED {
                let Some((count, count_ns)) = next_edge(&mut now_ns, &mut read)? else { break };
                ticks = count.wrapping_sub(edge);
                last_ns = count_ns;
            }
            if ticks < TICKS_MEASURED {
                continue;
            }
            measured_ns = last_ns.saturating_sub(edge_ns) / u64::from(ticks);
            if let Some(tick_ns) = known_tick_ns(measured_ns) {
                return Ok(Self { tick_ns, edge, edge_ns });
            }
        }
        Err(CaptureError::TickRate { measured_ns })
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
    /// The whole count of a tick of which only the bits of `mask`, the lowest ones, are known: the newest that there
    /// is. Right for one of the last `mask` ticks.
    pub(super) fn recent(&self, lowest: u32, mask: u32) -> u32 {
        let newest = self.newest();
        newest.wrapping_sub(newest.wrapping_sub(lowest) & mask)
    }

    /// The count of the tick that runs, or of the next: the counter may have stepped since `now_ns` was read.
    fn newest(&self) -> u32 {
        let Ticks { edge, .. } = self.ticks;
        #[expect(clippy::cast_possible_truncation, reason = "counts are compared modulo 2^32")]
        edge.wrapping_add(self.ticks_since_edge() as u32)
    }

    fn ticks_since_edge(&self) -> u64 {
        let Ticks { tick_ns, edge_ns, .. } = self.ticks;
        self.now_ns.saturating_sub(edge_ns) / tick_ns + 1
    }

    /// Milliseconds since the Unix epoch at the beginning of a tick, from the lower 32 bits of its count. The
    /// tick is taken for the last one with those bits: the right one for 2^32 ticks, 49 days at 1,000 Hz.
    pub(super) fn unix_ms(&self, count: u32) -> u64 {
        let Ticks { tick_ns, edge_ns, .. } = self.ticks;
        let age = self.newest().wrapping_sub(count);
        let since_edge = self.ticks_since_edge().cast_signed() - i64::from(age);
        let stamp_ns = edge_ns.cast_signed() + since_edge * tick_ns.cast_signed();
        let unix_ns = stamp_ns + (self.unix_now_ns.cast_signed() - self.now_ns.cast_signed());
        u64::try_from(unix_ns / 1_000_000).unwrap_or(0)
    }
}

/// The tick of the known rate that a measured one belongs to, rounded as the kernel rounds it (`TICK_NSEC`).
fn known_tick_ns(measured_ns: u64) -> Option<u64> {
    TICK_RATES_HZ
        .into_iter()
        .map(|rate_hz| (1_000_000_000 + u64::from(rate_hz) / 2) / u64::from(rate_hz))
        .find(|tick_ns| measured_ns.abs_diff(*tick_ns) * 1000 <= tick_ns * DEVIATION_PERMILLE)
}

/// The next step of the counter that was seen as it happened: the count, and the moment before.
fn next_edge(
    now_ns: &mut impl FnMut() -> u64,
    read: &mut impl FnMut() -> Result<u32, CaptureError>,
) -> Result<Option<(u32, u64)>, CaptureError> {
    let mut last = read()?;
    let mut last_ns = now_ns();
    for _ in 0..LOOKS_MAX {
        let count = read()?;
        let count_ns = now_ns();
        if count == last.wrapping_add(1) && count_ns.saturating_sub(last_ns) <= LOOK_NS_MAX {
            return Ok(Some((count, last_ns)));
        }
        (last, last_ns) = (count, count_ns);
    }
    Ok(None)
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
