//! The replay's clock, and that the epochs it makes change nothing in the sums.

use super::{ReplayClock, Tick};

#[test]
fn the_clock_follows_the_capture_and_never_goes_back() {
    let mut clock = ReplayClock::new(250, 15_000);
    let cases = [
        (10_000, Tick::Epoch { now_ms: 10_000 }),
        (10_249, Tick::Same),
        (10_250, Tick::Epoch { now_ms: 10_250 }),
        // A few packets out of order.
        (10_100, Tick::Same),
        (10_260, Tick::Same),
        // A pause: one tick, on the grid.
        (20_990, Tick::Epoch { now_ms: 20_750 }),
        // A small step back of the clock: time goes on from 20,990.
        (15_990, Tick::Same),
        (16_100, Tick::Epoch { now_ms: 21_000 }),
        // Another capture.
        (100, Tick::Separate),
        (340, Tick::Epoch { now_ms: 21_250 }),
        (0, Tick::Same),
        (1_000_000_000_000, Tick::Epoch { now_ms: 1_000_000_021_000 }),
        (5, Tick::Separate),
        (6, Tick::Same),
    ];
    for (step, (time_ms, expected)) in cases.into_iter().enumerate() {
        assert_eq!(clock.handle_time(time_ms), expected, "step {step}, {time_ms}");
    }
}
