//! Ordinary traffic: nothing may be said about it, or only what is true.

use detect::{Confidence, Kind};
use flow::{EndReason, Record};

use crate::records::{
    connection, exchange, findings, only, outside, own, refused, silent, unanswered,
};

/// A small generator, so that the traffic is the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

#[test]
fn people_reading_pages_behind_one_address() {
    let mut dice = Dice(1);
    let mut records = Vec::new();
    let mut at_ms = 0;
    for _ in 0..3_000 {
        at_ms += dice.below(20_000);
        let server = outside(u32::try_from(dice.below(40)).expect("small"));
        for _ in 0..=dice.below(8) {
            let port = u16::try_from(20_000 + dice.below(40_000)).expect("a port");
            let start_ms = at_ms + dice.below(3_000);
            records.push(exchange(start_ms, (own(1), port), (outside(9_999), 53), 200));
            records.push(match dice.below(30) {
                0 => unanswered(start_ms, own(1), server, 443),
                1 => refused(start_ms, own(1), server, 443),
                _ => {
                    let size = (6 + dice.below(40), 700 + dice.below(9_000));
                    connection(start_ms, dice.below(40_000), (own(1), port), (server, 443), size)
                }
            });
        }
    }
    records.sort_by_key(|record| record.end_ms);
    silent(&records);
}

#[test]
fn a_mail_server_that_everybody_calls() {
    let mut dice = Dice(2);
    let mut records = Vec::new();
    for number in 0..20_000_u32 {
        let at_ms = u64::from(number) * 150;
        let client = outside(number % 3_000);
        let port = [25, 143, 443, 587, 993][usize::try_from(dice.below(5)).expect("small")];
        records.push(match dice.below(12) {
            0 => unanswered(at_ms, client, own(1), port),
            _ => connection(
                at_ms,
                dice.below(9_000),
                (client, 30_000),
                (own(1), port),
                (9 + dice.below(20), 2_000),
            ),
        });
    }
    silent(&records);
}

#[test]
fn a_backup_every_hour_is_too_big_for_a_beacon() {
    let mut records = Vec::new();
    for hour in 0..48_u64 {
        let minute = |part: u64| {
            let at_ms = hour * 3_600_000 + part * 60_000;
            let size = (40_000, 50_000_000);
            let mut record = connection(at_ms, 59_000, (own(3), 50_000), (outside(4), 22), size);
            if part < 9 {
                record.end_reason = EndReason::ActiveTimeout;
            }
            record
        };
        records.extend((0..10).map(minute));
    }
    silent(&records);
}

#[test]
fn a_check_every_minute() {
    let check = |from, to, port| -> Vec<Record> {
        let one = |at: u64| connection(at * 60_000, 80, (from, 50_000), (to, port), (6, 700));
        (0..24 * 60).map(one).collect()
    };
    // Inside it is nobody's concern.
    silent(&check(own(1), own(2), 443));
    // To the outside it looks like a beacon and is called one, with the doubt that it deserves.
    let finding = only(&check(own(1), outside(2), 443));
    assert_eq!((finding.kind, finding.confidence), (Kind::Beacon, Confidence::Medium));
    // From outside it is a customer's monitoring.
    silent(&check(outside(2), own(1), 443));
}

#[test]
fn a_client_whose_server_is_down() {
    let records: Vec<Record> = (0..5_000)
        .map(|at| refused(at * 500, own(1), own(2), 8_080))
        .chain((0..5_000).map(|at| unanswered(at * 500, own(1), own(3), 5_432)))
        .collect();
    silent(&records);
}

#[test]
fn a_line_that_is_down_for_ten_minutes() {
    let mut dice = Dice(3);
    let attempt = |number: u64| {
        let client = own(u32::try_from(number % 40).expect("small"));
        let server = outside(u32::try_from(dice.below(60)).expect("small"));
        unanswered(number * 200, client, server, 443)
    };
    let records: Vec<Record> = (0..3_000).map(attempt).collect();
    assert!(findings(&records).is_empty());
}
