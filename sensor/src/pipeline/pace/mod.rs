//! Takes how full the kernel's log is and how much an epoch gave; says when to look again and when to
//! end the epoch. Pure: every moment is an argument.
//!
//! ```text
//! epoch ends:  when its time has come      `epoch_ms`, up to `epoch_ms_max` while hardly anything comes
//!              early, when a log is half full
//! looks come:  soon enough that a burst of 3 million new flows a second on one CPU, beginning at any
//!              moment, fills no more than half a log between two of them; sooner when the rate of this
//!              epoch demands it
//! ```
//!
//! Epochs cannot be shorter than the grace period that the kernel takes to end one: the drain waits for it.

use std::time::{Duration, Instant};

use crate::capture::LogFill;

/// The burst of new flows on one CPU that must never find a full log unnoticed: what a core takes of
/// frames that each begin a flow.
const BURST_FLOWS_PER_SECOND: u64 = 3_000_000;
/// A log that is fuller than this is drained at once.
const FILL_PERMILLE_MAX: u32 = 500;
/// Shortest time between two looks, also at a log that is too small for its rate.
const LOOK_MIN: Duration = Duration::from_millis(1);
/// An epoch that gave no more than this makes the next one longer.
const IDLE_OBSERVATIONS: u64 = 256;

/// When to look, and when to end an epoch.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    target: Duration,
    longest: Duration,
    /// How long this epoch may last.
    period: Duration,
    began: Instant,
    due: Instant,
}

impl Pace {
    /// An epoch begins at `now`.
    pub(super) fn new(target: Duration, longest: Duration, now: Instant) -> Self {
        let longest = longest.max(target);
        Self { target, longest, period: target, began: now, due: now + target }
    }

    /// When to look next, if this is how full it is `now`.
    pub(super) fn next_look(&self, now: Instant, fill: LogFill) -> Instant {
        let slots = u64::from(fill.slots);
        let burst = Duration::from_nanos(slots * 1_000_000_000 / (2 * BURST_FLOWS_PER_SECOND));
        let wait = burst.min(self.until_half_full(now, fill)).max(LOOK_MIN);
        (now + wait).min(self.due)
    }

    /// How long until the log is half full at the rate of this epoch so far.
    fn until_half_full(&self, now: Instant, fill: LogFill) -> Duration {
        let elapsed = now.saturating_duration_since(self.began);
        let left = (fill.slots / 2).saturating_sub(fill.used);
        match elapsed.checked_div(fill.used) {
            Some(each) => each.saturating_mul(left),
            None => self.longest,
        }
    }

    /// Whether the epoch is to end now.
    pub(super) fn is_over(&self, now: Instant, fill: LogFill) -> bool {
        // Only a full set puts a slot into the log: this is no idle time any more.
        let no_longer_idle = fill.used > 0 && now >= self.began + self.target;
        self.is_due(now) || no_longer_idle || fill.permille() >= FILL_PERMILLE_MAX
    }

    /// Whether the epoch has lasted as long as it may.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// The next epoch began at `now`; the one before gave this many observations. Gives how long that
    /// one lasted.
    pub(super) fn handle_flip(&mut self, now: Instant, observations: u64) -> Duration {
        let lasted = now.duration_since(self.began);
        self.period = if observations <= IDLE_OBSERVATIONS {
            (self.period * 2).min(self.longest)
        } else {
            self.target
        };
        // In step with the clock where it can be; after a stall the lost epochs are not made up for.
        self.due = (self.due.min(now) + self.period).max(now);
        self.began = now;
        lasted
    }
}

#[cfg(test)]
mod tests;
