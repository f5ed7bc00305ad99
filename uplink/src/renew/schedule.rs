//! Takes a certificate's validity, the time and what came of attempts; says when to ask for another one. Pure: time
//! comes in as an argument, chance as a number.

use crate::certificate::Validity;

/// Between attempts while the certificate is valid: the first wait, doubled with each failure.
const WAIT_MIN_S: u64 = 60;
const WAIT_MAX_S: u64 = 6 * 3600;
/// Between attempts once it has expired: nothing can be delivered meanwhile.
const EXPIRED_WAIT_MAX_S: u64 = 60;
/// After an answer that trying again does not change soon.
const REFUSED_WAIT_S: u64 = 3600;
/// Doublings of a wait.
const DOUBLINGS_MAX: u32 = 16;

/// When to renew one certificate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    validity: Validity,
    next_unix_s: u64,
    failures: u32,
}

impl Schedule {
    /// From a third of the life left on. `chance`, any number, spreads sensors that were enrolled together over the
    /// next twelfth of it.
    pub(crate) const fn new(validity: Validity, chance: u64) -> Self {
        let spread_s = validity.life_s() / 12;
        let next_unix_s = validity.renewal_from_unix_s().saturating_add(chance % (spread_s + 1));
        Self { validity, next_unix_s, failures: 0 }
    }

    /// Seconds until the next attempt; 0 when it is due.
    pub(crate) const fn wait_s(&self, now_unix_s: u64) -> u64 {
        self.next_unix_s.saturating_sub(now_unix_s)
    }

    /// An attempt has failed, and the next one may do better.
    pub(crate) fn handle_failure(&mut self, now_unix_s: u64) {
        let left_s = self.validity.left_s(now_unix_s);
        let doublings = self.failures.min(DOUBLINGS_MAX);
        self.failures = self.failures.saturating_add(1);
        let wait_s = if left_s == 0 {
            (1 << doublings).min(EXPIRED_WAIT_MAX_S)
        } else {
            // At least one attempt more before the end.
            (WAIT_MIN_S << doublings).min(WAIT_MAX_S).min((left_s / 2).max(1))
        };
        self.next_unix_s = now_unix_s.saturating_add(wait_s);
    }

    /// The backend has refused, and would do so again.
    pub(crate) fn handle_refusal(&mut self, now_unix_s: u64) {
        self.failures = self.failures.saturating_add(1);
        self.next_unix_s = now_unix_s.saturating_add(REFUSED_WAIT_S);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_S: u64 = 86_400;
    const LIFE: Validity =
        Validity { begins_unix_s: 1_000_000, ends_unix_s: 1_000_000 + 30 * DAY_S };

    #[test]
    fn it_begins_with_a_third_to_a_quarter_of_the_life_left_and_not_all_at_once() {
        let due: Vec<u64> = (0..1000_u64)
            .map(|chance| {
                Schedule::new(LIFE, chance.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next_unix_s
            })
            .collect();
        let (first, last) = (due.iter().min().copied(), due.iter().max().copied());
        let left = |at: Option<u64>| LIFE.left_s(at.unwrap_or(0));
        assert!(left(first) <= 10 * DAY_S && left(first) > 10 * DAY_S - DAY_S / 4, "{first:?}");
        assert!(
            left(last) >= 15 * DAY_S / 2 && left(last) < 15 * DAY_S / 2 + DAY_S / 4,
            "{last:?}"
        );
        let schedule = Schedule::new(LIFE, 0);
        assert_eq!(schedule.wait_s(LIFE.begins_unix_s), 20 * DAY_S);
        assert_eq!(schedule.wait_s(LIFE.ends_unix_s), 0);
        // The longest numbers that a certificate can have.
        let all = Validity { begins_unix_s: 0, ends_unix_s: u64::MAX };
        assert!(Schedule::new(all, u64::MAX).wait_s(0) > 0);
    }

    /// The moments of all attempts, when each of them fails.
    fn attempts(until_unix_s: u64) -> Vec<u64> {
        let mut schedule = Schedule::new(LIFE, 0);
        let mut moments = Vec::new();
        while schedule.next_unix_s < until_unix_s {
            moments.push(schedule.next_unix_s);
            schedule.handle_failure(schedule.next_unix_s);
        }
        moments
    }

    #[test]
    fn failures_wait_longer_but_never_past_the_end() {
        let moments = attempts(LIFE.ends_unix_s + 3600);
        let waits: Vec<u64> = moments.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(&waits[..4], &[60, 120, 240, 480]);
        assert_eq!(waits.iter().max(), Some(&WAIT_MAX_S));
        assert!(moments.iter().any(|at| (1..=60).contains(&(LIFE.ends_unix_s - *at))));
        assert!(moments.len() < 250, "{} attempts", moments.len());
        // Once it has expired: nothing works any more, so often, but not too often.
        assert_eq!(waits.last(), Some(&EXPIRED_WAIT_MAX_S));
    }

    #[test]
    fn a_refusal_waits_an_hour_and_an_expired_certificate_does_not_wait_at_first() {
        let now = LIFE.ends_unix_s + 5 * DAY_S;
        let mut schedule = Schedule::new(LIFE, 3);
        assert_eq!(schedule.wait_s(now), 0);
        schedule.handle_failure(now);
        assert_eq!(schedule.wait_s(now), 1);
        schedule.handle_refusal(now);
        assert_eq!(schedule.wait_s(now), 3600);
    }
}
