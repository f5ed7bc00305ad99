//! Takes the failures of one thing that is tried again and again; says which of them to tell, so that a full disk
//! is a line now and then and not a flood. Never reads a clock.

use std::time::Duration;

use tokio::time::Instant;

/// Shortest time between two lines about one trouble.
const TOLD_AGAIN: Duration = Duration::from_mins(1);

/// Whether something works, and when its failure was last told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    told: Option<Instant>,
    attempts: u64,
}

impl Trouble {
    /// It failed; how often in a row it has by now, when that is to be told.
    pub(crate) fn handle_failure(&mut self, now: Instant) -> Option<u64> {
        self.attempts += 1;
        let is_due = |told: Instant| now.saturating_duration_since(told) >= TOLD_AGAIN;
        if !self.told.is_none_or(is_due) {
            return None;
        }
        self.told = Some(now);
        Some(self.attempts)
    }

    /// It worked; how often it had failed before, when it had.
    pub(crate) fn handle_success(&mut self) -> Option<u64> {
        let failed = std::mem::take(self).attempts;
        (failed > 0).then_some(failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_then_once_a_minute_and_its_end_too() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut trouble = Trouble::default();
        assert_eq!(trouble.handle_success(), None);
        let told: Vec<_> = (0..=120).filter_map(|n| trouble.handle_failure(after(n))).collect();
        assert_eq!(told, [1, 61, 121]);
        assert_eq!(trouble.handle_success(), Some(121));
        assert_eq!(trouble.handle_success(), None);
        assert_eq!(trouble.handle_failure(after(121)), Some(1), "a new trouble is told at once");
    }
}
