//! When it looks and when it flips, on a made-up clock.

use super::*;

const MS: Duration = Duration::from_millis(1);
const SLOTS: u32 = 65_536;

fn fill(used: u32) -> LogFill {
    LogFill { used, slots: SLOTS }
}

fn pace(now: Instant) -> Pace {
    Pace::new(250 * MS, 1_000 * MS, now)
}

#[test]
fn a_burst_of_3_million_flows_a_second_never_finds_a_full_default_log() {
    let start = Instant::now();
    // It begins at any time between two looks of an idle sensor.
    for after_us in (0..11_000).step_by(100) {
        let begins = start + Duration::from_micros(after_us);
        let used = |now: Instant| {
            let microseconds = now.saturating_duration_since(begins).as_micros();
            u32::try_from(microseconds * 3).expect("below a second")
        };
        let pace = pace(start);
        let mut now = start;
        loop {
            now = pace.next_look(now, fill(used(now)));
            assert!(used(now) < SLOTS, "begins after {after_us} us: full");
            if pace.is_over(now, fill(used(now))) {
                break;
            }
        }
        assert!(now < begins + 22 * MS, "begins after {after_us} us");
    }
}

#[test]
fn a_measured_rate_shortens_the_wait() {
    let start = Instant::now();
    let pace = pace(start);
    let wait = |after: Duration, used, slots| {
        let now = start + after;
        pace.next_look(now, LogFill { used, slots }) - now
    };
    let idle = wait(Duration::ZERO, 0, SLOTS);
    assert!((10 * MS..11 * MS).contains(&idle), "{idle:?}");
    // 10,000 in 1 ms: another 50,000 until half full take 5 ms.
    assert_eq!(wait(MS, 10_000, 120_000), 5 * MS);
    // After a long drain the new log is half full already.
    assert_eq!(wait(20 * MS, 40_000, SLOTS), MS);
    // A log far too small is not looked at all the time.
    assert_eq!([wait(MS, 0, 1), wait(MS, 1, 1)], [MS, MS]);
}

#[test]
fn an_epoch_ends_when_it_is_due_or_its_log_half_full() {
    let start = Instant::now();
    let pace = pace(start);
    assert!(!pace.is_over(start + 249 * MS, fill(SLOTS / 2 - 100)));
    assert!(pace.is_over(start + 20 * MS, fill(SLOTS / 2)));
    assert!(pace.is_over(start + 250 * MS, fill(0)));
    assert_eq!(pace.next_look(start + 249 * MS, fill(0)), start + 250 * MS);
}

#[test]
fn idle_epochs_get_longer_and_the_first_busy_one_is_short_again() {
    let mut now = Instant::now();
    let mut pace = pace(now);
    let mut lengths = Vec::new();
    for observations in [0, 256, 3, 0, 257, 10_000] {
        now = pace.next_look(now + 5_000 * MS, fill(0));
        lengths.push(pace.handle_flip(now, observations).as_millis());
    }
    assert_eq!(lengths, [250, 500, 1_000, 1_000, 1_000, 250]);
    // Within a long epoch, something in the log ends it once its usual time has passed.
    pace.handle_flip(now, 0);
    pace.handle_flip(now, 0);
    assert!(!pace.is_over(now + 249 * MS, fill(1)));
    assert!(pace.is_over(now + 250 * MS, fill(1)));
}

#[test]
fn a_longest_epoch_below_the_usual_one_means_the_usual_one() {
    let now = Instant::now();
    let mut pace = Pace::new(250 * MS, 10 * MS, now);
    pace.handle_flip(now, 0);
    assert_eq!(pace.next_look(now + 9_000 * MS, fill(0)), now + 250 * MS);
}
