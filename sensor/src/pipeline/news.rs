//! Takes what happens on the link; says which of it people are told. A backend that answers and cannot
//! store is the same trouble at every attempt: it is told once, and then at most once a minute. Never
//! reads a clock.

use std::time::{Duration, Instant};

/// Shortest time between two lines about failures.
const TOLD_AGAIN: Duration = Duration::from_mins(1);

/// What is known of the link, and when people were last told of a failure.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct News {
    /// It has worked once.
    began: bool,
    failing: bool,
    /// The failure that lasts was told.
    told: bool,
    told_at: Option<Instant>,
}

impl News {
    /// An attempt failed, or the connection ended. Whether to tell it.
    pub(super) fn handle_failure(&mut self, now: Instant) -> bool {
        self.failing = true;
        let is_due = |at: Instant| now.saturating_duration_since(at) >= TOLD_AGAIN;
        let tell = self.told_at.is_none_or(is_due);
        if tell {
            self.told = true;
            self.told_at = Some(now);
        }
        tell
    }

    /// The backend greeted. After a failure that proves little while batches wait: it may be unable to
    /// store them, as it was before. Whether to tell it.
    pub(super) fn handle_connected(&mut self, batches_waiting: u64) -> bool {
        let proves = !self.failing || batches_waiting == 0;
        proves && self.handle_answer()
    }

    /// The backend has dealt with a batch. Whether to tell that it works again.
    pub(super) fn handle_answer(&mut self) -> bool {
        let tell = !self.began || self.told;
        *self = Self { began: true, failing: false, told: false, ..*self };
        tell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_that_answers_and_cannot_store_is_told_once_then_once_a_minute() {
        let start = Instant::now();
        let mut news = News::default();
        assert!(news.handle_connected(3), "the first connection");
        assert!(!news.handle_answer(), "a batch is no news");
        let told: Vec<u64> = (0..=120)
            .filter(|second| {
                // Each attempt connects, and the first batch is handed back.
                let connected = news.handle_connected(3);
                assert!(!connected || *second == 0);
                news.handle_failure(start + Duration::from_secs(*second))
            })
            .collect();
        assert_eq!(told, [0, 60, 120]);
        assert!(news.handle_answer(), "it stores again");
        assert!(!news.handle_answer());
    }

    #[test]
    fn an_end_that_was_not_told_needs_no_all_clear() {
        let start = Instant::now();
        let mut news = News::default();
        assert!(news.handle_failure(start));
        assert!(news.handle_connected(0), "nothing waits, so nothing is left to prove");
        assert!(!news.handle_failure(start + Duration::from_secs(5)), "a minute has not passed");
        assert!(!news.handle_connected(0));
        assert!(news.handle_failure(start + Duration::from_secs(65)));
    }
}
