//! SYN floods and reflection.

use detect::{Confidence, Kind, TrafficDirection};
use flow::Record;

use crate::records::{
    connection, datagram, exchange, findings, only, outside, own, silent, unanswered,
};

/// `count` openings within the first 10 s of a slot, each from another address.
fn flood(count: u32) -> Vec<Record> {
    let opening = |number: u32| {
        unanswered(u64::from(number) * 9_999 / u64::from(count), outside(number), own(1), 443)
    };
    (0..count).map(opening).collect()
}

/// `count` completed openings within the same 10 s.
fn clients(count: u32, lasts_ms: u64) -> Vec<Record> {
    let client = |number: u32| {
        let at_ms = u64::from(number) * 9_999 / u64::from(count);
        let from = (outside(100_000 + number % 500), 20_000);
        connection(at_ms, lasts_ms, from, (own(1), 443), (12, 2_000))
    };
    (0..count).map(client).collect()
}

#[test]
fn many_forged_sources_meet_the_lower_line() {
    silent(&flood(499));
    let finding = only(&flood(500));
    assert_eq!((finding.kind, finding.measured, finding.threshold), (Kind::SynFlood, 50.0, 50.0));
    assert_eq!(
        (finding.target, finding.target_port, finding.source),
        (Some(own(1)), Some(443), None)
    );
    assert!(finding.spoofable && finding.sources.abs_diff(500) < 25, "{}", finding.sources);
}

#[test]
fn few_sources_meet_the_higher_line() {
    let flood = |count: u32| -> Vec<Record> {
        let at_ms = |number: u32| u64::from(number) * 9_999 / u64::from(count);
        (0..count).map(|number| unanswered(at_ms(number), outside(1), own(1), 25)).collect()
    };
    silent(&flood(1_999));
    let finding = only(&flood(2_000));
    assert_eq!((finding.measured, finding.threshold, finding.sources), (200.0, 200.0, 1));
    assert_eq!(finding.source, Some(outside(1)));
}

#[test]
fn a_flood_over_some_slots_is_one_finding() {
    let mut records = Vec::new();
    for slot in 0..6_u64 {
        for mut record in flood(4_000) {
            record.start_ms += slot * 10_000;
            record.end_ms += slot * 10_000;
            records.push(record);
        }
    }
    let finding = only(&records);
    assert_eq!((finding.measured, finding.records), (400.0, 24_000));
}

#[test]
fn a_busy_server_that_completes_is_not_flooded() {
    let mut records = flood(2_500);
    records.extend(clients(20_000, 300));
    records.sort_by_key(|record| record.start_ms);
    silent(&records);
}

#[test]
fn long_connections_of_a_busy_server_count_before_they_are_told() {
    // For ten minutes 60 openings a second get lost and 1,500 live for 50 s: these are told 50 s
    // later.
    let mut records = Vec::new();
    for slot in 0..12_u64 {
        for mut record in flood(600).into_iter().chain(clients(15_000, 50_000)) {
            record.start_ms += slot * 10_000;
            record.end_ms += slot * 10_000;
            records.push(record);
        }
    }
    // In the order of the sensor: an unanswered opening leaves after 15 s of silence.
    records.sort_by_key(|record| {
        record.end_ms + if record.from_responder.packets == 0 { 15_000 } else { 0 }
    });
    // The first minute knows no completed connection yet; only what is new afterwards may not be
    // called a flood.
    let warm: Vec<Record> = clients(15_000, 1_000).into_iter().chain(records).collect();
    silent(&warm);
}

#[test]
fn openings_sent_again_make_an_outage_likelier() {
    let mut records = flood(800);
    for record in &mut records {
        record.from_initiator.packets = 3;
    }
    assert_eq!(only(&records).confidence, Confidence::Medium);
    assert_eq!(only(&flood(800)).confidence, Confidence::High);
}

#[test]
fn a_scan_and_a_flood_at_once_are_told_apart() {
    let mut records = flood(10_000);
    for number in 0..60_u32 {
        records.push(unanswered(u64::from(number) * 150, outside(500_000), own(number), 22));
    }
    records.sort_by_key(|record| record.start_ms);
    let findings = findings(&records);
    let kinds: Vec<Kind> = findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(kinds, [Kind::HorizontalScan, Kind::SynFlood]);
    assert_eq!(findings[0].source, Some(outside(500_000)));
    assert_eq!(findings[0].targets, 60);
}

/// Answers from `reflectors` servers, `bytes` in all, within 10 s.
fn answers(reflectors: u32, bytes: u64) -> Vec<Record> {
    let each = bytes / u64::from(reflectors);
    let answer = |number: u32| {
        let at_ms = u64::from(number) * 9_000 / u64::from(reflectors);
        datagram(at_ms, (outside(number), 11_211), (own(1), 4_444), each)
    };
    (0..reflectors).map(answer).collect()
}

#[test]
fn reflectors_and_rate_must_both_be_there() {
    silent(&answers(24, 50_000_000));
    silent(&answers(25, 1_249_000));
    let finding = only(&answers(25, 1_250_000));
    assert_eq!((finding.kind, finding.sources, finding.measured), (Kind::Reflection, 25, 1.0));
    assert_eq!((finding.target, finding.target_port), (Some(own(1)), Some(4_444)));
    assert_eq!((finding.spoofable, finding.direction), (false, TrafficDirection::Inbound));
    assert!(finding.summary.contains("memcached (port 11211)"), "{}", finding.summary);
}

#[test]
fn small_answers_count_by_their_number() {
    let mut records = Vec::new();
    for packet in 0..400_u64 {
        for number in 0..25 {
            records.push(datagram(packet * 20, (outside(number), 53), (own(1), 4_444), 60));
        }
    }
    let finding = only(&records);
    assert_eq!(
        (finding.measured, finding.measured_unit.as_ref()),
        (1_000.0, "packets/s unsolicited")
    );
}

#[test]
fn either_side_may_be_called_initiator() {
    let mut records = answers(100, 2_000_000);
    for record in &mut records {
        std::mem::swap(&mut record.initiator, &mut record.responder);
        std::mem::swap(&mut record.initiator_port, &mut record.responder_port);
        std::mem::swap(&mut record.from_initiator, &mut record.from_responder);
    }
    let finding = only(&records);
    assert_eq!((finding.target, finding.direction), (Some(own(1)), TrafficDirection::Inbound));
}

#[test]
fn a_long_record_is_spread_over_its_time() {
    // 1.25 MB from 30 servers within a minute is a sixth of the line.
    let mut records = answers(30, 1_250_000);
    for record in &mut records {
        record.start_ms -= 5_000;
        record.end_ms = record.start_ms + 59_000;
    }
    silent(&records);
}

#[test]
fn a_resolver_gets_what_it_asked_for() {
    let ask = |number: u32| {
        let port = u16::try_from(1_024 + number % 60_000).expect("below 65,536");
        exchange(u64::from(number), (own(1), port), (outside(number % 900), 53), 1_400)
    };
    let records: Vec<Record> = (0..9_000).map(ask).collect();
    silent(&records);
}
