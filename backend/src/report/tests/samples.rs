//! Made-up reports: a busy week, a quiet month, and a week in which the sensor was down.

use std::net::IpAddr;

use detect::{Confidence, Finding, KeyScope, Kind, Severity, TrafficDirection};

use crate::report::{
    Coverage, Interval, Period, PeriodName, PortRow, ReportInput, Sent, SourceRow, TargetRow,
};

/// Monday, 2026-11-16 00:00 UTC.
pub(crate) const MONDAY_MS: u64 = 1_794_787_200_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("samples hold valid addresses")
}

/// A finding with the parts that matter to a reader.
pub(crate) fn finding(number: u8, kind: Kind, severity: Severity, summary: &str) -> Finding {
    let at_ms = MONDAY_MS + u64::from(number) * 11 * HOUR_MS;
    Finding {
        id: format!("{number:032x}").parse().expect("32 digits"),
        kind,
        rule: "sample.rule".into(),
        rule_version: 1,
        severity,
        confidence: Confidence::High,
        direction: TrafficDirection::Inbound,
        source: Some(ip("203.0.113.77")),
        target: Some(ip("198.51.100.10")),
        target_port: None,
        sources: 1,
        targets: 1,
        first_ms: at_ms,
        last_ms: at_ms + 40 * 60_000,
        window_ms: 15 * 60_000,
        measured: 997.0,
        measured_unit: "failed ports".into(),
        threshold: 15.0,
        escalation: 1,
        spoofable: false,
        records: 1_994,
        packets: 2_011,
        bytes: 116_638,
        technique: "T1046".into(),
        summary: summary.to_owned(),
        key_scope: None,
    }
}

/// The key of the pseudonyms in a busy week.
pub(crate) fn client_key() -> KeyScope {
    KeyScope { sensor: "harbourside-joinery-01".to_owned(), key_epoch: 20_261_101 }
}

fn findings() -> Vec<Finding> {
    let mut findings = quiet_findings();
    findings.extend(urgent_findings());
    findings
}

fn quiet_findings() -> Vec<Finding> {
    vec![
        Finding {
            rule: "scan.vertical".into(),
            spoofable: true,
            ..finding(
                1,
                Kind::VerticalScan,
                Severity::Low,
                "203.0.113.77 tried 997 ports of 198.51.100.10 that did not answer; 3 answered",
            )
        },
        Finding {
            rule: "scan.horizontal".into(),
            target: None,
            target_port: Some(23),
            targets: 212,
            measured: 212.0,
            measured_unit: "failed targets".into(),
            threshold: 25.0,
            technique: "T1595.001".into(),
            spoofable: true,
            source: Some(ip("2001:db8:77::5")),
            ..finding(
                2,
                Kind::HorizontalScan,
                Severity::Low,
                "2001:db8:77::5 tried port 23 of 212 hosts that did not answer",
            )
        },
    ]
}

fn urgent_findings() -> Vec<Finding> {
    vec![
        Finding {
            rule: "flood.syn".into(),
            target_port: Some(443),
            source: None,
            sources: 37_623,
            measured: 3_686.7,
            measured_unit: "half-open connections/s".into(),
            threshold: 200.0,
            window_ms: 10_000,
            technique: "T1498.001".into(),
            spoofable: true,
            records: 37_669,
            packets: 37_841,
            bytes: 2_270_460,
            ..finding(
                5,
                Kind::SynFlood,
                Severity::High,
                "port 443 of 198.51.100.10 got 37,669 connection openings from about 37,623 addresses that nobody completed, up to 3,686 a second",
            )
        },
        Finding {
            rule: "guessing.sessions".into(),
            target: Some(ip("198.51.100.22")),
            target_port: Some(22),
            measured: 418.0,
            measured_unit: "similar short sessions".into(),
            threshold: 10.0,
            window_ms: 600_000,
            technique: "T1110".into(),
            source: Some(ip("192.0.2.144")),
            ..finding(
                7,
                Kind::PasswordGuessing,
                Severity::High,
                "192.0.2.144 opened 418 similar short sessions with the login service on port 22 of 198.51.100.22",
            )
        },
        Finding {
            rule: "beacon.long".into(),
            direction: TrafficDirection::Outbound,
            confidence: Confidence::Medium,
            source: Some(ip("10.20.4.37")),
            target: Some(ip("203.0.113.200")),
            target_port: Some(443),
            measured: 0.983,
            measured_unit: "steadiness (0 to 1)".into(),
            threshold: 0.9,
            window_ms: 6 * HOUR_MS,
            technique: "T1071".into(),
            last_ms: MONDAY_MS + 6 * DAY_MS,
            ..finding(
                3,
                Kind::Beacon,
                Severity::Medium,
                "10.20.4.37 called port 443 of 203.0.113.200 2,204 times, every 120 s with hardly any difference",
            )
        },
        Finding {
            rule: "backscatter.tcp".into(),
            source: Some(ip("203.0.113.250")),
            target: None,
            targets: 61,
            measured: 61.0,
            measured_unit: "receiving addresses".into(),
            threshold: 10.0,
            technique: "".into(),
            ..finding(
                9,
                Kind::Backscatter,
                Severity::Informational,
                "203.0.113.250 answers packets that others sent it in the name of 61 addresses here",
            )
        },
    ]
}

/// A week with a gap, attacks of several kinds and a caller inside.
pub(crate) fn busy() -> ReportInput {
    let hours = |from: u64, to: u64| Interval {
        from_ms: MONDAY_MS + from * HOUR_MS,
        to_ms: MONDAY_MS + to * HOUR_MS,
    };
    let port = |port, protocol, attempts, answered, sources| PortRow {
        port,
        protocol,
        attempts,
        answered,
        sources,
    };
    let target = |text, attempts, sources, ports_answering| TargetRow {
        address: ip(text),
        pseudonym: None,
        attempts,
        sources,
        ports_answering,
    };
    let source = |text, attempts, targets, kind, may_be_forged, hour: u64| SourceRow {
        address: ip(text),
        pseudonym: None,
        attempts,
        targets,
        kinds: vec![kind],
        may_be_forged,
        first_ms: MONDAY_MS + hour * HOUR_MS,
        last_ms: MONDAY_MS + (hour + 9) * HOUR_MS,
    };
    ReportInput {
        member_name: "Harbourside Joinery & Sons".to_owned(),
        member: "harbourside-joinery".to_owned(),
        force: Some("Avon and Somerset Police".to_owned()),
        report_id: "harbourside-joinery-2026-w47".to_owned(),
        version: "0.1.0".to_owned(),
        generated_ms: MONDAY_MS + 7 * DAY_MS + 6 * HOUR_MS,
        period: Period {
            name: PeriodName::Weekly,
            from_ms: MONDAY_MS,
            to_ms: MONDAY_MS + 7 * DAY_MS,
        },
        coverage: Coverage {
            sensors: 1,
            sensors_heard: 1,
            observed: vec![hours(0, 61), hours(60, 70), hours(76, 168)],
            frames_seen: 41_882_310,
            frames_missed: Some(1_204),
            packets_not_ip: 82_114,
            packets_malformed: 12,
            packets_folded: 0,
            packets_duplicate: 0,
            records_evicted: 0,
            records_kept_internal: 12_345,
            records_kept_trusted: 1,
            own_prefixes: vec!["10.20.0.0/16".to_owned(), "198.51.100.0/27".to_owned()],
        },
        findings: findings(),
        campaigns_before: Some(vec![
            (Kind::VerticalScan, 4),
            (Kind::HorizontalScan, 1),
            (Kind::Beacon, 0),
        ]),
        sources: vec![
            source("192.0.2.144", 418, 1, Kind::PasswordGuessing, false, 77),
            source("203.0.113.77", 1_994, 1, Kind::VerticalScan, true, 11),
            source("2001:db8:77::5", 212, 212, Kind::HorizontalScan, true, 22),
        ],
        ports: vec![
            port(443, 6, 37_841, 120, 37_650),
            port(22, 6, 611, 418, 44),
            port(23, 6, 212, 0, 1),
            port(5060, 17, 88, 0, 31),
            port(9_999, 6, 3, 3, 2),
        ],
        targets: vec![
            target("198.51.100.10", 39_811, 37_660, 2),
            target("198.51.100.22", 702, 61, 1),
            TargetRow { pseudonym: Some(client_key()), ..target("198.51.100.5", 41, 19, 0) },
        ],
        sent: Sent {
            batches: 1_007,
            bytes: Some(14_202_221),
            records: 902_114,
            keys: vec![client_key()],
            batches_in_clear: 0,
        },
        pseudonyms: [(ip("198.51.100.200"), client_key())].into(),
    }
}

/// A month in which everything was observed and no rule was met.
pub(crate) fn quiet() -> ReportInput {
    let (from_ms, to_ms) = (MONDAY_MS - 15 * DAY_MS, MONDAY_MS + 15 * DAY_MS);
    ReportInput {
        report_id: "harbourside-joinery-2026-11".to_owned(),
        period: Period { name: PeriodName::Monthly, from_ms, to_ms },
        coverage: Coverage {
            observed: vec![Interval { from_ms, to_ms }],
            frames_missed: None,
            own_prefixes: Vec::new(),
            ..busy().coverage
        },
        findings: Vec::new(),
        campaigns_before: None,
        sources: Vec::new(),
        ports: Vec::new(),
        targets: Vec::new(),
        ..busy()
    }
}

/// A week in which the sensor sent nothing.
pub(crate) fn down() -> ReportInput {
    ReportInput {
        coverage: Coverage { sensors: 1, ..Coverage::default() },
        findings: Vec::new(),
        sources: Vec::new(),
        ports: Vec::new(),
        targets: Vec::new(),
        sent: Sent::default(),
        ..busy()
    }
}
