//! Takes how fast a capture is to be replayed, and the times of its frames; gives the moment at which
//! each is due. Never waits itself and never reads a clock.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use thiserror::Error;

/// A step back of more than this is another capture, as for the clock of the replay.
const BACK_MAX_MS: u64 = 1_000;
/// A pause of more than this between two files is not waited for.
const FILE_GAP_MAX_MS: u64 = 60_000;
/// Least and most of a factor.
const FACTORS: (f64, f64) = (0.001, 100_000.0);

/// How fast a capture is replayed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Speed {
    /// Times the capture's own pace; `None`: as fast as the machine can.
    factor: Option<f64>,
}

impl Speed {
    /// As fast as the machine can.
    pub const MAX: Self = Self { factor: None };
    /// At the capture's own pace.
    pub const WIRE: Self = Self { factor: Some(1.0) };
}

/// Not a speed. Remedy: `max`, `wire`, or a factor with an x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("expected max, wire, or a factor from 0.001x to 100000x, such as 10x")]
pub struct NoSpeed;

impl FromStr for Speed {
    type Err = NoSpeed;

    fn from_str(text: &str) -> Result<Self, NoSpeed> {
        match text {
            "max" => return Ok(Self::MAX),
            "wire" => return Ok(Self::WIRE),
            _ => {}
        }
        let factor: Option<f64> = text.strip_suffix('x').and_then(|number| number.parse().ok());
        let in_range = |factor: &f64| (FACTORS.0..=FACTORS.1).contains(factor);
        factor.filter(in_range).map(|factor| Self { factor: Some(factor) }).ok_or(NoSpeed)
    }
}

impl fmt::Display for Speed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.factor {
            None => f.write_str("max"),
            Some(1.0) => f.write_str("wire"),
            Some(factor) => write!(f, "{factor}x"),
        }
    }
}

/// Follows a capture's clock.
#[derive(Debug)]
pub(crate) struct Pacer {
    factor: f64,
    /// A moment of this machine, and the capture's time then.
    anchor: Option<(Instant, u64)>,
    latest_ms: u64,
    is_new_file: bool,
}

impl Pacer {
    /// `None` when nothing is to be waited for.
    pub(crate) fn new(speed: Speed) -> Option<Self> {
        let factor = speed.factor?;
        Some(Self { factor, anchor: None, latest_ms: 0, is_new_file: false })
    }

    /// The next frame is the first of another file.
    pub(crate) fn handle_file(&mut self) {
        self.is_new_file = true;
    }

    /// Begins anew with the next frame, after a pause.
    pub(crate) fn restart(&mut self) {
        self.anchor = None;
    }

    /// The capture's time now, while a frame is waited for.
    pub(crate) fn time_ms(&self, now: Instant) -> Option<u64> {
        let (start, start_ms) = self.anchor?;
        let since = now.saturating_duration_since(start).as_secs_f64() * self.factor;
        let since = Duration::try_from_secs_f64(since).unwrap_or(Duration::MAX);
        let since_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Some(start_ms.saturating_add(since_ms))
    }

    /// When a frame of this time is due; `None` when it is already.
    ///
    /// Who falls behind catches up: the time that is lost is not added to what follows.
    pub(crate) fn handle_time(&mut self, time_ms: u64, now: Instant) -> Option<Instant> {
        let is_new_file = std::mem::take(&mut self.is_new_file);
        let back_ms = self.latest_ms.saturating_sub(time_ms);
        let is_apart = back_ms > BACK_MAX_MS
            || is_new_file && self.latest_ms.abs_diff(time_ms) > FILE_GAP_MAX_MS;
        self.latest_ms = if is_apart { time_ms } else { self.latest_ms.max(time_ms) };
        let (start, start_ms) = match self.anchor {
            Some(anchor) if !is_apart => anchor,
            _ => *self.anchor.insert((now, time_ms)),
        };
        let since = Duration::from_millis(time_ms.saturating_sub(start_ms)).as_secs_f64();
        let wait = Duration::try_from_secs_f64(since / self.factor).unwrap_or(Duration::MAX);
        match start.checked_add(wait) {
            Some(due) => (due > now).then_some(due),
            None => now.checked_add(NEVER),
        }
    }
}

/// Longer than anybody waits.
const NEVER: Duration = Duration::from_hours(100 * 365 * 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_are_read_and_shown() {
        for (text, shown) in
            [("max", "max"), ("wire", "wire"), ("1x", "wire"), ("10x", "10x"), ("0.5x", "0.5x")]
        {
            assert_eq!(text.parse::<Speed>().map(|speed| speed.to_string()), Ok(shown.to_owned()));
        }
        for text in ["", "x", "10", "0x", "-1x", "NaNx", "infx", "1e9x", "0.0001x", "Wire"] {
            assert_eq!(text.parse::<Speed>(), Err(NoSpeed), "{text}");
        }
    }

    /// Milliseconds from the start until each frame is due; a frame that is due is handled at once.
    fn dues(speed: &str, times_ms: &[(u64, bool)]) -> Vec<u128> {
        let speed = speed.parse().expect("a speed");
        let mut pacer = Pacer::new(speed).expect("a speed that waits");
        let start = Instant::now();
        let mut now = start;
        let due = |(time_ms, is_new_file): &(u64, bool)| {
            if *is_new_file {
                pacer.handle_file();
            }
            now = pacer.handle_time(*time_ms, now).unwrap_or(now);
            now.duration_since(start).as_millis()
        };
        times_ms.iter().map(due).collect()
    }

    #[test]
    fn frames_are_due_by_the_captures_clock() {
        let times = [(5_000, true), (5_100, false), (5_050, false), (7_000, false)];
        assert_eq!(dues("wire", &times), [0, 100, 100, 2_000]);
        assert_eq!(dues("10x", &times), [0, 10, 10, 200]);
        assert_eq!(dues("0.5x", &times), [0, 200, 200, 4_000]);
    }

    #[test]
    fn another_capture_begins_at_once() {
        // The clock goes back; a file of another day; a file that goes on where the first one ended.
        let back = [(50_000, true), (51_000, false), (10_000, false), (10_500, false)];
        assert_eq!(dues("wire", &back), [0, 1_000, 1_000, 1_500]);
        let day = [(50_000, true), (51_000, false), (90_000_000, true), (90_000_100, false)];
        assert_eq!(dues("wire", &day), [0, 1_000, 1_000, 1_100]);
        let next = [(50_000, true), (51_000, false), (52_000, true), (53_000, false)];
        assert_eq!(dues("wire", &next), [0, 1_000, 2_000, 3_000]);
    }

    #[test]
    fn after_a_pause_the_capture_goes_on_from_there() {
        let mut pacer = Pacer::new("2x".parse().expect("a speed")).expect("it waits");
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        assert_eq!(pacer.handle_time(5_000, start), None);
        assert_eq!(pacer.handle_time(6_000, start), Some(after(500)));
        assert_eq!(pacer.time_ms(after(400)), Some(5_800));
        pacer.restart();
        assert_eq!(pacer.handle_time(6_000, after(9_000)), None);
        assert_eq!(pacer.handle_time(7_000, after(9_000)), Some(after(9_500)));
    }

    #[test]
    fn a_time_that_never_comes_is_no_fault() {
        let mut pacer = Pacer::new("0.001x".parse().expect("a speed")).expect("it waits");
        let now = Instant::now();
        assert_eq!(pacer.handle_time(0, now), None);
        assert!(pacer.handle_time(u64::MAX, now).is_some_and(|due| due > now));
    }
}
