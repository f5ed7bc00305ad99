//! Takes what was seen of TCP conversations, one after the other; gives whether the mirror shows both directions
//! of the traffic. Sums only, over windows of the aggregator's own clock: order does not show, and the sums of
//! several tables are those of one.

/// A window; the sums are those of the latest two.
const WINDOW_MS: u64 = 60_000;
/// Conversations of one direction before a mirror is said to show no more than that.
const ONE_MIN: u64 = 8;
/// One conversation of both directions weighs as much as so many of one: those are also what a flood leaves that is
/// made to look like conversations, and the answers of a mirror that shows both must outlast it.
const BOTH_WEIGHT: u64 = 64;
/// With as many of both, the mirror shows both, whatever else there is.
const BOTH_MAX: u64 = 32;

/// What an open TCP flow tells of the mirror.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Packets of both directions were seen.
    Both,
    /// One side goes on as only somebody does who is answered, and no answer was seen.
    One,
}

/// Conversations of late, by the directions that were seen of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionsSeen {
    /// Of this window and of the one before: those of both directions, and those of one.
    windows: [[u64; 2]; 2],
}

impl DirectionsSeen {
    pub(super) fn handle(&mut self, evidence: Evidence) {
        self.windows[0][usize::from(evidence == Evidence::One)] += 1;
    }

    /// Goes on to the window of `now_ms`.
    pub(super) fn advance(&mut self, before_ms: u64, now_ms: u64) {
        self.windows = match now_ms / WINDOW_MS - before_ms / WINDOW_MS {
            0 => return,
            1 => [[0; 2], self.windows[0]],
            _ => [[0; 2]; 2],
        };
    }

    /// Of both.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let sum = |window: usize, which: usize| {
            self.windows[window][which] + other.windows[window][which]
        };
        Self { windows: [0, 1].map(|window| [0, 1].map(|which| sum(window, which))) }
    }

    /// Whether the mirror shows one direction only; as it was said `before`, while there is too little to tell.
    #[must_use]
    pub fn is_one_way(&self, before: bool) -> bool {
        let [both, one] = [0, 1].map(|which| self.windows[0][which] + self.windows[1][which]);
        if both >= BOTH_MAX || both * BOTH_WEIGHT > one {
            return false;
        }
        one >= ONE_MIN || before
    }
}
