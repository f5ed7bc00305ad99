//! Vertical and horizontal scans, and backscatter, which is neither.

use detect::{Detection, Kind, Settings, Severity, TrafficDirection};
use flow::{EndReason, Handshake, Record};

use crate::records::{
    connection, findings, only, outside, own, refused, silent, syn_ack, unanswered,
};

const MINUTE_MS: u64 = 60_000;

fn ports(count: u16, gap_ms: u64) -> Vec<Record> {
    let port = |number: u16| refused(u64::from(number) * gap_ms, outside(1), own(1), 1 + number);
    (0..count).map(port).collect()
}

fn hosts(count: u32, gap_ms: u64) -> Vec<Record> {
    let host = |number: u32| unanswered(u64::from(number) * gap_ms, outside(1), own(number), 445);
    (0..count).map(host).collect()
}

#[test]
fn fifteen_ports_are_a_vertical_scan_and_fourteen_are_none() {
    silent(&ports(14, 100));
    let finding = only(&ports(15, 100));
    assert_eq!(
        (finding.kind, finding.measured, finding.threshold),
        (Kind::VerticalScan, 15.0, 15.0)
    );
    assert_eq!((finding.source, finding.target), (Some(outside(1)), Some(own(1))));
    assert_eq!((finding.severity, finding.direction), (Severity::Low, TrafficDirection::Inbound));
    assert_eq!((finding.records, finding.spoofable, finding.escalation), (15, true, 0));
    assert_eq!(finding.last_ms - finding.first_ms, 1_400);
}

#[test]
fn the_ports_must_come_within_the_window() {
    // 15 in 14 min, then one a minute and a bit, which never has 15 in 15 min.
    assert_eq!(findings(&ports(15, MINUTE_MS)).len(), 1);
    silent(&ports(60, 65_000));
}

#[test]
fn the_same_port_again_and_again_is_no_scan() {
    let records: Vec<Record> =
        (0..500).map(|at| refused(at * 100, outside(1), own(1), 8_080)).collect();
    silent(&records);
}

#[test]
fn a_whole_range_is_one_finding_that_grows() {
    let mut detection = Detection::new(Settings::default());
    let records = ports(1_000, 23);
    let mut told = Vec::new();
    for some in records.chunks(100) {
        for record in some {
            detection.handle_record(record);
        }
        told.extend(detection.poll_findings());
    }
    assert_eq!(told.len(), 10);
    assert!(told.iter().all(|finding| finding.id == told[0].id));
    assert_eq!(told.iter().map(|finding| finding.measured).next_back(), Some(1_000.0));
    assert_eq!(told.iter().map(|finding| finding.escalation).next_back(), Some(1));
    assert!(detection.finish().is_empty(), "nothing is told twice");
}

#[test]
fn a_second_campaign_after_a_pause_is_another_finding() {
    let mut records = ports(20, 100);
    let later = ports(20, 100).into_iter().map(|mut record| {
        record.start_ms += 40 * MINUTE_MS;
        record.end_ms += 40 * MINUTE_MS;
        record
    });
    records.extend(later);
    let findings = findings(&records);
    assert_eq!(findings.len(), 2);
    assert_ne!(findings[0].id, findings[1].id);
    assert!(findings.iter().all(|finding| finding.records == 20));
}

#[test]
fn twenty_five_hosts_are_a_horizontal_scan_and_twenty_four_are_none() {
    silent(&hosts(24, 1_000));
    let finding = only(&hosts(25, 1_000));
    assert_eq!((finding.kind, finding.measured), (Kind::HorizontalScan, 25.0));
    assert_eq!(
        (finding.source, finding.target, finding.target_port),
        (Some(outside(1)), None, Some(445))
    );
    assert_eq!(finding.targets, 25);
}

#[test]
fn an_own_host_that_scans_matters_more_and_needs_more() {
    let scan = |count: u32| -> Vec<Record> {
        let host = |number: u32| unanswered(u64::from(number) * 50, own(9), outside(number), 445);
        (0..count).map(host).collect()
    };
    silent(&scan(99));
    let finding = only(&scan(100));
    assert_eq!((finding.severity, finding.threshold), (Severity::High, 100.0));
    assert_eq!(finding.direction, TrafficDirection::Outbound);
}

#[test]
fn a_crawler_that_mostly_gets_answers_is_no_scan() {
    let mut records = hosts(1, 0);
    for number in 0..400_u64 {
        let host = own(u32::try_from(number).expect("below 400"));
        records.push(if number % 10 == 0 {
            unanswered(number * 100, outside(1), host, 443)
        } else {
            connection(number * 100, 50, (outside(1), 41_000), (host, 443), (8, 900))
        });
    }
    silent(&records);
}

#[test]
fn a_sweep_of_a_whole_block_is_told_once_not_a_thousand_times() {
    let mut records = Vec::new();
    for host in 0..64_u32 {
        for port in 0..40_u16 {
            records.push(refused(u64::from(host) * 400, outside(1), own(host), 1 + port));
        }
    }
    let findings = findings(&records);
    // Three hosts and three ports by themselves, then one finding for the rest of each shape.
    assert_eq!(findings.len(), 8, "{findings:#?}");
    let rest: Vec<_> = findings.iter().filter(|finding| finding.targets > 1).collect();
    let vertical = rest.iter().find(|finding| finding.kind == Kind::VerticalScan);
    assert_eq!(vertical.map(|finding| (finding.targets, finding.target)), Some((61, None)));
}

#[test]
fn one_ipv6_network_is_one_source() {
    let source = |number: u16| format!("2001:db8:1:2::{number:x}").parse().expect("an address");
    let target = "fd00::1".parse().expect("an address");
    let records: Vec<Record> = (0..20_u16)
        .map(|number| refused(u64::from(number), source(number + 1), target, 100 + number))
        .collect();
    let finding = only(&records);
    assert_eq!((finding.measured, finding.source), (20.0, Some(source(1))));
}

#[test]
fn null_fin_and_xmas_probes_count_and_late_segments_do_not() {
    let probe = |port: u16, tcp_flags: u8, handshake: Handshake| {
        let mut record = unanswered(u64::from(port), outside(1), own(1), port);
        record.from_initiator.tcp_flags = tcp_flags;
        record.handshake = handshake;
        record
    };
    let probes = |tcp_flags: u8| -> Vec<Record> {
        (0..20).map(|port| probe(port, tcp_flags, Handshake::OneWay)).collect()
    };
    for (tcp_flags, count) in [(0, 1), (0x01, 1), (0x29, 1), (0x10, 0), (0x11, 0), (0x14, 0)] {
        assert_eq!(findings(&probes(tcp_flags)).len(), count, "flags {tcp_flags:#x}");
    }
}

#[test]
fn parts_of_a_split_flow_are_no_new_attempts() {
    // A client with 30 long downloads from one server: each part is written after a minute.
    let mut records = Vec::new();
    for part in 0..5_u64 {
        for number in 0..30_u16 {
            let mut record = unanswered(part * 60_000, outside(1), own(1), 2_000 + number);
            record.end_ms += 59_000;
            record.handshake = if part == 0 { Handshake::Established } else { Handshake::Rejected };
            record.end_reason = EndReason::ActiveTimeout;
            records.push(record);
        }
    }
    silent(&records);
}

#[test]
fn answers_to_forged_packets_are_backscatter_and_no_scan() {
    let answer = |number: u32, port: u16| {
        syn_ack(u64::from(number) * 1_000, (outside(7), port), (own(number), 1_024))
    };
    let few: Vec<Record> = (0..9).map(|number| answer(number, 80)).collect();
    silent(&few);
    let many: Vec<Record> = (0..300).map(|number| answer(number, 80)).collect();
    let finding = only(&many);
    assert_eq!((finding.kind, finding.severity), (Kind::Backscatter, Severity::Informational));
    assert_eq!((finding.source, finding.targets), (Some(outside(7)), 300));
    // From many ports it is a server of which only one half is mirrored.
    let ports: Vec<Record> = (0..300_u16).map(|number| answer(number.into(), number)).collect();
    silent(&ports);
}

#[test]
fn totals_of_many_flows_are_nobody_who_scans() {
    let folded = |record: Record| Record { folded: true, ..record };
    let mut detection = Detection::new(Settings::default());
    for record in ports(1_000, 23).into_iter().chain(hosts(1_000, 23)).map(folded) {
        detection.handle_record(&record);
    }
    assert!(detection.poll_findings().is_empty());
    let counters = detection.counters();
    assert_eq!((counters.records_folded_total, counters.records_in_total), (2_000, 2_000));
}
