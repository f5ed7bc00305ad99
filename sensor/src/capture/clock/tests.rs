//! Ticks to time of day, on a made-up clock.

use super::{CaptureError, TICK_RATES_HZ, TickTime, Ticks, WRAPS_AFTER_SECONDS};

/// The counter's lower 32 bits when the clock says `uptime_ns`, at this rate.
fn counter(rate_hz: u32, uptime_ns: u64) -> u32 {
    let rate = u64::from(rate_hz);
    let tick_ns = (1_000_000_000 + rate / 2) / rate;
    let ticks = u32::try_from((uptime_ns / tick_ns) & 0xffff_ffff).expect("masked to 32 bits");
    0_u32.wrapping_sub(WRAPS_AFTER_SECONDS * rate_hz).wrapping_add(ticks)
}

#[test]
fn every_common_tick_rate_is_recognised_from_the_first_second_to_a_year() {
    for rate_hz in [100, 250, 300, 1000] {
        for uptime_s in [1, 30, 299, 300, 301, 86_400, 31_536_000] {
            let uptime_ns = uptime_s * 1_000_000_000 + 7_000_000;
            let ticks = Ticks::new(counter(rate_hz, uptime_ns), uptime_ns).expect("a known rate");
            let rate = u64::from(rate_hz);
            assert_eq!(
                ticks.tick_ns(),
                (1_000_000_000 + rate / 2) / rate,
                "{rate_hz} Hz at {uptime_s} s"
            );
        }
    }
    assert!(TICK_RATES_HZ.is_sorted());
}

#[test]
fn a_counter_that_fits_no_rate_is_an_error_and_no_guess() {
    let uptime_ns = 5_000_000_000_000;
    let wrong = counter(250, uptime_ns).wrapping_add(20_000);
    assert!(matches!(
        Ticks::new(wrong, uptime_ns),
        Err(CaptureError::TickRate { uptime_ms: 5_000_000 })
    ));
}

fn tick_time(ticks: Ticks, now_ns: u64) -> TickTime {
    TickTime { ticks, now_ns, unix_now_ns: 1_700_000_000_000_000_000 + now_ns }
}

#[test]
fn a_stamp_is_the_beginning_of_its_tick() {
    let edge_ns = 1_000_000_000_000;
    let edge = counter(250, edge_ns);
    let ticks = Ticks::new(edge, edge_ns).expect("250 Hz");
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
    let edge = counter(1000, edge_ns);
    let ticks = Ticks::new(edge, edge_ns).expect("1,000 Hz");
    let time = tick_time(ticks, edge_ns + 60_000_000_000);
    let before_wrap = time.unix_ms(u32::MAX);
    let after_wrap = time.unix_ms(0);
    assert_eq!(after_wrap - before_wrap, 1);
    assert_eq!(after_wrap, 1_700_000_000_000 + 300_000);
}

#[test]
fn a_step_of_the_time_of_day_moves_the_stamps_with_it() {
    let edge_ns = 1_000_000_000_000;
    let edge = counter(250, edge_ns);
    let ticks = Ticks::new(edge, edge_ns).expect("250 Hz");
    let mut time = tick_time(ticks, edge_ns + 40_000_000);
    let before = time.unix_ms(edge + 5);
    time.unix_now_ns -= 3_600_000_000_000;
    assert_eq!(before - time.unix_ms(edge + 5), 3_600_000);
}
