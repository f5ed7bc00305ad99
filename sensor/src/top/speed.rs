//! Takes how fast a capture is to be read; says how long to wait for a frame. Pure: time comes as an argument.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use thiserror::Error;

/// How fast a capture is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Speed {
    /// So many times as fast as it was captured.
    Times(f64),
    /// As fast as it can be read.
    Max,
}

/// Remedy: `wire`, `max`, or a number with an `x`.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "`{0}` is no speed: expected `wire`, `max`, or how many times as fast as the wire, 0.001x to 1000000x"
)]
pub struct NoSpeed(String);

impl FromStr for Speed {
    type Err = NoSpeed;

    fn from_str(text: &str) -> Result<Self, NoSpeed> {
        match text {
            "wire" => Ok(Self::Times(1.0)),
            "max" => Ok(Self::Max),
            _ => text
                .strip_suffix('x')
                .and_then(|number| number.parse().ok())
                .filter(|times| (0.001..=1_000_000.0).contains(times))
                .map(Self::Times)
                .ok_or_else(|| NoSpeed(text.to_owned())),
        }
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(1.0) => formatter.write_str("wire speed"),
            Self::Times(times) => write!(formatter, "{times}x"),
            Self::Max => formatter.write_str("full speed"),
        }
    }
}

/// Keeps a reader in step with the capture's clock.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    speed: Speed,
    /// A moment of the machine's clock, and of the capture's.
    anchor: Option<(Instant, u64)>,
}

impl Pace {
    pub(super) const fn new(speed: Speed) -> Self {
        Self { speed, anchor: None }
    }

    /// Begins anew with the next frame: after a pause, or in another file.
    pub(super) fn restart(&mut self) {
        self.anchor = None;
    }

    /// How long to wait for a frame of this time; zero when it is due.
    pub(super) fn wait(&mut self, time_ms: u64, now: Instant) -> Duration {
        let Speed::Times(times) = self.speed else { return Duration::ZERO };
        let (began, began_ms) = *self.anchor.get_or_insert((now, time_ms));
        let ahead = Duration::from_millis(time_ms.saturating_sub(began_ms));
        // A capture of centuries at a thousandth of its speed: as good as never.
        let ahead =
            Duration::try_from_secs_f64(ahead.as_secs_f64() / times).unwrap_or(Duration::MAX);
        ahead.saturating_sub(now.duration_since(began))
    }

    /// The capture's time now, while it is waited for a frame.
    pub(super) fn time_ms(&self, now: Instant) -> Option<u64> {
        let Speed::Times(times) = self.speed else { return None };
        let (began, began_ms) = self.anchor?;
        let passed = Duration::try_from_secs_f64(now.duration_since(began).as_secs_f64() * times);
        let passed_ms = u64::try_from(passed.unwrap_or(Duration::MAX).as_millis());
        Some(began_ms.saturating_add(passed_ms.unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_said_and_told() {
        for (text, speed, told) in [
            ("wire", Speed::Times(1.0), "wire speed"),
            ("1x", Speed::Times(1.0), "wire speed"),
            ("10x", Speed::Times(10.0), "10x"),
            ("0.5x", Speed::Times(0.5), "0.5x"),
            ("max", Speed::Max, "full speed"),
        ] {
            assert_eq!(text.parse(), Ok(speed));
            assert_eq!(speed.to_string(), told);
        }
        for wrong in ["", "x", "0x", "-1x", "NaNx", "infx", "10", "fast"] {
            let told = wrong.parse::<Speed>().expect_err("no speed").to_string();
            assert!(told.starts_with(&format!("`{wrong}` is no speed: ")), "{told}");
        }
    }

    #[test]
    fn frames_are_due_when_the_wire_had_them() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut pace = Pace::new(Speed::Times(2.0));
        assert_eq!(pace.wait(5_000, start), Duration::ZERO);
        assert_eq!(pace.wait(6_000, start), Duration::from_millis(500));
        assert_eq!(pace.wait(6_000, after(400)), Duration::from_millis(100));
        assert_eq!(pace.wait(6_000, after(900)), Duration::ZERO);
        assert_eq!(pace.time_ms(after(400)), Some(5_800));
        // Packets out of order, and a capture that goes on after a pause.
        assert_eq!(pace.wait(4_000, start), Duration::ZERO);
        pace.restart();
        assert_eq!(pace.wait(9_000, after(5_000)), Duration::ZERO);
        assert_eq!(pace.wait(9_100, after(5_000)), Duration::from_millis(50));
        let mut unpaced = Pace::new(Speed::Max);
        assert_eq!(unpaced.wait(u64::MAX, start), Duration::ZERO);
        assert_eq!(unpaced.time_ms(start), None);
        let mut slow = Pace::new(Speed::Times(0.001));
        slow.wait(0, start);
        assert!(slow.wait(u64::MAX, start) > Duration::from_hours(1));
    }
}
