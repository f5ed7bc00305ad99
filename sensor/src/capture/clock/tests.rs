//! Ticks to time of day, on a made-up clock.

use std::cell::Cell;

use super::{CaptureError, TICK_RATES_HZ, TickTime, Ticks, known_tick_ns};

/// The lower 32 bits of a counter that began 300 s before it wraps, as the kernel's does.
fn counter(rate_hz: u32, uptime_ns: u64) -> u32 {
    let ticks = uptime_ns / tick_ns(rate_hz);
    let ticks = u32::try_from(ticks & 0xffff_ffff).expect("masked to 32 bits");
    0_u32.wrapping_sub(300 * rate_hz).wrapping_add(ticks)
}

fn tick_ns(rate_hz: u32) -> u64 {
    let rate_hz = u64::from(rate_hz);
    (1_000_000_000 + rate_hz / 2) / rate_hz
}

/// Calibrates on a clock that moves on by `look_ns(look)` with each look at the counter.
fn calibrate(
    rate_hz: u32,
    start_ns: u64,
    look_ns: impl Fn(u64) -> u64,
) -> Result<Ticks, CaptureError> {
    let now_ns = Cell::new(start_ns);
    let looks = Cell::new(0);
    Ticks::calibrate_by(
        || now_ns.get(),
        || {
            looks.set(looks.get() + 1);
            now_ns.set(now_ns.get() + look_ns(looks.get()));
            Ok(counter(rate_hz, now_ns.get()))
        },
    )
}

/// As if calibrated at this moment, which is the beginning of a tick.
fn ticks(rate_hz: u32, edge_ns: u64) -> Ticks {
    Ticks { tick_ns: tick_ns(rate_hz), edge: counter(rate_hz, edge_ns), edge_ns }
}

#[test]
fn every_tick_rate_is_recognised_at_any_uptime() {
    for rate_hz in TICK_RATES_HZ {
        // The counter wraps at 300 s.
        for uptime_s in [1, 299, 300, 86_400, 31_536_000] {
            let start_ns = uptime_s * 1_000_000_000 + 777;
            let ticks = calibrate(rate_hz, start_ns, |_| 5_000).expect("a known rate");
            assert_eq!(ticks.tick_ns(), tick_ns(rate_hz), "{rate_hz} Hz at {uptime_s} s");
            let late_ns = ticks.edge_ns % ticks.tick_ns;
            assert!(
                late_ns == 0 || late_ns > ticks.tick_ns - 5_000,
                "the edge is {late_ns} ns off"
            );
        }
    }
}

#[test]
fn a_thread_that_sleeps_now_and_then_measures_again() {
    for rate_hz in [100, 250, 300, 1000] {
        let sleepy = |look: u64| if look.is_multiple_of(2_999) { 7_000_000 } else { 4_000 };
        let ticks = calibrate(rate_hz, 1_234_567_890, sleepy).expect("a known rate");
        assert_eq!(ticks.tick_ns(), tick_ns(rate_hz));
    }
}

#[test]
fn a_counter_that_fits_no_rate_is_an_error_and_no_guess() {
    assert_eq!(known_tick_ns(3_636_363), None, "275 Hz");
    let error = calibrate(275, 1_000_000_000, |_| 5_000).expect_err("no kernel has it");
    assert!(matches!(error, CaptureError::TickRate { measured_ns: 3_630_000..3_640_000 }));
}

fn tick_time(ticks: Ticks, now_ns: u64) -> TickTime {
    TickTime { ticks, now_ns, unix_now_ns: 1_700_000_000_000_000_000 + now_ns }
}

#[test]
fn a_stamp_is_the_beginning_of_its_tick() {
    let edge_ns = 1_000_000_000_000;
    let edge = counter(250, edge_ns);
    let ticks = ticks(250, edge_ns);
    let time = tick_time(ticks, edge_ns + 1_003_000_000);
    let unix_edge_ms = 1_700_000_000_000 + 1_000_000;
    assert_eq!(time.unix_ms(edge), unix_edge_ms);
    assert_eq!(time.unix_ms(edge + 1), unix_edge_ms + 4);
    assert_eq!(time.unix_ms(edge + 250), unix_edge_ms + 1000);
    assert_eq!(time.unix_ms(edge + 251), unix_edge_ms + 1004, "the tick that has just begun");
    assert_eq!(time.unix_ms(edge.wrapping_sub(250)), unix_edge_ms - 1000, "before the calibration");
}

#[test]
fn the_counter_may_wrap_between_a_stamp_and_now() {
    let edge_ns = 299_000_000_000;
    let ticks = ticks(1000, edge_ns);
    let time = tick_time(ticks, edge_ns + 60_000_000_000);
    let before_wrap = time.unix_ms(u32::MAX);
    let after_wrap = time.unix_ms(0);
    assert_eq!(after_wrap - before_wrap, 1);
    assert_eq!(after_wrap, 1_700_000_000_000 + 300_000);
}

#[test]
fn the_lowest_bits_are_enough_for_a_recent_tick() {
    let mask = flow::Slot::TICKS_MASK;
    for rate_hz in [100, 250, 1000] {
        // The counter wraps at 300 s.
        for edge_ns in [5_000_000_000, 299_000_000_000, 86_400_000_000_000] {
            let time = tick_time(ticks(rate_hz, edge_ns), edge_ns + 12_345_000_000);
            let newest = time.newest();
            for age in [0, 1, 2, 10 * rate_hz, mask - 1, mask] {
                let count = newest.wrapping_sub(age);
                assert_eq!(time.recent(count & mask, mask), count, "{rate_hz} Hz, {age} ago");
            }
        }
    }
}

#[test]
fn a_step_of_the_time_of_day_moves_the_stamps_with_it() {
    let edge_ns = 1_000_000_000_000;
    let edge = counter(250, edge_ns);
    let ticks = ticks(250, edge_ns);
    let mut time = tick_time(ticks, edge_ns + 40_000_000);
    let before = time.unix_ms(edge + 5);
    time.unix_now_ns -= 3_600_000_000_000;
    assert_eq!(before - time.unix_ms(edge + 5), 3_600_000);
}
