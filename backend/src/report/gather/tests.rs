//! Periods and address ranges, where an off-by-one would move a report.

use super::{Asked, PeriodName, bounds, parse_time, period, report_id};

const DAY: u64 = 86_400_000;

#[test]
fn a_day_starts_at_midnight_utc_and_a_moment_is_exact() {
    assert_eq!(parse_time("1970-01-02").expect("a day"), DAY);
    assert_eq!(parse_time("1970-01-02T00:00:01.5Z").expect("a moment"), DAY + 1_500);
    for bad in ["", "yesterday", "1969-12-31", "2026-13-01", "2026-11-21T10:00:00"] {
        let error = parse_time(bad).expect_err(bad).to_string();
        assert!(error.contains(&format!("{bad:?}")), "{error}");
    }
}

#[test]
fn periods_end_with_the_newest_data_unless_told_otherwise() {
    let newest = 100 * DAY;
    let weekly = period(Asked::default(), newest).expect("a week");
    assert_eq!((weekly.name, weekly.to_ms), (PeriodName::Weekly, newest + 1));
    assert_eq!(weekly.to_ms - weekly.from_ms, 7 * DAY);
    // 100 days after the epoch is 11 April 1970; a month before is 11 March.
    let monthly = period(Asked { monthly: true, ..Asked::default() }, newest).expect("a month");
    assert_eq!((monthly.name, monthly.to_ms - monthly.from_ms), (PeriodName::Monthly, 31 * DAY));
    let asked = Asked { from_ms: Some(5), to_ms: Some(6), monthly: false };
    let custom = period(asked, newest).expect("a millisecond");
    assert_eq!((custom.name, custom.from_ms, custom.to_ms), (PeriodName::Custom, 5, 6));
    let empty = Asked { from_ms: Some(6), to_ms: Some(6), monthly: false };
    assert!(period(empty, newest).is_err());
    let id = report_id("town-hall", custom).expect("a name");
    assert_eq!(id, "town-hall-19700101T000000Z-19700101T000000Z");
}

#[test]
fn ranges_have_the_bounds_of_the_lakes_addresses() {
    let bounds = |text: &str| {
        let (low, high) = bounds(text.parse().expect("a range")).expect("bounds");
        (u128::from_be_bytes(low), u128::from_be_bytes(high))
    };
    let mapped = 0xffff_0000_0000_u128;
    assert_eq!(bounds("10.0.0.0/8"), (mapped | 0x0a00_0000, mapped | 0x0aff_ffff));
    assert_eq!(bounds("192.0.2.7/32"), (mapped | 0xc000_0207, mapped | 0xc000_0207));
    assert_eq!(bounds("0.0.0.0/0"), (mapped, mapped | 0xffff_ffff));
    assert_eq!(bounds("::/0"), (0, u128::MAX));
    assert_eq!(bounds("fc00::/7"), (0xfc << 120, (0xfe << 120) - 1));
}
