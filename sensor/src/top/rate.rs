//! Takes amounts as they come and the time; gives what that is a second: of late for one row of a
//! table, and second by second for the graphs. Pure, and of fixed size.

use std::collections::VecDeque;
use std::ops::{Add, AddAssign};

/// Rates are averages over about this long.
pub(super) const WINDOW_MS: u64 = 3_000;
/// A rate is never told of less than this.
const SPAN_MIN_MS: u64 = 1_000;
/// Seconds that the graphs can show.
pub(super) const HISTORY_SECONDS: usize = 300;

/// Packets and their layer-2 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Amount {
    pub(crate) packets: u64,
    pub(crate) bytes: u64,
}

impl Amount {
    pub(super) const fn new(packets: u64, bytes: u64) -> Self {
        Self { packets, bytes }
    }

    /// Each of both by `change`.
    fn map(self, change: impl Fn(u64) -> u64) -> Self {
        Self { packets: change(self.packets), bytes: change(self.bytes) }
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { packets: self.packets + other.packets, bytes: self.bytes + other.bytes }
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

/// The source's time, which never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Clock {
    pub(crate) start_ms: u64,
    pub(crate) now_ms: u64,
}

impl Clock {
    pub(crate) const fn elapsed_ms(self) -> u64 {
        self.now_ms.saturating_sub(self.start_ms)
    }

    /// Number of the running window.
    const fn window(self) -> u64 {
        self.elapsed_ms() / WINDOW_MS
    }
}

/// What came in the running window and in the one before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Recent {
    window: u64,
    current: Amount,
    previous: Amount,
}

impl Recent {
    pub(super) fn add(&mut self, clock: Clock, amount: Amount) {
        *self = self.as_of(clock);
        self.current += amount;
    }

    /// Takes over what another one counted.
    pub(super) fn merge(&mut self, clock: Clock, other: &Self) {
        let other = other.as_of(clock);
        *self = self.as_of(clock);
        self.current += other.current;
        self.previous += other.previous;
    }

    /// The same, told from the running window.
    fn as_of(self, clock: Clock) -> Self {
        let window = clock.window();
        match window.saturating_sub(self.window) {
            0 => self,
            1 => Self { window, current: Amount::default(), previous: self.current },
            _ => Self { window, ..Self::default() },
        }
    }

    /// Everything that is still remembered; for ranking.
    pub(super) fn remembered(&self, clock: Clock) -> u64 {
        let seen = self.as_of(clock);
        (seen.current + seen.previous).bytes
    }

    /// Average of about the last [`WINDOW_MS`]: of the window before, the part that is not that
    /// long ago.
    pub(super) fn per_second(&self, clock: Clock) -> Amount {
        let Self { window, current, previous } = self.as_of(clock);
        if window == 0 {
            let span_ms = clock.elapsed_ms().max(SPAN_MIN_MS);
            return current.map(|amount| scaled(amount, 1_000, span_ms));
        }
        let left_ms = WINDOW_MS - clock.elapsed_ms() % WINDOW_MS;
        let before = previous.map(|amount| scaled(amount, left_ms, WINDOW_MS));
        (before + current).map(|amount| scaled(amount, 1_000, WINDOW_MS))
    }
}

/// `amount` times `part` / `whole`.
fn scaled(amount: u64, part: u64, whole: u64) -> u64 {
    let scaled = u128::from(amount) * u128::from(part) / u128::from(whole.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

/// What the graphs show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Graph {
    Packets,
    Bits,
    Flows,
    Frames,
}

/// Number of [`Graph`]s.
const GRAPHS: usize = 4;

/// What came in each of the last seconds.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// Number of the newest second, from the start.
    newest: u64,
    /// Up to [`HISTORY_SECONDS`], oldest first.
    seconds: VecDeque<[u64; GRAPHS]>,
}

impl History {
    /// Spreads what came since `since_ms` evenly over that time.
    pub(super) fn handle(&mut self, clock: Clock, since_ms: u64, came: [u64; GRAPHS]) {
        let start = since_ms.saturating_sub(clock.start_ms).min(clock.elapsed_ms());
        let end = clock.elapsed_ms();
        let span = (end - start).max(1);
        let first = (start / 1_000).max((end / 1_000).saturating_sub(HISTORY_SECONDS as u64 - 1));
        // What is older than everything that is kept is not shown.
        let older = (first * 1_000).saturating_sub(start);
        let mut told = came.map(|came| scaled(came, older, span));
        for second in first..=end / 1_000 {
            self.reach(second);
            let until = ((second + 1) * 1_000).min(end).saturating_sub(start);
            let part = if second == end / 1_000 { span } else { until };
            let Some(slot) = self.seconds.back_mut() else { continue };
            for ((slot, told), came) in slot.iter_mut().zip(&mut told).zip(came) {
                let so_far = scaled(came, part, span);
                *slot += so_far - *told;
                *told = so_far;
            }
        }
    }

    fn reach(&mut self, second: u64) {
        if self.seconds.is_empty() {
            self.newest = second;
            self.seconds.push_back([0; GRAPHS]);
        }
        // After a gap longer than all that is kept, nothing of before is left.
        let from = self.newest.max(second.saturating_sub(HISTORY_SECONDS as u64));
        for _ in from..second {
            if self.seconds.len() == HISTORY_SECONDS {
                self.seconds.pop_front();
            }
            self.seconds.push_back([0; GRAPHS]);
        }
        self.newest = self.newest.max(second);
    }

    /// The latest `cells` averages over `seconds` each, oldest first; `None` where nothing is
    /// known. The running second is left out: it has only begun.
    pub(super) fn cells(&self, graph: Graph, cells: usize, seconds: u64) -> Vec<Option<u64>> {
        let newest_cell = self.newest / seconds;
        let oldest = self.newest + 1 - self.seconds.len() as u64;
        let cell = |number: u64| {
            let first = (number * seconds).max(oldest);
            let end = ((number + 1) * seconds).min(self.newest);
            let held = (first..end).filter_map(|second| {
                let at = usize::try_from(second - oldest).ok()?;
                self.seconds.get(at).map(|slot| slot[graph as usize])
            });
            let (sum, count) =
                held.fold((0_u64, 0_u64), |(sum, count), one| (sum + one, count + 1));
            sum.checked_div(count)
        };
        let mut all: Vec<Option<u64>> = (0..=newest_cell).rev().take(cells + 1).map(cell).collect();
        if all.first().is_some_and(Option::is_none) {
            all.remove(0);
        }
        all.resize(cells, None);
        all.reverse();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(now_ms: u64) -> Clock {
        Clock { start_ms: 10_000, now_ms: 10_000 + now_ms }
    }

    #[test]
    fn a_steady_stream_has_its_own_rate_at_any_moment() {
        let mut recent = Recent::default();
        for step in 0..80 {
            let clock = at(step * 250);
            recent.add(clock, Amount::new(25, 250));
            let now = at((step + 1) * 250);
            if now.elapsed_ms() >= SPAN_MIN_MS {
                let rate = recent.per_second(now);
                assert!((97..=103).contains(&rate.packets), "{step}: {rate:?}");
            }
        }
        let silent = at(80 * 250 + 2 * WINDOW_MS);
        assert_eq!(recent.per_second(silent), Amount::default());
        assert_eq!(recent.remembered(silent), 0);
    }

    #[test]
    fn merged_streams_have_the_sum_of_their_rates() {
        let (mut one, mut other) = (Recent::default(), Recent::default());
        one.add(at(2_900), Amount::new(30, 300));
        other.add(at(3_100), Amount::new(60, 600));
        let clock = at(4_500);
        let sum = one.per_second(clock) + other.per_second(clock);
        one.merge(clock, &other);
        assert_eq!(one.per_second(clock), sum);
        assert_eq!(sum, Amount::new(25, 250));
    }

    #[test]
    fn the_graphs_lose_nothing_and_spread_long_epochs() {
        let mut history = History::default();
        history.handle(at(250), 10_000, [5, 0, 0, 0]);
        history.handle(at(2_500), 10_250, [900, 0, 0, 0]);
        assert_eq!(history.seconds.iter().map(|second| second[0]).sum::<u64>(), 905);
        let cells = history.cells(Graph::Packets, 4, 1);
        assert_eq!(cells, [None, None, Some(305), Some(400)], "the running second is left out");
        // Averages over two seconds each; of the second pair nothing is complete.
        assert_eq!(history.cells(Graph::Packets, 2, 2), [None, Some(352)]);
        // A gap longer than all that is kept.
        history.handle(at(10_000_000), 10_000 + 9_999_000, [7, 0, 0, 0]);
        assert_eq!(history.seconds.len(), HISTORY_SECONDS);
        history.handle(at(10_001_000), 10_000 + 10_000_000, [0, 0, 0, 0]);
        assert_eq!(history.cells(Graph::Packets, 2, 1), [Some(7), Some(0)]);
    }

    #[test]
    fn everything_at_one_moment_is_a_rate_over_a_second() {
        let mut recent = Recent::default();
        recent.add(at(0), Amount::new(10, 1_000));
        assert_eq!(recent.per_second(at(0)), Amount::new(10, 1_000));
        let mut history = History::default();
        history.handle(at(0), 10_000, [3, 0, 0, 0]);
        assert_eq!(history.cells(Graph::Packets, 1, 1), [None]);
    }
}
