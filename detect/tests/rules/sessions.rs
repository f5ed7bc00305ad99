//! Password guessing and beacons.

use detect::{Confidence, Kind, Settings, Severity, TrafficDirection};
use flow::{EndReason, Record};

use crate::records::{connection, exchange, findings, judged, only, outside, own, silent};

const MINUTE_MS: u64 = 60_000;

/// Tries at unsteady times with nearly equal packets, as the known SSH guesser has them.
fn tries(
    count: u64,
    gap_ms: u64,
    port: u16,
    from: std::net::IpAddr,
    to: std::net::IpAddr,
) -> Vec<Record> {
    let one = |number: u64| {
        let at_ms = number * gap_ms + number * 7_919 % (gap_ms / 2);
        let packets = [22, 24, 26][usize::from(number % 5 == 1) + usize::from(number % 7 == 2)];
        connection(at_ms, 4_000, (from, 50_000), (to, port), (packets, packets * 180))
    };
    (0..count).map(one).collect()
}

#[test]
fn ten_similar_sessions_are_guessing_and_nine_are_none() {
    silent(&tries(9, 5_000, 22, outside(1), own(1)));
    let finding = only(&tries(10, 5_000, 22, outside(1), own(1)));
    assert_eq!(
        (finding.kind, finding.measured, finding.threshold),
        (Kind::PasswordGuessing, 10.0, 10.0)
    );
    assert_eq!(
        (finding.source, finding.target, finding.target_port),
        (Some(outside(1)), Some(own(1)), Some(22))
    );
    assert_eq!((finding.spoofable, finding.severity), (false, Severity::Medium));
}

#[test]
fn the_sessions_must_come_within_the_window() {
    assert_eq!(findings(&tries(10, MINUTE_MS, 3_389, outside(1), own(1))).len(), 1);
    silent(&tries(40, 100_000, 3_389, outside(1), own(1)));
}

#[test]
fn sessions_that_differ_are_people_at_work() {
    let mut records = tries(12, 5_000, 22, outside(1), own(1));
    for (number, record) in (0_u64..).zip(&mut records) {
        record.from_initiator.packets = 10 + number * 7;
    }
    silent(&records);
}

#[test]
fn a_session_without_a_try_is_a_check_of_the_port() {
    let mut records = tries(50, 1_000, 22, outside(1), own(1));
    for record in &mut records {
        record.from_initiator.tcp_flags = 0x13;
        record.from_initiator.length_max = 78;
    }
    silent(&records);
}

#[test]
fn a_stack_that_never_pushes_is_told_by_its_long_segments() {
    let mut records = tries(12, 5_000, 22, outside(1), own(1));
    for record in &mut records {
        record.from_responder.tcp_flags = 0x13;
        record.from_responder.length_max = 1_134;
    }
    assert_eq!(only(&records).kind, Kind::PasswordGuessing);
}

#[test]
fn parts_of_one_long_session_are_one_session() {
    let mut records = Vec::new();
    for part in 0..60_u64 {
        let mut record =
            connection(part * 30_000, 29_000, (outside(1), 50_000), (own(1), 22), (20, 3_000));
        if part < 59 {
            record.end_reason = EndReason::ActiveTimeout;
        }
        records.push(record);
    }
    silent(&records);
}

#[test]
fn a_guesser_inside_is_found_and_a_check_inside_is_not() {
    let finding = only(&tries(12, 5_000, 22, own(2), own(1)));
    assert_eq!((finding.direction, finding.severity), (TrafficDirection::Internal, Severity::High));
    let check = |gap_ms: u64| -> Vec<Record> {
        let one =
            |at: u64| connection(at * gap_ms, 900, (own(2), 50_000), (own(1), 22), (20, 3_000));
        (0..200).map(one).collect()
    };
    silent(&check(60_000));
    silent(&check(20_000));
    // A web application and its database.
    silent(&tries(500, 1_000, 3_306, own(2), own(1)));
}

#[test]
fn guessing_outside_from_inside_needs_thirty() {
    silent(&tries(29, 5_000, 22, own(1), outside(1)));
    let finding = only(&tries(30, 5_000, 22, own(1), outside(1)));
    assert_eq!((finding.confidence, finding.threshold), (Confidence::Low, 30.0));
}

/// Calls every `gap_ms` with a jitter of at most `jitter_ms`.
fn calls(count: u64, gap_ms: u64, jitter_ms: u64) -> Vec<Record> {
    let one = |number: u64| {
        let jitter = if jitter_ms == 0 { 0 } else { number * 7_919 % (jitter_ms + 1) };
        let bytes = 1_700 + number * 31 % 80;
        connection(number * gap_ms + jitter, 200, (own(5), 50_000), (outside(9), 443), (14, bytes))
    };
    (0..count).map(one).collect()
}

#[test]
fn a_steady_caller_is_a_beacon() {
    // The short line: 60 calls in more than a minute.
    silent(&calls(59, 2_000, 20));
    silent(&calls(60, 1_000, 10));
    let finding = only(&calls(62, 1_000, 10));
    assert_eq!((finding.kind, finding.rule.as_ref()), (Kind::Beacon, "beacon.short"));
    assert_eq!((finding.source, finding.target), (Some(own(5)), Some(outside(9))));
    assert_eq!((finding.confidence, finding.severity), (Confidence::Low, Severity::Medium));
    assert!(finding.measured >= 0.95, "{}", finding.measured);
}

#[test]
fn a_slow_steady_caller_is_a_beacon_after_six_hours() {
    silent(&calls(19, 20 * MINUTE_MS, MINUTE_MS));
    silent(&calls(18, 22 * MINUTE_MS, MINUTE_MS));
    let finding = only(&calls(20, 20 * MINUTE_MS, MINUTE_MS));
    assert_eq!((finding.rule.as_ref(), finding.confidence), ("beacon.long", Confidence::Medium));
    assert!(finding.summary.contains("20 min"), "{}", finding.summary);
}

#[test]
fn two_steady_callers_are_two_beacons_of_one_id_each() {
    let records = calls(400, 2_000, 20);
    let first = only(&records[..200]);
    let second = only(&records);
    assert_eq!(first.id, second.id);
    assert_eq!((first.records, second.records), (200, 400));
}

#[test]
fn a_beacon_that_goes_on_is_held_against_the_long_line() {
    let records = calls(11_000, 2_000, 20);
    let (short, long) = (only(&records[..1_000]), only(&records));
    assert_eq!((short.rule.as_ref(), long.rule.as_ref()), ("beacon.short", "beacon.long"));
    assert_eq!((short.id, long.window_ms), (long.id, 6 * 60 * MINUTE_MS));
    assert_eq!((short.confidence, long.confidence), (Confidence::Low, Confidence::Medium));
}

#[test]
fn steady_by_design_is_no_beacon() {
    let ntp = |at: u64| exchange(at * 64_000, (own(5), 123), (outside(9), 123), 90);
    silent(&(0..500).map(ntp).collect::<Vec<Record>>());
    let inbound =
        |at: u64| connection(at * 60_000, 200, (outside(9), 50_000), (own(5), 443), (9, 1_000));
    silent(&(0..500).map(inbound).collect::<Vec<Record>>());
    let inside =
        |at: u64| connection(at * 60_000, 200, (own(9), 50_000), (own(5), 443), (9, 1_000));
    silent(&(0..500).map(inside).collect::<Vec<Record>>());
}

#[test]
fn a_place_that_everybody_calls_is_popular() {
    let mut records = Vec::new();
    for at in 0..100_u64 {
        for host in 0..12 {
            let at_ms = at * 2_000 + u64::from(host) * 100;
            records.push(connection(
                at_ms,
                200,
                (own(host), 50_000),
                (outside(9), 443),
                (9, 1_000),
            ));
        }
    }
    silent(&records);
}

#[test]
fn a_guesser_with_a_steady_pace_is_no_beacon() {
    let own_prefixes = vec!["192.0.2.0/24".parse().expect("a range")];
    let settings = Settings { own_prefixes, ..Settings::default() };
    // Between two addresses that are not known as own, both rules look.
    let one =
        |at: u64| connection(at * 2_000, 900, (outside(2), 50_000), (outside(1), 22), (20, 3_000));
    let records: Vec<Record> = (0..300).map(one).collect();
    let findings = judged(settings, &records);
    let kinds: Vec<Kind> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::PasswordGuessing]);
}
